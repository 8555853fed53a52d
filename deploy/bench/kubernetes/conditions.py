"""What each alert is about, really made on the cluster: how, what an operator then sees, and what
ends what no command can."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.bench.kubernetes import exporters, gpus
from deploy.bench.kubernetes.database import Database
from deploy.bench.machines import cgroups
from deploy.bench.report import CheckFailed, expect
from deploy.bench.shell import CommandFailed, wait

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

Shown = dict[str, dict[str, str]]
"""What the page's words in capitals are, by alert; "" for all of them."""

_NONSENSE = """
import sys
from gpu_token_analytics.kafka.producer import EventProducer
from gpu_token_analytics.settings import load
with EventProducer(load(), client="nonsense") as producer:
    for number in range(int(sys.argv[1])):
        producer.send_raw(b"{nonsense", "host-x")
    producer.flush(60)
"""
_DELETE = """
import os, sys
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
env = os.environ
admin = AdminClient({"bootstrap.servers": env["KAFKA_BOOTSTRAP"],
    "security.protocol": env["KAFKA_SECURITY_PROTOCOL"],
    "sasl.mechanism": env["KAFKA_SASL_MECHANISM"], "sasl.username": env["KAFKA_SASL_USERNAME"],
    "sasl.password": env["KAFKA_SASL_PASSWORD"]})
partition, offset = map(int, sys.argv[1:])
(future,) = admin.delete_records([TopicPartition(env["KAFKA_TOPIC"], partition, offset)]).values()
print(future.result(60))
"""
_QUESTIONS = """
import contextlib, sys, time, urllib.request
end = time.monotonic() + float(sys.argv[1])
hour = time.strftime("%Y-%m-%dT%H:00Z", time.gmtime())
day = time.strftime("%Y-%m-%dT%H:00Z", time.gmtime(time.time() - 86400))
url = f"http://127.0.0.1:8080/v1/costs?from={day}&to={hour}&group_by=model&bucket=1h"
while time.monotonic() < end:
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + sys.argv[2]})
    with contextlib.suppress(OSError): urllib.request.urlopen(request, timeout=30).read()
    time.sleep(0.2)
"""
_TO_MONGO = ("OUTPUT", "-p", "tcp", "--dport", "27017", "-j", "DROP")
_UNTOLD = "bench|untold"
_HUNG_MEMBER = "mongo-2"
_HUNG_BROKER = "kafka-2"
# At once, since none of them touches another one's: two of three stores' members are enough.
_TOGETHER = {
    "KafkaUnderReplicated": f"the JVM of {_HUNG_BROKER} stopped (SIGSTOP)",
    "MongoMemberDown": f"mongod of {_HUNG_MEMBER} stopped (SIGSTOP)",
    "ExporterDown": "a setting that is no number, rolled out to the exporter",
    "TargetDown": "a processor stopped (SIGSTOP)",
    "GpusUnreadable": "agents on a node whose nvidia-smi names a lost GPU",
}


def _nothing(_bench: Bench) -> None:
    """The page's own commands are the cure."""


@dataclass(frozen=True)
class Condition:
    """What makes these alerts fire. `make` returns what an operator sees; `heal` is what the page
    says in words, not commands.

    exits: the status that a command of the page ends with while the condition holds, by the
    command's beginning.
    """

    alerts: tuple[str, ...]
    how: str
    make: Callable[[Bench], Shown]
    heal: Callable[[Bench], None] = _nothing
    exits: Mapping[str, int] = field(default_factory=dict)
    hows: Mapping[str, str] = field(default_factory=dict)  # where each alert has another

    def how_of(self, alert: str) -> str:
        """How the condition of one of its alerts is made."""
        return self.hows.get(alert, self.how)


def with_shipped_rules() -> list[Condition]:
    """Those whose shipped lengths of time are minutes."""
    return [
        Condition(("FreshnessPage", "FreshnessTicket", "PartitionsUnread"),
        "processors scaled to none", _no_processor),
        Condition(
            ("CompletenessPage", "CompletenessTicket", "DeadLetters"),
            "20,000 records that are no JSON", _nonsense,
            _no_nonsense,
        ),
    ]  # fmt: skip


def with_hurried_rules() -> list[Condition]:
    """All others. The one that loses records comes last."""
    cut = "network cut between MongoDB and the exporter, the processors and the API"
    return [
        Condition(
            ("SourceUnreachable", "StoreRefusesWrites", "ApiAvailabilityPage",
            "ApiAvailabilityTicket", "AuditStale"),
            cut, _cut, _mend,
        ),
        Condition(tuple(_TOGETHER), "", _all_together, _all_back, hows=_TOGETHER),
        Condition(
            ("LedgerNotExact",), "a nano-dollar added to a cell in MongoDB", _wrong_cell,
            exits={"gpu-tokens audit --json": 1}
        ),
        Condition(("DocumentsSetAside",), "a validator on ledger_cells that refuses one GPU",
        _validator),
        Condition(
            ("BudgetAlertsUndelivered",), "a budget's alert for a receiver that nobody set",
            _untold, _told,
        ),
        Condition(
            ("LedgerTopicBehind",), "LEDGER_TOPIC names a topic that nobody made",
            _no_such_topic, _no_topic,
        ),
        Condition(("ApiLatencyPage", "ApiLatencyTicket"), "the API's CPU cut to a hundredth",
        _slow_api, _quick_api),
        Condition(("RecordsLost",), "unread records of a partition deleted in Kafka",
        _lost_records),
    ]  # fmt: skip


def prepare(bench: Bench) -> None:
    """Exporters beside the stores, one of ours that looks and audits often, a fleet that sends."""
    quick = ["EXPORTER_REFRESH_SECONDS=2", "AUDIT_EVERY_SECONDS=10", "AUDIT_LAST_HOURS=1"]
    bench.workload.kubectl("set", "env", "deployment/exporter", *quick)
    bench.workload.kubectl("scale", "deployment/simulate", "--replicas=1")
    bench.cluster.kubectl(
        "apply", "-f", str(bench.operator.folder / "CA3/observability/servers/targets.yaml")
    )
    exporters.start(bench)
    bench.workload.wait_until_ready(300)


# -- the shipped rules


def _no_processor(bench: Bench) -> Shown:
    bench.workload.kubectl("scale", "deployment/simulate", "--replicas=1")
    bench.workload.kubectl(
        "rollout", "status", "deployment/simulate", "--timeout=120s", timeout_seconds=130
    )
    bench.workload.kubectl("scale", "deployment/processor", "--replicas=0")
    return {}


def _nonsense(bench: Bench) -> Shown:
    template = bench.workload.get("deployment", "simulate")["spec"]["template"]
    spec = template["spec"]
    container = {
        **spec["containers"][0],
        "name": "nonsense",
        "command": ["python", "-c", _NONSENSE],
        "args": ["20000"],
    }
    for probe in ("startupProbe", "livenessProbe", "readinessProbe", "ports"):
        container.pop(probe, None)
    pods = {
        "metadata": {"labels": template["metadata"]["labels"]},
        "spec": {**spec, "containers": [container], "restartPolicy": "OnFailure"},
    }
    job: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "nonsense", "namespace": bench.workload.namespace},
        "spec": {"template": pods},
    }
    bench.workload.kubectl("apply", "-f", "-", stdin=json.dumps(job))
    return {}


def _no_nonsense(bench: Bench) -> None:
    bench.workload.kubectl(
        "delete", "job", "nonsense", "--ignore-not-found", "--wait=true", timeout_seconds=90
    )


# -- networks and processes


def _cut(bench: Bench) -> Shown:
    _ask_api(bench, 240)  # its key is in MongoDB
    for pod in _who_needs_mongo(bench):
        bench.workload.in_network_of(pod, ["iptables", "-w", "-I", *_TO_MONGO])
    return {}


def _mend(bench: Bench) -> None:
    for pod in _who_needs_mongo(bench):
        with suppress(CommandFailed):  # a pod of after the cut has no such rule
            bench.workload.in_network_of(pod, ["iptables", "-w", "-D", *_TO_MONGO])


def _who_needs_mongo(bench: Bench) -> list[dict[str, Any]]:
    return [pod for name in ("exporter", "processor", "api") for pod in bench.workload.pods(name)]


def _ask_api(bench: Bench, seconds: int, askers: int = 1) -> None:
    """Questions to each replica of the API, from its own network: whoever else asks would need a
    flow."""
    said = bench.operator.do("make -s -C CA2 key NAME=questions")
    key = re.search(r"gta_\S+", said)
    if key is None:
        raise CheckFailed(f"no key in: {said}")
    for pod in bench.workload.pods("api") * askers:
        bench.workload.spawn_in_network_of(
            pod, [sys.executable, "-c", _QUESTIONS, str(seconds), key[0]]
        )


def _stop(bench: Bench, pod: dict[str, Any], program: str) -> str:
    pids = bench.workload.programs_of(pod, program)
    expect(bool(pids), f"no {program} in {pod['metadata']['name']}")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    name: str = pod["metadata"]["name"]
    bench.report.say(f"stopped (SIGSTOP): {name}, {program}")
    return name


def _all_together(bench: Bench) -> Shown:
    agent = gpus.lose(bench)
    _wrong_setting(bench)
    return {
        "KafkaUnderReplicated": {
            "POD": _stop(bench, bench.workload.get("pod", _HUNG_BROKER), "java")
        },
        "MongoMemberDown": {"POD": _stop(bench, bench.workload.get("pod", _HUNG_MEMBER), "mongod")},
        "TargetDown": {"POD": _stop(bench, bench.workload.pods("processor")[0], "gpu-tokens")},
        "GpusUnreadable": {"POD": agent},
    }


def _all_back(bench: Bench) -> None:
    gpus.bring_back(bench)
    # What the runbook has replaced runs; what it did not come to, goes on.
    stopped = (
        (bench.workload.get("pod", _HUNG_BROKER), "java"),
        (bench.workload.get("pod", _HUNG_MEMBER), "mongod"),
    )
    for pod, program in (
        *stopped,
        *((pod, "gpu-tokens") for pod in bench.workload.pods("processor")),
    ):
        for pid in bench.workload.programs_of(pod, program):
            os.kill(pid, signal.SIGCONT)
    exporters.in_broker(bench, bench.workload.get("pod", _HUNG_BROKER))
    exporters.at_member(bench, bench.workload.get("pod", _HUNG_MEMBER))


def _wrong_setting(bench: Bench) -> None:
    on = bench.workload.kubectl
    on("scale", "deployment/exporter", "--replicas=0")
    on("set", "env", "deployment/exporter", "AUDIT_EVERY_SECONDS=never")
    on("scale", "deployment/exporter", "--replicas=1")


def _slow_api(bench: Bench) -> Shown:
    for pod in bench.workload.pods("api"):
        for group in _cpu_groups(bench, pod):
            (group / "cpu.cfs_quota_us").write_text("1000")
    _ask_api(bench, 240, askers=4)
    return {}


def _quick_api(bench: Bench) -> None:
    for pod in bench.workload.pods("api"):
        for group in _cpu_groups(bench, pod):
            (group / "cpu.cfs_quota_us").write_text("-1")


def _cpu_groups(bench: Bench, pod: dict[str, Any]) -> Iterator[Path]:
    groups = set()
    for pid in bench.workload.programs_of(pod, "gpu-tokens"):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpu" in controllers.split(","):
                groups.add(path)
    for path in groups:
        for name in ("cpu", "cpu,cpuacct"):
            if (folder := cgroups.ROOT / name / path.lstrip("/")).exists():
                yield folder
                break


# -- what is stored


def _wrong_cell(bench: Bench) -> Shown:
    database = Database(bench.workload)
    # Its minute is over, so that nothing but the repair changes it, and within the last hour, which
    # is audited.
    ages = [
        {"$lt": ["$minute", {"$subtract": ["$$NOW", 4 * 60_000]}]},
        {"$gt": ["$minute", {"$subtract": ["$$NOW", 40 * 60_000]}]},
    ]
    over = {"state": "provisional", "due_at": {"$exists": False}, "$expr": {"$and": ages}}
    cells = database.aggregate(
        "ledger_cells", [{"$match": over}, {"$limit": 1}, {"$project": {"_id": 1}}]
    )
    expect(bool(cells), "no provisional cell is there that nothing touches")
    cell = str(cells[0]["_id"])
    database.command(
        {
            "update": "ledger_cells",
            "updates": [{"q": {"_id": cell}, "u": {"$inc": {"classes.cold_idle": 1}}}],
        }
    )
    return {"": {"CELL": cell}}


def _validator(bench: Bench) -> Shown:
    database = Database(bench.workload)
    newest = database.aggregate(
        "ledger_cells", [{"$sort": {"minute": -1}}, {"$limit": 1}, {"$project": {"gpu": 1}}]
    )[0]
    # Cells of minutes to come only: those that are stored must stay as valid as they are.
    refuse = {
        "$nor": [{"gpu": newest["gpu"], "_id": {"$gt": newest["_id"]}, "cost_nusd": {"$gt": 0}}]
    }
    database.command({"collMod": "ledger_cells", "validator": refuse})
    return {}


def _untold(bench: Bench) -> Shown:
    delivery = {
        "receiver": "webhook",
        "state": "waiting",
        "attempts": 5,
        "error": "refused",
        "sent_at": None,
    }
    tomorrow = {"$add": ["$$NOW", 24 * 3_600_000]}
    alert = {
        **{
            "budget": "bench",
            "scope": "fleet",
            "key": None,
            "period": "day",
            "time_zone": "UTC",
            "kind": "spent",
            "percent": 80,
        },
        **{
            "limit_nusd": 1,
            "spent_nusd": 1,
            "forecast_nusd": None,
            "forecast_low_nusd": None,
            "forecast_high_nusd": None,
        },
        **{
            "start": "$$NOW",
            "end": tomorrow,
            "raised_at": "$$NOW",
            "deliveries": [{**delivery, "next_at": tomorrow}],
        },
    }
    upsert = {"q": {"_id": _UNTOLD}, "u": [{"$set": alert}], "upsert": True}
    Database(bench.workload).command({"update": "budget_alerts", "updates": [upsert]})
    return {}


def _told(bench: Bench) -> None:
    Database(bench.workload).command(
        {"delete": "budget_alerts", "deletes": [{"q": {"_id": _UNTOLD}, "limit": 1}]}
    )


def _no_such_topic(bench: Bench) -> Shown:
    bench.workload.kubectl("set", "env", "deployment/processor", "LEDGER_TOPIC=nobody-made-this")
    return {}


def _no_topic(bench: Bench) -> None:
    bench.workload.kubectl("set", "env", "deployment/processor", "LEDGER_TOPIC-")


def _lost_records(bench: Bench) -> Shown:
    on = bench.workload.kubectl
    on("scale", "deployment/processor", "--replicas=0")
    on(
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "app.kubernetes.io/name=processor",
        "--timeout=120s",
        timeout_seconds=130,
    )
    lagging: list[dict[str, int]] = []

    def some_wait() -> bool:
        said = on(
            "exec", "deployment/api", "-c", "api", "--", "gpu-tokens", "topics", "show", "--json"
        )
        states = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        lagging[:] = [state for state in states if state["lag"] > 0]
        time.sleep(2)
        return bool(lagging)

    wait(some_wait, 120, "no record waits in any partition")
    one = lagging[0]
    delete = ["python", "-c", _DELETE, str(one["partition"]), str(one["high"])]
    on("exec", "deployment/api", "-c", "api", "--", *delete)
    bench.report.say(f"partition {one['partition']}: {one['lag']} unread records deleted")
    return {"": {"PARTITIONS": str(one["partition"])}}
