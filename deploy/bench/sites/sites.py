"""Two sites and a vote, running: start, lose a site, promote the other, bring the first back.

What an operator does by runbook (CA4/docs/runbooks.md) is a method here, step by step in the same
order.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.bench.shell import CommandFailed, run, wait
from deploy.bench.sites import network
from deploy.bench.sites.gateways import Gateways
from deploy.bench.sites.identity import Authorities
from deploy.bench.sites.processes import Processes
from deploy.bench.sites.servers import Servers
from deploy.sites import table as tables
from deploy.sites.stores import mongodb_uri
from deploy.sites.table import LOOPBACK, ROOT, Kind, Role
from deploy.sites.written import STAGE

Say = Callable[[str], None]
PRODUCT = [sys.executable, "-m", "gpu_token_analytics"]
# Topics that hold how far MirrorMaker has read: of another broker than before they say nothing.
_POSITIONS = (
    "mm2-offsets.{source}.internal",
    "mm2-offset-syncs.{source}.internal",
    "{source}.checkpoints.internal",
)
_CONFIGURATIONS = ("mm2-configs.{source}.internal", "mm2-status.{source}.internal")


class Probe:
    """Questions asked from inside a site (probe.py)."""

    def __init__(self, site: str) -> None:
        self._process = subprocess.Popen(
            network.inside(site, sys.executable, "-m", "deploy.bench.sites.probe"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=ROOT,
        )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._process.poll() is None

    def ask(self, question: str, **arguments: Any) -> Any:
        """The answer. Raises CommandFailed when there is none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"ask": question, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):
            line = ""
        if not line:
            raise CommandFailed(f"{question}: nobody answers at that site")
        answer = json.loads(line)
        if "error" in answer:
            raise CommandFailed(f"{question}: {answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


class Sites:
    """All of it. `folder` holds files, disks and logs of this run."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.table = tables.load()
        self.folder = folder
        self.say = say
        self.processes = Processes(folder)
        self.authorities = Authorities(self.table, folder / "authorities")
        self.gateways = Gateways(self.table, folder, self.processes, self.authorities)
        self.servers = Servers(self.table, folder, self.processes)
        self.uri = mongodb_uri(self.table)
        self.active, self.standby = (
            self.table.by_role(Role.ACTIVE).name,
            self.table.by_role(Role.STANDBY).name,
        )
        self._probes: dict[str, Probe] = {}
        self._loads = itertools.count(len(list(folder.glob("*.acknowledged"))) + 1)

    # From nothing to both sites

    def start_network(self) -> None:
        """Namespaces and gateways; what an earlier run left is removed first."""
        network.up(self.table)
        self.authorities.create()
        self.gateways.prepare()
        for site in self.table.sites:
            self.gateways.start(site)

    def start_stores(self) -> None:
        """MongoDB everywhere, the replica set, a broker at each site that has one, topics and first
        offsets."""
        for site in self.table.sites:
            self.servers.start_stores(site)
        first = self.table.the(self.active, Kind.MONGODB)
        document = json.loads((STAGE / "mongodb" / "replica-set.json").read_text())
        self.probe(self.active).ask("initiate", port=first.port, document=document)
        self.await_members()
        for site in (self.active, self.standby):
            # Before MirrorMaker: topics that it makes itself have other settings than ours.
            self.product(site, "topics", "create")

    def start_pipeline(self) -> None:
        """MirrorMaker at the standby site, the processor at the active one, an API at both."""
        self.servers.start_mirror()
        self.start_processor(self.active)
        for site in (self.active, self.standby):
            self.start_api(site)

    # Parts

    def probe(self, site: str) -> Probe:
        """Somebody to ask at a site."""
        probe = self._probes.get(site)
        if probe is None or not probe.alive:
            probe = self._probes[site] = Probe(site)
        return probe

    def settings(self, site: str) -> dict[str, str]:
        """The environment of the product at a site: the file that ships."""
        lines = (STAGE / f"site-{site}.env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if not line.startswith("#"))

    def product(self, site: str, *arguments: str, env: dict[str, str] | None = None) -> str:
        """A command of the product at a site; what it says."""
        command = network.inside(site, *PRODUCT, *arguments)
        environment = (self.settings(site) if (STAGE / f"site-{site}.env").exists() else {}) | (
            env or {}
        )
        return run(command, env=environment, cwd=ROOT, timeout_seconds=300).stdout

    def start_processor(
        self, site: str, name: str = "processor", env: dict[str, str] | None = None
    ) -> None:
        """Starts a processor; back when it is ready for work."""
        port = env["HTTP_PORT"] if env and "HTTP_PORT" in env else str(self.table.processor.port)
        self.processes.start(
            f"{name}-{site}",
            site,
            [*PRODUCT, "processor", "--port", port],
            env=self.settings(site) | (env or {}),
            cwd=ROOT,
        )
        self._await_page(site, f"{name}-{site}", f"http://{LOOPBACK}:{port}/ready")

    def start_api(self, site: str) -> None:
        """Starts the API that the site's Envoy hands calls to."""
        port = self.table.the(site, Kind.API).port
        self.processes.start(
            f"api-{site}",
            site,
            [*PRODUCT, "api", "--port", str(port)],
            env=self.settings(site),
            cwd=ROOT,
        )
        self._await_page(site, f"api-{site}", f"http://{LOOPBACK}:{port}/ready")

    def start_load(self, site: str, rate: float = 20) -> str:
        """A producer at a site; returns the name that its notes of sent and acknowledged ids begin
        with."""
        name = f"load-{site}-{next(self._loads)}"
        command = [
            sys.executable,
            "-m",
            "deploy.bench.sites.load",
            str(rate),
            str(self.folder),
            name,
        ]
        self.processes.start(
            f"load-{site}",
            site,
            command,
            env=self.settings(site),
            cwd=ROOT,
            ready=lambda log: "producing" in log,
        )
        return name

    def stop_load(self, site: str) -> None:
        """Ends the producer, in the middle of whatever it does."""
        self.processes.kill(f"load-{site}")

    def await_members(self) -> None:
        """Until every member is primary or secondary, as a member of the voting site sees it."""
        members = self.table.of(Kind.MONGODB)
        witness = members[-1]

        def healthy() -> bool:
            with suppress(CommandFailed):
                seen = list(self.probe(witness.site).ask("states", port=witness.port).values())
                return seen.count("PRIMARY") == 1 and seen.count("SECONDARY") == len(members) - 1
            return False

        wait(healthy, 240, f"not all of {len(members)} members of the replica set are healthy")

    # What an operator does

    def lose(self, site: str, *, seconds_cut_before_dead: float = 0) -> None:
        """The site is cut off, and a moment later everything there is dead. In between its clients
        still get answers."""
        network.cut(site)
        time.sleep(seconds_cut_before_dead)
        network.kill_everything_at(site)
        self.processes.forget(site)

    def lose_disk(self, site: str) -> None:
        """What a dead site kept is gone, too."""
        shutil.rmtree(self.servers.disk(site))

    def promote(self, site: str) -> float:
        """The runbook's steps; returns when (time.monotonic) MongoDB took a write again.

        Safe while the other site still lives: who has the majority of the store can write, and an
        event is one document.
        """
        self.say(
            f"promote {site}: 1 first offsets of the group where MirrorMaker had none to translate"
        )
        creating = subprocess.Popen(
            network.inside(site, *PRODUCT, "topics", "create"), env={**os.environ,
            **self.settings(site)}, cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.say(f"promote {site}: 2 the store takes majority writes")
        self.probe(site).ask("majority_write", uri=self.uri)
        writable_at = time.monotonic()
        said, _ = creating.communicate(timeout=120)
        if creating.returncode != 0:
            raise CommandFailed(f"topics create at {site}: {said[-1000:]}")
        self.say(f"promote {site}: 3 the processor")
        if not self.processes.running(f"processor-{site}"):
            self.start_processor(site)
        return writable_at

    def bring_back(self, site: str, *, empty: bool = False, forget_positions: bool = True) -> None:
        """A lost site returns: link, gateway, stores.

        empty: without its disk, so as a new broker and as new members; MirrorMaker is stopped then,
        for the caller to start.
        """
        mirror = f"mirror-{self.standby}"
        if empty:
            # MirrorMaker's positions are those of the broker that is gone; the new one's first
            # events lie before them.
            self.processes.stop(mirror)
            names = [name.format(source=site) for name in _POSITIONS] if forget_positions else []
            bootstrap = self.settings(self.standby)["KAFKA_BOOTSTRAP"]
            self.probe(self.standby).ask("delete_topics", bootstrap=bootstrap, names=names)
        network.heal(site)
        self.gateways.start(site)
        self.servers.start_stores(site)
        self.await_members()
        self.product(site, "topics", "create")

    def activate_both(self, others: dict[str, str]) -> None:
        """Both sites take events; `others` is the topic at each site that holds what the other one
        took.

        Another replication policy needs positions of its own: with the old ones MirrorMaker goes on
        from where it was, and what lies before never gets into the new topics. And it needs
        configurations of its own: MirrorMaker first starts the tasks that are written down, by the
        old policy, and what these copy is missing in the new topics.
        """
        self.processes.stop(f"mirror-{self.standby}")
        names = [name.format(source=self.active) for name in (*_POSITIONS, *_CONFIGURATIONS)]
        self.probe(self.standby).ask(
            "delete_topics", bootstrap=self.settings(self.standby)["KAFKA_BOOTSTRAP"], names=names
        )
        group = f"{self.table.topics.group}-other"
        for site, topic in others.items():
            self.product(site, "topics", "create", env={"KAFKA_TOPIC": topic, "KAFKA_GROUP": group})
            self.servers.start_mirror(both_ways=True, site=site)
        for site, topic in others.items():
            if not self.processes.running(f"processor-{site}"):
                self.start_processor(site)
            port = str(self.table.processor.port + 1)
            env = {"KAFKA_TOPIC": topic, "KAFKA_GROUP": group, "HTTP_PORT": port}
            self.start_processor(site, "reader-of-the-other", env)

    def fail_back(self, drained: Callable[[], bool]) -> None:
        """Back to the active site: producers first, then what is under way, then the processor."""
        self.say("failback: 1 no producer at the standby site")
        self.stop_load(self.standby)
        self.say("failback: 2 everything that is acknowledged is in the store")
        wait(drained, 240, "the standby site does not run dry")
        self.say("failback: 3 the processor moves")
        self.processes.stop(f"processor-{self.standby}")
        # it lives when the site was cut off only
        if not self.processes.running(f"processor-{self.active}"):
            self.start_processor(self.active)
        if not self.processes.running(f"api-{self.active}"):
            self.start_api(self.active)

    def close(self) -> None:
        """Ends everything that was started and removes the network; logs stay until the folder
        goes."""
        for probe in self._probes.values():
            probe.close()
        network.remove()

    def _await_page(self, site: str, process: str, url: str) -> None:
        def there() -> bool:
            if not self.processes.running(process):
                raise CommandFailed(f"{process} ended: {self.processes.tail(process)}")
            with suppress(CommandFailed):
                answer = str(self.probe(site).ask("page", url=url))
                return not answer.startswith("status")
            return False

        wait(there, 180, f"{url} at {site} does not answer: {self.processes.tail(process)}")
