"""Java, Maven and the configuration of the real broker. Starting one: the integration tests."""

from __future__ import annotations

import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpu_token_analytics.embedded import kafka_jvm
from gpu_token_analytics.embedded.kafka_jvm import (
    CURRENT_VERSION,
    KafkaBroker,
    require_java,
    resolve_jars,
)
from gpu_token_analytics.errors import EmbeddedServiceError

POM = Path(kafka_jvm.__file__).with_name("pom.xml")


@pytest.fixture(autouse=True)
def _forget_java() -> Iterator[None]:
    require_java.cache_clear()
    yield
    require_java.cache_clear()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH besides the shell's own tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.touch(mode=0o755)
    file.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n")


# A Maven that reads its -DoutputDirectory, notes each call, and puts one jar there.
MAVEN = """
for argument; do case "$argument" in -DoutputDirectory=*) folder="${argument#*=}";; esac; done
echo "$*" >> "$(dirname "$0")/calls"
mkdir -p "$folder"; sleep 0.3; touch "$folder/kafka_2.13-4.4.0.jar"
"""


def test_no_java(path: Path) -> None:
    with pytest.raises(
        EmbeddedServiceError, match=r"no java on PATH; install Java 17.*apt-get install"
    ):
        require_java()


@pytest.mark.parametrize(
    ("says", "runs"),
    [
        ('openjdk version "17.0.15" 2025-04-15', True),
        ('openjdk version "25" 2025-09-16', True),
        ('openjdk version "11.0.2" 2019-01-15', False),
        ('java version "1.8.0_402"', False),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", False),
    ],
)
def test_java_17_or_newer(path: Path, says: str, runs: bool) -> None:
    program(path, "java", f"cat >&2 <<'END'\n{says}\nEND")
    if runs:
        assert require_java() == str(path / "java")
    else:
        with pytest.raises(
            EmbeddedServiceError,
            match=f"not Java 17 or newer.*{re.escape(says[:20])}.*install Java",
        ):
            require_java()


def test_no_maven(path: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServiceError, match=r"no mvn on PATH; install Maven"):
        resolve_jars("4.4.0", tmp_path / "cache")


@pytest.mark.parametrize("version", ["4.4", "latest", "../4.4.0", "4.4.0;x", ""])
def test_a_version_that_is_none(version: str, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServiceError, match=r"is not of the form 4\.1\.1"):
        resolve_jars(version, tmp_path)


def test_a_failing_maven_leaves_nothing_behind(path: Path, tmp_path: Path) -> None:
    program(
        path, "mvn", MAVEN + "echo '[ERROR] could not find artifact'; echo '[ERROR] help'; exit 1"
    )
    with pytest.raises(
        EmbeddedServiceError, match=r"could not fetch Kafka 4\.4\.0.*could not find artifact$"
    ):
        resolve_jars("4.4.0", tmp_path / "cache")
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["lock"]


def test_a_maven_that_brings_no_broker_is_a_failure(path: Path, tmp_path: Path) -> None:
    program(path, "mvn", "exit 0")
    with pytest.raises(EmbeddedServiceError, match="could not fetch"):
        resolve_jars("4.4.0", tmp_path / "cache")


def test_two_at_once_fetch_once_and_later_calls_need_no_maven(path: Path, tmp_path: Path) -> None:
    program(path, "mvn", MAVEN)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(resolve_jars("4.4.0", tmp_path / "cache")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "cache" / "4.4.0"] * 2
    assert len((path / "calls").read_text().splitlines()) == 1
    (path / "mvn").unlink()
    assert [jar.name for jar in resolve_jars("4.4.0", tmp_path / "cache").iterdir()] == [
        "kafka_2.13-4.4.0.jar"
    ]


def test_pom_has_the_current_version_pins_everything_and_names_no_registry() -> None:
    pom = ET.parse(POM)
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    assert pom.findtext("m:properties/m:kafka.version", namespaces=space) == CURRENT_VERSION
    versions = [node.text or "" for node in pom.iterfind(".//m:dependency/m:version", space)]
    versions += [node.text or "" for node in pom.iterfind(".//m:plugin/m:version", space)]
    assert len(versions) == 3
    assert all(re.fullmatch(r"\$\{\w+\.version\}|\d+\.\d+\.\d+", version) for version in versions)
    for registry in ("repositories", "pluginRepositories", "distributionManagement"):
        assert pom.find(f".//m:{registry}", space) is None


def properties_of(broker: KafkaBroker) -> dict[str, str]:
    broker.folder.mkdir(exist_ok=True)
    broker._write_properties()
    file = broker.folder / "server.properties"
    assert file.stat().st_mode & 0o777 == 0o600
    return dict(line.split("=", 1) for line in file.read_text(encoding="ascii").splitlines())


def test_listens_on_loopback_only_and_creates_no_topics_by_itself(tmp_path: Path) -> None:
    properties = properties_of(KafkaBroker("4.4.0", tmp_path, port=29092))
    addresses = re.findall(
        r"//([^:]+):", properties["listeners"] + properties["advertised.listeners"]
    )
    assert set(addresses) == {"127.0.0.1"}
    assert properties["auto.create.topics.enable"] == "false"
    assert properties["log.dirs"] == str(tmp_path / "data")
    assert "sasl.enabled.mechanisms" not in properties


def test_values_survive_the_properties_file(tmp_path: Path) -> None:
    folder = tmp_path / " jürgen 🚀 back\\slash"
    # As Java's Properties.load reads it: \uXXXX by UTF-16 unit, so that an astral character takes
    # two.
    written = properties_of(KafkaBroker("4.4.0", folder, port=29092))["log.dirs"]
    assert written == f"{tmp_path}/ j\\u00fcrgen \\ud83d\\ude80 back\\u005cslash/data"


def test_sasl_users_are_quoted_for_jaas(tmp_path: Path) -> None:
    broker = KafkaBroker(
        "4.4.0", tmp_path, port=29092, sasl_users={"admin": "s3cret", "app": 'a "b\\'}
    )
    properties = properties_of(broker)
    assert "CLIENTS:SASL_PLAINTEXT" in properties["listener.security.protocol.map"]
    jaas = properties["listener.name.clients.plain.sasl.jaas.config"].replace("\\u005c", "\\")
    assert jaas.endswith(
        'username="admin" password="s3cret" user_admin="s3cret" user_app="a \\"b\\\\";'
    )


def test_a_folder_that_log_dirs_would_split_is_refused(path: Path, tmp_path: Path) -> None:
    program(path, "java", "echo 'openjdk version \"17.0.15\"' >&2")
    program(path, "mvn", MAVEN)
    with pytest.raises(EmbeddedServiceError, match="comma"):
        KafkaBroker("4.4.0", tmp_path / "a,b", jar_cache=tmp_path / "cache").start()
    assert not (tmp_path / "a,b").exists()
