"""Budgets and their alerts as MongoDB holds them.

    budgets         {_id: name, scope, key, period, time_zone, limit_nusd, thresholds,
                     forecast_alert, terms, created_at, changed_at, source}
    budget_alerts   {_id: name|terms|start|kind|percent, budget, ..., deliveries: [{receiver, state,
                     attempts, next_at, error, sent_at}]}

The `_id` of an alert is why it is raised once: whoever inserts it first raised it, others find it
there. Each of its deliveries is claimed by moving `next_at` ahead, past the longest time that
sending takes: two processes never send it at once, and what a process took with it when it died is
due again after that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo import DESCENDING, ReturnDocument, WriteConcern
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from gpu_token_analytics.budgets.terms import MAX_BUDGETS, Budget
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.errors import mapped
from gpu_token_analytics.wire.identity import new_event_id

Document = dict[str, Any]

CLAIM = timedelta(seconds=120)
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(hours=1)
MOST_ATTEMPTS = 12  # in five hours
ALERTS_KEPT = timedelta(days=400)
_SAME_MONEY = ("scope", "key", "period", "time_zone", "limit_nusd")


class TooManyBudgets(Exception):
    """There are MAX_BUDGETS already."""


class BudgetStore:
    """Budgets, and alerts with their deliveries. Raises StoreError."""

    def __init__(self, database: Database[Document], timeout_ms: int = 10_000) -> None:
        majority = WriteConcern("majority")
        self._budgets = database.get_collection(Collection.BUDGETS.value, write_concern=majority)
        self._alerts = database.get_collection(
            Collection.BUDGET_ALERTS.value, write_concern=majority
        )
        self._timeout_ms = timeout_ms

    @mapped
    def budgets(self) -> list[Budget]:
        """All of them, by name."""
        return [
            Budget.of(row)
            for row in self._budgets.find({}, max_time_ms=self._timeout_ms).sort("_id", 1)
        ]

    @mapped
    def put(self, name: str, fields: Document, now: datetime, source: str) -> Budget:
        """Set a budget, or replace one; its alerts begin anew where its money is another. Raises
        TooManyBudgets."""
        known = self._budgets.find_one({"_id": name}, {"_id": 1}) is not None
        if not known and self._budgets.count_documents({}, limit=MAX_BUDGETS) >= MAX_BUDGETS:
            raise TooManyBudgets
        same = {
            "$and": [{"$eq": [f"${field}", {"$literal": fields[field]}]} for field in _SAME_MONEY]
        }
        row = self._budgets.find_one_and_update(
            {"_id": name},
            [
                {
                    "$set": {
                        **{field: {"$literal": value} for field, value in fields.items()},
                        "terms": {"$cond": [same, "$terms", new_event_id()]},
                        "created_at": {"$ifNull": ["$created_at", now]},
                        "changed_at": now,
                        "source": {"$literal": source},
                    }
                }
            ],
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        assert row is not None
        return Budget.of(row)

    @mapped
    def remove(self, name: str) -> Budget | None:
        """Take a budget away; its alerts stay. None: there is none of that name."""
        row = self._budgets.find_one_and_delete({"_id": name})
        return None if row is None else Budget.of(row)

    @mapped
    def raise_alert(self, alert: Document, receivers: Sequence[str], now: datetime) -> bool:
        """Write an alert (alerts.py) down, to be sent to these receivers. False: it was raised
        before, by whomever."""
        waiting = {
            "state": "waiting",
            "attempts": 0,
            "next_at": now,
            "error": None,
            "sent_at": None,
        }
        document = {
            **alert,
            "raised_at": now,
            "deliveries": [{"receiver": name, **waiting} for name in receivers],
        }
        try:
            self._alerts.insert_one(document)
        except DuplicateKeyError:
            return False
        return True

    @mapped
    def claim(self, receiver: str, now: datetime) -> Document | None:
        """One alert that is due for this receiver, taken for CLAIM; None: there is none."""
        due = {"receiver": receiver, "state": "waiting", "next_at": {"$lte": now}}
        taken = {
            "$set": {"deliveries.$.next_at": now + CLAIM},
            "$inc": {"deliveries.$.attempts": 1},
        }
        return self._alerts.find_one_and_update(
            {"deliveries": {"$elemMatch": due}},
            taken,
            sort=[("raised_at", 1)],
            return_document=ReturnDocument.AFTER,
        )

    @mapped
    def sent(self, alert: Document, receiver: str, now: datetime) -> None:
        """A receiver took it."""
        self._settle(
            alert, {"receiver": receiver}, {"state": "sent", "sent_at": now, "error": None}
        )

    @mapped
    def failed(self, alert: Document, receiver: str, error: str, now: datetime) -> bool:
        """A receiver did not take it: later again, up to MOST_ATTEMPTS. True: it is given up."""
        attempts: int = next(
            item["attempts"] for item in alert["deliveries"] if item["receiver"] == receiver
        )
        given_up = attempts >= MOST_ATTEMPTS
        state = "failed" if given_up else "waiting"
        # Where the claim ran out meanwhile, the attempt of whoever took it then counts.
        mine = {"receiver": receiver, "attempts": attempts, "state": "waiting"}
        self._settle(
            alert, mine, {"state": state, "error": error, "next_at": now + wait_after(attempts)}
        )
        return given_up

    def _settle(self, alert: Document, delivery: Document, fields: Document) -> None:
        changes = {f"deliveries.$.{name}": value for name, value in fields.items()}
        self._alerts.update_one(
            {"_id": alert["_id"], "deliveries": {"$elemMatch": delivery}}, {"$set": changes}
        )

    @mapped
    def alerts(self, limit: int, budget: str | None = None) -> list[Document]:
        """The newest, of one budget or of all."""
        where = {} if budget is None else {"budget": budget}
        names = ("raised_at", "percent", "_id")  # of one look: the highest threshold first
        order = [(name, DESCENDING) for name in names]
        return list(self._alerts.find(where, max_time_ms=self._timeout_ms).sort(order).limit(limit))

    @mapped
    def undelivered(self) -> dict[str, int]:
        """Deliveries that wait, and those that were given up."""
        counts = {"waiting": 0, "failed": 0}
        stages: list[Document] = [
            {"$match": {"deliveries.state": {"$in": list(counts)}}},
            {"$unwind": "$deliveries"},
            {"$group": {"_id": "$deliveries.state", "count": {"$sum": 1}}},
        ]
        for row in self._alerts.aggregate(stages, maxTimeMS=self._timeout_ms):
            if row["_id"] in counts:
                counts[row["_id"]] = int(row["count"])
        return counts

    @mapped
    def forget_old(self, now: datetime) -> int:
        """Remove alerts of ALERTS_KEPT ago. Returns how many."""
        return self._alerts.delete_many({"raised_at": {"$lt": now - ALERTS_KEPT}}).deleted_count


def wait_after(attempts: int) -> timedelta:
    """How long after this many attempts the next one is due: twice as long each time, within
    bounds."""
    doubled: timedelta = FIRST_WAIT * 2 ** min(attempts - 1, 20)
    return min(LONGEST_WAIT, doubled)
