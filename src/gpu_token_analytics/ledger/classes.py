"""How idle a GPU without a known request was: one class for every instant, by the memory that is
held.

A sample speaks from its time until the next one, at most for the gap limit. What utilisation proves
of unknown work is taken off this idle time (unmetered.py).

Some drivers cannot say how much memory is held (GB10, Thor: it is the machine's). Such a GPU is
observed all the same, and its class is by what is known instead: `warm_idle` where a request of any
model used it within the last `model_kept_us`, or where utilisation says that something ran in this
sample interval; else `cold_idle`. That time is counted as classed without a reading.
"""

from __future__ import annotations

import numpy as np

from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.ledger.money import Float64, Int64, NDArrayBool
from gpu_token_analytics.ledger.params import LedgerParams

NOBODY = -1
CLASS_ORDER: tuple[MoneyClass, ...] = tuple(MoneyClass)
CLASS_NAMES: tuple[str, ...] = tuple(name.value for name in MoneyClass)
CLASS_INDEX: dict[MoneyClass, int] = {name: index for index, name in enumerate(CLASS_ORDER)}


def idle_classes(mem_used_mb: Float64, was_used: NDArrayBool, params: LedgerParams) -> Int64:
    """Class index of instants at which a sample speaks. mem_used_mb: what it says; NaN is unknown.
    was_used: whether requests or utilisation tell of a model, which counts where the memory is
    unknown. Shapes (n,)."""
    held = np.where(np.isnan(mem_used_mb), was_used, mem_used_mb >= params.model_loaded_mb)
    return np.where(held, CLASS_INDEX[MoneyClass.WARM_IDLE], CLASS_INDEX[MoneyClass.COLD_IDLE])


def speaking_at(at_us: Int64, sample_us: Int64, gap_us: int) -> Int64:
    """The sample that speaks at each instant; NOBODY: none does. sample_us ascending; of equal
    times the last one speaks. Shape as `at_us`."""
    if not len(sample_us):
        return np.full(len(at_us), NOBODY, dtype=np.int64)
    last = np.searchsorted(sample_us, at_us, side="right") - 1
    heard = (last >= 0) & (at_us < sample_us[np.maximum(last, 0)] + gap_us)
    return np.where(heard, last, NOBODY)
