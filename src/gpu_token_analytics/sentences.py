"""Sentences in which money stands, in pieces: text, and amounts as integer nano-USD.

A sentence is made once. Whoever shows it says how an amount is written: in USD (`in_usd`), or, as
the page and tables of the terminal, in the currency of the figures beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import ROUND_HALF_UP, Decimal
from typing import TypeAlias

Sentence: TypeAlias = list[str | int]  # an int is an amount in nano-USD, nothing else

NANO = 9


def sentence(*pieces: str | int) -> Sentence:
    """A sentence of these pieces; texts that follow one another become one, empty ones go."""
    made: Sentence = []
    for piece in pieces:
        if isinstance(piece, str) and made and isinstance(made[-1], str):
            made[-1] += piece
        elif piece != "":
            made.append(piece)
    return made


def worded(pieces: Iterable[str | int], amount: Callable[[int], str]) -> str:
    """The sentence. amount: writes nano-USD, with its currency."""
    return "".join(piece if isinstance(piece, str) else amount(piece) for piece in pieces)


def in_usd(pieces: Iterable[str | int]) -> str:
    """The sentence in USD."""
    return worded(pieces, lambda nusd: with_unit(nusd, "USD"))


def with_unit(nano: int, code: str) -> str:
    """`1,234.56 EUR` of billionths of a unit, rounded for reading as on the page: cents from one
    unit on, three digits below."""
    leading_zeros = NANO - len(str(abs(nano)))
    places = 2 if leading_zeros < 0 or not nano else min(NANO, leading_zeros + 3)
    text = f"{Decimal(nano).scaleb(-NANO).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):,f}"
    while text.endswith("0") and len(text.partition(".")[2]) > 2:
        text = text[:-1]
    return f"{text} {code}"
