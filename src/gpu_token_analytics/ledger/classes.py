"""How idle a GPU without a known request was: one class for every instant, by the memory that is held.

A sample speaks from its time until the next one, at most for the gap limit. What utilisation proves of unknown work is taken
off this idle time (unmetered.py).
"""

from __future__ import annotations

import numpy as np

from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.ledger.params import LedgerParams

NOBODY = -1
CLASS_ORDER: tuple[MoneyClass, ...] = tuple(MoneyClass)
CLASS_NAMES: tuple[str, ...] = tuple(name.value for name in MoneyClass)
CLASS_INDEX: dict[MoneyClass, int] = {name: index for index, name in enumerate(CLASS_ORDER)}


def sample_classes(mem_used_mb: Float64, params: LedgerParams) -> Int64:
    """Class index of each sample, NaN meaning unknown: memory held is `warm_idle`, not held `cold_idle`. Shapes (n,)."""
    found = np.full(len(mem_used_mb), CLASS_INDEX[MoneyClass.UNOBSERVED], dtype=np.int64)
    known = ~np.isnan(mem_used_mb)
    held = known & (np.nan_to_num(mem_used_mb) >= params.model_loaded_mb)
    found[held] = CLASS_INDEX[MoneyClass.WARM_IDLE]
    found[known & ~held] = CLASS_INDEX[MoneyClass.COLD_IDLE]
    return found


def speaking_at(at_us: Int64, sample_us: Int64, gap_us: int) -> Int64:
    """The sample that speaks at each instant; NOBODY: none does. sample_us ascending; of equal times the last one speaks. Shape
    as `at_us`."""
    if not len(sample_us):
        return np.full(len(at_us), NOBODY, dtype=np.int64)
    last = np.searchsorted(sample_us, at_us, side="right") - 1
    heard = (last >= 0) & (at_us < sample_us[np.maximum(last, 0)] + gap_us)
    return np.where(heard, last, NOBODY)
