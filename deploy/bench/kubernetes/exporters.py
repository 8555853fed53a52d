"""Exporters of others beside the stores' pods: Prometheus' JMX agent in the brokers, percona's
mongodb_exporter at members.

An operator gives them to the pods (CA3/observability/README.md); here they are put into running
ones, which restarts nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.bench.images.exporters import jmx_agent, mongodb_exporter
from deploy.bench.shell import CommandFailed, run, wait
from deploy.flows import ROOT

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

_PORT_JMX, _PORT_MONGO = 9404, 9216
_LIFETIME_SECONDS = 1800


def start(bench: Bench) -> None:
    """At every broker and every member. Raises CommandFailed, and NotChecked where one cannot be
    had."""
    for pod in bench.workload.pods("kafka"):
        in_broker(bench, pod)
    for pod in bench.workload.pods("mongo"):
        at_member(bench, pod)


def in_broker(bench: Bench, pod: dict[str, Any]) -> None:
    """The JMX agent, loaded into the JVM that runs."""
    jar = jmx_agent(Path.home() / ".cache/gpu-tokens/jmx")
    pids = bench.workload.programs_of(pod, "kafka.Kafka")
    if len(pids) != 1:
        raise CommandFailed(f"{pod['metadata']['name']}: {len(pids)} brokers run in it, not one")
    pid = pids[0]
    inside = Path(f"/proc/{pid}/root/tmp")
    for source in (jar, ROOT / "CA3/observability/config/kafka-jmx.yaml"):
        shutil.copyfile(source, inside / source.name)
        (inside / source.name).chmod(0o644)
    load = [
        "jcmd",
        str(pid),
        "JVMTI.agent_load",
        f"/tmp/{jar.name}",
        f"{_PORT_JMX}:/tmp/kafka-jmx.yaml",
    ]
    said = run(load, timeout_seconds=120).stdout
    if "return code: 0" not in said:
        raise CommandFailed(f"{pod['metadata']['name']}: the JMX agent was not taken: {said}")


def at_member(bench: Bench, pod: dict[str, Any]) -> None:
    """mongodb_exporter in the member's network, as a container beside it would be; it ends by
    itself in half an hour."""
    password = bench.workload.secret("mongo-servers", "ROOT_PASSWORD")
    uri = (
        f"MONGODB_URI=mongodb://root:{password}@127.0.0.1:27017/?authSource=admin&"
        "directConnection=true"
    )
    flags = [
        f"--web.listen-address=:{_PORT_MONGO}",
        "--collector.diagnosticdata",
        "--collector.replicasetstatus",
    ]
    command = ["timeout", str(_LIFETIME_SECONDS), "env", uri, str(mongodb_exporter()), *flags]
    bench.workload.spawn_in_network_of(pod, command)
    curl = [
        "curl",
        "--silent",
        "--fail",
        "--max-time",
        "20",
        f"http://127.0.0.1:{_PORT_MONGO}/metrics",
    ]

    def answers() -> bool:
        try:
            return "mongodb_rs_members_health" in bench.workload.in_network_of(pod, curl)
        except CommandFailed:
            return False

    wait(answers, 60, f"mongodb_exporter at {pod['metadata']['name']} does not tell of the members")
