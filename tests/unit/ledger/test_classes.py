"""How idle a GPU without a known request was."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_token_analytics.ledger.classes import CLASS_NAMES, NOBODY, idle_classes, speaking_at
from gpu_token_analytics.ledger.params import LedgerParams

NAN = float("nan")


@pytest.mark.parametrize(
    ("mem_mb", "was_used", "expected"),
    [
        (2000.0, False, "warm_idle"),
        (1024.0, False, "warm_idle"),
        (1023.9, True, "cold_idle"),
        (NAN, True, "warm_idle"),
        (NAN, False, "cold_idle"),
    ],
)
def test_a_sample(mem_mb: float, was_used: bool, expected: str) -> None:
    (kind,) = idle_classes(np.array([mem_mb]), np.array([was_used]), LedgerParams())
    assert CLASS_NAMES[kind] == expected


def test_a_sample_speaks_until_the_next_one_or_the_gap_limit() -> None:
    speaking = speaking_at(np.array([-1, 0, 9, 10, 19, 20]), np.array([0, 10]), 10)
    assert speaking.tolist() == [NOBODY, 0, 0, 1, 1, NOBODY]
    assert speaking_at(np.array([5]), np.array([5, 5]), 10).tolist() == [1], (
        "of equal times the last one"
    )
    assert speaking_at(np.array([5]), np.zeros(0, dtype=np.int64), 10).tolist() == [NOBODY]
