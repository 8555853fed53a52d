"""Replays of the Azure trace by a Job of the product's own image, and whether what is stored of
them is exact."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from deploy.bench.checks import replay
from deploy.bench.checks.replay import Sums
from deploy.bench.kubernetes.database import Database
from deploy.bench.kubernetes.workload import REPLAY, Workload
from deploy.bench.report import CheckFailed, expect
from deploy.bench.shell import CommandFailed, wait

_TRACE = "trace"
_LONGEST_SECONDS = 600  # a machine that is busy with other things is slow, not wrong


@dataclass
class Outcome:
    """What became of a replay: requests that are missing, requests that were counted more than
    once, and what is wrong else."""

    lost: int
    doubled: int
    wrong: str = ""


@dataclass
class Replays:
    """Replays one after another, their models named after `name`. `speed` 20 makes three minutes of
    the trace's hour."""

    workload: Workload
    database: Database
    trace: Path
    speed: int
    name: str
    expected: Sums = field(init=False)
    _numbers: Callable[[], int] = field(init=False)
    _run: str = field(init=False)
    current: str = ""
    _outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.expected = replay.sums_of(self.trace)
        self._numbers = itertools.count(1).__next__
        # Another run on the same cluster must not meet these models as its own.
        self._run = f"{self.name}t{int(time.time()) % 10**6}n"

    def prepare(self) -> None:
        """Puts the trace into the cluster."""
        self.workload.kubectl("delete", "configmap", _TRACE, "--ignore-not-found")
        self.workload.kubectl(
            "create", "configmap", _TRACE, f"--from-file={replay.NAME}={self.trace}"
        )

    def in_progress(self) -> str:
        """The name of a replay that is in its middle: the one that runs, or a new one once a
        twentieth of it is stored."""
        if not self.current or self._stored() > 0.6 * self.expected.requests:
            self.current = self.start()
            enough = self.expected.requests / 20
            wait(
                lambda: self._stored() > enough,
                _LONGEST_SECONDS,
                f"{self.current}: a twentieth is not stored",
            )
        return self.current

    def start(self) -> str:
        """Starts another replay; returns its name."""
        model = f"{self._run}{self._numbers()}"
        self._start(model)
        return model

    def outcome(self, model: str) -> Outcome:
        """Waits until all of a replay is stored and in the ledger, and compares. The same replay is
        only judged once."""
        if model not in self._outcomes:
            self._outcomes[model] = self._judge(model)
            if model == self.current:
                self.current = ""
        return self._outcomes[model]

    def _stored(self) -> int:
        with contextlib.suppress(CommandFailed):
            return self.database.stored(self.current).requests
        return 0

    def _judge(self, model: str) -> Outcome:
        # The ledger first: what is stored is looked at when everything that could double it is
        # over.
        sums = {"in the ledger": self.database.in_ledger, "stored": self.database.stored}
        seen: dict[str, Sums] = {}
        wrong = []
        for place, ask in sums.items():
            try:
                replay.await_sums(
                    functools.partial(ask, model),
                    self.expected,
                    _LONGEST_SECONDS,
                    f"{model} {place}",
                )
                seen[place] = self.expected
            except CheckFailed as failure:
                wrong.append(str(failure))
                seen[place] = ask(model)
        self.workload.kubectl(
            "delete", "job", f"{REPLAY}{model}", "--ignore-not-found", "--wait=false", check=False
        )
        requests = [place.requests for place in seen.values()]
        lost, doubled = (
            self.expected.requests - min(requests),
            max(requests) - self.expected.requests,
        )
        return Outcome(max(0, lost), max(0, doubled), "; ".join(wrong))

    def _start(self, model: str) -> None:
        # The simulated fleet's events would only take time; every apply of the overlay starts it
        # again.
        self.workload.kubectl("scale", "deployment", "simulate", "--replicas=0")
        template = self.workload.get("deployment", "simulate")["spec"]["template"]
        spec = template["spec"]
        container = spec["containers"][0]
        container["args"] = [
            "replay", f"/trace/{replay.NAME}", "--speed", str(self.speed), "--models",
            f"{model}-a,{model}-b", "--gpu-samples",
        ]  # fmt: skip
        container["name"] = "replay"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            container.pop(probe, None)
        container.setdefault("volumeMounts", []).append(
            {"name": _TRACE, "mountPath": "/trace", "readOnly": True}
        )
        spec.setdefault("volumes", []).append({"name": _TRACE, "configMap": {"name": _TRACE}})
        spec["restartPolicy"] = "Never"
        # A replay whose node dies is run again by another pod: it sends the same events.
        pods = {"metadata": {"labels": template["metadata"]["labels"]}, "spec": spec}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"{REPLAY}{model}", "namespace": self.workload.namespace},
            "spec": {"backoffLimit": 10, "template": pods},
        }
        self.workload.kubectl("apply", "-f", "-", stdin=json.dumps(job))


def audit(workload: Workload, timeout_seconds: float = 240) -> str:
    """The product's own audit, run in a processor; raises CheckFailed unless it is exact. Returns
    its last lines."""
    end = time.monotonic() + timeout_seconds
    while True:
        pods = [pod for pod in workload.pods("processor") if pod["status"]["phase"] == "Running"]
        expect(bool(pods), "no processor runs")
        command = [
            "exec",
            pods[0]["metadata"]["name"],
            "-c",
            "processor",
            "--",
            "gpu-tokens",
            "audit",
        ]
        try:
            return workload.kubectl(*command, timeout_seconds=180)
        except CommandFailed as failure:
            # Cells that are still due are not wrong, only not computed yet.
            if time.monotonic() > end:
                raise CheckFailed(f"audit: {failure}") from None
            time.sleep(5)
