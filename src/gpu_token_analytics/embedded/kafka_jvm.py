"""A real Kafka broker without Docker: its jars by Maven, KRaft, one node as broker and controller,
loopback only.

For tests and for users with Java: all that the in-process broker cannot do (disk, retention,
CreateTopics, SASL).

    require_java    java 17+ on PATH, or a sentence that says what to install
    resolve_jars    pom.xml -> a folder of jars, once per version and machine
    KafkaBroker     server.properties -> kafka.tools.StorageTool format -> kafka.Kafka
"""

from __future__ import annotations

import base64
import fcntl
import functools
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from gpu_token_analytics.embedded.child import LOOPBACK, ChildServer, free_port
from gpu_token_analytics.errors import EmbeddedServiceError

CURRENT_VERSION = "4.4.0"  # equal to pom.xml's default
REFERENCE_VERSION = "3.7.2"  # the version this system was first laid out for, at its newest patch
MIN_JAVA = 17

_POM = Path(__file__).with_name("pom.xml")
_READY = "Kafka Server started"
_PORT_TAKEN = "Address already in use"
_START_ATTEMPTS = 3
_INSTALL_JAVA = (
    "install Java 17 or newer (Debian, Ubuntu: `apt-get install openjdk-17-jre-headless`)"
)
_INSTALL_MAVEN = "install Maven (Debian, Ubuntu: `apt-get install maven`)"


@functools.cache
def require_java() -> str:
    """Path of java. Raises EmbeddedServiceError when there is none or it is older than MIN_JAVA."""
    java = shutil.which("java")
    if java is None:
        raise EmbeddedServiceError(f"no java on PATH; {_INSTALL_JAVA}")
    try:
        done = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServiceError(f"{java} cannot be run ({error}); {_INSTALL_JAVA}") from None
    version = re.search(r'version "(\d+)', done.stderr + done.stdout)
    if done.returncode != 0 or version is None or int(version[1]) < MIN_JAVA:
        said = (done.stderr + done.stdout).strip().partition("\n")[0][:200]
        raise EmbeddedServiceError(
            f"{java} is not Java {MIN_JAVA} or newer (it says {said!r}); {_INSTALL_JAVA}"
        )
    return java


def default_cache() -> Path:
    """Where resolved jars are kept between runs: about 45 MB per Kafka version, safe to delete."""
    return Path.home() / ".cache" / "gpu-tokens" / "kafka"


def resolve_jars(version: str, cache: Path | None = None, timeout_seconds: float = 600) -> Path:
    """The folder with the jars of Kafka `version`, fetched through Maven the first time.

    A folder is moved into place only when complete, and one process fetches at a time, so an
    interrupted or doubled run leaves nothing half. Raises EmbeddedServiceError when Maven is
    missing or fails.
    """
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise EmbeddedServiceError(
            f"Kafka version {version!r} is not of the form 4.1.1; try {CURRENT_VERSION}"
        )
    cache = (cache or default_cache()).absolute()
    jars = cache / version
    if jars.is_dir():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars.is_dir():  # another process fetched it while we waited
            return jars
        with tempfile.TemporaryDirectory(dir=cache, prefix=f"{version}-") as unfinished:
            fetched = Path(unfinished, "jars")
            _copy_dependencies(version, fetched, timeout_seconds)
            fetched.rename(jars)
    return jars


def _copy_dependencies(version: str, folder: Path, timeout_seconds: float) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise EmbeddedServiceError(
            f"the jars of Kafka {version} are not here yet and there is no mvn on PATH; "
            f"{_INSTALL_MAVEN}"
        )
    command = [
        maven,
        "--batch-mode",
        "--quiet",
        "--strict-checksums",
        "--no-transfer-progress",
        "--file",
        str(_POM),
    ]
    command += [
        "-Dstyle.color=never",
        f"-Dkafka.version={version}",
        f"-DoutputDirectory={folder}",
        "-DincludeScope=runtime",
    ]
    command += ["dependency:copy-dependencies"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise EmbeddedServiceError(
            f"mvn did not fetch Kafka {version} within {timeout_seconds:g} s; try again"
        ) from None
    if done.returncode != 0 or not list(folder.glob("kafka_2.13-*.jar")):
        said = (done.stdout + done.stderr).strip().partition("\n")[0][:500]
        raise EmbeddedServiceError(
            f"mvn could not fetch Kafka {version}; does that version exist? It says: {said}"
        )


class KafkaBroker:
    """One Kafka node over `folder`, which it creates and keeps; topics and records survive stop,
    kill -9 and start().

    port: 0 picks a free one at the first start; later starts of this object use the same, so that
    clients find it again. sasl_users: user -> password; clients must then use SASL_PLAINTEXT with
    mechanism PLAIN. None: no authentication. heap_mb: the JVM's heap limit.
    Errors are EmbeddedServiceError and say what to do.
    """

    def __init__(
        self,
        version: str,
        folder: Path,
        *,
        port: int = 0,
        sasl_users: Mapping[str, str] | None = None,
        heap_mb: int = 512,
        jar_cache: Path | None = None,
        start_timeout_seconds: float = 90,
    ) -> None:
        self.version = version
        self.folder = folder.absolute()
        self.port = port
        self._controller_port = 0
        self._sasl_users = dict(sasl_users or {})
        self._heap_mb = heap_mb
        self._jar_cache = jar_cache
        self._timeout_seconds = start_timeout_seconds
        self._server = ChildServer(f"Kafka {version}", self.folder / "kafka.log")

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id while it runs, else None."""
        return self._server.pid

    @property
    def log_file(self) -> Path:
        """Everything this node ever logged."""
        return self._server.log_file

    def log_tail(self) -> str:
        """The last lines of the present run."""
        return self._server.log_tail()

    def start(self) -> None:
        """Format the folder if it is new, start, and return once the broker takes requests."""
        java = require_java()
        jars = resolve_jars(self.version, self._jar_cache)
        if "," in str(self.folder):
            raise EmbeddedServiceError(
                f"folder {self.folder} has a comma, which Kafka's log.dirs reads as two; use "
                "another"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        fixed_port = self.port
        for attempt in range(_START_ATTEMPTS):
            self.port = fixed_port or free_port()
            self._controller_port = free_port()
            self._write_properties()
            self._format(java, jars)
            try:
                self._server.start(
                    self._java(java, jars, "kafka.Kafka"),
                    lambda log: _READY in log,
                    self._timeout_seconds,
                )
                return
            except EmbeddedServiceError:
                # A picked port can be taken by somebody else before Kafka binds it; try others, but
                # keep a port once given.
                if _PORT_TAKEN not in self._server.log() or attempt == _START_ATTEMPTS - 1:
                    self.port = fixed_port
                    raise

    def stop(self) -> None:
        """Stop cleanly (SIGTERM), by force after 20 s."""
        self._server.stop()

    def kill(self) -> None:
        """SIGKILL; the next start() recovers the log."""
        self._server.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _properties_file(self) -> Path:
        return self.folder / "server.properties"

    def _write_properties(self) -> None:
        protocol = "SASL_PLAINTEXT" if self._sasl_users else "PLAINTEXT"
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller_port}",
            "listeners": (
                f"CLIENTS://{self.bootstrap},CONTROLLER://{LOOPBACK}:{self._controller_port}"
            ),
            "advertised.listeners": f"CLIENTS://{self.bootstrap}",
            "listener.security.protocol.map": f"CLIENTS:{protocol},CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENTS",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
            # there is one node; the defaults ask for three
            "offsets.topic.replication.factor": "1",
            # default 50: created one by one before the first group can join
            "offsets.topic.num.partitions": "5",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "5",
            "share.coordinator.state.topic.replication.factor": "1",  # 4.x only; 3.7 ignores both
            "share.coordinator.state.topic.min.isr": "1",
            # After kill -9 the node must first outlive its own old registration: 4 s instead of 9.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "500",
            # default 3000: every fresh group would wait that long
            "group.initial.rebalance.delay.ms": "100",
        } | self._sasl_properties()
        text = "".join(f"{key}={_escape(value)}\n" for key, value in properties.items())
        self._properties_file.touch(mode=0o600)  # it can hold passwords
        self._properties_file.write_text(text)

    def _sasl_properties(self) -> dict[str, str]:
        if not self._sasl_users:
            return {}
        # The broker talks to itself over the same listener, as the first of the users.
        user, password = next(iter(self._sasl_users.items()))
        entries = {"username": user, "password": password} | {
            f"user_{name}": word for name, word in self._sasl_users.items()
        }
        quoted = " ".join(f'{key}="{_quote(value)}"' for key, value in entries.items())
        return {
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.clients.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {quoted};"
            ),
        }

    def _format(self, java: str, jars: Path) -> None:
        if (self.folder / "data" / "meta.properties").exists():
            return
        # 16 bytes in URL-safe base64; the first byte keeps it from starting with a dash, which
        #    would read as an option.
        cluster_id = base64.urlsafe_b64encode(b"\x01" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        command = self._java(
            java, jars, "kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config"
        )
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self._timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedServiceError(
                f"formatting {self.folder} took over {self._timeout_seconds:g} s; try again"
            ) from None
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()[-1000:]
            raise EmbeddedServiceError(
                f"{self.folder} could not be formatted for Kafka {self.version}:\n{said}"
            )

    def _java(self, java: str, jars: Path, *main: str) -> list[str]:
        return [
            java,
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",  # one small heap: no concurrent collector's threads and memory
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX",
            "-cp",
            f"{jars}/*",
            *main,
            str(self._properties_file),
        ]


def _escape(value: str) -> str:
    """A value of a .properties file, which is read as ISO 8859-1: whatever is not plain ASCII goes
    as UTF-16 `\\uXXXX`."""
    return "".join(c if " " <= c <= "~" and c != "\\" else _utf16_escapes(c) for c in value)


def _utf16_escapes(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _quote(value: str) -> str:
    """A value inside the double quotes of a JAAS entry."""
    return value.replace("\\", "\\\\").replace('"', '\\"')
