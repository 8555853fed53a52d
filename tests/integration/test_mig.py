"""MIG on a real MongoDB: slices and card together cost exactly the card, whoever reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from tests.integration.ledger_support import (
    HOUR_NUSD,
    MINUTE,
    Pipeline,
    contents,
    minutes_ago,
    sample,
    usage,
)

from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import GpuSample

PARTITIONS = [
    ["3g.40gb", "3g.40gb"],
    ["1g.10gb"] * 7,
    ["4g.40gb"],
    ["2g.20gb", "1g.10gb+me", "3g.40gb"],
]
SECOND = timedelta(seconds=1)


def part(
    number: int, at: datetime, profile: str, card: str = "GPU-card", **fields: Any
) -> GpuSample:
    """A sample of slice MIG-<number>."""
    values = {
        "gpu_uuid": f"MIG-{number}",
        "mig_profile": profile,
        "parent_uuid": card,
        "utilization": None,
        **fields,
    }
    return sample(int(at.timestamp()) * 100 + number, at, **values)


def by_gpu(one: Pipeline, **where: Any) -> Counter[str]:
    """Nano-USD of each GPU."""
    money: Counter[str] = Counter()
    for cell in one.cells(**where).values():
        money[cell["gpu"]] += cell["cost_nusd"]
    return money


def minute_nusd(at: datetime, minutes: int = 1) -> int:
    """What a GPU at the default price costs from `at` on."""
    begin, end = (
        round(when.timestamp()) * HOUR_NUSD / 3600 for when in (at, at + minutes * MINUTE)
    )
    return int(end + 0.5) - int(begin + 0.5)


@pytest.mark.parametrize("profiles", PARTITIONS, ids="-".join)
def test_a_card_that_sends_no_sample_keeps_what_its_slices_leave(
    pipeline: Callable[..., Pipeline], profiles: Sequence[str]
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.ingest(
        [
            part(n, at + s * SECOND, profile)
            for n, profile in enumerate(profiles)
            for s in (1, 21, 41)
        ]
    )
    one.close()
    money = by_gpu(one, minute=at)
    whole = minute_nusd(at)
    assert money.total() == whole
    assert [money[f"MIG-{n}"] for n in range(len(profiles))] == [
        whole * int(profile[0]) // 7 for profile in profiles
    ]
    (card,) = one.cells(minute=at, gpu="GPU-card").values()
    assert card["classes"][MoneyClass.COLD_IDLE] == card["cost_nusd"] == money["GPU-card"]
    assert (card["host"], card["gpu_name"], card["samples"], card["silent"]) == (
        "h1",
        "H100",
        0,
        False,
    )
    report = one.audit()
    assert report.holds, report.findings


def test_it_does_not_matter_who_reports_first(pipeline: Callable[..., Pipeline]) -> None:
    """Two slices, a request on one of them in a minute without samples, a silent minute, and a
    sample that comes late."""
    at = minutes_ago(30)
    parts: list[Event] = [
        part(0, at + SECOND, "3g.40gb", source="replay"),
        part(1, at + 4 * MINUTE, "3g.40gb", source="replay"),
        usage(7, at + 2 * MINUTE + 30 * SECOND, gpu_uuids=["MIG-1"]),
    ]
    ledgers = []
    for number, order in enumerate(permutations(parts)):
        one = pipeline(str(number))
        for event in order:
            one.ingest([event])
            one.close()
        assert one.audit().holds, one.audit().findings
        assert by_gpu(one).total() == minute_nusd(at, 5), (
            "from the first evidence of a slice to the last one"
        )
        ledgers.append(contents(one.cells()))
        (silent,) = one.cells(minute=at + MINUTE, gpu="GPU-card").values()
        assert silent["classes"][MoneyClass.UNOBSERVED] == minute_nusd(at + MINUTE), (
            "no slice is seen: the card pays for all"
        )
    assert all(ledger == ledgers[0] for ledger in ledgers[1:])


def test_a_card_whose_slices_fell_silent_is_still_paid_for(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    at = minutes_ago(10)
    one.ingest([part(n, at + SECOND, "3g.40gb") for n in (0, 1)])
    one.close()
    for later in range(9):
        assert by_gpu(one, minute=at + later * MINUTE).total() == minute_nusd(at + later * MINUTE)
    assert one.audit().holds, one.audit().findings
    one.ingest([part(0, at + 5 * MINUTE, "4g.40gb", source="replay")])
    one.close()
    for later in range(9):
        assert by_gpu(one, minute=at + later * MINUTE).total() == minute_nusd(at + later * MINUTE)
    assert one.audit().holds, one.audit().findings


def test_a_slice_of_a_slice_is_a_slice_of_the_card(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.ingest([part(0, at + SECOND, "4g.40gb"), part(1, at + SECOND, "1g.10gb", card="MIG-0")])
    one.close()
    money = by_gpu(one, minute=at)
    whole = minute_nusd(at)
    assert money == {
        "MIG-0": whole * 4 // 7,
        "MIG-1": whole // 7,
        "GPU-card": whole - whole * 4 // 7 - whole // 7,
    }
    assert one.audit().holds, one.audit().findings


def test_slices_of_each_other_are_whole_gpus(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    events = [
        part(0, at + SECOND, "3g.40gb", card="MIG-1"),
        part(1, at + SECOND, "3g.40gb", card="MIG-0"),
    ]
    one.ingest(events)
    one.close()
    assert by_gpu(one, minute=at) == {"MIG-0": minute_nusd(at), "MIG-1": minute_nusd(at)}, (
        "paid twice rather than by nobody"
    )
    assert one.audit().holds, one.audit().findings
