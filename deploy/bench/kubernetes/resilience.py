"""Whatever is killed, drained or cut off during a replay: nothing lost, nothing doubled, and how
long until all is whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.bench.checks import replay
from deploy.bench.kubernetes import deployment, faults, images, topology
from deploy.bench.kubernetes.database import Database
from deploy.bench.kubernetes.replays import Replays, audit
from deploy.bench.report import expect
from deploy.bench.shell import wait

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

_SPEED = 20  # three minutes of a replay: two blows fit into the middle of one
_RECOVERY_SECONDS = 600


@dataclass(frozen=True)
class Blow:
    """Something that happens during a replay. `strike` returns when the cluster may heal, with what
    the row says of it."""

    name: str
    strike: Callable[[Bench], str]


@dataclass(frozen=True)
class _Row:
    blow: str
    model: str
    stored_before: int
    seconds: float
    said: str


def run_checks(bench: Bench) -> None:
    """What an operator does and what hardware does, one of each kind."""
    _check(bench, "CA2", _blows())


def every_member(bench: Bench) -> None:
    """The same for every node and every other member of the stores."""
    _check(bench, "CA2", _blows_to_every_member())


def chaos(bench: Bench) -> None:
    """What networks, disks and neighbours do, with CA3's policies in force."""
    _check(bench, "CA3", _harder_blows())


def _check(bench: Bench, stage: str, blows: Iterator[Blow]) -> None:
    """Each blow, then one row per blow, then the audit of everything."""
    replays = Replays(
        bench.workload, Database(bench.workload), replay.find_trace(), _SPEED, stage.lower()
    )
    replays.prepare()
    struck: list[_Row] = []
    for blow in blows:
        with bench.report.check(f"{stage}: {blow.name} during a replay: whole again"):
            struck.append(_struck(bench, replays, blow))
    table = []
    for row in struck:
        with bench.report.check(
            f"{stage}: {row.blow} during a replay: lost 0, doubled 0, every token in the ledger"
        ):
            outcome = replays.outcome(row.model)
            table.append(
                [
                    row.blow,
                    f"{row.stored_before:,}",
                    outcome.lost,
                    outcome.doubled,
                    f"{row.seconds:.0f}",
                    row.said,
                ]
            )
            expect((outcome.lost, outcome.doubled, outcome.wrong) == (0, 0, ""), f"{outcome}")
    header = [
        f"during a replay of {replays.expected.requests:,} requests",
        "stored before",
        "lost",
        "doubled",
    ]
    bench.report.table([*header, "whole again after (s)", ""], table)
    with bench.report.check(f"{stage}: the audit of everything is exact to the nano-dollar"):
        said = audit(bench.workload)
        bench.report.say(
            "\n".join(["", *(f"    {line}" for line in said.strip().splitlines()[-8:])])
        )


def _struck(bench: Bench, replays: Replays, blow: Blow) -> _Row:
    model = replays.in_progress()
    before = replays.database.stored(model).requests
    expect(
        0 < before < replays.expected.requests,
        f"{before} requests were stored: {blow.name} would not be in the middle",
    )
    started = time.monotonic()
    said = blow.strike(bench)
    bench.workload.wait_until_ready(_RECOVERY_SECONDS)
    return _Row(blow.name, model, before, time.monotonic() - started, said)


def _blows() -> Iterator[Blow]:
    yield Blow("upgrade of processor and API from the previous image, a rolling update", _upgrade)
    yield Blow("deletion of kafka-0", _deletion("kafka-0"))
    yield Blow("deletion of mongo-0", _deletion("mongo-0"))
    yield Blow(f"power cut of {topology.NODES[1]}", _power_cut(topology.NODES[1]))


def _blows_to_every_member() -> Iterator[Blow]:
    for node in topology.NODES:
        yield Blow(f"drain of {node}", _drain(node))
    for name in ("kafka", "mongo"):
        for number in (1, 2):
            yield Blow(f"deletion of {name}-{number}", _deletion(f"{name}-{number}"))


def _upgrade(bench: Bench) -> str:
    commit = images.previous_commit()
    if commit is None:
        bench.workload.kubectl("rollout", "restart", "deployment/processor", "deployment/api")
        return "same image: this clone has no earlier commit"
    deployment.upgrade(bench)
    return f"from the image of commit {commit[:10]}"


def _deletion(pod: str) -> Callable[[Bench], str]:
    def strike(bench: Bench) -> str:
        before = bench.workload.get("pod", pod)["metadata"]["uid"]
        bench.workload.kubectl("delete", "pod", pod, "--wait=true", timeout_seconds=180)
        wait(
            lambda: bench.workload.get("pod", pod)["metadata"]["uid"] != before,
            60,
            f"{pod} was not made again",
        )
        return ""

    return strike


def _drain(node: str) -> Callable[[Bench], str]:
    def strike(bench: Bench) -> str:
        started = time.monotonic()
        drain = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s"]
        bench.cluster.kubectl(*drain, timeout_seconds=260)
        seconds = time.monotonic() - started
        bench.cluster.kubectl("uncordon", node)
        return f"drained in {seconds:.0f} s, then uncordoned"

    return strike


def _power_cut(node: str) -> Callable[[Bench], str]:
    def strike(bench: Bench) -> str:
        pods = [pod for pod in bench.workload.pods() if pod["spec"].get("nodeName") == node]
        held = [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running"]
        bench.cluster.cut_power(node)
        started = time.monotonic()
        wait(lambda: node not in bench.cluster.ready_nodes(), 90, f"{node} is still Ready")
        seconds = time.monotonic() - started
        time.sleep(5)
        bench.cluster.power_on(node)
        bench.cluster.wait_for_nodes([node])
        return (
            f"held {', '.join(sorted(held))}; NotReady after {seconds:.0f} s, powered on 5 s later"
        )

    return strike


def _harder_blows() -> Iterator[Blow]:
    yield Blow("network cut between processors and Kafka for 20 s", _cut("processor", 9092))
    yield Blow("network cut between processors and MongoDB for 20 s", _cut("processor", 27017))
    for name in ("kafka", "mongo"):
        yield Blow(f"rolling restart of {name}", _rolling_restart(name))
    yield Blow(
        f"{topology.NODES[2]}'s network cable pulled for 30 s", _unplugged(topology.NODES[2])
    )
    yield Blow("full disk of kafka-2 for 20 s", _full_disk)
    yield Blow("four busy loops on each node for 30 s", _busy)


def _cut(name: str, port: int) -> Callable[[Bench], str]:
    def strike(bench: Bench) -> str:
        rule = ["OUTPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP"]
        pods = bench.workload.pods(name)
        for pod in pods:
            bench.workload.in_network_of(pod, ["iptables", "-w", "-I", *rule])
        time.sleep(20)
        for pod in pods:
            bench.workload.in_network_of(pod, ["iptables", "-w", "-D", *rule])
        return f"{len(pods)} pods"

    return strike


def _rolling_restart(name: str) -> Callable[[Bench], str]:
    def strike(bench: Bench) -> str:
        bench.workload.kubectl("rollout", "restart", f"statefulset/{name}")
        return ""

    return strike


def _unplugged(node: str) -> Callable[[Bench], str]:
    def strike(bench: Bench) -> str:
        bench.cluster.plug(node, connected=False)
        time.sleep(30)
        bench.cluster.plug(node, connected=True)
        bench.cluster.wait_for_nodes([node])
        return "long enough for the cluster to count it out"

    return strike


def _full_disk(bench: Bench) -> str:
    node, path = faults.fill_disk(bench, "kafka-2")
    time.sleep(20)
    faults.free_disk(bench, node, path)
    return ""


def _busy(bench: Bench) -> str:
    # Without its output: else whoever starts it would wait for its end.
    loops = (
        "exec >/dev/null 2>&1; for i in 1 2 3 4; do timeout 30 sh -c 'while :; do :; done' & done; "
        "wait"
    )
    for node in topology.NODES:
        bench.cluster.inside(node, "setsid", "-f", "sh", "-c", loops)
    time.sleep(30)
    return ""
