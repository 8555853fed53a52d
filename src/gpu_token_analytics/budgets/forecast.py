"""What a period will have cost at its end: what is spent, and a rest like that of the last days.

The last n days are blocks of 24 hours that end now. The rest of the period is q whole days and a
part-day of p hours. With D_j the money of block j and P_j that of its first p hours (the same hours
of the clock as the part-day):

    rest      = q mean(D) + mean(P)
    variance  = q s2(D) + s2(P) + s2(qD + P) / n     the scatter of the days to come, and of the
              mean they are judged by
    low, high = rest -/+ t(n-1) sqrt(variance)       80 %: in eight of ten periods the truth lies
    between, if days scatter alike

n is 28, or 21, 14 or 7 where there is less history (each weekday counts alike), or 6 to 3. Fewer
than three days: no forecast. History begins with the first hour that cost something. Formula: the
prediction interval of a sum of future observations (e.g. Hahn and Meeker, "Statistical Intervals",
chapter 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import dropwhile
from math import floor, sqrt
from statistics import variance

FEWEST_DAYS, MOST_DAYS, HOURS = 3, 28, 24
# Student's t that a share of 0.9 lies below, of n - 1 degrees of freedom, by n.
_T = {3: 1.886, 4: 1.638, 5: 1.533, 6: 1.476, 7: 1.440, 14: 1.350, 21: 1.325, 28: 1.314}


@dataclass(frozen=True)
class Forecast:
    """The money of the whole period in nano-USD, with what is spent; `days` of history it rests
    on."""

    nusd: int
    low_nusd: int
    high_nusd: int
    days: int


def forecast(
    hours_nusd: Sequence[int], spent_nusd: int, rest_hours: Fraction, season: int = HOURS
) -> Forecast | None:
    """hours_nusd: money by hour up to the moment that `spent_nusd` speaks of, oldest first;
    rest_hours: from then to the end of the period. season: hours of a day. None: there is less than
    three days of history."""
    history = list(dropwhile(lambda nusd: nusd == 0, hours_nusd))
    days = _usable_days(len(history) // season)
    if rest_hours <= 0:
        return Forecast(spent_nusd, spent_nusd, spent_nusd, days)
    if not days:
        return None
    blocks = [
        history[at : at + season]
        for at in range(len(history) - days * season, len(history), season)
    ]
    whole_days, part = divmod(rest_hours, season)
    of_day = [sum(block) for block in blocks]
    of_part = [_first_hours(block, part) for block in blocks]
    of_rest = [whole_days * day + start for day, start in zip(of_day, of_part, strict=True)]
    rest_nusd = round(sum(of_rest) / days)
    spread = whole_days * _variance(of_day) + _variance(of_part) + _variance(of_rest) / days
    margin_nusd = round(_T[days] * sqrt(spread))
    # What is spent stays spent, however uncertain the rest is.
    low_nusd = spent_nusd + max(0, rest_nusd - margin_nusd)
    return Forecast(spent_nusd + rest_nusd, low_nusd, spent_nusd + rest_nusd + margin_nusd, days)


def _usable_days(days: int) -> int:
    days = min(days, MOST_DAYS)
    if days >= 7:
        return days - days % 7
    return days if days >= FEWEST_DAYS else 0


def _first_hours(block: Sequence[int], hours: Fraction) -> Fraction:
    whole = floor(hours)
    part = hours - whole
    return sum(block[:whole]) + (part * block[whole] if part else Fraction(0))


def _variance(values: Sequence[int] | Sequence[Fraction]) -> float:
    return float(variance([Fraction(value) for value in values]))
