"""python -m deploy.bench kubernetes [build|up|down] [--full] [--install] [--strict] [--evidence]

Without a word: CA2 and CA3 on a real Kubernetes of this machine, every check a line, everything
removed at the end.
build   only the Kubernetes binary, for the user's cache folder (11 minutes of two cores; nothing
        when it is there)
up      the cluster and CA2 on it, left running; the path of its `kubectl` is printed
down    removes what `up`, or a run that was killed, left

Needs root on Linux and Go 1.25. What this machine cannot run is reported as NOT CHECKED.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.bench import evidence
from deploy.bench.images import servers
from deploy.bench.kubernetes import binary, checks, cluster, images, store
from deploy.bench.kubernetes.cluster import Cluster
from deploy.bench.report import CheckFailed, NotChecked, Report
from deploy.bench.shell import run
from deploy.flows import ROOT

_FOLDER = ROOT / "build" / "kubernetes"
_LOGS = ROOT / "test-logs" / "kubernetes"


def main(arguments_given: Sequence[str]) -> int:
    """Runs the checks, or the one step that was named; returns 1 when a check failed."""
    parser = argparse.ArgumentParser(
        "deploy.bench kubernetes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "step", nargs="?", choices=["check", "build", "up", "down"], default="check"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="also the long rows (README.md of CA2 and CA3 name them)",
    )
    parser.add_argument(
        "--running",
        action="store_true",
        help="check the cluster that `up` left running, and leave it running",
    )
    parser.add_argument(
        "--only",
        default="",
        help="only the groups whose stage or name holds one of these words: CA3, faults,lag",
    )
    parser.add_argument("--install", action="store_true", help="apt-get install what is missing")
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 also when something could not be checked"
    )
    parser.add_argument(
        "--evidence", action="store_true", help="write the output into the documents of CA2 and CA3"
    )
    arguments = parser.parse_args(arguments_given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the clean-up below runs
    if arguments.step == "build":
        print(binary.ensure())
        return 0
    with only_run():
        if arguments.step == "down":
            cluster.remove_leftovers(_FOLDER / "run")
            return 0
        if arguments.install and cluster.lacking():
            run(["apt-get", "update", "-qq"], timeout_seconds=300)
            install = [
                "apt-get",
                "install",
                "-y",
                "-qq",
                "--no-install-recommends",
                *cluster.PACKAGES,
            ]
            run(install, timeout_seconds=600, env={"DEBIAN_FRONTEND": "noninteractive"})
        report = Report()
        made = running() if arguments.running else make(report)
        if arguments.step == "up":
            if made is None:
                return 1
            report.say(f"kubectl: {made.bin / 'kubectl'}")
            return 0
        try:
            if made is None:
                report.skip("CA2 and CA3: everything that needs the cluster", "see above")
            else:
                checks.run_all(report, made, full=arguments.full, only=arguments.only)
        finally:
            if made is not None:
                if report.failed or sys.exc_info()[0]:
                    made.keep_logs(_LOGS)
                if not arguments.running:
                    made.down()
                    with report.check(
                        "test bench: no process, namespace, mount, cgroup or file of the cluster "
                        "is left"
                    ):
                        if remains := cluster.left(_FOLDER / "run"):
                            raise CheckFailed("; ".join(remains))
    if arguments.evidence:
        write_evidence(report, full=arguments.full, only=arguments.only)
    return report.close(strict=arguments.strict)


def write_evidence(report: Report, *, full: bool, only: str) -> None:
    """Rewrites the documents of the stages that ran; one of which only parts ran keeps those of its
    last whole run."""
    words = ["--full"] * full + ([f"--only {only}"] if only else []) + ["--evidence"]
    command = (
        "make kubernetes-evidence"
        if full and not only
        else f'make kubernetes ARGS="{" ".join(words)}"'
    )
    if only:
        whole = only.split(",")
        report.stages = {
            name: lines
            for name, lines in report.stages.items()
            if any(f"{name}/".startswith(f"{word}/") for word in whole)
        }
    for path in evidence.write(report, command, list(servers.versions().values())):
        print(f"written: {path.relative_to(ROOT)}")


def running() -> Cluster:
    """The cluster that `up` left. Exits with 2 when there is none."""
    bench = Cluster(_FOLDER / "run", binary.ensure() / "kube", _FOLDER)
    if not bench.runs():
        sys.exit("no cluster runs: python -m deploy.bench kubernetes up")
    return bench


def make(report: Report) -> Cluster | None:
    """The cluster, three nodes Ready; None when this machine cannot, or when it failed."""
    ready: list[Cluster] = []
    with report.check("test bench: Kubernetes built, images assembled, three nodes Ready"):
        if lacks := cluster.lacking():
            raise NotChecked(f"no cluster can run here, this machine lacks: {'; '.join(lacks)}")
        kube = binary.ensure()
        report.say("the Kubernetes binary is there")
        cache = _FOLDER / "cache"
        made, identity = images.build(kube, cache)
        report.say(
            "images are there: assembled here under the reference tags, not the vendors' "
            "(deploy/bench/images/README.md)"
        )
        layers = store.ensure(cache, made, identity)
        report.say("and unpacked")
        cluster.remove_leftovers(_FOLDER / "run")
        bench = Cluster(_FOLDER / "run", kube / "kube", layers)
        try:
            bench.up()
        except BaseException:
            bench.keep_logs(_LOGS)
            bench.down()
            raise
        ready.append(bench)
    return ready[0] if ready else None


@contextmanager
def only_run() -> Iterator[None]:
    """One cluster at a time on this machine: names and addresses are fixed. Exits with 2 when
    another one runs."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    path = Path("/run/lock/gpu-tokens-kubernetes") if os.geteuid() == 0 else _FOLDER / "lock"
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another run of the bench is in progress on this machine")
        yield
