"""The arithmetic of sums: exact splits, and one answer whatever the grouping."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import cast

from bench import synthetic_cells
from bench.synthetic_cells import Fleet
from hypothesis import given
from hypothesis import strategies as st

from gpu_token_analytics.documents import cell_id
from gpu_token_analytics.ledger.document import CellDocument, opened
from gpu_token_analytics.ledger.money import split_exactly
from gpu_token_analytics.rollups.documents import fleet, gpu_day, gpu_hour
from gpu_token_analytics.rollups.packed import cut, pack_lines, pack_models, unpack
from gpu_token_analytics.rollups.spans import HOUR
from gpu_token_analytics.rollups.vectors import CLASSES, COST, LINE_COLUMNS, Lines
from gpu_token_analytics.rollups.warm import WarmShares, share_out_each
from gpu_token_analytics.wire.times import to_us

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def cells(fleet: Fleet, start: datetime, minutes: int) -> list[CellDocument]:
    return cast("list[CellDocument]", list(synthetic_cells.cells(fleet, start, minutes)))


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**13), min_size=1, max_size=9).filter(any))
def test_share_out_is_exact_and_within_one_unit(amount: int, weights: list[int]) -> None:
    shares = split_exactly(amount, weights)
    assert sum(shares) == amount
    total = sum(weights)
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share * total - amount * weight) < total


def test_share_out_gives_ties_to_the_earlier() -> None:
    assert split_exactly(5, [1, 1]) == [3, 2]
    assert split_exactly(1, [1, 1, 1]) == [1, 0, 0]


def test_warm_idle_is_shared_by_model_first_then_tenant() -> None:
    shares = WarmShares({("b", "t1"): 3, ("b", "t2"): 3, ("a", "t1"): 6, ("c", "t1"): 0})
    # 7 over a:6 and b:6 is 4 and 3 (tie by name), b's 3 over its tenants 2 and 1.
    assert dict(shares.of_all([7])) == {("a", "t1"): 4, ("b", "t1"): 2, ("b", "t2"): 1}
    assert list(WarmShares({}).of_all([7])) == []
    # Each cell is shared by itself: ten of 7 are not one of 70 (a:35, b:35).
    assert dict(shares.of_all([7] * 10)) == {("a", "t1"): 40, ("b", "t1"): 20, ("b", "t2"): 10}
    assert dict(shares.of_all([7] * 10, by_tenant=False)) == {("a", None): 40, ("b", None): 30}


@given(
    st.lists(st.one_of(st.integers(0, 100), st.integers(0, 2**62)), min_size=1, max_size=40),
    st.lists(st.one_of(st.integers(1, 5), st.integers(1, 10**13)), min_size=1, max_size=9),
)
def test_many_amounts_are_shared_as_each_by_itself(amounts: list[int], weights: list[int]) -> None:
    expected = [split_exactly(amount, weights) for amount in amounts]
    assert [
        list(shares) for shares in zip(*share_out_each(amounts, weights), strict=True)
    ] == expected


def test_packed_lines_give_back_what_was_stored() -> None:
    width = len(LINE_COLUMNS)
    lines: Lines = {("m", "t"): list(range(width)), ("a", "z"): [5] * width}
    assert {
        (model, tenant): list(vector) for model, tenant, vector in unpack(pack_lines(lines))
    } == lines
    assert [(model, tenant) for model, tenant, _ in unpack(pack_models(lines))] == [
        ("a", None),
        ("m", None),
    ]


def test_lines_of_an_earlier_version_have_zeros_in_the_columns_that_it_did_not_have() -> None:
    """It had 14: a table written before must be read, and summed with those of now."""
    packed = {"model": ["a", "b"], "tenant": ["t", "t"], "values": struct.pack("<28q", *range(28))}
    rest = (0,) * (len(LINE_COLUMNS) - 14)
    expected = [("a", "t", (*range(14), *rest)), ("b", "t", (*range(14, 28), *rest))]
    assert list(unpack(packed)) == expected
    assert [line for piece in cut(packed) for line in unpack(piece)] == expected


def test_a_rollup_holds_every_nano_dollar_of_its_cells() -> None:
    found = cells(Fleet(gpus=3, gpus_per_host=2), AT, 60)
    hours = [
        gpu_hour(gpu, AT, [c for c in found if c["gpu"] == gpu])
        for gpu in sorted({c["gpu"] for c in found})
    ]
    whole = fleet(AT, HOUR, hours)
    assert whole["space"]["cost_nusd"] == sum(cell["cost_nusd"] for cell in found)
    assert sum(whole["space"][f"{name}_nusd"] for name in CLASSES) == whole["space"]["cost_nusd"]
    assert whole["total"]["cost_nusd"] == whole["space"]["attributed_nusd"]
    assert whole["total"]["prompt_tokens"] == sum(
        line["prompt_tokens"] for cell in found for line in cell["lines"]
    )
    assert 0 < whole["total"]["warm_idle_nusd"] <= whole["space"]["warm_idle_nusd"]
    for section in ("by_model", "lines"):
        assert (
            sum(vector[COST] for _, _, vector in unpack(whole[section]))
            == whole["total"]["cost_nusd"]
        )


def test_a_gpu_that_changes_host_within_the_hour_has_two_places() -> None:
    found = cells(Fleet(gpus=1), AT, 60)
    for cell in found[30:]:
        cell["host"] = "host-99"
    document = gpu_hour("GPU-0000", AT, found)
    assert [place["host"] for place in document["places"]] == ["host-00", "host-99"]
    assert sum(place["space"]["cost_nusd"] for place in document["places"]) == sum(
        c["cost_nusd"] for c in found
    )
    day = gpu_day("GPU-0000", AT.replace(hour=0), [document])
    assert day["places"] == [
        {k: v for k, v in place.items() if k != "second_half"} for place in document["places"]
    ]


def test_cells_without_money_are_seen_but_not_summed() -> None:
    found = cells(Fleet(gpus=1), AT, 2)
    at_us = to_us(AT.replace(minute=59))
    pending = cast(
        "CellDocument",
        {"_id": cell_id("GPU-0000", at_us), **opened("GPU-0000", at_us, AT), "gen": 1},
    )
    with_pending = gpu_hour("GPU-0000", AT, [*found, pending])
    assert with_pending["places"] == gpu_hour("GPU-0000", AT, found)["places"]
    assert with_pending["seen"] != gpu_hour("GPU-0000", AT, found)["seen"]


def test_the_version_grows_with_content_and_finality() -> None:
    (cell,) = cells(Fleet(gpus=1), AT, 1)
    first = gpu_hour("GPU-0000", AT, [cell])["version"]
    final = gpu_hour("GPU-0000", AT, [{**cell, "state": "final"}])["version"]
    corrected = gpu_hour("GPU-0000", AT, [{**cell, "state": "final", "revision": 2}])["version"]
    assert first < final < corrected


def test_a_price_mode_that_changes_within_the_hour_keeps_its_own_sums() -> None:
    found = cells(Fleet(gpus=1), AT, 60)
    for cell in found[30:]:
        cell["price"] = {"row": "spot", "nusd_per_hour": 1, "mode": "spot"}
    hour = gpu_hour("GPU-0000", AT, found)
    assert [(place["price_mode"], place["space"]["cells"]) for place in hour["places"]] == [
        ("on_demand", 30),
        ("spot", 30),
    ]
    assert [place["space"]["cost_nusd"] for place in hour["places"]] == [
        sum(cell["cost_nusd"] for cell in half) for half in (found[:30], found[30:])
    ]
    assert [place["price_mode"] for place in gpu_day("GPU-0000", AT, [hour])["places"]] == [
        "on_demand",
        "spot",
    ]
