"""Money begins at a GPU that is known: sampled at any time, or declared. Tokens count always; late
is as good as early."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.integration.ledger_support import (
    HOUR_NUSD,
    MINUTE,
    Pipeline,
    close_due,
    contents,
    minutes_ago,
    sample,
    usage,
)

from gpu_token_analytics.books.declarations import DeclarationStore
from gpu_token_analytics.books.unknown_names import unknown_names
from gpu_token_analytics.costs.declarations import declare_gpu
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.entries import NewDeclaration
from gpu_token_analytics.costs.query import CostQuery, Row
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.usage import USAGE

LONG = "GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b"
TWIN = "GPU-8f4c2a1b-0000-4f1e-9d52-0c1d2e3f4a5b"


def lines(one: Pipeline, **where: Any) -> list[dict[str, Any]]:
    return [line for cell in one.cells(**where).values() for line in cell["lines"]]


def money(one: Pipeline) -> int:
    return sum(cell["cost_nusd"] for cell in one.cells().values())


def rolled(one: Pipeline, *group_by: str) -> list[Row]:
    rollups = Rollups(one.ledger.rollups)
    while rollups.step_now():
        pass
    now = datetime.now(UTC)
    start = now.replace(minute=0, second=0, microsecond=0)
    query = CostQuery(start - timedelta(hours=3), start + timedelta(hours=1), group_by=group_by)
    return list(CostReads(one.store.database).rows(query, now))


def assert_holds(one: Pipeline) -> None:
    report = one.audit()
    assert report.holds, report.findings


def test_a_record_that_invents_gpus_moves_no_money(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline()
    at = minutes_ago(30)
    samples: list[Event] = [
        sample(n, at + timedelta(seconds=10 * n), source="replay") for n in range(7)
    ]
    one.ingest([*samples, usage(1, at + timedelta(seconds=30))])
    one.close()
    before, cells = money(one), contents(one.cells())
    invented = [f"GPU-{n:08x}-77aa-4f1e-9d52-0c1d2e3f4a5b" for n in range(128)]
    one.ingest([usage(2, at + timedelta(seconds=50), gpu_uuids=invented, tenant="liar")])
    one.close()
    assert money(one) == before
    assert contents(one.cells()) == cells
    unpriced = [line for line in lines(one) if line["cost_nusd"] is None]
    assert {(line["tenant"], line["method"]) for line in unpriced} == {("liar", "unknown_gpu")}
    assert sum(line["prompt_tokens"] for line in unpriced) == 1000
    assert sum(line["requests"] for line in unpriced) == 1
    count, named = unknown_names(one.store, one.ledger.books, 5)
    assert (count, {name.tenant for name in named}) == (128, {"liar"})
    by_tenant = {row.key[0]: row for row in rolled(one, "tenant")}
    assert by_tenant["liar"].is_unpriced
    assert by_tenant["liar"]["prompt_tokens"] == by_tenant["default"]["prompt_tokens"] == 1000
    assert by_tenant["liar"].priced_tokens == 0
    assert not by_tenant["default"].is_unpriced
    assert by_tenant["default"].default_price_nusd == by_tenant["default"]["cost_nusd"] > 0
    assert sum(row.money_nusd for row in by_tenant.values()) == before
    assert_holds(one)


def test_a_request_over_known_and_unknown_gpus_is_shared_as_if_all_were_known(
    pipeline: Callable[..., Pipeline],
) -> None:
    """What it costs where it is known must not depend on what is known elsewhere."""
    one, whole = pipeline("one"), pipeline("whole")
    at = minutes_ago(30)
    events: list[Event] = [
        usage(1, at + timedelta(seconds=30), gpu_uuids=["GPU-a", "GPU-b"]),
        usage(2, at + timedelta(seconds=40)),
        sample(1, at, source="replay"),
    ]
    one.ingest(events)
    whole.ingest([*events, sample(2, at, gpu_uuid="GPU-b", gpu_index=1, source="replay")])
    for each in (one, whole):
        each.close()
        assert_holds(each)
    assert contents(one.cells(gpu="GPU-a")) == contents(whole.cells(gpu="GPU-a"))
    assert [line["prompt_tokens"] for line in lines(one, gpu="GPU-b")] == [500]
    assert [line["cost_nusd"] for line in lines(one, gpu="GPU-b")] == [None]
    assert sum(line["prompt_tokens"] for line in lines(one)) == 2000


@pytest.mark.parametrize("known_by", ["samples", "samples that tell nothing else", "declaration"])
@pytest.mark.parametrize("known", ["first", "last", "between", "with silence before"])
def test_what_comes_later_makes_it_whole(
    pipeline: Callable[..., Pipeline], known_by: str, known: str
) -> None:
    one, straight = (
        pipeline("one", silent_gpu_owned_minutes=10),
        pipeline("straight", silent_gpu_owned_minutes=10),
    )
    at = minutes_ago(60)
    steps: list[list[Event]] = [
        [usage(n, at + n * 5 * MINUTE + timedelta(seconds=40))] for n in range(3)
    ]

    def make_known(it: Pipeline) -> None:
        if known_by == "declaration":
            it.declare("GPU-a", name="H100")
        else:
            name = "H100" if known_by == "samples" else None
            it.ingest([sample(1, at + 8 * MINUTE, source="replay", name=name)])

    make_known(straight)
    straight.ingest([event for step in steps for event in step])
    straight.close()
    place = {"first": 0, "between": 1, "last": 3, "with silence before": 2}[known]
    for number, step in enumerate(steps):
        if number == place:
            make_known(one)
        one.ingest(step)
        one.close()
    if place == len(steps):
        assert money(one) == 0
        make_known(one)
        one.close()
    assert len(contents(straight.cells())) == 11, (
        "from the first request to the last, with the silence in between"
    )
    assert contents(one.cells()) == contents(straight.cells())
    assert not any(line["cost_nusd"] is None for line in lines(one))
    assert_holds(one)


def test_a_declaration_holds_from_and_to(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=10)
    at = minutes_ago(60)
    one.ingest(
        [
            usage(n, at + n * 5 * MINUTE + timedelta(seconds=40), gpu_uuids=["h1/0"])
            for n in range(4)
        ]
    )
    one.close()
    one.declare(
        "h1/0", "rack-7", name="H200", valid_from=at + 3 * MINUTE, valid_to=at + 12 * MINUTE
    )
    one.close()
    owned = sorted(cell["minute"] for cell in one.cells(owned_us={"$gt": 0}).values())
    assert owned == [at + n * MINUTE for n in range(3, 12)]
    assert {
        (cell["host"], cell["gpu_name"]) for cell in one.cells(owned_us={"$gt": 0}).values()
    } == {("rack-7", "H200")}
    assert sum(line["requests"] for line in lines(one)) == 4
    assert [line["cost_nusd"] is None for line in lines(one)].count(True) == 2
    assert_holds(one)
    store = DeclarationStore(one.store.database)
    assert store.retire("h1/0", at + 8 * MINUTE) is not None
    one.close()
    assert len(one.cells(owned_us={"$gt": 0})) == 5
    assert_holds(one)
    assert store.withdraw("h1/0") is not None
    assert store.withdraw("h1/0") is None
    one.close()
    assert money(one) == 0
    assert_holds(one)


@pytest.mark.parametrize("name", ["8f4c2a1b", "GPU-8F4C2A1B-77aa", "h1/0", "h1.cluster.local/0"])
def test_another_spelling_of_a_known_gpu_is_not_declared(
    pipeline: Callable[..., Pipeline], name: str
) -> None:
    one = pipeline()
    one.ingest([sample(1, minutes_ago(5), gpu_uuid=LONG, gpu_index=0)])
    desk = Desk.over(one.store, one.settings)
    with pytest.raises(Refused, match=LONG):
        declare_gpu(desk, NewDeclaration(gpu=name, host="h1", usd_per_hour=Decimal(9)), "test")
    assert desk.declarations.rows() == []
    assert [row for row in desk.prices.rows() if row["scope"] == "gpu"] == []
    for free in (LONG, "h1/1", "GPU-9f4c2a1b"):
        declare_gpu(desk, NewDeclaration(gpu=free, host="h1"), "test")
    assert len(desk.declarations.rows()) == 3


@pytest.mark.parametrize("name", [f"h1/{LONG}", f"H1./{LONG}", "h1/x", "a/b/0x"])
def test_a_host_and_a_uuid_is_no_name_to_declare(
    pipeline: Callable[..., Pipeline], name: str
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    one.ingest(
        [sample(n, minutes_ago(5) + n * timedelta(seconds=10), gpu_uuid=LONG) for n in range(6)]
    )
    desk = Desk.over(one.store, one.settings)
    with pytest.raises(Refused, match="no UUID, and no host/index"):
        declare_gpu(desk, NewDeclaration(gpu=name, host="h1"), "test")
    one.close()
    assert {cell["gpu"] for cell in one.cells().values()} == {LONG}


NAMED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "a domain in the request",
        {"host": "node1"},
        {"host": "node1.cluster.local", "gpu_uuids": [], "gpu_index": 0},
    ),
    (
        "a domain in the samples",
        {"host": "node1.cluster.local"},
        {"host": "node1", "gpu_uuids": [], "gpu_index": 0},
    ),
    ("a domain in a label", {"host": "node1"}, {"gpu_uuids": ["Node1.Cluster.Local./00"]}),
    (
        "no UUID in the samples",
        {"host": "node1", "gpu_uuid": None},
        {"gpu_uuids": ["node1.cluster.local/0"]},
    ),
    ("as nvidia-smi -L users write it", {"gpu_uuid": LONG}, {"gpu_uuids": ["GPU-8F4C2A1B"]}),
    ("without its kind", {"gpu_uuid": LONG}, {"gpu_uuids": ["8f4c2a1b-77aa"]}),
    ("whole, without its kind", {"gpu_uuid": LONG}, {"gpu_uuids": [LONG.removeprefix("GPU-")]}),
    ("short in the samples", {"gpu_uuid": "GPU-8f4c2a1b"}, {"gpu_uuids": [LONG]}),
]


@pytest.mark.parametrize("order", ["samples first", "requests first", "one by one"])
@pytest.mark.parametrize(
    ("sampled", "named"), [pair[1:] for pair in NAMED], ids=[pair[0] for pair in NAMED]
)
def test_another_spelling_is_the_same_card(
    pipeline: Callable[..., Pipeline], sampled: dict[str, Any], named: dict[str, Any], order: str
) -> None:
    one, straight = pipeline("one"), pipeline("straight")
    at = minutes_ago(30)
    samples: list[Event] = [
        sample(n, at + timedelta(seconds=10 * n), source="replay", **sampled) for n in range(7)
    ]
    requests: list[Event] = [
        usage(n, at + timedelta(seconds=20 + 5 * n), **named) for n in range(3)
    ]
    own = sampled.get("gpu_uuid", "GPU-a") or f"{sampled['host']}/0"
    straight.ingest(
        [
            *samples,
            *(usage(n, at + timedelta(seconds=20 + 5 * n), gpu_uuids=[own]) for n in range(3)),
        ]
    )
    straight.close()
    if order == "one by one":
        mixed = random.Random(3).sample([*samples, *requests], len(samples) + len(requests))
        for event in mixed:
            one.ingest([event])
            one.closer().step()
        one.close()
    else:
        for part in (samples, requests) if order == "samples first" else (requests, samples):
            one.ingest(part)
            one.close()
    assert contents(one.cells()) == contents(straight.cells())
    assert unknown_names(one.store, one.ledger.books, 5) == (0, [])
    assert_holds(one)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(
    ("twins", "name"),
    [
        ([{"gpu_uuid": LONG}, {"gpu_uuid": TWIN, "gpu_index": 1}], "GPU-8f4c2a1b"),
        (
            [{"host": "node1.a.example"}, {"host": "node1.b.example", "gpu_uuid": "GPU-b"}],
            "node1/0",
        ),
    ],
    ids=["two UUIDs", "two domains"],
)
def test_where_two_fit_it_is_not_guessed(
    pipeline: Callable[..., Pipeline], twins: Sequence[dict[str, Any]], name: str, order: int
) -> None:
    one = pipeline()
    at = minutes_ago(30)
    first, second = (
        [sample(n, at + timedelta(seconds=n), source="replay", **twin)]
        for n, twin in enumerate(twins)
    )
    requests: list[Event] = [usage(1, at + timedelta(seconds=30), gpu_uuids=[name])]
    parts: list[Sequence[Event]] = [first, second]
    parts.insert(order, requests)
    for part in parts:
        one.ingest(part)
        one.close()
    assert [(cell["gpu"], cell["cost_nusd"]) for cell in one.cells().values() if cell["lines"]] == [
        (name, 0)
    ]
    count, found = unknown_names(one.store, one.ledger.books, 5)
    assert (count, len(found[0].may_be)) == (1, 2)
    assert_holds(one)


def test_the_case_of_a_gpu_named_unlike_its_samples(pipeline: Callable[..., Pipeline]) -> None:
    path = (
        Path(__file__).parent.parent
        / "contract"
        / "examples"
        / "usage-gpu-named-unlike-sample.ndjson"
    )
    one = pipeline(silent_gpu_owned_minutes=0)
    shift = minutes_ago(30) - datetime(2026, 11, 29, 7, 30, tzinfo=UTC)
    events = []
    for line in path.read_bytes().splitlines():
        event = decode(line)
        events.append(decode(encode(type(event)(**{**_fields(event), "ts": event.ts + shift}))))
    one.ingest(events)
    one.close()
    owned = contents(one.cells())
    assert {name.split("|")[0] for name in owned} == {"GPU-a"}
    assert sum(line["requests"] for cell in owned.values() for line in cell["lines"]) == 4
    assert owned[f"GPU-a|{minutes_ago(30):%Y-%m-%dT%H:%MZ}"]["cost_nusd"] == pytest.approx(
        HOUR_NUSD / 60, abs=1
    )
    assert_holds(one)


def test_rows_of_an_earlier_version_have_no_key_and_are_found(
    pipeline: Callable[..., Pipeline],
) -> None:
    one, straight = pipeline("one"), pipeline("straight")
    at = minutes_ago(30)
    sampled: list[Event] = [sample(1, at, gpu_uuid=LONG, host="n1", source="replay")]
    named = ["GPU-8f4c2a1b", "n1.example/0", LONG, "n1/0"]
    one.ingest(sampled)
    straight.ingest(sampled)
    inventory = one.store[Collection.INVENTORY]
    without_keys = {"$unset": {"key": ""}}
    assert inventory.update_many({}, without_keys).modified_count == 2, "the GPU and its label"
    one.restart()  # the processor is a new version
    one.ingest([usage(1, at + timedelta(seconds=10), 5.0, gpu_uuids=[named[0]])])
    assert inventory.count_documents({"key": None}) == 0, "filled in at the first look-up"
    # one of the version before runs on
    inventory.update_many({"kind": {"$in": ["gpu", "placement"]}}, without_keys)
    one.ingest(
        [usage(n + 1, at + timedelta(seconds=10 + n), 5.0, gpu_uuids=[named[n]]) for n in (1, 2, 3)]
    )
    straight.ingest(
        [usage(n + 1, at + timedelta(seconds=10 + n), 5.0, gpu_uuids=[LONG]) for n in range(4)]
    )
    names = {row["name"] for row in inventory.find({"kind": "name"})}
    assert names == {"GPU-8f4c2a1b", "n1.example/0"}, (
        "other spellings; those that samples gave are known"
    )
    close_due(one.closer())
    close_due(straight.closer())
    assert contents(one.cells()) == contents(straight.cells())
    assert {cell["gpu"] for cell in one.cells(cost_nusd={"$gt": 0}).values()} == {LONG}
    one.close()
    assert_holds(one)


def test_the_live_cost_of_a_request_is_null_until_its_gpu_is_known(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    numbers = iter(range(1, 100))

    def live_cost(*gpus: str) -> float | None:
        number = next(numbers)
        one.ingest(
            [usage(number, minutes_ago(1) + timedelta(seconds=number), gpu_uuids=list(gpus))]
        )
        (stored,) = one.store[USAGE.collection].find({"request_id": f"r{number}"})
        found: float | None = stored.get("cost_per_token")
        return found

    assert live_cost("GPU-a") is None
    assert live_cost("GPU-a") is None, "looked up, and nobody told of it"
    one.ingest([sample(1, minutes_ago(1))])
    assert (live_cost("GPU-a") or 0) > 0
    assert (live_cost("h1/0") or 0) > 0
    assert live_cost("GPU-a", "GPU-b") is None
    one.declare("GPU-b")
    live_cost("GPU-b")  # this process has not heard of the declaration; it looks the name up now
    assert (live_cost("GPU-b") or 0) > 0
    assert (live_cost("GPU-a", "GPU-b") or 0) > 0
    one.restart()
    live_cost("h1.example/0")
    assert (live_cost("h1.example/0") or 0) > 0, "another spelling of the one that is known"
    assert live_cost("GPU-c") is None


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def sparse_events(dice: random.Random) -> list[Event]:
    """Names that become known late, or mean two GPUs later on."""
    names: list[dict[str, Any]] = [
        {"gpu_uuids": ["GPU-a"]},
        {"gpu_uuids": ["GPU-8f4c2a1b"]},
        {"gpu_uuids": [LONG]},
        {"gpu_uuids": ["n1.example/0"]},
        {"gpu_uuids": [], "gpu_index": 0, "host": "n1"},
        {"gpu_uuids": ["n1/0", "n1.example/0", "n1/1"]},
        {"gpu_uuids": ["GPU-8f4c2a1b", "GPU-a", "GPU-nobody"]},
    ]
    cards: list[dict[str, Any]] = [
        {"gpu_uuid": LONG, "host": "n1", "gpu_index": 0},
        {"gpu_uuid": "GPU-a", "host": "n1", "gpu_index": 1},
        {"gpu_uuid": "GPU-a", "host": "n1", "gpu_index": 0},
        {"gpu_uuid": TWIN, "host": "n1.other", "gpu_index": 0},
    ]
    cards = dice.sample(cards, dice.randrange(1, len(cards) + 1))
    found: list[Event] = []
    for number in range(30):
        at = minutes_ago(120) + timedelta(seconds=dice.randrange(3600))
        if dice.random() < 0.7:
            found.append(usage(number, at, dice.choice((0.0, 5.0, 100.0)), **dice.choice(names)))
        else:
            found.append(sample(number, at, source="replay", **dice.choice(cards)))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_names_in_any_order_give_one_ledger(pipeline: Callable[..., Pipeline], seed: int) -> None:
    dice = random.Random(seed)
    events = sparse_events(dice)
    straight, wild = (
        pipeline("a", silent_gpu_owned_minutes=10),
        pipeline("b", silent_gpu_owned_minutes=10),
    )
    straight.ingest(events)
    declared = dice.random() < 0.5
    if declared:
        straight.declare("GPU-nobody", "n1")
    straight.close()
    for event in dice.sample(events, len(events)):
        wild.ingest([event])
        if declared and dice.random() < 0.2:
            wild.declare("GPU-nobody", "n1")
            declared = False
        if dice.random() < 0.4:
            wild.closer().step()
        if dice.random() < 0.2:
            wild.closer().housekeep()
    if declared:
        wild.declare("GPU-nobody", "n1")
    wild.close()
    for one in (straight, wild):
        assert_holds(one)
    assert contents(wild.cells()) == contents(straight.cells())
    told = [
        sorted((cell["_id"], str(cell["lines"])) for cell in one.cells().values() if cell["lines"])
        for one in (straight, wild)
    ]
    assert told[0] == told[1]
