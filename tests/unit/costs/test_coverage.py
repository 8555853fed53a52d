"""What the quality page says of an engine's coverage, and what to do about it."""

from __future__ import annotations

import pytest

from gpu_token_analytics.costs.quality import coverage_of


@pytest.mark.parametrize(
    ("counted", "unexplained", "more", "unplaced", "coverage", "to_do"),
    [
        (1_000, 0, 0, False, 1.0, None),
        (1_000, 15, 3, False, 0.985, None),
        (1_000, 400, 0, False, 0.6, "some requests are not told"),
        (1_000, 1_000, 0, False, 0.0, "no request on its GPUs is told"),
        (1_000, 0, 100, False, 1.0, "is its placement right"),
        (0, 0, 0, False, None, None),
        (0, 0, 50, False, None, "is its placement right"),
        (1_000, 1_000, 0, True, 0.0, "gpu-tokens placements add node1:8000"),
    ],
)
def test_coverage_is_sum_by_sum_and_says_what_to_do(
    counted: int,
    unexplained: int,
    more: int,
    unplaced: bool,
    coverage: float | None,
    to_do: str | None,
) -> None:
    said = coverage_of(
        {
            "_id": "node1:8000",
            "engine": "vllm",
            "counted": counted,
            "unexplained": unexplained,
            "more": more,
            "unplaced": unplaced,
        }
    )
    assert (said.coverage, said.gpus_known) == (coverage, not unplaced)
    assert (said.to_do is None) == (to_do is None)
    assert to_do is None or to_do in (said.to_do or "")
