"""The timeline of a GPU, and a fleet's hour from it, without any store."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.oracle.ledger import oracle_cells
from tests.oracle.raw_documents import sample_document, usage_document
from tests.unit.ledger.loaded import Document, Stored
from tests.unit.ledger.worlds import GPU, MINUTE, SECOND, T0, price, sample, usage

from gpu_token_analytics.documents import COUNTS, TOKEN_COUNTS, US_PER_HOUR
from gpu_token_analytics.ledger.compute import compute_runs
from gpu_token_analytics.ledger.computed import CellContent, ComputedCell
from gpu_token_analytics.ledger.document import CellFields
from gpu_token_analytics.ledger.events import NOTHING_BEYOND
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.simulate.fleet import default_fleet
from gpu_token_analytics.simulate.load import Load, generate
from gpu_token_analytics.wire.kind import encode
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import from_us
from gpu_token_analytics.wire.usage import TokenUsage

HOUR = [T0 + n * MINUTE for n in range(60)]
NOW = T0 + 61 * MINUTE


def at(minute: float) -> int:
    return T0 + round(minute * MINUTE)


def computed(
    stored: Stored, gpu: str, minutes_us: list[int], now_us: int = NOW
) -> list[ComputedCell]:
    """The cells of one run of a GPU."""
    (run,) = compute_runs([stored.timeline(gpu, minutes_us, now_us)], stored.params)
    return list(run.cells)


def test_the_hour_of_a_fleet_without_a_store() -> None:
    usages: list[Document] = []
    samples: list[Document] = []
    stored_at = datetime(2026, 1, 2, tzinfo=UTC)
    for event in generate(
        default_fleet(2, 4), from_us(T0), 3500.0, 5, load=Load(1.0), sample_interval_seconds=15.0
    ):
        if isinstance(event, TokenUsage):
            usages.append(usage_document(event, encode(event), stored_at, "test"))
        elif isinstance(event, GpuSample):
            samples.append(sample_document(event, encode(event), stored_at, "test"))
    stored = Stored(usages, samples, [price("row-0", "0.85")])
    gpus = stored.gpus()
    runs = compute_runs([stored.timeline(gpu, HOUR, NOW) for gpu in gpus], stored.params)
    cells = [cell for run in runs for cell in run.cells]
    assert len(gpus) == 8
    assert len(cells) == 480
    for cell in cells:
        (piece,) = cell.prices
        assert sum(cell.content.classes.values()) == cell.content.cost_nusd
        assert cell.content.owned_us in (MINUTE, 0)
        assert (
            abs(cell.content.cost_nusd * US_PER_HOUR - piece.nusd_per_hour * cell.content.owned_us)
            <= US_PER_HOUR
        )
    sent = Counter({name: sum(usage[name] for usage in usages) for name in TOKEN_COUNTS}) + Counter(
        requests=len(usages)
    )
    counted: Counter[str] = Counter()
    for cell in cells:
        for line in cell.content.lines:
            counted.update({name: line[name] for name in COUNTS})
    assert counted == sent
    gpu = gpus[0]
    mine = [cell for cell in cells if cell.gpu == gpu][:5]
    spans = [(minute, minute + MINUTE) for minute in HOUR[:5]]
    own = [doc for doc in usages if gpu in doc["gpus"]]
    said = oracle_cells(
        gpu,
        spans,
        own,
        [doc for doc in samples if doc["gpu"] == gpu],
        stored.prices,
        host="h",
        gpu_name="n",
    )
    assert [cell.content.classes for cell in mine] == [cell.classes for cell in said]


def contents(cells: list[ComputedCell]) -> list[tuple[CellContent, CellFields]]:
    return [(cell.content, cell.fields()) for cell in cells]


moments = st.integers(0, 60 * 60 - 1).map(float)
usages = st.builds(
    usage,
    st.integers(0, 2**32).map("{:08x}".format),
    moments,
    st.sampled_from([None, 0.0, 1.0, 400.0]),
)
samples = st.builds(
    sample,
    st.integers(0, 2**32).map("{:08x}".format),
    moments,
    mem_mb=st.sampled_from([None, 4.0, 80_000.0]),
    usd_per_hour=st.sampled_from([None, 1.0, 2.0]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(usages, max_size=4),
    st.lists(samples, max_size=5),
    st.sampled_from([0, 3, 1440]),
    st.sets(st.integers(0, 59), min_size=1, max_size=8),
    st.integers(20, 90),
)
def test_a_minute_alone_is_what_it_is_in_an_hour(
    requests: list[Document], heard: list[Document], owned_minutes: int, chosen: set[int], now: int
) -> None:
    """Whatever run a minute is computed in, its timeline says the same of it."""
    params = LedgerParams(silent_owned_us=owned_minutes * MINUTE, model_kept_us=7 * MINUTE)
    stored = Stored(requests, heard, [price("row-0", "0.85")], params=params)
    whole = computed(stored, GPU, HOUR, at(now))
    apart = [at(minute) for minute in sorted(chosen)]
    together = computed(stored, GPU, apart, at(now))
    alone = [computed(stored, GPU, [minute], at(now))[0] for minute in apart]
    expected = contents([whole[minute] for minute in sorted(chosen)])
    assert contents(together) == expected
    assert contents(alone) == expected


def test_host_name_and_price_hold_up_to_the_next_sample() -> None:
    first, second = sample("a", 70, usd_per_hour=1.0), sample("b", 250, usd_per_hour=2.0)
    second |= {"host": "h2", "name": "H200"}
    timeline = Stored(samples=[first, second], prices=[price("row-0", "0.85")]).timeline(
        GPU, HOUR[:6], NOW
    )
    assert [timeline.identity(minute) for minute in HOUR[:6]] == [("h", "H100")] * 4 + [
        ("h2", "H200")
    ] * 2
    paid = [[piece.nusd_per_hour for piece in timeline.prices(minute)] for minute in HOUR[:6]]
    assert paid == [[850_000_000], [10**9], [10**9], [10**9], [10**9, 2 * 10**9], [2 * 10**9]], (
        "the first speaks for its minute"
    )
    assert timeline.prices(HOUR[4])[1].from_us == T0 + 250 * SECOND


@pytest.mark.parametrize(
    ("sampled_s", "asks"), [(-60 * MINUTE // SECOND, False), (-1500 * MINUTE // SECOND, True)]
)
def test_a_silent_minute_asks_only_what_its_events_and_the_newest_sample_do_not_tell(
    sampled_s: int, asks: bool
) -> None:
    stored = Stored(samples=[sample("a", float(sampled_s))], prices=[price("row-0", "0.85")])
    timeline = stored.timeline(GPU, HOUR[:2], NOW).answered(NOTHING_BEYOND)
    assert timeline.asks_before is asks
    assert timeline.asks_after, "a recorded one owns no silence that nothing ends"
    assert not stored.timeline(GPU, [T0 + sampled_s * SECOND // MINUTE * MINUTE], NOW).asks_after, (
        "not silent"
    )


def test_slices_and_their_card_share_its_money_by_who_is_seen() -> None:
    card = sample("c", 10)
    parts = [sample(name, second, gpu=f"MIG-{name}") for name, second in (("a", 20), ("b", 80))]
    for part, profile in zip(parts, ("3g.40gb", "4g.40gb"), strict=True):
        part |= {"parent_uuid": GPU, "mig_profile": profile}
    stored = Stored(samples=[card, *parts], prices=[price("row-0", "7")])
    minutes = HOUR[:2]
    shares = {
        gpu: [stored.timeline(gpu, minutes, NOW).share(minute) for minute in minutes]
        for gpu in stored.gpus()
    }
    numerators = {
        gpu: [share and share.parts for share in of_gpu] for gpu, of_gpu in shares.items()
    }
    assert numerators == {GPU: [4, 3], "MIG-a": [3, 3], "MIG-b": [4, 4]}
    cost = [
        sum(computed(stored, gpu, minutes)[n].content.cost_nusd for gpu in stored.gpus())
        for n in (0, 1)
    ]
    assert cost[0] == round(7e9 / 60)
