"""What a GPU without a known request was doing."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.ledger.classes import CLASS_NAMES, class_at, sample_classes
from gpu_token_analytics.ledger.params import LedgerParams

NAN = float("nan")


@pytest.mark.parametrize(
    ("utilization", "mem_mb", "expected"),
    [
        (0.06, 0.0, "unmetered_work"),
        (0.06, NAN, "unmetered_work"),
        (0.05, 2000.0, "warm_idle"),
        (0.0, 1024.0, "warm_idle"),
        (0.0, 1023.9, "cold_idle"),
        (NAN, 2000.0, "warm_idle"),
        (NAN, 3.0, "cold_idle"),
        (0.0, NAN, "unobserved"),
        (NAN, NAN, "unobserved"),
    ],
)
def test_a_sample(utilization: float, mem_mb: float, expected: str) -> None:
    (found,) = sample_classes(np.array([utilization]), np.array([mem_mb]), LedgerParams())
    assert CLASS_NAMES[found] == expected


def test_a_sample_speaks_until_the_next_one_or_the_gap_limit() -> None:
    kinds = list(MoneyClass)
    warm, cold, unobserved = (kinds.index(k) for k in (MoneyClass.WARM_IDLE, MoneyClass.COLD_IDLE, MoneyClass.UNOBSERVED))
    found = class_at(np.array([-1, 0, 9, 10, 19, 20]), np.array([0, 10]), np.array([warm, cold]), 10)
    assert found.tolist() == [unobserved, warm, warm, cold, cold, unobserved]
    nobody = np.zeros(0, dtype=np.int64)
    assert class_at(np.array([5]), nobody, nobody, 10).tolist() == [unobserved]
