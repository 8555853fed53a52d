"""Autoscalers that really scale: the API by CPU, the processors by lag, up and down again, nothing
lost or doubled."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.bench.checks import replay
from deploy.bench.kubernetes import lag_server
from deploy.bench.kubernetes.database import Database
from deploy.bench.kubernetes.replays import Replays
from deploy.bench.report import expect
from deploy.bench.shell import wait

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

_SCALER = "keda"  # the namespace from which the flow table lets a scaler ask Kafka
_METRIC = "gpu_tokens_group_lag_records"
_PARTITIONS = 12
# The shipped autoscaler waits five minutes before it goes down; here half a minute, and the
# threshold fits a replay.
_QUICK: dict[str, dict[str, Any]] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 30,
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
    },
}
_THRESHOLD = 2000
# Load that comes and goes, and a window down that is longer than its period, as the shipped five
# minutes are in production.
_WAVES, _WAVE_SECONDS, _WINDOW_SECONDS = 5, 40, 100


def by_lag(bench: Bench) -> None:
    """A backlog is made; more processors come, the lag goes, they leave again."""
    with bench.report.check(
        "CA3: processors by lag: backlog, more of them, lag gone, back to two; lost 0, doubled 0"
    ):
        _serve_lag(bench)
        _backlog(bench)
    with bench.report.check(
        "CA3: processors by lag that comes and goes: one change a burst at most, one turn; lost 0, "
        "doubled 0"
    ):
        _waves(bench)


def _backlog(bench: Bench) -> None:
    shipped = bench.workload.get("hpa", "processor")["spec"]
    limits = (shipped["minReplicas"], shipped["maxReplicas"])
    expect(
        limits == (2, _PARTITIONS), f"the shipped autoscaler goes from {limits[0]} to {limits[1]}"
    )
    _scale_quickly(bench, _QUICK)
    replays = Replays(bench.workload, Database(bench.workload), replay.find_trace(), 0, "lag")
    replays.prepare()
    wait(lambda: _replicas(bench) == 2, 240, "not at two processors to begin with")
    started = time.monotonic()
    history: list[tuple[float, int]] = []
    # as fast as Kafka takes it: 38,732 requests at once
    models = [replays.start() for _ in range(2)]
    wait(lambda: _note(bench, history, started) > 2, 180, "no third processor")
    wait(lambda: _note(bench, history, started) == 2, 480, "not back at two processors")
    numbers = [number for _, number in history]
    bench.report.say(
        "processors: " + ", ".join(f"{number} at {second:.0f} s" for second, number in history)
    )
    expect(
        max(numbers) <= _PARTITIONS and min(numbers) >= 2,
        f"between {min(numbers)} and {max(numbers)}",
    )
    outcomes = [replays.outcome(model) for model in models]
    expect(all((o.lost, o.doubled, o.wrong) == (0, 0, "") for o in outcomes), f"{outcomes}")
    row = [
        max(numbers),
        f"{history[-1][0]:.0f}",
        sum(o.lost for o in outcomes),
        sum(o.doubled for o in outcomes),
    ]
    bench.report.table(
        ["backlog of 38,732 requests: most processors", "back at two after (s)", "lost", "doubled"],
        [row],
    )


def _waves(bench: Bench) -> None:
    """Bursts with pauses in which the lag is gone: the number goes up, then down, and not up and
    down with each of them."""
    down = {**_QUICK["scaleDown"], "stabilizationWindowSeconds": _WINDOW_SECONDS}
    _scale_quickly(bench, {**_QUICK, "scaleDown": down})
    replays = Replays(bench.workload, Database(bench.workload), replay.find_trace(), 0, "wave")
    replays.prepare()
    wait(lambda: _replicas(bench) == 2, 240, "not at two processors to begin with")
    started = time.monotonic()
    history: list[tuple[float, int]] = []
    models = []
    for wave in range(_WAVES):
        models.append(replays.start())
        while time.monotonic() < started + (wave + 1) * _WAVE_SECONDS:
            _note(bench, history, started)
    load = list(history)
    wait(lambda: _note(bench, history, started) == 2, 480, "not back at two processors")
    bench.report.say(
        "processors: " + ", ".join(f"{number} at {second:.0f} s" for second, number in history)
    )
    outcomes = [replays.outcome(model) for model in models]
    expect(all((o.lost, o.doubled, o.wrong) == (0, 0, "") for o in outcomes), f"{outcomes}")
    # one that follows each burst up and down makes two of each
    changes, most = len(load) - 1, _WAVES
    turns = reversals([number for _, number in history])
    seen = f"{changes} changes during the load (at most {most}), {turns} turns in all: {history}"
    expect(1 <= changes <= most and turns == 1, seen)
    what = (
        f"{_WAVES} bursts of 19,366 requests, one each {_WAVE_SECONDS} s; window down "
        f"{_WINDOW_SECONDS} s"
    )
    numbers = [changes, most, turns, max(number for _, number in history)]
    bench.report.table(
        [
            "lag that comes and goes",
            "changes meanwhile",
            "at most",
            "turns, up to down",
            "most processors",
            "lost",
            "doubled",
        ],
        [[what, *numbers, sum(o.lost for o in outcomes), sum(o.doubled for o in outcomes)]],
    )


def reversals(numbers: Sequence[int]) -> int:
    """How often a series of numbers turns from going up to going down, or back."""
    steps = [after > before for before, after in itertools.pairwise(numbers) if after != before]
    return sum(before != after for before, after in itertools.pairwise(steps))


def _scale_quickly(bench: Bench, behaviour: dict[str, Any]) -> None:
    metric = {
        "metric": {"name": _METRIC},
        "target": {"type": "AverageValue", "averageValue": str(_THRESHOLD)},
    }
    quick = {"spec": {"behavior": behaviour, "metrics": [{"type": "External", "external": metric}]}}
    bench.workload.kubectl("patch", "hpa", "processor", "--type=merge", "-p", json.dumps(quick))


def by_cpu(bench: Bench) -> None:
    """Questions to the API until it is busy; more of it comes, and goes."""
    with bench.report.check("CA2: the API by CPU: asked without pause, a third replica comes"):
        wait(lambda: bool(_usage(bench)), 120, "metrics-server has no figures of the API's pods")
        behaviour = {"spec": {"behavior": _QUICK, "metrics": [_cpu("100m")]}}
        bench.workload.kubectl("patch", "hpa", "api", "--type=merge", "-p", json.dumps(behaviour))
        pods = bench.workload.pods("api")
        started = time.monotonic()
        # From the API's own network: whoever else asks would need a flow.
        ask = (
            "import sys, time, urllib.request, contextlib\nend = time.monotonic() + "
            "float(sys.argv[1])\n"
            "while time.monotonic() < end:\n"
            "    with contextlib.suppress(OSError): "
            "urllib.request.urlopen('http://127.0.0.1:8080/metrics', timeout=5).read()\n"
        )
        for pod in pods:
            bench.workload.spawn_in_network_of(pod, ["python3", "-c", ask, "60"])
        wait(lambda: _wanted(bench, "api") > 2, 120, f"no third replica; {_usage(bench)}")
        bench.report.say(f"third API replica wanted after {time.monotonic() - started:.0f} s")
        wait(lambda: _wanted(bench, "api") == 2, 240, "not back at two")


def _cpu(value: str) -> dict[str, Any]:
    return {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": value}},
    }


def _usage(bench: Bench) -> str:
    return bench.workload.kubectl(
        "top", "pods", "-l", "app.kubernetes.io/name=api", "--no-headers", check=False
    ).strip()


def _wanted(bench: Bench, name: str) -> int:
    return int(bench.workload.get("deployment", name)["spec"].get("replicas", 1))


def _replicas(bench: Bench) -> int:
    return int(bench.workload.get("deployment", "processor")["status"].get("readyReplicas", 0))


def _note(bench: Bench, history: list[tuple[float, int]], started: float) -> int:
    """The number of processors that are wanted now; a change of it is noted with its time."""
    number = _wanted(bench, "processor")
    if not history or history[-1][1] != number:
        history.append((time.monotonic() - started, number))
    time.sleep(1)
    return number


def _serve_lag(bench: Bench) -> None:
    """The external metrics API from a pod in the scaler's namespace, with a certificate that the
    API server checks."""
    name = f"lag.{_SCALER}.svc"
    authority = bench.cluster.authority
    authority.sign("lag", f"/CN={name}", f"DNS:{name}")
    secret = {
        "tls.crt": Path(authority.certificate("lag")).read_bytes(),
        "tls.key": Path(authority.key("lag")).read_bytes(),
    }
    settings = {
        "BOOTSTRAP": "kafka.gpu-tokens.svc:9092", "GROUP": "gpu-tokens-processor",
        "TOPIC": "tokens", "METRIC": _METRIC,
        "THRESHOLD": str(_THRESHOLD), "USERNAME": bench.workload.secret("kafka-client",
        "KAFKA_SASL_USERNAME"),
        "PASSWORD": bench.workload.secret("kafka-client", "KAFKA_SASL_PASSWORD"),
    }  # fmt: skip
    image = bench.workload.get("deployment", "processor")["spec"]["template"]["spec"]["containers"][
        0
    ]["image"]
    items = _lag_objects(
        image,
        secret,
        settings,
        base64.b64encode(Path(authority.certificate("ca")).read_bytes()).decode(),
    )
    bench.cluster.apply_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    path = f"/apis/external.metrics.k8s.io/v1beta1/namespaces/gpu-tokens/{_METRIC}"
    wait(
        lambda: '"value"' in bench.cluster.kubectl("get", "--raw", path, check=False),
        120,
        "the lag is not served",
    )


def _lag_objects(
    image: str, secret: dict[str, bytes], settings: dict[str, str], authority: str
) -> list[dict[str, Any]]:
    labels = {"app": "lag"}
    confined = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container = {
        "name": "lag",
        "image": image,
        "command": ["python", "/program/lag_server.py"],
        "env": [{"name": key, "value": value} for key, value in settings.items()],
        "securityContext": confined,
        "readinessProbe": {"tcpSocket": {"port": 6443}, "periodSeconds": 2, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "volumeMounts": [
            {"name": "program", "mountPath": "/program"},
            {"name": "tls", "mountPath": "/tls"},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "program", "configMap": {"name": "lag"}},
            {"name": "tls", "secret": {"secretName": "lag"}},
        ],
    }
    meta = {"name": "lag", "namespace": _SCALER}
    encoded = {key: base64.b64encode(value).decode() for key, value in secret.items()}
    program = Path(lag_server.__file__).read_text()
    service = {"name": "lag", "namespace": _SCALER, "port": 443}
    api = {
        "group": "external.metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _SCALER}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta,
        "data": {"lag_server.py": program}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encoded},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta,
         "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": 6443}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
         "spec": {"selector": {"matchLabels": labels}, "template": template}},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
         "metadata": {"name": "v1beta1.external.metrics.k8s.io"}, "spec": {**api,
         "service": service, "caBundle": authority}},
    ]  # fmt: skip
