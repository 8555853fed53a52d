"""Kafka, MirrorMaker and MongoDB at their sites, with the configuration that CA4 ships."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from deploy.bench.report import NotChecked
from deploy.bench.shell import run
from deploy.bench.sites.processes import Processes
from deploy.sites.table import LOOPBACK, Kind, Service, SiteTable
from deploy.sites.written import STAGE
from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, resolve_jars
from gpu_token_analytics.embedded.mongod import find_mongod
from gpu_token_analytics.errors import EmbeddedServiceError

MIRROR_METRICS_PORT = 9404
_POM = STAGE / "mirror" / "pom.xml"
_EXACTLY_ONCE = "exactly.once.source.support = enabled"
# short lives on few cores: the second compiler would only cost
_JVM = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"


def lacking() -> list[str]:
    """What this machine lacks to run the bench, with the Debian package that has it."""
    packages = {
        "ip": "iproute2", "nft": "nftables", "openssl": "openssl", "curl": "curl",
        "sysctl": "procps",
        "java": "openjdk-17-jre-headless", "mvn": "maven",
    }  # fmt: skip
    lacks = [
        f"{program} ({package})"
        for program, package in packages.items()
        if shutil.which(program) is None
    ]
    if os.geteuid() != 0:
        lacks.append("root")
    try:
        find_mongod()
    except EmbeddedServiceError as error:
        lacks.append(f"mongod ({error})")
    return lacks


def mirror_jars() -> Path:
    """MirrorMaker's jars, by Maven the first time. A folder is moved into place only when it is
    complete."""
    found = re.search(r"<kafka\.version>([\d.]+)<", _POM.read_text())
    assert found is not None, _POM
    jars = Path.home() / ".cache" / "gpu-tokens" / "mirror" / found[1]
    if not jars.is_dir():
        unfinished = jars.with_name(f"{jars.name}-{os.getpid()}")
        command = [
            "mvn",
            "--batch-mode",
            "--quiet",
            "--strict-checksums",
            "--no-transfer-progress",
            "--file",
            str(_POM),
        ]
        command += [
            "-Dstyle.color=never",
            f"-DoutputDirectory={unfinished}",
            "-DincludeScope=runtime",
        ]
        run([*command, "dependency:copy-dependencies"], timeout_seconds=600)
        jars.parent.mkdir(parents=True, exist_ok=True)
        if not jars.is_dir():
            unfinished.rename(jars)
    return jars


class Servers:
    """The stores of all sites. Data lies in `folder`, below the site's name, so that a site's disk
    can be taken away."""

    def __init__(self, table: SiteTable, folder: Path, processes: Processes) -> None:
        self.table = table
        self.processes = processes
        self._folder = folder
        self.mirror_jars = Path()

    def disk(self, site: str) -> Path:
        """Everything a site keeps."""
        return self._folder / f"disk-{site}"

    def prepare(self) -> None:
        """Whatever has to be fetched. Raises NotChecked when this machine cannot run the
        servers."""
        if lacks := lacking():
            raise NotChecked(f"two sites cannot run here, this machine lacks: {'; '.join(lacks)}")
        resolve_jars(CURRENT_VERSION)  # here: the sites have no way to a repository
        self.mirror_jars = mirror_jars()

    def start_stores(self, site: str) -> None:
        """MongoDB's members and the broker of a site, as far as it has them."""
        for member in self.table.at(site, Kind.MONGODB):
            self._start_mongod(member)
        for broker in self.table.at(site, Kind.KAFKA):
            self._start_kafka(broker)

    def start_mirror(
        self, *, both_ways: bool = False, site: str = "b", exactly_once: bool = True
    ) -> None:
        """MirrorMaker at its target site, with the shipped file.

        exactly_once=False takes its one remedy out, to see whether the drill notices.
        """
        text = (
            STAGE
            / "mirror"
            / ("active-active.properties" if both_ways else "active-passive.properties")
        ).read_text()
        if not exactly_once:
            text = re.sub(r"(?m)^\w+\.(exactly\.once|offset\.flush).*\n", "", text)
        file = self._folder / f"mirror-{site}.properties"
        file.write_text(text)
        agent = next(self.mirror_jars.glob("jmx_prometheus_javaagent-*.jar"))
        rules = STAGE / "mirror" / "metrics.yaml"
        command = [
            "java", "-Xms64m", "-Xmx192m", *_JVM.split(),
            "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients=warn",
            f"-javaagent:{agent}={LOOPBACK}:{MIRROR_METRICS_PORT}:{rules}",
            "-cp", f"{self.mirror_jars}/*", "org.apache.kafka.connect.mirror.MirrorMaker",
            str(file), "--clusters", site,
        ]  # fmt: skip
        self.processes.start(f"mirror-{site}", site, command)

    def mirrors_exactly_once(self, site: str) -> bool:
        """What MirrorMaker's own log says; a setting without the target's name in front would be
        ignored without a word."""
        return _EXACTLY_ONCE in self.processes.log(f"mirror-{site}")

    def start_elsewhere(self, site: str) -> str:
        """A MongoDB that is no member of anything, for a restored backup; returns its address."""
        data = self._folder / "disk-elsewhere"
        data.mkdir()
        port = max(service.port for service in self.table.services.values()) + 100
        command = [
            str(find_mongod()),
            "--nounixsocket",
            "--quiet",
            "--dbpath",
            str(data),
            "--bind_ip",
            LOOPBACK,
        ]
        command += ["--port", str(port), "--wiredTigerCacheSizeGB", "0.25"]
        self.processes.start(
            "mongo-elsewhere", site, command, ready=lambda log: "Waiting for connections" in log
        )
        return f"mongodb://{LOOPBACK}:{port}/?directConnection=true"

    def _start_mongod(self, member: Service) -> None:
        data = self.disk(member.site) / member.name
        data.mkdir(parents=True, exist_ok=True)
        options = {
            "dbpath": str(data),
            "port": str(member.port),
            "bind_ip": LOOPBACK,
            "replSet": self.table.replica_set.name,
            "oplogSize": "100",
            "wiredTigerCacheSizeGB": "0.25",
            "networkMessageCompressors": "snappy,zstd",
            "setParameter": "diagnosticDataCollectionEnabled=false",
        }
        command = [str(find_mongod()), "--nounixsocket", "--quiet"]
        command += [part for name, value in options.items() for part in (f"--{name}", value)]
        self.processes.start(
            member.name,
            member.site,
            command,
            ready=lambda log: "Waiting for connections" in log,
            timeout_seconds=120,
        )

    def _start_kafka(self, broker: Service) -> None:
        data = self.disk(broker.site) / broker.name
        command = [
            sys.executable,
            "-m",
            "gpu_token_analytics",
            "kafka",
            "--port",
            str(broker.port),
            "--folder",
            str(data),
        ]
        self.processes.start(
            broker.name, broker.site, [*command, "--heap-mb", "256"],
            env={"JAVA_TOOL_OPTIONS": _JVM},
            ready=lambda log: f"{LOOPBACK}:{broker.port}" in log, timeout_seconds=240,
        )  # fmt: skip
