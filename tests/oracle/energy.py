"""Energy between samples."""

from __future__ import annotations

from fractions import Fraction

from tests.oracle.numbers import Doc
from tests.oracle.work import OracleParams

MAX_POWER_W = 100_000
COUNTER_RATIO = 30


def energy_of(samples: list[Doc], low: int, high: int, params: OracleParams) -> Fraction | None:
    """Millijoules of [low, high), which lies between two neighbouring samples; None where they
    cannot say."""
    before = [doc for doc in samples if doc["ts_us"] <= low]
    after = [doc for doc in samples if doc["ts_us"] > low]
    if not before or not after:
        return None
    first, last = before[-1], after[0]
    span: int = last["ts_us"] - first["ts_us"]
    if span > params.gap_us:
        return None
    if first["energy_j"] is not None and last["energy_j"] is not None:
        counted = Fraction(last["energy_j"]) - Fraction(first["energy_j"])
        catches_up = (
            len(before) > 1
            and last["ts_us"] - before[-2]["ts_us"] <= params.gap_us
            and _falls_behind(*before[-2:])
        )
        if (
            _counter_counts(counted * 1_000_000 / span, first["power_w"], last["power_w"])
            and not catches_up
        ):
            return counted * 1000 * Fraction(high - low, span)
    if first["power_w"] is None or last["power_w"] is None:
        return None
    begin, end = Fraction(first["power_w"]), Fraction(last["power_w"])

    def watts(at: int) -> Fraction:
        return begin + (end - begin) * Fraction(at - first["ts_us"], span)

    return (watts(low) + watts(high)) / 2 * Fraction(high - low, 1000)


def _falls_behind(first: Doc, last: Doc) -> bool:
    """Whether the counter stands still, or runs backwards, in a pair of samples in which power says
    that energy was drawn."""
    known = [doc["power_w"] for doc in (first, last) if doc["power_w"] is not None]
    counters = [doc["energy_j"] for doc in (first, last) if doc["energy_j"] is not None]
    behind = first["ts_us"] < last["ts_us"] and len(counters) == 2 and counters[0] >= counters[1]
    return behind and len(known) == 2 and max(known) > 0


def _counter_counts(mean_w: Fraction, first_w: float | None, last_w: float | None) -> bool:
    """A counter that stood still, ran backwards, or contradicts both power readings did not
    count."""
    if not 0 < mean_w <= MAX_POWER_W:
        return False
    if first_w is None or last_w is None:
        return True
    low, high = Fraction(min(first_w, last_w)), Fraction(max(first_w, last_w))
    return low <= COUNTER_RATIO * mean_w and (high == 0 or mean_w <= COUNTER_RATIO * high)
