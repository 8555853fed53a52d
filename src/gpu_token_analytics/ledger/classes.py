"""What a GPU without a known request was doing: one class for every instant.

A sample speaks from its time until the next one, at most for the gap limit. Utilisation only tells busy from idle; money is
never multiplied by it (it says "a kernel ran", and is null under MIG).
"""

from __future__ import annotations

import numpy as np

from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.ledger.params import LedgerParams

CLASS_ORDER: tuple[MoneyClass, ...] = tuple(MoneyClass)
CLASS_NAMES: tuple[str, ...] = tuple(name.value for name in MoneyClass)
CLASS_INDEX: dict[MoneyClass, int] = {name: index for index, name in enumerate(CLASS_ORDER)}


def sample_classes(utilization: Float64, mem_used_mb: Float64, params: LedgerParams) -> Int64:
    """Class index of each sample, NaN meaning unknown. Shapes (n,), (n,) -> (n,).

    Busy: `unmetered_work`. Not busy, or utilisation unknown (MIG): memory held is `warm_idle`, not held `cold_idle`.
    Neither known: `unobserved`, because a guess between warm and cold would be a made-up number.
    """
    found = np.full(len(utilization), CLASS_INDEX[MoneyClass.UNOBSERVED], dtype=np.int64)
    known = ~np.isnan(mem_used_mb)
    held = known & (np.nan_to_num(mem_used_mb) >= params.model_loaded_mb)
    found[held] = CLASS_INDEX[MoneyClass.WARM_IDLE]
    found[known & ~held] = CLASS_INDEX[MoneyClass.COLD_IDLE]
    found[np.nan_to_num(utilization) > params.busy_utilization] = CLASS_INDEX[MoneyClass.UNMETERED_WORK]
    return found


def class_at(at_us: Int64, sample_us: Int64, classes: Int64, gap_us: int) -> Int64:
    """Class index at each instant. sample_us ascending; of equal times the last one speaks. Shape as `at_us`."""
    unobserved = CLASS_INDEX[MoneyClass.UNOBSERVED]
    if not len(sample_us):
        return np.full(len(at_us), unobserved, dtype=np.int64)
    last = np.searchsorted(sample_us, at_us, side="right") - 1
    heard = (last >= 0) & (at_us < sample_us[np.maximum(last, 0)] + gap_us)
    return np.where(heard, classes[np.maximum(last, 0)], unobserved)
