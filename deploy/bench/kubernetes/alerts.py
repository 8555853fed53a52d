"""What the cluster's own Prometheus fires, and what its Alertmanager tells a receiver that keeps
it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import yaml

from deploy.bench.kubernetes.operations import ask
from deploy.bench.kubernetes.workload import Workload
from deploy.bench.report import CheckFailed, expect
from deploy.bench.shell import CommandFailed, wait
from deploy.flows import ROOT
from deploy.observability.rules import rule_groups

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

_MONITORING = "monitoring"
_NAME = "alert-receiver"  # the name in the shipped Alertmanager's configuration
_SHIPPED = ROOT / "CA3/observability/config"
_RECEIVER = """
import http.server, json
told = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told.append([self.path, body["status"], body["groupLabels"].get("alertname", "")])
        self.answer([])
    def do_GET(self):
        self.answer(told)
    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
_READ = (
    "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/', "
    "timeout=10).read().decode())"
)


class Alarm:
    """Prometheus, Alertmanager and the receiver of a cluster on which CA3's `observed` overlay
    runs."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._room = Workload(bench.cluster, _MONITORING)

    def listen(self) -> None:
        """Starts the receiver that the shipped configuration names."""
        processor = self._bench.workload.get("deployment", "processor")
        image = processor["spec"]["template"]["spec"]["containers"][0]["image"]
        self._bench.cluster.apply_text(
            json.dumps({"apiVersion": "v1", "kind": "List", "items": _objects(image)})
        )
        self._room.kubectl(
            "wait", "--for=condition=Ready", f"pod/{_NAME}", "--timeout=120s", timeout_seconds=130
        )

    def firing(self) -> set[str]:
        """The alerts that fire in Prometheus now. Raises CommandFailed when it does not answer."""
        (answer,) = ask(self._bench, ["/api/v1/alerts"])
        if answer.get("status") != "success":
            raise CommandFailed(f"Prometheus: {answer}")
        return {
            alert["labels"]["alertname"]
            for alert in answer["data"]["alerts"]
            if alert["state"] == "firing"
        }

    def told(self) -> list[tuple[str, str, str]]:
        """Path, `firing` or `resolved`, and alert of each message that the receiver got, in
        order."""
        said = self._room.in_network_of(self._room.get("pod", _NAME), [sys.executable, "-c", _READ])
        return [(path, status, alert) for path, status, alert in json.loads(said)]

    def await_firing(self, names: Collection[str], timeout_seconds: float) -> dict[str, float]:
        """Until each of them fired at one time or another; returns after how many seconds each
        did."""
        started, after = time.monotonic(), dict[str, float]()
        while len(after) < len(names):
            for name in set(names) & self.firing() - set(after):
                after[name] = time.monotonic() - started
            late = time.monotonic() - started > timeout_seconds
            expect(
                not late,
                (
                    f"not firing after {timeout_seconds:.0f} s: {sorted(set(names) - set(after))}; "
                    f"{self._values()}"
                ),
            )
            time.sleep(1)
        return after

    def await_over(self, names: Collection[str], timeout_seconds: float) -> None:
        """Until none of them fires. Raises CommandFailed with those that still do."""
        try:
            wait(lambda: not set(names) & self.firing(), timeout_seconds, "still firing")
        except CommandFailed:
            raise CheckFailed(
                f"{sorted(set(names) & self.firing())} still fire after {timeout_seconds:.0f} s"
            ) from None

    def await_told(
        self, status: str, name: str, path: str, since: int, timeout_seconds: float
    ) -> None:
        """Until the receiver got this message, among those from number `since` on, and at no other
        path."""
        end = time.monotonic() + timeout_seconds
        while (path, status, name) not in (told := self.told()[since:]):
            expect(
                time.monotonic() < end, f"{path} was not told that {name} is {status}; told: {told}"
            )
            time.sleep(1)
        elsewhere = [seen for seen in told if seen[1:] == (status, name) and seen[0] != path]
        expect(not elsewhere, f"{name} was told to {elsewhere}")

    def hurry(self, speed: int) -> None:
        """The shipped rules with every length of time in them divided by `speed`; Alertmanager
        without its waits."""
        prometheus = yaml.safe_load((_SHIPPED / "prometheus.yaml").read_text())
        prometheus["global"] = {
            "scrape_interval": "3s",
            "scrape_timeout": "3s",
            "evaluation_interval": "1s",
        }
        told = yaml.safe_load((_SHIPPED / "alertmanager.yaml").read_text())
        for route in (told["route"], *told["route"]["routes"]):
            route.update({"group_wait": "1s", "group_interval": "2s", "repeat_interval": "12h"})
        rules = rule_groups(speed, interval_seconds=1)
        files = {
            "prometheus": {
                "prometheus.yaml": yaml.safe_dump(prometheus),
                "rules.yaml": yaml.safe_dump(rules),
            },
            "alertmanager": {"alertmanager.yaml": yaml.safe_dump(told)},
        }
        for (name, data), kind in zip(files.items(), ("statefulset", "deployment"), strict=True):
            metadata = {"name": f"{name}-hurried", "namespace": _MONITORING}
            self._bench.cluster.apply_text(
                json.dumps(
                    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
                )
            )
            volume = {"name": "config", "configMap": {"name": f"{name}-hurried"}}
            patch = {"spec": {"template": {"spec": {"volumes": [volume]}}}}
            self._room.kubectl("patch", f"{kind}/{name}", "-p", json.dumps(patch))
        self._room.wait_until_ready(300)

    def _values(self) -> str:
        (answer,) = ask(self._bench, ["/api/v1/alerts"])
        alerts = answer.get("data", {}).get("alerts", [])
        return (
            ", ".join(f"{alert['labels']['alertname']} {alert['state']}" for alert in alerts)
            or "no alert at all"
        )


def _objects(image: str) -> list[dict[str, Any]]:
    meta = {"name": _NAME, "namespace": _MONITORING, "labels": {"app.kubernetes.io/name": _NAME}}
    confined = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container = {
        "name": "receiver",
        "image": image,
        "command": ["python", "-c", _RECEIVER],
        "securityContext": confined,
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 2, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "5m", "memory": "32Mi"}},
    }
    pod = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    who = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "alertmanager"}}}]
    entry = {
        "podSelector": {"matchLabels": meta["labels"]},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": who, "ports": [{"port": 8080, "protocol": "TCP"}]}],
    }
    ports = [{"port": 8080}]
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": meta["labels"], "ports": ports},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": meta,
            "spec": entry,
        },
    ]
