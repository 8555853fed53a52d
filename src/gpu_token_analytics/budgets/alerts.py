"""What a budget's state has to tell, and in which words: a threshold that is passed, a forecast
over the limit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gpu_token_analytics.budgets.standing import Standing
from gpu_token_analytics.budgets.terms import Budget
from gpu_token_analytics.foreign_text import visible
from gpu_token_analytics.rollups.spans import zone
from gpu_token_analytics.sentences import Sentence, in_usd, sentence

SPENT, FORECAST = "spent", "forecast"
Json = dict[str, Any]


@dataclass(frozen=True)
class Alert:
    """One thing to tell of a budget in a period, once."""

    state: Standing
    kind: str  # SPENT or FORECAST
    percent: int  # of the limit

    @property
    def name(self) -> str:
        """The same for everybody who sees it, whenever."""
        budget = self.state.budget
        return (
            f"{budget.name}|{budget.terms}|{self.state.start:%Y-%m-%dT%H:%MZ}|{self.kind}|"
            f"{self.percent}"
        )

    def document(self) -> Json:
        """As it is stored, without when and to whom."""
        budget, made = self.state.budget, self.state.forecast
        return {
            "_id": self.name,
            "budget": budget.name,
            "scope": budget.scope.value,
            "key": budget.key,
            "period": budget.period.value,
            "time_zone": budget.time_zone,
            "start": self.state.start,
            "end": self.state.end,
            "kind": self.kind,
            "percent": self.percent,
            "limit_nusd": budget.limit_nusd,
            "spent_nusd": self.state.spent_nusd,
            "forecast_nusd": None if made is None else made.nusd,
            "forecast_low_nusd": None if made is None else made.low_nusd,
            "forecast_high_nusd": None if made is None else made.high_nusd,
        }


def alerts_of(state: Standing) -> Iterator[Alert]:
    """What there is to tell of a budget now. Unknown money passes no threshold."""
    budget: Budget = state.budget
    if state.spent_nusd is not None:
        for percent in budget.thresholds:
            if state.spent_nusd * 100 >= percent * budget.limit_nusd:
                yield Alert(state, SPENT, percent)
    if (
        budget.forecast_alert
        and state.forecast is not None
        and state.forecast.nusd > budget.limit_nusd
    ):
        yield Alert(state, FORECAST, 100)


def subject(alert: Mapping[str, Any]) -> str:
    """One line, without what others could put into it."""
    told = f"{alert['percent']} % spent" if alert["kind"] == SPENT else "forecast over the limit"
    return f"Budget {alert['budget']}: {told}"


def in_pieces(alert: Mapping[str, Any]) -> Sentence:
    """All of it in one paragraph."""
    whose = "the fleet" if alert["key"] is None else f"{alert['scope']} {visible(alert['key'])}"
    spent_nusd, made_nusd = alert["spent_nusd"], alert["forecast_nusd"]
    pieces = [
        f"{whose} has spent ",
        "an unknown amount" if spent_nusd is None else spent_nusd,
        " of ",
        alert["limit_nusd"],
        f" in the {alert['period']} from {_day(alert, 'start')} to {_day(alert, 'end')} "
        f"({alert['time_zone']}).",
    ]
    if made_nusd is not None:
        low_nusd, high_nusd = alert["forecast_low_nusd"], alert["forecast_high_nusd"]
        pieces += [" At its end it is forecast to be ", made_nusd]
        pieces += [" (80 %: ", low_nusd, " to ", high_nusd, ")."]
    return sentence(*pieces)


def paragraph(alert: Mapping[str, Any]) -> str:
    """The same for receivers, who are told in USD."""
    return in_usd(in_pieces(alert))


def plain(alert: Mapping[str, Any]) -> Json:
    """As a webhook gets it, and /v1 shows it."""
    moments = {name: _timestamp(alert[name]) for name in ("start", "end", "raised_at")}
    same = (
        "budget",
        "scope",
        "key",
        "period",
        "time_zone",
        "kind",
        "percent",
        "limit_nusd",
        "spent_nusd",
    )
    forecasts = ("forecast_nusd", "forecast_low_nusd", "forecast_high_nusd")
    return {
        "id": alert["_id"],
        **{name: alert[name] for name in (*same, *forecasts)},
        "from": moments["start"],
        "to": moments["end"],
        "raised_at": moments["raised_at"],
        "text": f"{subject(alert)}. {paragraph(alert)}",
    }


def _timestamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _day(alert: Mapping[str, Any], name: str) -> str:
    moment: datetime = alert[name]
    return f"{moment.astimezone(zone(alert['time_zone'])):%Y-%m-%d %H:%M}"
