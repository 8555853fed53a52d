"""What a GPU does that no known request explains: memory, utilisation, partition."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tests.oracle.numbers import Doc, round_half_up
from tests.oracle.work import OracleParams, Work, active_us


@dataclass(frozen=True)
class OracleCard:
    """MIG: parts of `denominator` that the slice has, or that the card's slices have together with
    each other."""

    denominator: int = 7
    slice_parts: int | None = None
    child_parts: tuple[int, ...] = ()


def idle_class(
    work: list[Work], samples: list[Doc], at: int, params: OracleParams, card: OracleCard | None
) -> str:
    """What the last sample says of the memory, if it is not older than the gap limit. Where that is
    not known: whether a request was there within the last hour, or something ran in this sample
    interval."""
    if is_partitioned(card):
        return "cold_idle"
    if not is_heard(samples, at, params):
        return "unobserved"
    memory = memory_mb(samples, at)
    if memory is None:
        lately = any(item.start <= at < item.doc["ts_us"] + params.model_kept_us for item in work)
        return (
            "warm_idle" if lately or (_interval(samples, at, params)[2] or 0) > 0 else "cold_idle"
        )
    return "warm_idle" if memory >= params.model_loaded_mb else "cold_idle"


def is_heard(samples: list[Doc], at: int, params: OracleParams) -> bool:
    """Whether a sample speaks."""
    return any(at - params.gap_us < doc["ts_us"] <= at for doc in samples)


def memory_mb(samples: list[Doc], at: int) -> float | None:
    """What the last sample says."""
    held: float | None = [doc for doc in samples if doc["ts_us"] <= at][-1]["mem_used_mb"]
    return held


def is_partitioned(card: OracleCard | None) -> bool:
    return card is not None and bool(card.child_parts)


def unexplained_us(
    work: list[Work], samples: list[Doc], low: int, high: int, params: OracleParams
) -> int:
    """Microseconds of [low, high), when no known request was active, that utilisation proves to be
    work of unknown ones.

    Of the sample interval around it, L long, with k of known requests: max(0, u x L - k), spread
    evenly over the L - k.
    """
    begin, end, used = _interval(samples, low, params)
    if used is None:
        return 0
    known = active_us(work, begin, end)
    unknown = max(0, min(round_half_up(Fraction(used) * (end - begin)), end - begin) - known)

    def upto(at: int) -> int:
        uncovered = at - begin - active_us(work, begin, at)
        return round_half_up(Fraction(unknown * uncovered, max(1, end - begin - known)))

    return upto(high) - upto(low)


def _interval(samples: list[Doc], at: int, params: OracleParams) -> tuple[int, int, float | None]:
    """The sample interval that holds a time, and its utilisation."""
    first = [doc for doc in samples if doc["ts_us"] <= at][-1]
    begin = first["ts_us"]
    end, used = begin + params.gap_us, first["utilization"]
    later = [doc["ts_us"] for doc in samples if doc["ts_us"] > at]
    if later and later[0] <= end:
        end = later[0]
        # it looks back on what it ends
        used = [doc for doc in samples if doc["ts_us"] == end][-1]["utilization"]
    return begin, end, used
