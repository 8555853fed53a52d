"""Budget alerts end to end: real api processes, a real mongod, receivers that count. Each alert is
told once."""

from __future__ import annotations

import json
import shutil
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench.synthetic_cells import Fleet, cells
from tests.conftest import unavailable
from tests.programs import GPU_TOKENS, Child, running, start
from tests.receivers import mail_server, webhook

from gpu_token_analytics.budgets.receivers import NotDelivered
from gpu_token_analytics.budgets.spending import Spending
from gpu_token_analytics.budgets.store import (
    ALERTS_KEPT,
    CLAIM,
    FIRST_WAIT,
    MOST_ATTEMPTS,
    BudgetStore,
)
from gpu_token_analytics.budgets.watch import BudgetWatch
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.errors import EmbeddedServiceError
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.rollups.spans import HOUR, floor
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.settings import load

PATIENCE_SECONDS = 120
ALL = {
    f"{kind}|{percent}"
    for kind, percent in (("spent", 50), ("spent", 80), ("spent", 100), ("forecast", 100))
}


@pytest.fixture
def store(mongo_uri: str, mongo_database: str) -> Iterator[Store]:
    """Four days of one GPU up to this hour, rolled up."""
    settings = load(mongodb_uri=mongo_uri, mongodb_database=mongo_database)
    found = open_store(settings)
    ensure_indexes(found, settings)
    hour = floor(found.now(), HOUR)
    fleet = Fleet(gpus=1, models=1, tenants=1)
    found[Collection.LEDGER_CELLS].insert_many(
        list(cells(fleet, hour - timedelta(days=4), 4 * 1440, now=hour))
    )
    rollups = Rollups(RollupStore(found.database))
    while rollups.step_now():
        pass
    yield found
    found.close()


def put(store: Store, name: str = "all", limit_nusd: int = 1_000_000, **changes: Any) -> None:
    """A budget of which everything is spent in a period that began long enough ago."""
    now = store.now()
    # On a month's first morning nothing was spent in it yet; where it is last month all was.
    young = now.day == 1 and now.hour < 12
    fields: dict[str, Any] = {
        "scope": "fleet",
        "key": None,
        "period": "month",
        "time_zone": "Etc/GMT+12" if young else "UTC",
        "limit_nusd": limit_nusd,
    }
    fields |= {"thresholds": [50, 80, 100], "forecast_alert": True, **changes}
    BudgetStore(store.database).put(name, fields, store.now(), "test")


def alerts(store: Store) -> list[dict[str, Any]]:
    return BudgetStore(store.database).alerts(1000)


def wait_until(true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.1)


class Apis:
    """Real `gpu-tokens api` processes on one database."""

    def __init__(
        self, environment: dict[str, str], folder: Path, keep_log: Callable[[Path], None]
    ) -> None:
        self._environment, self._folder, self._keep_log = environment, folder, keep_log
        self.running: list[Child] = []
        self.logs: list[Path] = []
        self._started = 0

    def start(self, **environment: str) -> Child:
        log = self._folder / f"api-{self._started}.log"
        self._started += 1
        self._keep_log(log)
        self.logs.append(log)
        child = start(
            [*GPU_TOKENS, "api", "--port", "0"], log, {**self._environment, **environment}
        )
        self.running.append(child)
        return child

    def stop(self) -> None:
        for child in self.running:
            if child.poll() is None:
                child.kill()
                child.wait(30)


@pytest.fixture
def apis(
    mongo_uri: str, mongo_database: str, tmp_path: Path, keep_log: Callable[[Path], None]
) -> Iterator[Callable[..., Apis]]:
    made: list[Apis] = []

    def make(**environment: str) -> Apis:
        shared = {
            "MONGODB_URI": mongo_uri,
            "MONGODB_DATABASE": mongo_database,
            "BUDGET_CHECK_SECONDS": "0.2",
        }
        made.append(Apis({**shared, **environment}, tmp_path, keep_log))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_several_processes_killed_and_restarted_tell_each_alert_once_to_each_receiver(
    store: Store, apis: Callable[..., Apis]
) -> None:
    with webhook() as hook, mail_server() as box:
        hook.answers = [503, 500]
        box.refuse = {"MAIL": ["451 later"]}
        mail = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": str(box.port), "SMTP_SECURITY": "none"}
        addresses = {"ALERT_MAIL_TO": "finops@example.com", "ALERT_MAIL_FROM": "costs@example.com"}
        ours = apis(ALERT_WEBHOOK_URL=hook.url, **mail, **addresses)
        for name in ("a", "b", "c"):
            put(store, name)
        for _ in range(3):
            ours.start()
        wait_until(lambda: len(hook.posts) >= 4, "nobody was told")
        # Before it listens a process may not heed SIGTERM yet.
        wait_until(
            lambda: all("listening on" in log.read_text() for log in ours.logs), "not all came up"
        )
        ours.running[0].send_signal(signal.SIGKILL)
        ours.running[1].send_signal(signal.SIGTERM)
        assert ours.running[1].wait(60) == 0, "SIGTERM is a clean stop"
        for _ in range(2):
            ours.start()
        # An alert that the killed process had in hand is due again after CLAIM: this test need not
        # wait for that.
        store[Collection.BUDGET_ALERTS].update_many(
            {"deliveries": {"$elemMatch": {"state": "waiting"}}},
            {"$set": {"deliveries.$[open].next_at": store.now() + timedelta(seconds=5)}},
            array_filters=[{"open.state": "waiting"}],
        )

        def states() -> Counter[str]:
            return Counter(item["state"] for alert in alerts(store) for item in alert["deliveries"])

        wait_until(lambda: states() == {"sent": 24}, f"not all are sent: {states()}")
        time.sleep(3)  # a dozen more looks by each
        taken = Counter(body["id"] for body in hook.taken)
        mails = Counter(str(mail["Message-ID"]) for _, _, mail in box.mails)
    assert len(taken) == 12
    assert len(mails) == 12
    # The killed one may have sent what it could not write down: then it has the same id, and only
    # one of them can be it.
    assert sum(taken.values()) <= 13
    assert sum(mails.values()) <= 13
    assert {(body["budget"], f"{body['kind']}|{body['percent']}") for body in hook.taken} == {
        (name, told) for name in "abc" for told in ALL
    }
    assert len(hook.posts) == len(hook.taken) + 2, "those that failed were sent again"


def test_alertmanager_fires_once_until_the_period_ends(
    store: Store, apis: Callable[..., Apis], tmp_path: Path
) -> None:
    program = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if program is None:
        unavailable(
            EmbeddedServiceError("no Alertmanager: apt-get install prometheus-alertmanager")
        )
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    told = webhook()
    with told as hook:
        configuration = tmp_path / "alertmanager.yml"
        configuration.write_text(
            "route: {receiver: hook, group_by: ['...'], group_wait: 1s, group_interval: 1s}\n"
            f"receivers: [{{name: hook, webhook_configs: [{{url: '{hook.url}'}}]}}]\n"
        )
        options = [
            f"--config.file={configuration}",
            f"--storage.path={tmp_path / 'am'}",
            "--cluster.listen-address=",
        ]
        command = [program, *options, f"--web.listen-address=127.0.0.1:{port}"]
        with running(command, tmp_path / "alertmanager.log"):
            put(store, scope="fleet")
            ours = apis(ALERTMANAGER_URL=url)
            for _ in range(2):
                ours.start()
            wait_until(lambda: len(hook.posts) >= 4, "Alertmanager told nobody")
            with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=10) as answer:
                firing = json.load(answer)
    assert {f"{alert['labels']['kind']}|{alert['labels']['percent']}" for alert in firing} == ALL
    assert len(firing) == 4
    # Within the last hour of a period one fires for an hour, so that somebody is told.
    ends = {
        max(alert["end"], alert["raised_at"].replace(microsecond=0) + timedelta(hours=1))
        for alert in alerts(store)
    }
    assert {datetime.fromisoformat(alert["endsAt"]) for alert in firing} == ends
    assert {alert["annotations"]["summary"] for alert in firing} >= {"Budget all: 100 % spent"}
    assert {body["status"] for _, body in hook.posts} == {"firing"}


class Receiver:
    """Takes alerts, or not."""

    name = "webhook"

    def __init__(self) -> None:
        self.takes = True
        self.sent: list[str] = []

    def send(self, alert: Any) -> None:
        if not self.takes:
            raise NotDelivered("answered 503")
        self.sent.append(alert["_id"])


class Watched:
    """A watch with a clock of its own."""

    def __init__(self, store: Store, receiver: Receiver) -> None:
        self.now = store.now()
        self.store = BudgetStore(store.database)
        self.watch = BudgetWatch(
            self.store, Spending(CostReads(store.database)), [receiver], lambda: self.now
        )

    def look(self, after: timedelta = timedelta()) -> None:
        self.now += after
        self.watch.look()


def test_a_failed_delivery_is_tried_again_later_and_later_and_given_up_in_the_end(
    store: Store,
) -> None:
    put(store, thresholds=[100], forecast_alert=False)
    receiver = Receiver()
    receiver.takes = False
    one = Watched(store, receiver)
    one.look()
    (delivery,) = alerts(store)[0]["deliveries"]
    assert (delivery["state"], delivery["attempts"], delivery["error"]) == (
        "waiting",
        1,
        "answered 503",
    )
    one.look(FIRST_WAIT - timedelta(seconds=1))
    assert alerts(store)[0]["deliveries"][0]["attempts"] == 1, "not before its time"
    one.look(timedelta(seconds=2))
    assert alerts(store)[0]["deliveries"][0]["attempts"] == 2
    assert one.store.undelivered() == {"waiting": 1, "failed": 0}
    for _ in range(MOST_ATTEMPTS):
        store[Collection.BUDGET_ALERTS].update_many({}, {"$set": {"deliveries.0.next_at": one.now}})
        one.look()
    (delivery,) = alerts(store)[0]["deliveries"]
    assert (delivery["state"], delivery["attempts"]) == ("failed", MOST_ATTEMPTS)
    assert one.store.undelivered() == {"waiting": 0, "failed": 1}
    receiver.takes = True
    one.look()
    assert receiver.sent == []


def test_what_a_process_died_with_is_sent_by_another_after_a_while(store: Store) -> None:
    put(store, thresholds=[100], forecast_alert=False)
    receiver = Receiver()
    one, other = Watched(store, receiver), Watched(store, receiver)
    one.watch = BudgetWatch(one.store, Spending(CostReads(store.database)), [], lambda: one.now)
    one.store.raise_alert({**_alert(store)}, ["webhook"], one.now)
    assert one.store.claim("webhook", one.now) is not None  # and dies
    other.look()
    assert receiver.sent == [], "it may still be at it"
    other.look(CLAIM)
    other.look()
    assert len(receiver.sent) == 1
    assert alerts(store)[0]["deliveries"][0]["state"] == "sent"


def _alert(store: Store) -> dict[str, Any]:
    from gpu_token_analytics.budgets.alerts import alerts_of

    budgets = BudgetStore(store.database).budgets()
    (state,) = Spending(CostReads(store.database)).states(budgets, store.now())
    (alert,) = alerts_of(state)
    return alert.document()


def test_each_threshold_is_told_when_it_is_passed_and_each_period_anew(store: Store) -> None:
    receiver = Receiver()
    one = Watched(store, receiver)
    one.now = datetime(2030, 5, 15, tzinfo=UTC)
    minute = one.now - timedelta(hours=6)

    def spend(nusd: int) -> None:
        nonlocal minute
        (cell,) = cells(Fleet(gpus=1, models=1, tenants=1), minute, 1)
        cell["cost_nusd"], cell["lines"] = nusd, []
        cell["classes"] = {**dict.fromkeys(cell["classes"], 0), "unobserved": nusd}
        store[Collection.LEDGER_CELLS].insert_one(cell)
        minute += timedelta(minutes=1)
        rollups = Rollups(RollupStore(store.database))
        while rollups.step_now():
            pass

    def told() -> list[str]:
        return [name.split("|", 3)[3] for name in receiver.sent]

    put(store, limit_nusd=1000, time_zone="UTC", forecast_alert=False)
    spend(499)
    one.look()
    assert told() == []
    spend(1)
    one.look()
    one.look(timedelta(minutes=1))
    assert told() == ["spent|50"]
    spend(600)
    one.look()
    assert told() == ["spent|50", "spent|80", "spent|100"]
    put(store, limit_nusd=1000, time_zone="UTC", thresholds=[100, 110], forecast_alert=False)
    one.look()
    assert told() == ["spent|50", "spent|80", "spent|100", "spent|110"], (
        "a threshold that is added is told, others not again"
    )
    put(store, limit_nusd=2000, time_zone="UTC", thresholds=[50], forecast_alert=False)
    one.look()
    assert told()[4:] == ["spent|50"], "another limit is another budget"
    minute = datetime(2030, 6, 1, tzinfo=UTC)
    spend(1500)
    one.now = minute + timedelta(hours=3)
    one.look()
    assert told()[5:] == ["spent|50"], "the next month is told anew"


def changed(store: Store, at: datetime) -> None:
    store[Collection.BUDGETS].update_many({}, {"$set": {"changed_at": at}})


def test_money_that_came_late_is_told_of_the_period_that_just_ended(store: Store) -> None:
    receiver = Receiver()
    one = Watched(store, receiver)
    end = floor(store.now(), HOUR)
    # The day of a zone in which it just ended.
    zone = f"Etc/GMT{(end.hour if end.hour <= 12 else end.hour - 24):+d}"
    put(store, period="day", time_zone=zone, thresholds=[100], forecast_alert=False)
    one.now = end + timedelta(minutes=10)
    # It was made, or changed, when the day was over: the day was none of it.
    changed(store, end)
    one.look()
    assert alerts(store) == []
    changed(store, end - timedelta(minutes=1))
    one.look()
    (alert,) = alerts(store)
    assert (alert["start"], alert["end"]) == (end - timedelta(days=1), end)
    assert len(receiver.sent) == 1


def test_old_alerts_are_forgotten(store: Store) -> None:
    put(store, thresholds=[100], forecast_alert=False)
    one = Watched(store, Receiver())
    one.look()
    store[Collection.BUDGET_ALERTS].update_many(
        {}, {"$set": {"raised_at": one.now - ALERTS_KEPT - timedelta(days=1)}}
    )
    BudgetStore(store.database).remove("all")
    Watched(store, Receiver()).look()
    assert alerts(store) == []
