"""Which price is in force."""

from __future__ import annotations

import pytest
from tests.unit.ledger.worlds import (
    GPU,
    MINUTE,
    SECOND,
    T0,
    Document,
    World,
    minutes,
    price,
    sample,
)

from gpu_token_analytics.ledger.prices import NO_ROW, SAMPLE_ROW, PriceBook, PriceMode, PriceRow


def rows_at(rows: list[Document], at_s: float = 0, own: int | None = None) -> str:
    book = PriceBook(PriceRow.of(row) for row in rows)
    at = T0 + round(at_s * SECOND)
    (piece,) = book.pieces(
        GPU, "h", "H100", at, at + 1, [] if own is None else [(T0 - MINUTE, own)]
    )
    return piece.row


SPECIFIC = [
    price("of-gpu", 5, scope="gpu", key=GPU),
    price("of-host", 4, scope="host", key="h"),
    price("of-name", 3, scope="name", key="H100"),
    price("default", 1),
]


@pytest.mark.parametrize("count", range(5))
def test_the_most_specific_wins(count: int) -> None:
    expected = ["of-gpu", "of-host", "of-name", "default", NO_ROW][count]
    assert rows_at(SPECIFIC[count:]) == expected
    assert rows_at(SPECIFIC[count:][::-1]) == expected


def test_a_samples_own_price_comes_before_the_default_only() -> None:
    assert rows_at(SPECIFIC, own=2) == "of-gpu"
    assert rows_at(SPECIFIC[2:], own=2) == "of-name"
    assert rows_at(SPECIFIC[3:], own=2) == SAMPLE_ROW
    assert rows_at(SPECIFIC[3:], own=0) == SAMPLE_ROW, "free is a price"
    assert rows_at([], own=2) == SAMPLE_ROW


def test_rows_of_others_do_not_count() -> None:
    others = [
        price("x", 9, scope="gpu", key="GPU-x"),
        price("y", 9, scope="host", key="h2"),
        price("z", 9, scope="name", key="A100"),
    ]
    assert rows_at([*others, SPECIFIC[3]]) == "default"


def test_what_took_effect_last_wins_then_what_was_written_last() -> None:
    old, new = price("old", 1, from_s=-100), price("new", 2, from_s=-50)
    assert [rows_at([new, old], at) for at in (-101, -100, -51, -50, 99)] == [
        NO_ROW,
        "old",
        "old",
        "new",
        "new",
    ]
    first, second = price("b", 1, created_s=1), price("a", 2, created_s=2)
    assert rows_at([first, second]) == rows_at([second, first]) == "a"


def test_rows_are_half_open_and_what_was_below_comes_back() -> None:
    rows = [price("default", 1), price("promo", 2, from_s=10, to_s=20)]
    assert [rows_at(rows, at) for at in (9.999999, 10, 19.999999, 20)] == [
        "default",
        "promo",
        "promo",
        "default",
    ]


def test_history_keeps_the_price_of_its_day() -> None:
    rows = [price("default", "3.6")]
    before = World(prices=rows).cells(minutes(1))
    rows.append(price("dearer", "36", from_s=60))
    first, second = World(prices=rows).cells(minutes(2))
    assert [first] == before
    assert second.cost_nusd == 600_000_000


def test_a_price_that_changes_inside_the_minute() -> None:
    rows = [price("default", "3.6"), price("later", "36", from_s=45)]
    (cell,) = World(prices=rows).cells(minutes(1))
    assert cell.cost_nusd == 45_000_000 + 150_000_000
    assert cell.class_us["unobserved"] == MINUTE


def test_a_gap_in_the_book_is_unpriced() -> None:
    rows = [price("early", "3.6", to_s=20), price("late", "3.6", from_s=50)]
    book = PriceBook(PriceRow.of(row) for row in rows)
    assert [
        (piece.row, piece.from_us - T0) for piece in book.pieces(GPU, None, None, T0, T0 + MINUTE)
    ] == [
        ("early", 0),
        (NO_ROW, 20 * SECOND),
        ("late", 50 * SECOND),
    ]
    (cell,) = World(prices=rows).cells(minutes(1))
    assert cell.cost_nusd == 30_000_000
    assert cell.owned_us == MINUTE


def test_the_samples_price_holds_until_the_next_sample_says_otherwise() -> None:
    samples = [sample("a", 10, usd_per_hour=36), sample("b", 20), sample("c", 30, usd_per_hour=36)]
    (cell,) = World(samples=samples, prices=[price("default", "3.6")]).cells(minutes(1))
    assert cell.cost_nusd == 20_000_000 + 400_000_000, (
        "20 s at the default, 40 s at the samples' price"
    )


def test_rows_from_documents() -> None:
    row = PriceRow.of(price("r", "2.5", mode="owned", usd_per_kwh=0.2, pue=1.5))
    assert (row.nusd_per_hour, row.mode, row.energy_nusd_per_kwh) == (
        2_500_000_000,
        PriceMode.OWNED,
        300_000_000,
    )
    assert (
        PriceRow.of(price("r", "2.5", mode="owned", usd_per_kwh=0.2)).energy_nusd_per_kwh
        == 200_000_000
    ), "no PUE: 1"
    assert PriceRow.of(price("r", "2.5", mode="spot", usd_per_kwh=0.2)).energy_nusd_per_kwh == 0


def test_equal_neighbours_are_one_piece() -> None:
    book = PriceBook([PriceRow.of(price("default", 1))])
    own = [(T0 + at * SECOND, 5) for at in (10, 20, 30)]
    assert [piece.row for piece in book.pieces(GPU, "h", "n", T0, T0 + MINUTE, own)] == [
        "default",
        SAMPLE_ROW,
    ]
