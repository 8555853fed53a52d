"""What a process remembers of the events it stored, and of which cells they are all there is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any

from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.documents import US_PER_MINUTE, GpuMinute
from gpu_token_analytics.ledger.requests import UsageRows
from gpu_token_analytics.raw.recent import KEPT_SECONDS, Known, RecentEvents, held_bytes

FIRST, SECOND, THIRD = (("g", minute * US_PER_MINUTE) for minute in range(3))


def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


def rows(*requests: tuple[str, int, int, tuple[str, ...]]) -> list[UsageRows]:
    """A batch in two parts, of requests (id, start, end, GPUs)."""
    documents = [
        {
            "_id": name,
            "host": "h",
            "gpus": list(gpus),
            "model": "m",
            "tenant": "t",
            "start_us": start_us,
            "ts_us": end_us,
            "latency_ms": (end_us - start_us) / 1000,
            "prompt_tokens": 1,
            "cached_tokens": 0,
            "completion_tokens": 1,
            "reasoning_tokens": 0,
        }
        for name, start_us, end_us, gpus in requests
    ]
    return [UsageRows.of(documents[:1]), UsageRows.of(documents[1:])]


def samples(*seen: tuple[str, int, str]) -> list[dict[str, Any]]:
    """Of (id, time, GPU)."""
    return [{"_id": name, "ts_us": ts_us, "gpu": gpu} for name, ts_us, gpu in seen]


def add(
    recent: RecentEvents,
    name: str,
    touched: Collection[GpuMinute],
    marked: Iterable[GpuMinute],
    size_bytes: int = 100,
) -> None:
    """A batch of one request."""
    recent.add(rows((name, 5, 10, ("g",))), [], size_bytes, touched, marked)


def known(recent: RecentEvents, gens: dict[GpuMinute, int], moment: int | None = None) -> Known:
    by_gpu: dict[str, dict[int, int]] = {}
    for (gpu, minute_us), gen in gens.items():
        by_gpu.setdefault(gpu, {})[minute_us] = gen
    return recent.known(by_gpu, recent.moment if moment is None else moment)


def requests(recent: RecentEvents, gens: dict[GpuMinute, int]) -> list[str]:
    """Those of `g` in the first minute, if it is known."""
    return sorted(known(recent, gens).requests(["g"], 0, US_PER_MINUTE).ids.tolist())


def test_it_finds_what_names_a_gpu_and_can_be_active_in_a_time() -> None:
    recent = RecentEvents(clock())
    recent.add(
        rows(("a", 5, 10, ("g",)), ("b", 0, 20, ("g", "k")), ("c", 29, 30, ("k",))),
        [],
        300,
        [FIRST],
        [FIRST],
    )
    recent.add(rows(("d", 14, 15, ("h/0",))), [], 100, [FIRST], [FIRST])
    whole = known(recent, {FIRST: 2})

    def found(names: list[str], start_us: int = 0, end_us: int = 1000) -> list[str]:
        return sorted(whole.requests(names, start_us, end_us).ids.tolist())

    assert whole.gpus == {"g"}
    assert found(["g"]) == ["a", "b"]
    assert found(["g", "k"]) == ["a", "b", "c"], "a request of both is there once"
    assert found(["g", "h/0"], 14, 30) == ["b", "d"]
    assert found(["g", "h/0"], 15, 30) == ["b"], "the end of a request is not a part of it"
    assert found(["g", "k"], 11, 29) == ["b"], (
        "begun before the time is over, ended since its start"
    )
    assert found(["nobody"]) == []


def test_it_finds_samples_in_their_order() -> None:
    recent = RecentEvents(clock())
    recent.add([], samples(("c", 20, "g"), ("x", 5, "k"), ("a", 10, "g")), 300, [FIRST], [FIRST])
    recent.add([], samples(("b", 10, "g"), ("d", 30, "g"), ("e", 9, "g")), 300, [FIRST], [FIRST])
    recent.add(rows(("r", 5, 10, ("g",))), [], 300, [FIRST], [FIRST])
    found = known(recent, {FIRST: 3}).samples({"g": (10, 30), "k": (0, 5), "nobody": (0, 100)})
    assert {gpu: [sample["_id"] for sample in of] for gpu, of in found.items()} == {
        "g": ["a", "b", "c"],
        "k": [],
        "nobody": [],
    }


def test_a_cell_is_known_while_every_mark_of_it_was_made_here() -> None:
    recent = RecentEvents(clock())
    add(recent, "a", [FIRST, SECOND], [FIRST, SECOND])
    # the first one's mark is still ahead, so it was left out
    add(recent, "b", [FIRST, SECOND], [SECOND])
    assert requests(recent, {FIRST: 1, SECOND: 2}) == ["a", "b"]
    assert requests(recent, {FIRST: 2, SECOND: 2}) == [], "somebody else marked it, too"
    assert requests(recent, {FIRST: 1, SECOND: 1}) == [], "not as it is stored"
    assert requests(recent, {FIRST: 1, SECOND: 2, THIRD: 1}) == [], "nothing here touched the third"
    assert known(recent, {FIRST: 1, ("k", 0): 1}).gpus == {"g"}, "each GPU on its own"


def test_cells_of_a_batch_that_is_being_marked_are_not_known_until_it_is_there() -> None:
    recent = RecentEvents(clock())
    add(recent, "a", [FIRST], [FIRST])
    recent.expect([FIRST])
    assert requests(recent, {FIRST: 1}) == []
    add(recent, "b", [FIRST], [])
    assert requests(recent, {FIRST: 1}) == ["a", "b"]
    recent.expect([FIRST, SECOND])
    recent.forget([SECOND])
    assert requests(recent, {FIRST: 1}) == ["a", "b"]
    recent.expect([FIRST])
    recent.add([], [], 0, [], [])
    assert requests(recent, {FIRST: 1}) == ["a", "b"]


def test_the_minutes_that_are_known_of_a_gpu() -> None:
    recent = RecentEvents(clock())
    add(recent, "a", [FIRST, SECOND, THIRD], [FIRST, SECOND, THIRD])
    first, second, third = (minute for _, minute in (FIRST, SECOND, THIRD))
    assert recent.whole("g", {first: 2, second: 1, third: 1}, recent.moment) == {second, third}
    assert recent.whole("g", {first: 1}, recent.moment - 1) == set()
    assert recent.whole("k", {first: 1}, recent.moment) == set()


def test_what_was_stored_one_turnover_ago_is_forgotten() -> None:
    recent = RecentEvents(clock(), most_bytes=300)
    add(recent, "a", [FIRST], [FIRST], 100)
    before = recent.turnover
    add(recent, "b", [SECOND], [SECOND], 200)
    assert recent.turnover - before < 1
    assert requests(recent, {FIRST: 1}) == ["a", "b"]
    add(recent, "c", [THIRD], [THIRD], 200)
    assert recent.turnover - before > 1
    assert requests(recent, {FIRST: 1}) == []


def test_labels_are_counted_once_for_all_requests_that_have_them() -> None:
    few = rows(*((f"r{number}", 5, 10, ("g",)) for number in range(40)))
    many = rows(*((f"r{number}", 5, 10, (f"g{number}",)) for number in range(40)))
    assert 40 * 100 < held_bytes(few, []) < 40 * 250
    assert held_bytes(many, []) > 40 * 500
    assert held_bytes(few, samples(("a", 1, "g"))) - held_bytes(few, []) > 500


def test_a_gpu_is_not_known_across_a_minute_that_was_not_asked_for() -> None:
    recent = RecentEvents(clock())
    add(recent, "a", [FIRST, SECOND, THIRD], [FIRST, SECOND, THIRD])
    assert requests(recent, {FIRST: 1, SECOND: 1, THIRD: 1}) == ["a"]
    assert requests(recent, {FIRST: 1, THIRD: 1}) == []


def test_marks_that_are_counted_after_a_cell_was_taken_prove_nothing() -> None:
    """It was taken with one mark of this process and one of another; a second one of this process
    makes it two, too."""
    recent = RecentEvents(clock())
    add(recent, "a", [FIRST], [FIRST])
    before = recent.moment
    add(recent, "b", [FIRST], [FIRST])
    assert known(recent, {FIRST: 2}, before).gpus == set()
    assert known(recent, {FIRST: 2}, recent.moment).gpus == {"g"}


def test_cells_of_a_batch_that_was_partly_stored_before_are_not_known_any_more() -> None:
    recent = RecentEvents(clock())
    add(recent, "a", [FIRST, SECOND], [FIRST, SECOND])
    recent.forget([FIRST])  # its mark was left out, so `gen` does not tell
    assert requests(recent, {FIRST: 1}) == []
    assert requests(recent, {SECOND: 1}) == ["a"]
    add(recent, "b", [FIRST], [FIRST])
    assert requests(recent, {FIRST: 2}) == [], "nor later on"


def test_the_oldest_batches_go_first_and_the_cells_they_touched_first() -> None:
    recent = RecentEvents(clock(), most_bytes=300)
    add(recent, "a", [FIRST], [FIRST], 200)
    add(recent, "b", [FIRST, SECOND], [FIRST, SECOND], 200)
    assert requests(recent, {FIRST: 2}) == []
    assert requests(recent, {SECOND: 1}) == ["b"]
    add(recent, "c", [FIRST], [FIRST], 100)
    assert requests(recent, {FIRST: 3}) == [], "what is counted from here on is behind"
    assert requests(recent, {SECOND: 1}) == ["b", "c"]
    add(recent, "huge", [THIRD], [THIRD], 301)
    assert requests(recent, {THIRD: 1}) == [], "not even one batch that is too large alone"


def test_a_cell_that_was_forgotten_does_not_go_with_the_batch_that_touched_it_first() -> None:
    recent = RecentEvents(clock(), most_bytes=300)
    add(recent, "a", [FIRST], [FIRST], 200)
    recent.forget([FIRST])
    add(recent, "b", [FIRST], [FIRST], 200)  # the first batch goes
    assert requests(recent, {FIRST: 1}) == ["b"], (
        "it counts from here on; the cell's gen would be 2"
    )


def test_what_retention_could_reach_is_not_remembered() -> None:
    at = clock()
    recent = RecentEvents(at)
    add(recent, "a", [FIRST], [FIRST])
    at.advance(KEPT_SECONDS)
    add(recent, "b", [SECOND], [SECOND])
    assert requests(recent, {FIRST: 1, SECOND: 1}) == ["a", "b"]
    at.advance(1)
    assert requests(recent, {FIRST: 1}) == []
    assert requests(recent, {SECOND: 1}) == ["b"]


def test_counters_are_read_where_any_were_stored() -> None:
    recent = RecentEvents(clock())
    add(recent, "a", [FIRST], [FIRST])
    assert known(recent, {FIRST: 1}).without_counters == {"g"}
    assert known(recent, {FIRST: 2}).without_counters == frozenset(), "somebody else marked it"
    recent.add([], [], 0, [FIRST], [], counted=True)
    assert known(recent, {FIRST: 1}).gpus == {"g"}
    assert known(recent, {FIRST: 1}).without_counters == frozenset()
