"""An engine that is placed after its requests came: what docs/sources/placements.md says of making
them whole."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from msgspec import structs
from tests.integration.ledger_support import Pipeline, minutes_ago, sample, usage

from gpu_token_analytics.sources.instances import InstanceBook, InstancePlacement
from gpu_token_analytics.sources.placed_events import placed


def lines(one: Pipeline) -> dict[str, tuple[int, int, int | None]]:
    """(requests, prompt tokens, cost) by GPU."""
    return {
        cell["gpu"]: (line["requests"], line["prompt_tokens"], line["cost_nusd"])
        for cell in one.cells().values()
        for line in cell["lines"]
        if line["requests"]
    }


def test_requests_that_came_before_their_placement_are_sent_again(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    asked = usage(1, at + timedelta(seconds=40), 20, gpu_uuids=["instance:node1:8000"])
    unplaced = placed(asked, InstanceBook())
    assert unplaced is not None
    cards = [
        sample(second, at + timedelta(seconds=second), host="node1") for second in range(0, 60, 10)
    ]
    one.ingest([unplaced, *cards])
    one.close()
    assert lines(one) == {"instance:node1:8000": (1, 1000, None)}, (
        "tokens are kept, money is not known"
    )

    again = placed(
        structs.replace(asked, event_id="usage-1-again"),
        InstanceBook([InstancePlacement("node1:8000", ("GPU-a",), "node1", None)]),
    )
    assert again is not None
    one.ingest([again])
    one.close()
    found = lines(one)
    assert found["instance:node1:8000"] == (1, 1000, None), "the first stays as it was stored"
    requests, tokens, cost = found["GPU-a"]
    assert (requests, tokens) == (1, 1000)
    assert cost is not None
    assert cost > 0
    report = one.audit()
    assert report.holds, report.findings
    assert (report.unknown_gpu_requests, report.unknown_gpu_tokens) == (1, 1100)
