"""Looks at every budget again and again, raises what there is to tell, and sends it. Any number of
processes may do so."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from gpu_token_analytics.budgets.alerts import alerts_of, subject
from gpu_token_analytics.budgets.receivers import NotDelivered, Receiver
from gpu_token_analytics.budgets.spending import Spending
from gpu_token_analytics.budgets.store import BudgetStore
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.errors import StoreError
from gpu_token_analytics.mongo.errors import store_errors

_log = logging.getLogger(__name__)

LATE_MONEY = timedelta(hours=2)  # so long after its end a period is still looked at
MOST_SENT_AT_ONCE = 100
FORGET_EVERY = timedelta(hours=6)


class BudgetWatch:
    """The loop. counted: called with receiver and result (sent, failed) of each attempt."""

    def __init__(
        self,
        store: BudgetStore,
        spending: Spending,
        receivers: Sequence[Receiver],
        now: Callable[[], datetime],
        counted: Callable[[str, str], None] = lambda _receiver, _result: None,
    ) -> None:
        """now: the database's clock, which all processes share."""
        self._store, self._spending, self._receivers, self._now, self._counted = (
            store,
            spending,
            receivers,
            now,
            counted,
        )
        self._forgot_at: datetime | None = None
        self._failing = False

    def run(self, stop: threading.Event, clock: Clock, every_seconds: float) -> None:
        """Until `stop`. Nothing else ends it, neither a database that does not answer: who serves
        figures goes on."""
        while not stop.is_set():
            try:
                self.look(stop)
            except StoreError as error:
                self._say(error)
            except Exception:  # noqa: BLE001  # the process answers questions besides
                _log.exception(
                    "budgets could not be looked at; the next look is in %g s", every_seconds
                )
            else:
                self._say(None)
            clock.wait(stop, every_seconds)

    def look(self, stop: threading.Event | None = None) -> None:
        """One look: raise, then send what is due. Raises StoreError."""
        with store_errors("look at the budgets"):
            now = self._now()
            budgets = self._store.budgets()
            states = [
                *self._spending.ended(budgets, now, LATE_MONEY),
                *self._spending.states(budgets, now),
            ]
            names = [receiver.name for receiver in self._receivers]
            for alert in (alert for state in states for alert in alerts_of(state)):
                if self._store.raise_alert(alert.document(), names, now):
                    _log.warning("%s", subject(alert.document()))
            if self._forgot_at is None or now - self._forgot_at > FORGET_EVERY:
                self._store.forget_old(now)
                self._forgot_at = now
        for receiver in self._receivers:
            self._send_due(receiver, stop)

    def _send_due(self, receiver: Receiver, stop: threading.Event | None) -> None:
        for _ in range(MOST_SENT_AT_ONCE):
            if stop is not None and stop.is_set():
                return
            alert = self._store.claim(receiver.name, self._now())
            if alert is None:
                return
            try:
                receiver.send(alert)
            except NotDelivered as error:
                given_up = self._store.failed(alert, receiver.name, str(error), self._now())
                self._counted(receiver.name, "failed")
                later = "it is given up" if given_up else "it is sent again later"
                _log.warning(
                    "%s: the %s did not take it, %s: %s",
                    subject(alert),
                    receiver.name,
                    later,
                    error,
                )
            else:
                self._store.sent(alert, receiver.name, self._now())
                self._counted(receiver.name, "sent")

    def _say(self, error: StoreError | None) -> None:
        if error is not None and not self._failing:
            _log.warning("budgets cannot be looked at, alerts wait: %s", error)
        self._failing = error is not None
