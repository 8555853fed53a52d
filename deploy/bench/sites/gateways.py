"""Envoy at each site, from the files in CA4/envoy as they stand there."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from deploy.bench.report import NotChecked
from deploy.bench.shell import CommandFailed, run, wait
from deploy.bench.sites import network
from deploy.bench.sites.identity import Authorities
from deploy.bench.sites.processes import Processes
from deploy.sites.table import LOOPBACK, SiteTable
from deploy.sites.written import STAGE

_FILES = ("envoy.yaml", "listeners.yaml", "clusters.yaml")


def binary() -> str:
    """Envoy beside this Python (make setup-dev) or on PATH. Raises NotChecked when there is
    none."""
    path = shutil.which(
        "envoy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if path is None:
        raise NotChecked("this machine lacks envoy (make setup-dev installs it on Linux x86-64)")
    return path


class Gateways:
    """The three Envoys."""

    def __init__(
        self, table: SiteTable, folder: Path, processes: Processes, authorities: Authorities
    ) -> None:
        self.table = table
        self.processes = processes
        self.authorities = authorities
        self._folder = folder

    def folder(self, site: str) -> Path:
        """What a site's Envoy reads."""
        return self._folder / f"envoy-{site}"

    def prepare(self) -> None:
        """Files and secrets of all sites."""
        for site in self.table.sites.values():
            self.folder(site.name).mkdir(parents=True, exist_ok=True)
            for name in _FILES:
                shutil.copy(STAGE / "envoy" / site.name / name, self.folder(site.name) / name)
            self.authorities.secrets(site, self.folder(site.name))

    def start(self, site: str) -> None:
        """Starts a site's Envoy; back when it is ready."""
        number = list(self.table.sites).index(site)
        command = [
            binary(),
            "-c",
            "envoy.yaml",
            "--concurrency",
            "1",
            "--base-id",
            str(710 + number),
        ]
        self.processes.start(
            f"envoy-{site}",
            site,
            [*command, "--disable-hot-restart", "-l", "warning"],
            cwd=self.folder(site),
        )
        wait(lambda: self.ready(site), 90, f"Envoy of site {site} is not ready")

    def ready(self, site: str) -> bool:
        """Whether it says so itself."""
        return "LIVE" in self.admin(site, "/ready")

    def admin(self, site: str, path: str) -> str:
        """An answer of Envoy's own interface; empty when there is none."""
        done = run(
            network.inside(
                site,
                "curl",
                "-s",
                "-m",
                "5",
                f"http://{LOOPBACK}:{self.table.mesh.admin_port}{path}",
            ),
            check=False,
        )
        return done.stdout

    def stat(self, site: str, name: str) -> int:
        """One counter or gauge; 0 when it is not there yet."""
        for line in self.admin(site, f"/stats?filter=^{name.replace('.', '%5C.')}$").splitlines():
            key, _, value = line.rpartition(": ")
            if key == name:
                return int(value)
        return 0

    def replace(self, site: str, name: str, text: str) -> None:
        """Another listeners.yaml or clusters.yaml, by renaming as Envoy watches for it."""
        unfinished = self._folder / f".{site}-{name}"
        unfinished.write_text(text)
        unfinished.rename(self.folder(site) / name)

    def restore(self, site: str, name: str) -> None:
        """The file of the repository again."""
        self.replace(site, name, (STAGE / "envoy" / site / name).read_text())

    def hosts_of(self, site: str, cluster: str) -> dict[str, str]:
        """Health of a cluster's hosts as Envoy sees it, by address and port."""
        answer = json.loads(self.admin(site, "/clusters?format=json") or "{}")
        for status in answer.get("cluster_statuses", []):
            if status["name"] == cluster:
                return {
                    _address(host): _health(host["health_status"])
                    for host in status.get("host_statuses", [])
                }
        raise CommandFailed(f"Envoy of site {site} knows no cluster {cluster}")


def _address(host: dict[str, Any]) -> str:
    socket = host["address"]["socket_address"]
    return f"{socket['address']}:{socket['port_value']}"


def _health(status: dict[str, Any]) -> str:
    if status.get("failed_outlier_check"):
        return "ejected"
    return "failed" if status.get("failed_active_health_check") else "healthy"
