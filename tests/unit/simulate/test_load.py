"""The simulated fleet: reproducible, in order, consistent with itself."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.simulate import Load, default_fleet, events_for_bench, generate
from gpu_token_analytics.simulate.load import uuid7_at
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.usage import TokenUsage

START = datetime(2026, 1, 15, 12, tzinfo=UTC)


def run(
    seed: int = 7, minutes: float = 10, start: datetime = START, load: Load | None = None
) -> list[Event]:
    return list(generate(default_fleet(), start, minutes * 60, seed, load=load or Load(8.0)))


def usages(events: list[Event]) -> list[TokenUsage]:
    return [event for event in events if isinstance(event, TokenUsage)]


def samples(events: list[Event]) -> list[GpuSample]:
    return [event for event in events if isinstance(event, GpuSample)]


def test_same_seed_gives_the_same_bytes() -> None:
    assert [encode(event) for event in run()] == [encode(event) for event in run()]


def test_another_seed_gives_other_events() -> None:
    assert {event.event_id for event in run(1)}.isdisjoint(event.event_id for event in run(2))


def test_a_longer_run_continues_the_shorter_one() -> None:
    """So that a simulation can be extended without contradicting what was already sent."""
    short = {event.event_id: event for event in run(minutes=3)}
    long = {event.event_id: event for event in run(minutes=6)}
    before_end = [event for event in short.values() if event.ts <= START + timedelta(minutes=3)]
    assert len(before_end) > 1000
    assert all(long[event.event_id] == event for event in before_end)


@pytest.mark.parametrize("change", ["rate", "fleet", "interval"])
def test_another_world_with_the_same_seed_shares_no_event_id(change: str) -> None:
    """Equal ids with other payloads would be id conflicts: dead letters."""
    fleet = default_fleet(hosts=2) if change == "fleet" else default_fleet()
    load = Load(9.0) if change == "rate" else Load(8.0)
    interval = 2.5 if change == "interval" else 5.0
    other = generate(fleet, START, 600, 7, load=load, sample_interval_seconds=interval)
    assert {event.event_id for event in run()}.isdisjoint(event.event_id for event in other)


def test_events_are_valid_distinct_and_in_order_of_time() -> None:
    events = run()
    assert all(before.ts <= after.ts for before, after in pairwise(events))
    assert len({event.event_id for event in events}) == len(events)
    assert all(decode(encode(event)) == event for event in events)


def test_mean_rate_is_the_asked_rate_without_the_day() -> None:
    load = Load(requests_per_second=5.0, diurnal_amplitude=0.0)
    found = len(usages(run(minutes=120, load=load)))
    assert found == pytest.approx(5.0 * 7200, rel=0.1)


def test_the_day_has_a_peak_and_a_trough() -> None:
    load = Load(requests_per_second=5.0, diurnal_amplitude=0.6, burst_factor=1.0)
    peak = len(usages(run(load=load, start=datetime(2026, 1, 15, 15, tzinfo=UTC))))
    trough = len(usages(run(load=load, start=datetime(2026, 1, 15, 3, tzinfo=UTC))))
    assert peak / trough == pytest.approx(1.6 / 0.4, rel=0.25)


def test_bursts_make_arrivals_uneven() -> None:
    """Poisson arrivals have variance = mean; bursts must show as much more than that."""

    def dispersion(burst_factor: float) -> float:
        load = Load(requests_per_second=10.0, diurnal_amplitude=0.0, burst_factor=burst_factor)
        counts = [0] * 120
        for usage in usages(run(minutes=20, load=load)):
            arrival = usage.ts - timedelta(milliseconds=usage.latency_ms or 0)
            counts[min(119, int((arrival - START).total_seconds() // 10))] += 1
        mean = sum(counts) / len(counts)
        return sum((count - mean) ** 2 for count in counts) / len(counts) / mean

    assert dispersion(1.0) < 2.0
    assert dispersion(6.0) > 4.0


def test_requests_overlap_wait_and_have_consistent_times() -> None:
    found = usages(run(load=Load(40.0, diurnal_amplitude=0.0)))
    assert any((usage.queue_ms or 0) > 0 for usage in found)
    for usage in found:
        assert usage.latency_ms is not None
        assert usage.queue_ms is not None
        assert usage.ttft_ms is not None
        assert 0 <= usage.queue_ms <= usage.ttft_ms <= usage.latency_ms
    ends = sorted(found, key=lambda usage: usage.ts)
    one_gpu = [usage for usage in ends if usage.gpus == found[0].gpus]
    overlapping = sum(
        1
        for before, after in pairwise(one_gpu)
        if after.ts - timedelta(milliseconds=after.latency_ms or 0) < before.ts
    )
    assert overlapping > len(one_gpu) / 2


def test_cached_and_reasoning_tokens_are_parts() -> None:
    found = usages(run())
    assert any(usage.cached_tokens for usage in found)
    assert any(usage.reasoning_tokens for usage in found)
    assert all(usage.cached_tokens < usage.prompt_tokens for usage in found)
    assert all(usage.reasoning_tokens <= usage.completion_tokens for usage in found)


def test_a_tensor_parallel_request_is_one_event_naming_both_gpus() -> None:
    pairs = [usage for usage in usages(run()) if len(usage.gpu_uuids) == 2]
    assert pairs
    assert len({usage.request_id for usage in pairs}) == len(pairs)


def test_samples_agree_with_the_requests() -> None:
    """Utilization is the share of the interval in which a request of that GPU ran; recomputed here
    from the events."""
    events = run(load=Load(2.0, diurnal_amplitude=0.0))
    found = samples(events)
    gpu = next(sample.gpu for sample in found if sample.gpu_index == 1)
    intervals = [
        (
            usage.ts - timedelta(milliseconds=(usage.latency_ms or 0) - (usage.queue_ms or 0)),
            usage.ts,
        )
        for usage in usages(events)
        if gpu in usage.gpus
    ]
    checked = 0
    for sample in found:
        if sample.gpu != gpu or sample.ts == START:
            continue
        covered, busy = sample.ts - timedelta(seconds=5), 0.0
        for begin, end in sorted(intervals):
            ran = (min(end, sample.ts) - max(begin, covered)).total_seconds()
            if ran > 0:
                busy += ran
                covered = min(end, sample.ts)
        assert sample.utilization == pytest.approx(busy / 5, abs=0.006)
        checked += 1
    assert checked == 120


def test_energy_counter_is_power_times_time() -> None:
    by_gpu: dict[str, list[GpuSample]] = {}
    for sample in samples(run()):
        by_gpu.setdefault(sample.gpu, []).append(sample)
    for series in by_gpu.values():
        assert len(series) == 121
        for before, after in pairwise(series):
            assert before.energy_j is not None
            assert after.energy_j is not None
            assert after.power_w is not None
            assert math.isclose(after.energy_j - before.energy_j, after.power_w * 5, abs_tol=0.01)


def test_the_default_fleet_shows_every_kind_of_idle() -> None:
    last = {sample.gpu: sample for sample in samples(run())}
    used = {gpu for usage in usages(run()) for gpu in usage.gpus}
    unused = [sample for gpu, sample in last.items() if gpu not in used]
    # warm
    assert any(sample.utilization == 0 and (sample.mem_used_mb or 0) > 10_000 for sample in unused)
    # cold
    assert any(sample.utilization == 0 and (sample.mem_used_mb or 0) < 100 for sample in unused)
    assert any((sample.utilization or 0) > 0.5 for sample in unused)  # busy without a request


def test_samples_can_be_left_out() -> None:
    events = list(generate(default_fleet(), START, 60, 1, sample_interval_seconds=None))
    assert events
    assert not samples(events)


@pytest.mark.parametrize(
    ("load", "named"),
    [
        (Load(requests_per_second=-1), "requests_per_second=-1"),
        (Load(diurnal_amplitude=2), "diurnal_amplitude=2"),
        (Load(burst_factor=0.5), "burst_factor=0.5"),
        (Load(calm_seconds=0), "calm_seconds=0"),
    ],
)
def test_a_bad_load_is_refused_by_name(load: Load, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        generate(default_fleet(), START, 60, 1, load=load)


def test_sizes_of_the_fleet_are_checked() -> None:
    with pytest.raises(SettingsError, match="hosts=0"):
        default_fleet(hosts=0)
    with pytest.raises(SettingsError, match="gpus per host=17"):
        default_fleet(gpus_per_host=17)


def test_nothing_to_simulate_is_refused() -> None:
    with pytest.raises(SettingsError, match="nothing to simulate"):
        generate(default_fleet(), START, None, 1, load=Load(0), sample_interval_seconds=None)


def test_bench_events_are_many_and_reproducible() -> None:
    assert events_for_bench(3000, 3) == events_for_bench(5000, 3)[:3000]


def test_uuid7_carries_its_time() -> None:
    """RFC 9562 appendix A.6: the example value."""
    ms, high, low = 0x017F22E279B0, 0xCC3 << 52, 0x18C4DC0C0C07398F << 2
    assert uuid7_at(ms * 1000, high, low) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
