"""Sentences in pieces: one text, whatever currency its amounts are written in."""

from __future__ import annotations

import pytest

from gpu_token_analytics.sentences import in_usd, sentence, with_unit, worded


def test_texts_that_follow_one_another_are_one_piece_and_amounts_stay_apart() -> None:
    made = sentence("a ", "b ", 1, 2, "", " c", "")
    assert made == ["a b ", 1, 2, " c"]
    assert worded(made, lambda nusd: f"<{nusd}>") == "a b <1><2> c"


def test_a_name_that_looks_like_an_amount_is_a_name() -> None:
    made = sentence("model 9000000000 cost ", 9_000_000_000)
    assert in_usd(made) == "model 9000000000 cost 9.00 USD"


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00 EUR"),
        (1, "0.000000001 EUR"),
        (1234, "0.00000123 EUR"),
        (23_236_074, "0.0232 EUR"),
        (310_000_000, "0.31 EUR"),
        (600_000_000, "0.60 EUR"),
        (999_999_999, "1.00 EUR"),
        (1_005_000_000, "1.01 EUR"),
        (-2_490_000_000, "-2.49 EUR"),
        (1_234_567_891_234_567_890, "1,234,567,891.23 EUR"),
    ],
)
def test_amounts_are_rounded_for_reading_as_the_page_rounds_them(nano: int, text: str) -> None:
    assert with_unit(nano, "EUR") == text
