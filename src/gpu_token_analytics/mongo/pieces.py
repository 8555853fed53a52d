"""Many items cut into pieces that fit a document or a command each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

MAX_PIECE_ITEMS = 4000
MAX_PIECE_BYTES = 1024 * 1024

Item = TypeVar("Item")


def pieces(
    items: Iterable[Item], size_of: Callable[[Item], int], most: int | None = None
) -> Iterator[list[Item]]:
    """Items in pieces of at most `most` (MAX_PIECE_ITEMS) and MAX_PIECE_BYTES; one that is longer
    stands alone."""
    most = most or MAX_PIECE_ITEMS
    piece: list[Item] = []
    size = 0
    for item in items:
        length = size_of(item)
        if piece and (len(piece) == most or size + length > MAX_PIECE_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += length
    if piece:
        yield piece


def utf8_length(text: str) -> int:
    """Bytes of a text."""
    return len(text) if text.isascii() else len(text.encode())
