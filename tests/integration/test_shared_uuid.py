"""Two cards with one UUID, on two hosts at once: both are paid, under names of their own, however
late that shows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.integration.ledger_support import MINUTE, Pipeline, contents, minutes_ago, sample, usage
from tests.oracle.ledger import oracle_cells
from tests.oracle.names import hosts_of_shared, on_cards

from gpu_token_analytics.books.prices import PriceStore
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.times import to_us
from gpu_token_analytics.wire.usage import USAGE

MINUTE_NUSD = 14_166_667  # 0.85 USD an hour, rounded


def on(host: str, at: datetime, seconds: Sequence[int], **fields: object) -> list[Event]:
    """Samples of a host, of whatever UUID."""
    return [
        sample(
            number,
            at + timedelta(seconds=second),
            host=host,
            event_id=f"{host}-{at}-{second}-{number}",
            **fields,
        )
        for number, second in enumerate(seconds)
    ]


def money(one: Pipeline) -> dict[str, int]:
    """By GPU; those that cost nothing are left out."""
    sums: dict[str, int] = {}
    for cell in one.cells().values():
        sums[cell["gpu"]] = sums.get(cell["gpu"], 0) + cell["cost_nusd"]
    return {gpu: nusd for gpu, nusd in sums.items() if nusd}


def assert_holds(one: Pipeline) -> None:
    report = one.audit()
    assert report.holds, report.findings


def test_both_are_paid_and_told(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.ingest([*on("h1", at, range(0, 60, 10)), *on("h2", at, range(5, 60, 10))])
    one.close()
    one.close()
    per_card = money(one)
    assert per_card.keys() == {"h1/GPU-a", "h2/GPU-a"}
    assert all(abs(nusd - MINUTE_NUSD) <= 1 for nusd in per_card.values())
    report = one.audit()
    assert report.holds, report.findings
    assert report.shared_uuids == 1


def test_two_cards_of_one_host_with_a_uuid_of_zeros_are_both_paid(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at, zeros = minutes_ago(30), "GPU-00000000-0000-0000-0000-000000000000"
    slices: dict[str, object] = {"mig_profile": "3g.40gb", "parent_uuid": zeros, "gpu_index": 1}
    one.ingest(
        [
            *on("h1", at, range(0, 60, 10), gpu_uuid=zeros, gpu_index=0),
            *on("h1", at, range(1, 60, 10), gpu_uuid=zeros.lower(), gpu_index=1),
            *on("h1", at, range(2, 60, 10), gpu_uuid="MIG-1", **slices),
            usage(1, at + timedelta(seconds=50), gpu_uuids=[zeros], gpu_index=0),
            usage(2, at + timedelta(seconds=50), gpu_uuids=[zeros], host="h3"),
        ]
    )
    one.close()
    per_card = money(one)
    assert per_card.keys() == {"h1/0", "h1/1", "MIG-1"}
    assert abs(per_card["h1/0"] - MINUTE_NUSD) <= 1
    assert abs(per_card["h1/1"] + per_card["MIG-1"] - MINUTE_NUSD) <= 1
    lines = [
        (cell["gpu"], line["requests"], line["cost_nusd"])
        for cell in one.cells().values()
        for line in cell["lines"]
    ]
    assert {(gpu, requests, bool(nusd)) for gpu, requests, nusd in lines} == {
        ("h1/0", 1, True),
        (zeros, 1, False),
    }
    assert_holds(one)


@pytest.mark.parametrize("back_after", [None, 300])
def test_a_card_that_moves_is_one(
    pipeline: Callable[..., Pipeline], back_after: int | None
) -> None:
    one = pipeline(silent_gpu_owned_minutes=10)
    at = minutes_ago(30)
    events = [*on("h1", at, range(0, 60, 10)), *on("h2", at + MINUTE, range(0, 120, 10))]
    if back_after:
        events += on("h1", at + timedelta(seconds=back_after), range(0, 60, 10))
    one.ingest(events)
    one.close()
    assert money(one).keys() == {"GPU-a"}
    report = one.audit()
    assert report.holds, report.findings
    assert report.shared_uuids == 0


def test_a_host_with_its_domain_and_without_is_one(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.ingest([*on("h1", at, range(0, 60, 10)), *on("h1.example", at, range(5, 60, 10))])
    one.close()
    assert money(one).keys() == {"GPU-a"}


def test_requests_mean_the_card_on_their_own_host(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.ingest(
        [
            *on("h1", at, range(0, 60, 10)),
            *on("h2", at, range(5, 60, 10), gpu_index=3),
            usage(1, at + timedelta(seconds=30)),
            usage(2, at + timedelta(seconds=40), host="h2", tenant="two"),
            usage(
                3, at + timedelta(seconds=40), host="h2", gpu_uuids=[], gpu_index=3, tenant="label"
            ),
            usage(4, at + timedelta(seconds=40), host="gateway", tenant="gateway"),
            usage(
                5,
                at + timedelta(seconds=40),
                host="gateway",
                gpu_uuids=["h1/0"],
                gpu_index=0,
                tenant="other label",
            ),
        ]
    )
    one.close()
    one.close()
    paid = {
        (line["tenant"], cell["gpu"], line["cost_nusd"] is None)
        for cell in one.cells().values()
        for line in cell["lines"]
    }
    assert paid == {
        ("default", "h1/GPU-a", False),
        ("two", "h2/GPU-a", False),
        ("label", "h2/GPU-a", False),
        ("gateway", "GPU-a", True),
        ("other label", "h1/GPU-a", False),
    }
    assert_holds(one)


def test_a_price_of_the_uuid_is_that_of_each_card(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.ingest([*on("h1", at, range(0, 60, 10)), *on("h2", at, range(5, 60, 10))])
    one.close()
    one.close()
    PriceStore(one.store.database, 10_000).append(
        scope="gpu",
        key="GPU-a",
        usd_per_hour="3.60",
        mode="on_demand",
        usd_per_kwh=None,
        pue=None,
        valid_from=at - MINUTE,
        valid_to=None,
        created_at=one.store.now(),
        source="test",
    )
    one.close()
    assert money(one) == {"h1/GPU-a": 60_000_000, "h2/GPU-a": 60_000_000}
    assert_holds(one)


def test_slices_and_card_of_both_hosts_cost_two_cards(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    slices = {
        "gpu_uuid": "MIG-a",
        "mig_profile": "3g.40gb",
        "parent_uuid": "GPU-a",
        "utilization": None,
    }
    one.ingest(
        [*on("h1", at, range(0, 60, 10), **slices), *on("h2", at, range(5, 60, 10), **slices)]
    )
    for _ in range(3):
        one.close()
    per_card = money(one)
    assert per_card.keys() == {"h1/MIG-a", "h2/MIG-a", "h1/GPU-a", "h2/GPU-a"}
    for host in ("h1", "h2"):
        assert abs(per_card[f"{host}/MIG-a"] + per_card[f"{host}/GPU-a"] - MINUTE_NUSD) <= 1
    assert_holds(one)


@pytest.mark.parametrize("seed", range(8))
def test_order_and_lateness_change_nothing(pipeline: Callable[..., Pipeline], seed: int) -> None:
    """That two cards have it may show in the first batch or the last, to whichever process."""
    chance = random.Random(seed)
    at = minutes_ago(60)
    events: list[Event] = []
    for host in chance.sample(["h1", "h2", "h3"], chance.choice([2, 3])):
        first, count = chance.randrange(0, 300), chance.randrange(3, 40)
        events += on(host, at, range(first, first + 10 * count, 10), gpu_index=chance.randrange(3))
    for number in range(25):
        end = at + timedelta(seconds=chance.randrange(30, 700))
        fields: dict[str, Any] = {"host": chance.choice(["h1", "h2", "h3", "gateway"])}
        if chance.random() < 0.4:
            fields |= {"gpu_uuids": [], "gpu_index": chance.randrange(3)}
        elif chance.random() < 0.2:
            fields |= {"gpu_uuids": ["GPU-a", "GPU-b"]}
        events.append(usage(number, end, chance.choice([0.0, 5.0, 90.0]), **fields))
    straight, mixed = (
        pipeline("straight", silent_gpu_owned_minutes=5),
        pipeline("mixed", silent_gpu_owned_minutes=5),
    )
    straight.ingest(events)
    for _ in range(3):
        straight.close()
    shuffled = chance.sample(events, len(events))
    while shuffled:
        size = chance.randrange(1, 12)
        mixed.ingest(shuffled[:size])
        shuffled = shuffled[size:]
        if chance.random() < 0.5:
            mixed.close()
        if chance.random() < 0.3:
            mixed.restart()
    for _ in range(3):
        mixed.close()
    assert contents(mixed.cells()) == contents(straight.cells())
    assert_holds(mixed)
    assert_holds(straight)
    assert_as_the_oracle_says(straight)


def assert_as_the_oracle_says(one: Pipeline) -> None:
    samples, usages = (
        list(one.store[SAMPLE.collection].find()),
        list(one.store[USAGE.collection].find()),
    )
    hosts = hosts_of_shared(samples, one.params.gap_us)
    assert hosts.keys() == one.ledger.books.read().shared.hosts.keys()
    meant = {
        f"{doc['host']}/{doc['gpu_index']}": f"{doc['host']}/{doc['gpu']}" if hosts else doc["gpu"]
        for doc in samples
    }
    prices = list(one.store[Collection.PRICES].find())
    judged = 0
    for cell in one.cells(owned_us={"$gt": 0}).values():
        host, _, uuid = cell["gpu"].rpartition("/")
        own = [doc for doc in samples if doc["gpu"] == uuid and (not hosts or doc["host"] == host)]
        start = to_us(cell["minute"])
        spans = [(start, start + cell["owned_us"])]
        (said,) = oracle_cells(
            cell["gpu"], spans, on_cards(usages, hosts), own, prices, meanings=meant
        )
        assert (cell["cost_nusd"], cell["classes"]) == (said.cost_nusd, said.classes), cell["_id"]
        tokens = [
            (line["tenant"], line["requests"], line["prompt_tokens"]) for line in cell["lines"]
        ]
        assert tokens == [
            (line["tenant"], line["requests"], line["prompt_tokens"]) for line in said.lines()
        ], cell["_id"]
        judged += 1
    assert judged > 3


def test_two_processors_that_each_see_one_host_agree(pipeline: Callable[..., Pipeline]) -> None:
    one, other = (
        pipeline("same", silent_gpu_owned_minutes=0),
        pipeline("same", silent_gpu_owned_minutes=0),
    )
    at = minutes_ago(30)
    one.ingest(on("h1", at, range(0, 60, 10)))
    one.close()
    assert money(one).keys() == {"GPU-a"}
    other.ingest(on("h2", at, range(5, 60, 10)))
    for _ in range(2):
        one.close()
        other.close()
    assert money(one).keys() == {"h1/GPU-a", "h2/GPU-a"}
    assert_holds(other)
    row = one.store[Collection.INVENTORY].find_one({"_id": "GPU-a"})
    assert row is not None
    assert (row["shared"], row["pending"]) == (True, False)
