"""What may be written of where an instance runs: names as people write them, stored in their one
spelling."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gpu_token_analytics.costs.entries import NewPlacement
from gpu_token_analytics.costs.placements import placement_fields
from gpu_token_analytics.errors import Refused

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def placed(*gpus: str) -> tuple[list[str], str | None]:
    """GPUs and host as they are stored."""
    fields = placement_fields(
        NewPlacement(instance="http://node1:8000/v1", gpus=list(gpus), valid_from=SINCE)
    )
    return fields["gpus"], fields["host"]


@pytest.mark.parametrize(
    ("gpus", "stored", "host"),
    [
        (["gpu-A", "GPU-a::1"], ["GPU-a"], None),
        (["Node1/00", "node1./1"], ["node1/0", "node1/1"], "node1"),
        (["[FD00::1]/0"], ["fd00::1/0"], "fd00::1"),
        (["MIG-GPU-1F/2/0", "GPU-b"], ["MIG-gpu-1f-2-0", "GPU-b"], None),
        ([], [], None),
    ],
)
def test_gpus_are_stored_in_their_one_spelling(
    gpus: list[str], stored: list[str], host: str | None
) -> None:
    assert placed(*gpus) == (stored, host)


@pytest.mark.parametrize(
    "gpus", [["GPU-a", "node1/0"], ["node1/x"], ["MIG-GPU-1F/2", "GPU-b"], ["a/b/0/x"]]
)
def test_what_is_neither_is_refused(gpus: list[str]) -> None:
    with pytest.raises(Refused, match="host/index"):
        placed(*gpus)
