"""Budgets of the fake fleet: in bounds, over by the forecast, spent, with little history, of
unknown money."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import fields

from gpu_token_analytics.budgets.answers import BudgetTerms
from gpu_token_analytics.budgets.entries import NewBudget
from gpu_token_analytics.sentences import Sentence, in_usd

Json = dict[str, Any]


class FakeBudgets:
    """State of /v1/budgets."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        self.end = (self.start + timedelta(days=31)).replace(day=1)
        usd = 10**9
        few, lost = (
            "there are fewer than three days of its spending",
            "all of it ran on GPUs that nobody sampled or declared",
        )
        self.rows: list[Json] = [
            self._row(
                "everything",
                "fleet",
                None,
                20_000 * usd,
                8_244_120_000_123,
                (17_900, 17_200, 18_650),
            ),
            self._row(
                "search-month", "tenant", "search", 500 * usd, 412_200_000_001, (631, 588, 674)
            ),
            self._row(
                "chat-month",
                "tenant",
                "chat-frontend-of-the-web-shop",
                300 * usd,
                303_000_000_000,
                (390, 371, 402),
            ),
            self._row(
                "llama-spend", "model", "llama-3-70b", 1_000 * usd, 12_000_000_000, None, why=few
            ),
            self._row("lost", "tenant", "lost", 10 * usd, None, None, why=lost),
        ]

    def told(self) -> list[Json]:
        """GET /v1/budgets/alerts: sent, waiting and given up."""
        sent = {
            "receiver": "mail",
            "state": "sent",
            "attempts": 1,
            "next_at": None,
            "sent_at": self.now,
            "error": None,
        }
        again = {
            "next_at": self.now + timedelta(minutes=4),
            "sent_at": None,
            "error": "answered 503 Service Unavailable",
        }
        waiting = {"receiver": "webhook", "state": "waiting", "attempts": 3, **again}
        failed = {**waiting, "state": "failed", "attempts": 12, "next_at": None}
        alerts = [
            self._alert("chat-month", "spent", 100, [sent, waiting]),
            self._alert("chat-month", "spent", 80, [sent, failed]),
            self._alert("search-month", "forecast", 100, [sent]),
            self._alert("search-month", "spent", 80, []),
        ]
        return [alert for alert in alerts if alert["budget"] in self._names()]

    def put(self, new: NewBudget) -> Json:
        """POST /v1/budgets."""
        self.remove(new.name)
        row = self._row(
            new.name,
            new.scope,
            new.key,
            int(new.limit_usd * 10**9),
            0,
            None,
            why="there is little of it",
        )
        row |= {
            "thresholds": new.thresholds,
            "forecast_alert": new.forecast_alert,
            "period": new.period,
        }
        self.rows.append(row)
        return _terms(row)

    def remove(self, name: str) -> Json | None:
        """POST /v1/budgets/remove."""
        gone = next((row for row in self.rows if row["name"] == name), None)
        self.rows = [row for row in self.rows if row["name"] != name]
        return None if gone is None else _terms(gone)

    def _names(self) -> set[str]:
        return {row["name"] for row in self.rows}

    def _row(
        self,
        name: str,
        scope: str,
        key: str | None,
        limit: int,
        spent: int | None,
        forecast: tuple[int, int, int] | None,
        why: str | None = None,
    ) -> Json:
        made = None
        if forecast is not None:
            made = dict(
                zip(
                    ("nusd", "low_nusd", "high_nusd"),
                    (usd * 10**9 for usd in forecast),
                    strict=True,
                )
            ) | {"days": 28}
        return {
            "name": name,
            "scope": scope,
            "key": key,
            "period": "month",
            "time_zone": "UTC",
            "limit_nusd": limit,
            "thresholds": [50, 80, 100],
            "forecast_alert": True,
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
            "changed_at": datetime(2026, 1, 1, tzinfo=UTC),
            "source": "api",
            "from": self.start,
            "to": self.end,
            "spent_nusd": spent,
            "used_share": None if spent is None else spent / limit,
            "unknown_gpu_tokens": 812 if spent is None else 0,
            "forecast": made,
            "no_forecast": why,
        }

    def _alert(self, name: str, kind: str, percent: int, deliveries: list[Json]) -> Json:
        row = next(
            (row for row in self.rows if row["name"] == name), self.rows[0] if self.rows else {}
        )
        same = ("scope", "key", "period", "time_zone", "from", "to", "limit_nusd", "spent_nusd")
        told: Sentence = [f"tenant {row.get('key')} has spent ", 412_200_000_001, " in the month."]
        said = f"{percent} % spent" if kind == "spent" else "forecast over the limit"
        return {
            "id": f"{name}|{kind}|{percent}",
            "budget": name,
            **{field: row.get(field) for field in same},
            "kind": kind,
            "percent": percent,
            **dict.fromkeys(("forecast_nusd", "forecast_low_nusd", "forecast_high_nusd")),
            "raised_at": self.now - timedelta(hours=percent),
            "text": f"Budget {name}: {said}. {in_usd(told)}",
            "sentence": told,
            "deliveries": deliveries,
        }


def _terms(row: Json) -> Json:
    return {field.name: row[field.name] for field in fields(BudgetTerms)}
