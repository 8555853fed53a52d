"""Hints: idle GPUs to give back, GPUs to put together, models to scale down at quiet hours; prices,
coverage, spending that jumped. Computed from the sums of the last 7 and 30 days; every number that
decides is in THRESHOLDS and in the answer.

used = attributed + unmetered work, idle = warm + cold; unobserved money proves nothing, and a GPU
with much of it gets no hint. What is read is bounded: GPU by GPU two sums of whole days, eight days
by type and host, and hour by hour 30 days of at most HOURLY_GPUS GPUs, those with most warm idle
money.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import urlencode

from gpu_token_analytics.costs.answers.base import timestamp
from gpu_token_analytics.costs.answers.hints import Hint, HintsResponse, HintThreshold
from gpu_token_analytics.costs.choices import Bucket
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.jumps import (
    SAYS,
    THRESHOLDS,
    US_PER_HOUR,
    hint_of,
    jumps,
    percent,
    since,
)
from gpu_token_analytics.costs.query import CostQuery, Row
from gpu_token_analytics.costs.questions import check_cost, cost_query
from gpu_token_analytics.rollups.spans import DAY, HOUR, floor
from gpu_token_analytics.sentences import sentence

WEEK, MONTH = timedelta(days=7), timedelta(days=30)
HOURLY_GPUS = 20
MOST_OF_A_KIND = 50


@dataclass
class Use:
    """Money and time of a GPU, or of an hour of the day."""

    used_nusd: int = 0
    idle_nusd: int = 0
    unobserved_nusd: int = 0
    gpu_us: int = 0
    attributed: Counter[str] = field(default_factory=Counter)  # by model

    def add(self, row: Row) -> None:
        """Add a row, whatever model it is of."""
        used_nusd = row["cost_nusd"] + row["unmetered_work_nusd"]
        self.used_nusd += used_nusd
        self.unobserved_nusd += row["unobserved_nusd"]
        self.idle_nusd += row.money_nusd - used_nusd - row["unobserved_nusd"]
        self.gpu_us += row["gpu_us"]

    @property
    def total_nusd(self) -> int:
        """All its money."""
        return self.used_nusd + self.idle_nusd + self.unobserved_nusd

    @property
    def used_share(self) -> float:
        """Of all money; 0 without any."""
        return self.used_nusd / self.total_nusd if self.total_nusd else 0.0

    @property
    def models(self) -> list[str]:
        """Most attributed money first."""
        return sorted(self.attributed, key=lambda model: (-self.attributed[model], model))


class Place(NamedTuple):
    """A GPU and where it is."""

    gpu: str
    host: str | None
    gpu_name: str | None


def hints(desk: Desk, time_zone: str = "UTC") -> HintsResponse:
    """The answer of /v1/hints. Raises Refused where the fleet is too large to be read at once."""
    now = desk.now()
    end = floor(now, HOUR)
    start, month = end - WEEK, end - MONTH
    by_gpu = cost_query(start, end, Bucket.NONE, time_zone, ("gpu", "host", "gpu_name", "model"))
    week = uses(_rows(desk, by_gpu))
    long = uses(_rows(desk, replace(by_gpu, start=month)))
    given = [*give_back(week, long, (start, end)), *put_together(week, long, (start, end))]
    idle = {gpu for hint in given if hint.kind == "give_back" for gpu in hint.gpus}
    warm = sorted(
        (place for place in week if place.gpu not in idle),
        key=lambda place: (-week[place].idle_nusd, place.gpu),
    )
    chosen = {place.gpu: week[place].models[0] for place in warm if week[place].models}
    chosen = dict(list(chosen.items())[:HOURLY_GPUS])
    if chosen:
        hourly = cost_query(month, end, Bucket.HOUR, time_zone, ("gpu",), gpus=sorted(chosen))
        given += scale_down(_rows(desk, hourly), chosen, hourly, start)
    midnight = floor(now, DAY)
    given += jumps(
        lambda group: _rows(
            desk, cost_query(since(midnight), midnight, Bucket.DAY, "UTC", (group,))
        ),
        midnight,
    )
    given.sort(key=lambda hint: (-(hint.week_nusd or 0), hint.kind, hint.subject))
    thresholds = [
        HintThreshold(name, value, SAYS[name]) for name, value in THRESHOLDS._asdict().items()
    ]
    return HintsResponse(
        as_of=now,
        to=end,
        week_from=start,
        month_from=month,
        time_zone=by_gpu.zone.key,
        gpus=len(week),
        gpus_known=sum(map(_known, week.values())),
        hints=given,
        thresholds=thresholds,
    )


def _rows(desk: Desk, query: CostQuery) -> Iterable[Row]:
    check_cost(query, desk.reads.gpu_count())
    return desk.costs.rows(query, desk.now())


def uses(rows: Iterable[Row]) -> dict[Place, Use]:
    """Rows by GPU, host, GPU type and model: what each GPU did."""
    by_gpu: dict[Place, Use] = {}
    for row in rows:
        gpu, host, gpu_name, model = row.key
        use = by_gpu.setdefault(Place(str(gpu), host, gpu_name), Use())
        use.add(row)
        if model is not None and row["cost_nusd"]:
            use.attributed[model] += row["cost_nusd"]
    return {place: use for place, use in by_gpu.items() if use.total_nusd}


def _known(use: Use) -> bool:
    """Whether enough was seen of it to say something."""
    seen = use.unobserved_nusd <= THRESHOLDS.unseen * use.total_nusd
    return seen and use.gpu_us >= THRESHOLDS.owned_hours * US_PER_HOUR


def give_back(
    week: Mapping[Place, Use], month: Mapping[Place, Use], span: tuple[datetime, datetime]
) -> list[Hint]:
    """GPUs that nobody used."""
    unused = [
        place for place, use in week.items() if _known(use) and use.used_share <= THRESHOLDS.unused
    ]
    unused.sort(key=lambda place: (-week[place].idle_nusd, place.gpu))
    return [
        hint_of(
            "give_back",
            sentence(
                f"{_called(place)} was used for {percent(week[place].used_share)} of its money of "
                "7 days: give it back."
            ),
            place.gpu,
            [place.gpu],
            week[place].models,
            week_nusd=week[place].idle_nusd,
            month_nusd=month[place].idle_nusd if place in month else week[place].idle_nusd,
            value=week[place].used_share,
            cells=_cells([place.gpu], span),
        )
        for place in unused[:MOST_OF_A_KIND]
    ]


def put_together(
    week: Mapping[Place, Use], month: Mapping[Place, Use], span: tuple[datetime, datetime]
) -> list[Hint]:
    """GPUs of one type and host whose work fits on one. Whether their memory does is not known
    here."""
    by_model: dict[tuple[str | None, str | None], list[Place]] = defaultdict(list)
    for place, use in week.items():
        if _known(use) and THRESHOLDS.unused < use.used_share <= THRESHOLDS.little_used:
            by_model[place.host, place.gpu_name].append(place)
    given = []
    for (host, gpu_name), places in sorted(
        by_model.items(), key=lambda item: tuple(map(str, item[0]))
    ):
        chosen: list[Place] = []
        for place in sorted(places, key=lambda place: (week[place].used_share, place.gpu)):
            if sum(week[other].used_share for other in (*chosen, place)) > THRESHOLDS.together:
                break
            chosen.append(place)
        if len(chosen) < 2:
            continue
        freed = chosen[:-1]  # the one that is used most stays
        share = sum(week[place].used_share for place in chosen)
        models = sorted({model for place in chosen for model in week[place].models})
        given.append(
            hint_of(
                "put_together",
                sentence(
                    f"{len(chosen)} GPUs ({gpu_name or 'of unknown type'}) of "
                    f"{host or 'an unknown host'} use {percent(share)} of one together: put "
                    f"{', '.join(models) or 'their work'} on one, if it has room; give "
                    f"{len(freed)} back."
                ),
                str(host),
                [place.gpu for place in chosen],
                models,
                week_nusd=sum(week[place].idle_nusd for place in freed),
                month_nusd=sum(month.get(place, week[place]).idle_nusd for place in freed),
                value=share,
                cells=_cells([place.gpu for place in chosen], span),
            )
        )
    return sorted(given, key=lambda hint: -(hint.week_nusd or 0))[:MOST_OF_A_KIND]


def scale_down(
    rows: Iterable[Row], model_of: Mapping[str, str], query: CostQuery, week_from: datetime
) -> list[Hint]:
    """Models whose GPUs are quiet at the same hours of the day. rows: by GPU and hour; model_of:
    the main model of each GPU."""
    week: dict[str, dict[int, Use]] = defaultdict(lambda: defaultdict(Use))
    month: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        model, hour = model_of[str(row.key[0])], row.start.astimezone(query.zone).hour
        use = Use()
        use.add(row)
        month[model][hour] += use.idle_nusd
        if row.start >= week_from:
            week[model][hour].add(row)
    given = []
    for model in sorted(week):
        hours = quiet_hours({hour: use.used_share for hour, use in week[model].items()})
        money = sum(week[model][hour].idle_nusd for hour in hours)
        if not hours or not money:
            continue
        gpus = sorted(gpu for gpu, main in model_of.items() if main == model)
        until = (hours[-1] + 1) % 24
        given.append(
            hint_of(
                "scale_down",
                sentence(
                    f"{model} is quiet from {hours[0]:02d}:00 to {until:02d}:00 "
                    f"({query.zone.key}) on {len(gpus)} GPUs: scale it down at these hours."
                ),
                model,
                gpus,
                [model],
                hours=hours,
                week_nusd=money,
                month_nusd=sum(month[model][hour] for hour in hours),
                value=sum(week[model][hour].used_nusd for hour in hours)
                / sum(week[model][hour].total_nusd for hour in hours),
                cells=_cells(gpus, (week_from, query.end)),
            )
        )
    return given


def quiet_hours(used_share: Mapping[int, float]) -> list[int]:
    """The longest run of quiet hours of the day, also over midnight; of equal ones the earliest.
    Empty: it is short, or no hour is busy."""
    if len(used_share) < 24 or max(used_share.values()) < THRESHOLDS.busy:
        return []
    best: list[int] = []
    for start in range(24):
        run: list[int] = []
        while len(run) < 24 and used_share[(start + len(run)) % 24] <= THRESHOLDS.quiet:
            run.append((start + len(run)) % 24)
        if len(run) > len(best):
            best = run
    return best if len(best) >= THRESHOLDS.quiet_hours else []


def _called(place: Place) -> str:
    return (
        f"{place.gpu} ({place.gpu_name or 'of unknown type'} on {place.host or 'an unknown host'})"
    )


def _cells(gpus: Sequence[str], span: tuple[datetime, datetime]) -> str:
    asked = [
        ("from", timestamp(span[0])),
        ("to", timestamp(span[1])),
        *(("gpu", gpu) for gpu in gpus[:HOURLY_GPUS]),
    ]
    return f"/v1/ledger/cells?{urlencode(asked)}"
