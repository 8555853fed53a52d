"""Raw documents as BSON, ready to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument

from gpu_token_analytics.wire.identity import event_id_of


@dataclass(slots=True)
class EncodedDocuments:
    """Documents of one collection, one after another as they stand in a message. The same place is
    the same document."""

    ids: list[bytes] = field(default_factory=list)  # `_id`, see wire/identity.py
    hashes: list[bytes] = field(default_factory=list)  # `h`, see documents.payload_hash
    lengths: list[int] = field(default_factory=list)  # in bytes
    parts: list[bytes] = field(default_factory=list)  # joined, these are all of them

    def extend(
        self, ids: Iterable[bytes], hashes: Iterable[bytes], lengths: Iterable[int], encoded: bytes
    ) -> None:
        """More of them, encoded already: one after another."""
        self.ids += ids
        self.hashes += hashes
        self.lengths += lengths
        self.parts.append(encoded)

    def __len__(self) -> int:
        return len(self.ids)

    def shown(self, index: int) -> str:
        """The event id of one of them, for a message to a person."""
        document = self.decoded()[index]
        return event_id_of(document) if "event_id" in document else str(document["_id"])

    def decoded(self) -> list[dict[str, Any]]:
        """All of them as they would be read back."""
        return bson.decode_all(b"".join(self.parts))

    def commands(
        self, places: Sequence[int], most_documents: int, most_bytes: int
    ) -> Iterator[tuple[Sequence[int], list[Joined]]]:
        """The documents at these places (ascending) in pieces that fit one command each: their
        places, and what is sent.

        A document that is longer than `most_bytes` is alone in its piece.
        """
        if not places:
            return
        if len(places) == len(self) <= most_documents and sum(self.lengths) <= most_bytes:
            yield places, [Joined(part) for part in self.parts]
            return
        whole = b"".join(self.parts)
        ends = list(accumulate(self.lengths))
        piece: list[int] = []
        size = 0
        for index in places:
            if piece and (len(piece) == most_documents or size + self.lengths[index] > most_bytes):
                yield piece, [_joined(whole, ends, piece)]
                piece, size = [], 0
            piece.append(index)
            size += self.lengths[index]
        if piece:
            yield piece, [_joined(whole, ends, piece)]


class Joined(RawBSONDocument):
    """Documents that the driver sends as they are. It copies `raw` into the part of the message
    where documents stand one after another, so what it takes for one document may be several;
    asking each of thousands for its bytes costs it more than that.
    """

    def __init__(self, raw: bytes) -> None:
        # Not RawBSONDocument's: that wants the bytes of one document.
        self._raw = raw

    @property
    def raw(self) -> bytes:
        """All of them, one after another."""
        return self._raw

    # What the driver's log of commands may ask of a document.

    def __getitem__(self, name: str) -> Any:
        return dict(self.items())[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.items()))

    def __len__(self) -> int:
        return len(dict(self.items()))

    def items(self) -> Any:
        """Not the documents: this is for a log."""
        return {"bytes": len(self._raw)}.items()


def _joined(whole: bytes, ends: Sequence[int], places: Sequence[int]) -> Joined:
    return Joined(
        b"".join([whole[(ends[index - 1] if index else 0) : ends[index]] for index in places])
    )
