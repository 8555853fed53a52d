"""What a process remembers of the requests it stored."""

from __future__ import annotations

from datetime import UTC, datetime

from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.ledger.requests import UsageRows
from gpu_token_analytics.store.recent_usage import KEPT_SECONDS, RecentUsage


def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


def rows(*requests: tuple[str, int, tuple[str, ...]]) -> list[UsageRows]:
    """A batch in two parts, of requests (id, end, GPUs)."""
    documents = [
        {
            "_id": name,
            "host": "h",
            "gpus": list(gpus),
            "model": "m",
            "tenant": "t",
            "start_us": end_us - 1,
            "ts_us": end_us,
            "prompt_tokens": 1,
            "cached_tokens": 0,
            "completion_tokens": 1,
            "reasoning_tokens": 0,
        }
        for name, end_us, gpus in requests
    ]
    return [UsageRows.of(documents[:1]), UsageRows.of(documents[1:])]


def found(recent: RecentUsage, names: list[str], start_us: int = 0, end_us: int = 1000) -> list[str]:
    return sorted(recent.ended(names, start_us, end_us).ids.tolist())


def test_it_finds_what_names_a_gpu_and_ended_in_a_time() -> None:
    recent = RecentUsage(clock())
    recent.add(rows(("a", 10, ("g",)), ("b", 20, ("g", "k")), ("c", 30, ("k",))), 300)
    recent.add(rows(("d", 15, ("h/0",))), 100)
    assert found(recent, ["g"]) == ["a", "b"]
    assert found(recent, ["g", "k"]) == ["a", "b", "c"], "a request of both is there once"
    assert found(recent, ["g", "h/0"], 15, 30) == ["b", "d"]
    assert found(recent, ["g", "k"], 10, 20) == ["a"], "the end of the time is not in it"
    assert found(recent, ["nobody"]) == []


def test_the_oldest_batches_go_first() -> None:
    recent = RecentUsage(clock(), most_bytes=300)
    for number in range(3):
        recent.add(rows((f"a{number}", 10, ("g",)), (f"b{number}", 10, ("g",))), 200)
    assert found(recent, ["g"]) == ["a2", "b2"]
    recent.add(rows(("huge", 10, ("g",))), 301)
    assert found(recent, ["g"]) == [], "not even one batch that is too large alone"


def test_what_retention_could_reach_is_not_remembered() -> None:
    at = clock()
    recent = RecentUsage(at)
    recent.add(rows(("a", 10, ("g",))), 1)
    at.advance(KEPT_SECONDS)
    recent.add(rows(("b", 10, ("g",))), 1)
    assert found(recent, ["g"]) == ["a", "b"]
    at.advance(1)
    assert found(recent, ["g"]) == ["b"]
