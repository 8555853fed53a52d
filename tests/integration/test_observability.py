"""A real pipeline is scraped by a real Prometheus: every panel has its data; broken, it pages once,
and again when repaired."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deploy.bench.images.exporters import jmx_agent
from deploy.observability.__main__ import ROOM, ROOT
from deploy.observability.panels import DASHBOARDS, JMX, PERCONA
from deploy.observability.rules import RUNBOOKS
from pymongo import MongoClient
from tests.conftest import unavailable
from tests.integration.observability_support import (
    Prometheus,
    Receiver,
    Room,
    eventually,
    get,
    start_alertmanager,
)

from gpu_token_analytics.embedded.child import LOOPBACK, free_port
from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, KafkaBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.errors import EmbeddedServiceError
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.kafka.topics import create_topics
from gpu_token_analytics.settings import load

pytestmark = pytest.mark.kafka

DATABASE = "observed"


@dataclass
class Observed:
    """The pipeline under observation."""

    room: Room
    prometheus: Prometheus
    receiver: Receiver
    settings: Any
    mongo_uri: str
    sources: set[str]  # exporters of others that are here


def _mongo(uri: str) -> MongoClient[dict[str, Any]]:
    return MongoClient(uri)


def _needed(name: str, package: str) -> None:
    if shutil.which(name) is None:
        unavailable(EmbeddedServiceError(f"{name} is not on PATH: apt-get install {package}"))


@pytest.fixture(scope="module")
def observed(
    java: str,
    tmp_path_factory: pytest.TempPathFactory,
    _session_logs: list[Path],
    request: pytest.FixtureRequest,
) -> Iterator[Observed]:
    _needed("prometheus", "prometheus")
    _needed("prometheus-alertmanager", "prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("observed")
    jar = jmx_agent(Path.home() / ".cache" / "gpu-tokens" / "jmx")
    kafka_metrics = free_port()
    # The agent listens in every JVM that is started with it; the one that formats the folder ends
    # before the broker starts.
    os.environ["JAVA_TOOL_OPTIONS"] = (
        f"-javaagent:{jar}={LOOPBACK}:{kafka_metrics}:{ROOM}/config/kafka-jmx.yaml"
    )
    broker = KafkaBroker(CURRENT_VERSION, folder / "kafka", start_timeout_seconds=240)
    mongod = EmbeddedMongod(folder / "mongod", replica_set="rs0", start_timeout_seconds=180)
    _session_logs.extend([broker.log_file, mongod.log_file])
    try:
        broker.start()
    finally:
        del os.environ["JAVA_TOOL_OPTIONS"]
    try:
        with mongod, Receiver() as receiver:
            settings = load(
                kafka_bootstrap=broker.bootstrap, mongodb_uri=mongod.uri, mongodb_database=DATABASE
            )
            create_topics(settings)
            environment = {
                "KAFKA_BOOTSTRAP": broker.bootstrap,
                "MONGODB_URI": mongod.uri,
                "MONGODB_DATABASE": DATABASE,
                "CLOSE_DEBOUNCE_SECONDS": "1",
                "LOG_FORMAT": "json",
                "GPU_SEED_FILE": str(ROOT / "gpu_seed.json"),
            }
            with Room(folder, _session_logs.append, environment) as room:
                yield _start(room, receiver, settings, mongod.uri, kafka_metrics)
    finally:
        broker.stop()


def _start(
    room: Room, receiver: Receiver, settings: Any, mongo_uri: str, kafka_metrics: int
) -> Observed:
    targets = {"kafka": kafka_metrics, "processor": room.ours("processor")}
    targets["api"] = room.ours("api", API_ALLOW_ANONYMOUS_LOOPBACK="true")
    targets["exporter"] = room.ours(
        "exporter", EXPORTER_REFRESH_SECONDS="2", AUDIT_EVERY_SECONDS="5"
    )
    targets["agent"] = free_port()
    agent = (
        "agent",
        "--source",
        "seed",
        "--host",
        "gpu-host",
        "--interval",
        "2",
        "--metrics-port",
        str(targets["agent"]),
    )
    room.ours("agent", *agent)
    sources = {JMX}
    exporter = os.environ.get("MONGODB_EXPORTER") or shutil.which("mongodb_exporter")
    if exporter:
        sources.add(PERCONA)
        # the exporter reads what mongod collects; embedded ones do not by default
        with _mongo(mongo_uri) as client:
            client.admin.command("setParameter", 1, diagnosticDataCollectionEnabled=True)
        targets["mongo"] = free_port()
        flags = ["--collector.diagnosticdata", "--collector.replicasetstatus"]
        listen = f"--web.listen-address={LOOPBACK}:{targets['mongo']}"
        room.run("mongo-exporter", [exporter, listen, *flags], MONGODB_URI=mongo_uri)
    fleet = ("--hosts", "2", "--gpus-per-host", "2", "--seed", "1")
    assert (
        room.tool(
            "simulate", "--hours", "1.5", "--rate", "1", "--sample-interval", "20", *fleet
        ).returncode
        == 0
    )
    room.ours("simulate", "simulate", "--rate", "20", "--flat", "--sample-interval", "5", *fleet)
    alertmanager = start_alertmanager(room, receiver.url)
    prometheus = Prometheus(room, targets, alertmanager)
    eventually(prometheus.ready, "Prometheus is ready", 60)
    return Observed(room, prometheus, receiver, settings, mongo_uri, sources)


@pytest.fixture(scope="module", autouse=True)
def _readers(observed: Observed) -> Iterator[None]:
    """People who look at the dashboard."""
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(0.3):
            get(f"http://{LOOPBACK}:{observed.room.ports['api']}/v1/me")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(30)


def _missing(observed: Observed) -> list[str]:
    """Panels' queries that Prometheus answers with nothing, or with what is not a number."""
    missing = []
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            if panel.source and panel.source not in observed.sources:
                continue
            for query, _ in panel.queries:
                series = observed.prometheus.ask(query.replace("$__rate_interval", "15s"))
                if not panel.empty and not any(
                    math.isfinite(float(one["value"][1])) for one in series
                ):
                    missing.append(f"{dashboard.title} / {panel.title}: {query}")
    return missing


def test_every_panel_has_its_data(
    observed: Observed, record_property: Callable[[str, object], None]
) -> None:
    missing: list[str] = []

    def complete() -> bool:
        missing[:] = _missing(observed)
        return not missing

    try:
        eventually(complete, "every panel has data", 600)
    except AssertionError:
        raise AssertionError("no data in:\n" + "\n".join(missing)) from None
    if PERCONA not in observed.sources:
        print(
            "NOT CHECKED: the panels that need mongodb_exporter (name its binary in "
            "MONGODB_EXPORTER)"
        )


def test_money_of_prometheus_is_the_money_of_the_ledger(observed: Observed) -> None:
    """Of the last whole hour, which nothing touches any more: the same nano-dollars by class."""
    asked = 'max by (class) (gpu_tokens_ledger_cost_usd{window="last_hour"})'

    def equal() -> bool:
        shown = {
            one["metric"]["class"]: float(one["value"][1]) for one in observed.prometheus.ask(asked)
        }
        with _mongo(observed.mongo_uri) as client:
            (hour,) = client[DATABASE].rollups_hourly.aggregate(
                [
                    {"$match": {"scope": "fleet"}},
                    {"$sort": {"start": -1}},
                    {"$skip": 1},
                    {"$limit": 1},
                ]
            )
            cells = client[DATABASE].ledger_cells.find({"minute": {"$gte": hour["start"]}})
            classes: dict[str, int] = {}
            for cell in cells:
                if (cell["minute"] - hour["start"]).total_seconds() < 3600:
                    for name, nusd in cell.get("classes", {}).items():
                        classes[name] = classes.get(name, 0) + nusd
        wanted = {name: nusd / 1e9 for name, nusd in classes.items() if nusd}
        return {name: usd for name, usd in shown.items() if usd} == pytest.approx(wanted, abs=1e-9)

    eventually(equal, "Prometheus shows the ledger's money", 120)


@dataclass
class Alerted:
    """What is told about one alert from now on. One that fires already, as a slow start makes it,
    is waited for first."""

    observed: Observed
    alert: str

    def __post_init__(self) -> None:
        self._before = 0
        eventually(
            lambda: self.observed.receiver.statuses(self.alert)[-1:] != ["firing"],
            f"{self.alert} is over",
            240,
        )
        self._before = len(self.observed.receiver.told(self.alert))

    def _statuses(self) -> list[str]:
        return self.observed.receiver.statuses(self.alert)[self._before :]

    def fires(self) -> None:
        eventually(lambda: "firing" in self._statuses(), f"{self.alert} is received", 240)

    def resolves(self, receiver: str) -> None:
        """Told once when it began, once when it was over, to this receiver and no other."""
        eventually(lambda: "resolved" in self._statuses(), f"{self.alert} is resolved", 300)
        told = self.observed.receiver.told(self.alert)[self._before :]
        assert told == [(f"/{receiver}", "firing"), (f"/{receiver}", "resolved")]


def test_refused_records_page_once_and_the_runbook_shows_them(observed: Observed) -> None:
    page, ticket = Alerted(observed, "CompletenessPage"), Alerted(observed, "DeadLetters")
    stop = threading.Event()

    def send_nonsense() -> None:
        with EventProducer(observed.settings, client="nonsense") as producer:
            while not stop.wait(0.5):
                producer.send_raw(b"{nonsense", "host-x")
                producer.flush(30)

    sender = threading.Thread(target=send_nonsense, daemon=True)
    sender.start()
    try:
        page.fires()
        ticket.fires()
        seen = observed.room.tool("dead-letters", "list", "--limit", "5")
        assert seen.returncode == 0, seen.stderr
        assert "not_json" in seen.stdout
    finally:
        stop.set()
        sender.join(60)
    lines = [
        json.loads(line)
        for line in (observed.room.folder / "processor.log").read_text().splitlines()
    ]
    refusals = [line for line in lines if line.get("reason") == "not_json"]
    assert refusals
    assert refusals[0]["topic"] == "tokens"
    assert {"partition", "offset", "records"} <= refusals[0].keys()
    again = observed.room.tool("dead-letters", "resend")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("sent 0; not sent, still refused: not_json"), again.stdout
    page.resolves("pages")
    ticket.resolves("tickets")


def test_a_wrong_nano_dollar_pages_once_and_the_runbook_repairs_it(observed: Observed) -> None:
    page = Alerted(observed, "LedgerNotExact")
    with _mongo(observed.mongo_uri) as client:
        cells = client[DATABASE].ledger_cells
        # One whose minute has long been over, so that nothing but the repair changes it.
        cell = cells.find_one(
            {"state": "provisional", "due_at": {"$exists": False}}, sort=[("minute", 1)]
        )
        assert cell is not None
        cells.update_one({"_id": cell["_id"]}, {"$inc": {"classes.cold_idle": 1}})
        page.fires()
        seen = observed.room.tool("audit", "--json")
        assert seen.returncode == 1
        assert cell["_id"] in {finding["cell"] for finding in json.loads(seen.stdout)["findings"]}
        # The runbook's command, through the driver instead of mongosh.
        written = re.search(
            r"updateOne\(\s*(.*?)\)\n?'", (ROOT / RUNBOOKS).read_text() + "\n", re.DOTALL
        )
        assert written is not None
        assert "$inc: {gen: 1}" in written[1]
        assert "$unset: {content: 1}" in written[1]
        now = client.admin.command("hello")["localTime"]
        cells.update_one(
            {"_id": cell["_id"]},
            {"$inc": {"gen": 1}, "$set": {"due_at": now}, "$unset": {"content": 1}},
        )
        page.resolves("pages")
        repaired = cells.find_one({"_id": cell["_id"]})
        assert repaired is not None
        assert repaired["classes"] == cell["classes"]


def test_a_dead_processor_pages_once_and_its_return_ends_it(observed: Observed) -> None:
    room = observed.room
    page, ticket = Alerted(observed, "FreshnessPage"), Alerted(observed, "PartitionsUnread")
    room.kill("processor")
    page.fires()
    ticket.fires()
    seen = room.tool("topics", "show", "--json")
    assert seen.returncode == 0, seen.stderr
    assert sum(json.loads(line)["lag"] for line in seen.stdout.splitlines()) > 0
    room.ours("processor", port=room.ports["processor"])
    page.resolves("pages")
    ticket.resolves("tickets")


def test_the_runbooks_commands_run_as_written(observed: Observed) -> None:
    blocks = re.findall(
        r"^ *```bash\n(.*?)^ *```", (ROOT / RUNBOOKS).read_text(), re.DOTALL | re.MULTILINE
    )
    commands = {
        line.strip()
        for block in blocks
        for line in block.splitlines()
        if line.strip().startswith("gpu-tokens ")
    }
    assert len(commands) >= 6
    for command in sorted(commands):
        words = command.split()[1:]
        done = observed.room.tool(*words)
        assert done.returncode == 0, f"{command}: {done.stdout[-500:]}{done.stderr[-500:]}"
