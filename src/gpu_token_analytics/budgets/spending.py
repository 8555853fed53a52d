"""How budgets stand: what is spent in the period, and what it will come to. Sums of `costs`, to the
nano-dollar.

Whole hours are read, this one included, so each figure comes from few sums. Money of a tenant, a
team or a model is what is attributed to its usage; money of the fleet is all of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import reduce
from typing import TypeAlias

from gpu_token_analytics.books.teams import TeamBook
from gpu_token_analytics.budgets.forecast import MOST_DAYS, Forecast, forecast
from gpu_token_analytics.budgets.standing import Standing
from gpu_token_analytics.budgets.terms import Budget, BudgetScope
from gpu_token_analytics.costs.query import NO_ROWS, CostQuery, Known, Row
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.rollups.spans import HOUR, Step, ceil, floor

HISTORY = timedelta(days=MOST_DAYS)
HISTORY_GOOD_FOR_SECONDS = 300.0  # a month of hours is read for it

Key: TypeAlias = str | None
NO_HISTORY = "there are fewer than three days of its spending"
UNKNOWN_MONEY = "all of it ran on GPUs that nobody sampled or declared"
OVER = "the period is over"


@dataclass(frozen=True)
class _Sum:
    nusd: int = 0
    unknown_tokens: int = 0
    known: Known = NO_ROWS

    def plus(self, other: _Sum) -> _Sum:
        """Both."""
        return _Sum(
            self.nusd + other.nusd,
            self.unknown_tokens + other.unknown_tokens,
            self.known.plus(other.known),
        )


class Spending:
    """Reads how budgets stand. Safe for all threads. Raises the database's errors."""

    def __init__(
        self,
        costs: CostReads,
        teams: Callable[[], TeamBook] = lambda: TeamBook(()),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """teams: which tenants belong to which team, now."""
        self._costs, self._teams, self._clock = costs, teams, clock
        self._lock = threading.Lock()
        self._history: dict[
            tuple[BudgetScope, frozenset[Key], datetime], tuple[float, Mapping[Key, Sequence[int]]]
        ] = {}

    def states(self, budgets: Sequence[Budget], now: datetime) -> list[Standing]:
        """Each budget in its current period."""
        return self._states([(budget, *budget.bounds(now)) for budget in budgets], now)

    def ended(self, budgets: Sequence[Budget], now: datetime, within: timedelta) -> list[Standing]:
        """Budgets in their last period, as far as it ended within that time: money that came late
        counts, too. What was said of a budget since is about the periods after."""
        over = [(budget, *budget.bounds_before(now)) for budget in budgets]
        return self._states(
            [
                (budget, start, end)
                for budget, start, end in over
                if now - end < within and budget.changed_at < end
            ],
            now,
        )

    def _states(
        self, asked: Sequence[tuple[Budget, datetime, datetime]], now: datetime
    ) -> list[Standing]:
        sums: dict[tuple[BudgetScope, datetime, datetime], dict[Key, tuple[_Sum, _Sum]]] = {}
        keys: dict[tuple[BudgetScope, datetime, datetime], set[Key]] = {}
        for budget, start, end in asked:
            keys.setdefault((budget.scope, start, end), set()).add(budget.key)
        for (scope, start, end), names in keys.items():
            hour = _forecast_from(start, end, now)
            until = max(hour, min(end, ceil(now, HOUR)))
            before = self._sums(scope, names, start, hour, now)
            since = self._sums(scope, names, hour, until, now)
            sums[scope, start, end] = {
                name: (before.get(name, _Sum()), since.get(name, _Sum())) for name in names
            }
        return [
            self._state(
                budget,
                start,
                end,
                *sums[budget.scope, start, end][budget.key],
                asked=asked,
                now=now,
            )
            for budget, start, end in asked
        ]

    def _state(
        self,
        budget: Budget,
        start: datetime,
        end: datetime,
        before: _Sum,
        since: _Sum,
        *,
        asked: Sequence[tuple[Budget, datetime, datetime]],
        now: datetime,
    ) -> Standing:
        whole = before.plus(since)
        spent_nusd = None if whole.known.is_unpriced else whole.nusd
        hour = _forecast_from(start, end, now)
        made: Forecast | None = None
        why: str | None = None
        if spent_nusd is None:
            why = UNKNOWN_MONEY
        elif hour >= end:
            why = OVER
        else:
            names = frozenset(item.key for item, _, _ in asked if item.scope is budget.scope)
            history = self._hours(budget.scope, names, floor(hour, HOUR), now).get(budget.key, ())
            rest = Fraction(int((end - hour).total_seconds()), 3600)
            made = forecast(history, before.nusd, rest)
            if made is None:
                why = NO_HISTORY
            elif made.nusd < spent_nusd:  # this hour alone cost more than was expected of the rest
                made = Forecast(spent_nusd, spent_nusd, max(made.high_nusd, spent_nusd), made.days)
        return Standing(budget, start, end, spent_nusd, whole.unknown_tokens, made, why)

    def _sums(
        self,
        scope: BudgetScope,
        names: Iterable[Key],
        start: datetime,
        end: datetime,
        now: datetime,
    ) -> dict[Key, _Sum]:
        if start >= end:
            return {}
        if scope is BudgetScope.TEAM:
            return {name: self._of_team(name, start, end, now) for name in names}
        sums: dict[Key, _Sum] = {}
        for row in self._costs.rows(_query(scope, names, start, end, Step.NONE), now):
            name = row.key[0] if row.key else None
            sums[name] = sums.get(name, _Sum()).plus(_sum(scope, row))
        return sums

    def _hours(
        self, scope: BudgetScope, names: frozenset[Key], until: datetime, now: datetime
    ) -> Mapping[Key, Sequence[int]]:
        """Money by hour, of each name, in the days before `until`; as of at most
        HISTORY_GOOD_FOR_SECONDS ago."""
        with self._lock:
            at, kept = self._history.get((scope, names, until), (0.0, None))
            if kept is not None and self._clock() - at <= HISTORY_GOOD_FOR_SECONDS:
                return kept
        start = until - HISTORY
        hours: dict[Key, list[int]] = {}
        for name, row in self._rows_by_hour(scope, names, start, until, now):
            series = hours.setdefault(name, [0] * (HISTORY // HOUR))
            series[(row.start - start) // HOUR] += _sum(scope, row).nusd
        with self._lock:
            others = {
                asked: held
                for asked, held in self._history.items()
                if self._clock() - held[0] <= HISTORY_GOOD_FOR_SECONDS
            }
            self._history = {**others, (scope, names, until): (self._clock(), hours)}
        return hours

    def _rows_by_hour(
        self,
        scope: BudgetScope,
        names: frozenset[Key],
        start: datetime,
        end: datetime,
        now: datetime,
    ) -> Iterator[tuple[Key, Row]]:
        """Each with the name it belongs to."""
        if scope is not BudgetScope.TEAM:
            for row in self._costs.rows(_query(scope, names, start, end, Step.HOUR), now):
                yield row.key[0] if row.key else None, row
            return
        book = self._teams()
        for low, high in book.pieces(start, end):
            teams = {
                tenant: team
                for team in names
                if team is not None
                for tenant in book.members(team, low)
            }
            if teams:
                for row in self._costs.rows(
                    _query(BudgetScope.TENANT, teams, low, high, Step.HOUR), now
                ):
                    yield teams[str(row.key[0])], row

    def _of_team(self, name: Key, start: datetime, end: datetime, now: datetime) -> _Sum:
        """What its tenants used in [start, end), each while it belonged to it."""
        book, whole = self._teams(), _Sum()
        for low, high in book.pieces(start, end):
            members = book.members(str(name), low)
            if members:
                whole = reduce(
                    _Sum.plus,
                    self._sums(BudgetScope.TENANT, members, low, high, now).values(),
                    whole,
                )
        return whole


def _forecast_from(start: datetime, end: datetime, now: datetime) -> datetime:
    """The moment that the rest is counted from: this hour is not over, so it is part of the
    rest."""
    return min(end, max(start, floor(now, HOUR)))


def _query(
    scope: BudgetScope, names: Iterable[Key], start: datetime, end: datetime, step: Step
) -> CostQuery:
    chosen = frozenset(name for name in names if name is not None)
    if scope is BudgetScope.TENANT:
        return CostQuery(start, end, step, group_by=("tenant",), tenants=chosen)
    if scope is BudgetScope.MODEL:
        return CostQuery(start, end, step, group_by=("model",), models=chosen)
    return CostQuery(start, end, step)


def _sum(scope: BudgetScope, row: Row) -> _Sum:
    money = row.money_nusd if scope is BudgetScope.FLEET else row["cost_nusd"]
    return _Sum(int(money), int(row["unknown_gpu_tokens"]), row.known)
