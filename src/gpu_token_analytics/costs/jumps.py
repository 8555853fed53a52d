"""Hints of what jumped on the last whole UTC day against the 7 days before: the price of a GPU
type, the coverage of a host, money of a model or tenant. And what all hints share: the thresholds,
and how a hint is made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlencode

from gpu_token_analytics.costs.answers.base import timestamp
from gpu_token_analytics.costs.answers.hints import Hint
from gpu_token_analytics.costs.query import Row
from gpu_token_analytics.documents import NUSD_PER_USD
from gpu_token_analytics.rollups.spans import DAY
from gpu_token_analytics.sentences import Sentence, in_usd, sentence

US_PER_HOUR = 3_600_000_000
DAYS_BEFORE = 7


class Thresholds(NamedTuple):
    """What decides. Shares are of money."""

    unused: float = 0.01
    little_used: float = 0.25
    together: float = 0.60
    unseen: float = 0.10
    owned_hours: float = 24
    quiet: float = 0.05
    busy: float = 0.20
    quiet_hours: float = 4
    price: float = 0.20
    coverage: float = 0.10
    spend: float = 0.50
    spend_usd: float = 1.0


SAYS = {
    "unused": "give_back: at most this share of a GPU's money of the week is used.",
    "little_used": "put_together: each GPU uses at most this share of its money of the week.",
    "together": (
        "put_together: GPUs of one type and host that use at most this share of one together."
    ),
    "unseen": "give_back, put_together: at most this share of the money of the week is unobserved.",
    "owned_hours": (
        "give_back, put_together: the GPU was owned for at least so many hours of the week."
    ),
    "quiet": (
        "scale_down: an hour of the day is quiet where at most this share of the money of the week "
        "is used."
    ),
    "busy": "scale_down: another hour of the day uses at least this share.",
    "quiet_hours": "scale_down: at least so many quiet hours in a row.",
    "price": (
        "price_jump: the price per GPU-hour of the last whole UTC day differs by this share from "
        "the 7 days before."
    ),
    "coverage": (
        "coverage_drop: the observed share of GPU time of the last whole UTC day fell by this from "
        "the 7 days before."
    ),
    "spend": (
        "spend_jump: attributed money of the last whole UTC day is above the mean of the 7 days "
        "before by this share."
    ),
    "spend_usd": "spend_jump: and by at least so many USD.",
}
THRESHOLDS = Thresholds()


def jumps(rows_of: Callable[[str], Iterable[Row]], midnight: datetime) -> list[Hint]:
    """What jumped on the UTC day that ended at `midnight`. rows_of: the rows by a
    dimension, day by day, from `since(midnight)` to `midnight`."""
    judges = {"gpu_name": _price, "host": _coverage, "model": _spend, "tenant": _spend}
    given: list[Hint] = []
    for group, judge in judges.items():
        days: dict[str, dict[datetime, Row]] = defaultdict(dict)
        for row in rows_of(group):
            if row.key[0] is not None:
                days[row.key[0]][row.start] = row
        for name, by_day in sorted(days.items()):
            last = by_day.pop(midnight - DAY, None)
            hint = (
                None
                if last is None or not by_day
                else judge(_Of(group, name, midnight), last, list(by_day.values()))
            )
            if hint is not None:
                given.append(hint)
    return given


def since(midnight: datetime) -> datetime:
    """The first of the days that are looked at."""
    return midnight - (DAYS_BEFORE + 1) * DAY


class _Of(NamedTuple):
    group: str
    name: str
    midnight: datetime

    @property
    def day(self) -> str:
        return f"{self.midnight - DAY:%Y-%m-%d}"

    @property
    def rows(self) -> str:
        asked = {
            "from": timestamp(since(self.midnight)),
            "to": timestamp(self.midnight),
            "bucket": "1d",
            "group_by": self.group,
        }
        return f"/v1/costs?{urlencode(asked | {self.group: self.name})}"


def _spend(of: _Of, last: Row, earlier: Sequence[Row]) -> Hint | None:
    nusd = last["cost_nusd"]
    now = nusd / NUSD_PER_USD
    before_nusd = sum(row["cost_nusd"] for row in earlier) / DAYS_BEFORE
    before = before_nusd / NUSD_PER_USD
    if now - before < max(THRESHOLDS.spend * before, THRESHOLDS.spend_usd):
        return None
    said = sentence(
        f"{of.group} {of.name} cost ",
        nusd,
        f" on {of.day}, ",
        round(before_nusd),
        " a day in the 7 days before.",
    )
    models = [of.name] if of.group == "model" else []
    return hint_of(
        "spend_jump",
        said,
        of.name,
        [],
        models,
        week_nusd=nusd,
        value=now,
        before=before,
        cells=of.rows,
    )


def _price(of: _Of, last: Row, earlier: Sequence[Row]) -> Hint | None:
    now, before = _usd_per_hour([last]), _usd_per_hour(earlier)
    if (
        now is None
        or before is None
        or now == before
        or abs(now - before) < THRESHOLDS.price * before
    ):
        return None
    said = sentence(
        f"A GPU-hour of {of.name} cost ",
        round(now * NUSD_PER_USD),
        f" on {of.day}, ",
        round(before * NUSD_PER_USD),
        " in the 7 days before: is a price row missing or wrong?",
    )
    return hint_of(
        "price_jump",
        said,
        of.name,
        [],
        [],
        week_nusd=last.money_nusd,
        value=now,
        before=before,
        cells=of.rows,
    )


def _coverage(of: _Of, last: Row, earlier: Sequence[Row]) -> Hint | None:
    now, before = _observed([last]), _observed(earlier)
    if now is None or before is None or before - now < THRESHOLDS.coverage:
        return None
    said = sentence(
        f"Coverage of {of.name} fell to {percent(now)} on {of.day} from {percent(before)} in the 7 "
        "days before: "
        "is its agent running?"
    )
    nusd = last["unobserved_nusd"]
    return hint_of(
        "coverage_drop",
        said,
        of.name,
        [],
        [],
        week_nusd=nusd,
        value=now,
        before=before,
        cells=of.rows,
    )


def _usd_per_hour(rows: Sequence[Row]) -> float | None:
    gpu_us = sum(row["gpu_us"] for row in rows)
    return (
        sum(row.money_nusd for row in rows) / NUSD_PER_USD / (gpu_us / US_PER_HOUR)
        if gpu_us
        else None
    )


def _observed(rows: Sequence[Row]) -> float | None:
    gpu_us = sum(row["gpu_us"] for row in rows)
    return 1 - sum(row["unobserved_us"] for row in rows) / gpu_us if gpu_us else None


def hint_of(
    kind: str,
    said: Sentence,
    subject: str,
    gpus: list[str],
    models: list[str],
    *,
    cells: str,
    week_nusd: int,
    value: float,
    hours: Sequence[int] = (),
    month_nusd: int | None = None,
    before: float | None = None,
) -> Hint:
    """A hint; what is left out does not apply to its kind."""
    return Hint(
        kind,
        in_usd(said),
        said,
        subject,
        gpus,
        models,
        list(hours),
        week_nusd,
        month_nusd,
        value,
        before,
        cells,
    )


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.1f} %"
