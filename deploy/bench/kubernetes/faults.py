"""Faults of operators and of time: each ends in a state that `make doctor` names, and its repair
repairs it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from deploy.bench.kubernetes import deployment
from deploy.bench.report import expect
from deploy.bench.shell import CommandFailed

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

_DOCTOR = "make -s -C CA2 doctor"
_FILL = "bench-fill"


def run_checks(bench: Bench) -> None:
    """Wrong secret, missing topic, full volume. Leaves everything repaired."""
    with bench.report.check(
        "CA2: a wrong secret: the new pods do not come up, the old ones go on, doctor names it"
    ):
        wrong_secret(bench)
    with bench.report.check(
        "CA2: a full volume: doctor names it, and it heals when there is room again"
    ):
        node, path = fill_disk(bench, "kafka-2")
        named(bench, "full volume")
        free_disk(bench, node, path)
        bench.workload.wait_until_ready(300)
    with bench.report.check("CA2: a missing topic: doctor names it, make up makes it again"):
        topics = (
            "KAFKA_HEAP_OPTS=-Xmx128m /opt/kafka/bin/kafka-topics.sh --bootstrap-server "
            "127.0.0.1:19092"
        )
        bench.workload.kubectl(
            "exec",
            "kafka-0",
            "-c",
            "kafka",
            "--",
            "bash",
            "-c",
            f"{topics} --delete --topic tokens",
        )
        named(bench, "missing topic")
        bench.operator.do(deployment.UP, timeout_seconds=580)
        bench.workload.wait_until_ready(300)


def wrong_secret(bench: Bench) -> None:
    """A password that MongoDB does not know, rolled out and rolled back."""
    file = bench.operator.folder / "CA2/components/secrets/mongo-client.env"
    right = file.read_text()
    old = {pod["metadata"]["name"] for pod in bench.workload.pods("processor")}
    try:
        file.write_text("MONGO_APP_PASSWORD=not-the-password\n")
        # The Jobs' pods cannot be changed, which apply says; everything else is changed.
        bench.cluster.kubectl(
            "apply", "-k", str(bench.operator.folder / "CA2/overlays/bench"), check=False
        )
        named(bench, "wrong secret")
        ready = {
            pod["metadata"]["name"] for pod in bench.workload.pods("processor") if _is_ready(pod)
        }
        expect(
            len(ready & old) >= 2,
            f"of the processors before, only {sorted(ready & old)} still work",
        )
    finally:
        file.write_text(right)
        bench.operator.do(deployment.UP, timeout_seconds=580)
    bench.workload.wait_until_ready(300)


def named(bench: Bench, fault: str, timeout_seconds: float = 240) -> None:
    """Until doctor exits with 1 and names the fault. Raises CheckFailed with what it says
    instead."""
    end = time.monotonic() + timeout_seconds
    while True:
        said = bench.operator.do(f"{_DOCTOR}; echo exit $?", timeout_seconds=240, check=False)
        lines = [line for line in said.splitlines() if re.match(rf"WRONG {fault}", line)]
        if lines and "exit 0" not in said:
            bench.report.say(f"doctor: {lines[0][:300]}")
            return
        expect(time.monotonic() < end, f"doctor does not name a {fault}: {said[-1500:]}")
        time.sleep(5)


def fill_disk(bench: Bench, pod: str) -> tuple[str, str]:
    """Fills the pod's volume to the last byte, from the node; returns the node and the file that
    fills it."""
    item = bench.workload.get("pod", pod)
    claim = next(
        v["persistentVolumeClaim"]["claimName"]
        for v in item["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    )
    volume = bench.workload.get("pvc", claim)["spec"]["volumeName"]
    path = f"{bench.cluster.get('pv', volume)['spec']['local']['path']}/{_FILL}"
    bench.cluster.inside(
        item["spec"]["nodeName"], "dd", "if=/dev/zero", f"of={path}", "bs=4M", check=False
    )
    return item["spec"]["nodeName"], path


def free_disk(bench: Bench, node: str, path: str) -> None:
    """Room again. A pod that waits to be restarted is not made to wait longer."""
    bench.cluster.inside(node, "rm", "-f", path)
    for pod in bench.workload.pods("kafka"):
        if not _is_ready(pod):
            try:
                bench.workload.kubectl(
                    "delete", "pod", pod["metadata"]["name"], "--wait=true", timeout_seconds=180
                )
            except CommandFailed as failure:
                bench.report.say(f"while the pod was deleted: {failure}")


def _is_ready(pod: dict[str, object]) -> bool:
    status = pod["status"]
    assert isinstance(status, dict)
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
