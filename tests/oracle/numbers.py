"""Rounding and parting, in whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
TINY = 10**45  # parts of a unit in which shares are summed
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Doc = Mapping[str, Any]


def round_half_up(value: Fraction) -> int:
    """The nearest integer, a half upwards."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def split(total: int, weights: Sequence[Fraction | int]) -> list[int]:
    """Largest remainder (Hamilton): `total` in proportion to weights, equal remainders to the
    earlier one."""
    whole = Fraction(sum(weights))
    if whole == 0:
        return [total] + [0] * (len(weights) - 1) if weights else []
    quotas = [Fraction(weight) * total / whole for weight in weights]
    parts = [quota.numerator // quota.denominator for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: (parts[i] - quotas[i], i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


def as_nusd(usd: object) -> int:
    return round(Fraction(str(usd)) * 10**9)


def as_us(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def tiny(value: Fraction) -> int:
    return value.numerator * TINY // value.denominator
