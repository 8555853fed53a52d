"""A pipeline of real processes with a real Prometheus and a real Alertmanager over it, all on
loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from deploy.observability.__main__ import ROOM
from deploy.observability.rules import rule_groups
from tests.programs import GPU_TOKENS, Child, end, start

from gpu_token_analytics.embedded.child import LOOPBACK, free_port

# Lengths of time in the rules are divided by this: what needs an hour in production needs four
# minutes here. Not more, since processes of a busy machine need some seconds for what takes one
# elsewhere.
SPEED = 15
_SLOW = ("kafka", "mongo")  # their exporters ask a server that has other work, too


def get(url: str, timeout_seconds: float = 20) -> tuple[int, bytes]:
    """Status and body; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return 0, b""


def eventually(check: Callable[[], Any], what: str, seconds: float) -> Any:
    """Poll until `check` returns something true, and return it."""
    until = time.monotonic() + seconds
    while True:
        if result := check():
            return result
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)


class Receiver:
    """A webhook that keeps what Alertmanager posts."""

    def __init__(self) -> None:
        posted: list[tuple[str, dict[str, Any]]] = []
        self._posted = posted

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                posted.append((self.path, json.loads(self.rfile.read(length))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def told(self, alert: str) -> list[tuple[str, str]]:
        """(path, firing or resolved) of each message about this alert, in order."""
        return [
            (path, body["status"])
            for path, body in list(self._posted)
            if body["groupLabels"].get("alertname") == alert
        ]

    def statuses(self, alert: str) -> list[str]:
        return [status for _, status in self.told(alert)]


class Room:
    """Processes, each with its log and a port; ended in reverse order."""

    def __init__(
        self, folder: Path, keep_log: Callable[[Path], None], environment: Mapping[str, str]
    ) -> None:
        self.folder, self._keep_log, self._environment = folder, keep_log, dict(environment)
        self._stack = ExitStack()
        self.ports: dict[str, int] = {}
        self.children: dict[str, Child] = {}

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, name: str, command: list[str], **environment: str) -> Child:
        """Start a program; its log is in the folder, and in test-logs/ should the test fail."""
        log = self.folder / f"{name}.log"
        self._keep_log(log)
        child = start(command, log, {**self._environment, **environment}, self.folder)
        self.children[name] = child
        self._stack.callback(end, child)
        return child

    def ours(self, name: str, *words: str, port: int | None = None, **environment: str) -> int:
        """Start `gpu-tokens WORDS` (NAME where none are given) with an HTTP port; returns the
        port."""
        port = port or free_port()
        self.ports[name] = port
        command = [*GPU_TOKENS, *(words or (name,))]
        self.run(name, command, HTTP_HOST=LOOPBACK, HTTP_PORT=str(port), **environment)
        return port

    def tool(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `gpu-tokens WORDS` to its end, as an operator would."""
        return subprocess.run(
            [*GPU_TOKENS, *words],
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def kill(self, name: str) -> None:
        """Cut its power."""
        self.children[name].kill()
        self.children[name].wait(10)


class Prometheus:
    """Debian's Prometheus over fixed targets, with the shipped rules SPEED times faster and the
    shipped jobs."""

    def __init__(self, room: Room, targets: Mapping[str, int], alertmanager_port: int) -> None:
        self.port = free_port()
        folder = room.folder / "prometheus"
        folder.mkdir()
        (folder / "rules.yaml").write_text(yaml.safe_dump(rule_groups(SPEED, interval_seconds=1)))
        shipped = yaml.safe_load((ROOM / "config" / "prometheus.yaml").read_text())
        jobs = []
        for job in shipped["scrape_configs"]:
            if job["job_name"] in targets:
                place = [{"targets": [f"{LOOPBACK}:{targets[job['job_name']]}"]}]
                slow = (
                    {"scrape_interval": "5s", "scrape_timeout": "5s"}
                    if job["job_name"] in _SLOW
                    else {}
                )
                jobs.append(
                    {
                        **{key: job[key] for key in job if key != "dns_sd_configs"},
                        **slow,
                        "static_configs": place,
                    }
                )
        config = {
            "global": {
                "scrape_interval": "3s",
                "scrape_timeout": "3s",
                "evaluation_interval": "1s",
            },
            "rule_files": ["rules.yaml"],
            "alerting": {
                "alertmanagers": [
                    {"static_configs": [{"targets": [f"{LOOPBACK}:{alertmanager_port}"]}]}
                ]
            },
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [str(shutil.which("prometheus")), f"--config.file={folder}/prometheus.yaml"]
        command += [
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={LOOPBACK}:{self.port}",
        ]
        room.run("prometheus", command)

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The instant answer. Fails when Prometheus refuses the query."""
        url = (
            f"http://{LOOPBACK}:{self.port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        )
        status, body = get(url)
        answer = json.loads(body)
        assert status == 200, f"{query}: {answer}"
        return list(answer["data"]["result"])

    def ready(self) -> bool:
        return get(f"http://{LOOPBACK}:{self.port}/-/ready")[0] == 200


def start_alertmanager(room: Room, receiver_url: str) -> int:
    """Debian's Alertmanager with the shipped routes and shorter waits; returns its port."""
    port = free_port()
    config = yaml.safe_load((ROOM / "config" / "alertmanager.yaml").read_text())
    waits = {"group_wait": "1s", "group_interval": "2s", "repeat_interval": "12h"}
    config["route"] |= waits
    for child in config["route"]["routes"]:
        child.update(waits)
    for told in config["receivers"]:
        for hook in told["webhook_configs"]:
            hook["url"] = receiver_url + urllib.parse.urlsplit(hook["url"]).path
    path = room.folder / "alertmanager.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [
        str(shutil.which("prometheus-alertmanager")),
        f"--config.file={path}",
        f"--storage.path={room.folder}/am",
    ]
    room.run(
        "alertmanager",
        [*command, f"--web.listen-address={LOOPBACK}:{port}", "--cluster.listen-address="],
    )
    return port
