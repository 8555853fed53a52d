"""Services every suite can ask for, and the logs of what was running when a test failed.

    mock_broker     librdkafka's in-process broker with `tokens` and `tokens.dlq` of 12 partitions,
                    fresh for each test
    mongod          one standalone mongod for the session        mongo_uri       its address
    mongo_database  a name of its own for each test; the database is dropped afterwards
    kafka           one real Kafka broker for the session: TEST_KAFKA_VERSION, else the current 4.x;
                    other versions by `@pytest.mark.parametrize("kafka", [...], indirect=True)`
    java            skips where no real Kafka can run
    keep_log        `keep_log(path)`: copy this file to test-logs/<test>/ should the test fail

A service that cannot run here skips its tests with the reason; under CI=true it fails them, since a
skip there hides a missing installation step.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest

# to drop a test's database; the product's only door to MongoDB is mongo/
from pymongo import MongoClient

from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.kafka_jvm import (
    CURRENT_VERSION,
    KafkaBroker,
    require_java,
    resolve_jars,
)
from gpu_token_analytics.embedded.mongod import EmbeddedMongod, find_mongod
from gpu_token_analytics.errors import EmbeddedServiceError

ROOT = Path(__file__).parent.parent
LOGS = ROOT / "test-logs"

# How long an example takes says how busy the machine is; speed is bench/'s. One commit gives one
# answer, so its examples are the same each time; `make properties` draws others.
_QUIET = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("project", _QUIET, derandomize=True)
hypothesis.settings.register_profile("properties", _QUIET)
hypothesis.settings.load_profile("project")

TOPICS = {"tokens": 12, "tokens.dlq": 12}

_logs_key = pytest.StashKey[list[Path]]()


def unavailable(error: EmbeddedServiceError) -> NoReturn:
    """Skip with the reason; in CI, fail."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"needed in CI: {error}", pytrace=False)
    pytest.skip(str(error))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_logs_key] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        folder = LOGS / re.sub(r"[^\w.\[\]-]+", "_", item.nodeid)
        for log in item.config.stash[_logs_key]:
            if log.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(log, folder / f"{log.parent.name}-{log.name}")
    return report


@pytest.fixture(scope="session", autouse=True)
def _no_demo_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands look for a running demo where the user's state is: a test must not find one, nor be
    found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def _session_logs(request: pytest.FixtureRequest) -> list[Path]:
    return request.config.stash[_logs_key]


@pytest.fixture
def keep_log(_session_logs: list[Path]) -> Iterator[Callable[[Path], None]]:
    kept: list[Path] = []

    def keep(log: Path) -> None:
        kept.append(log)
        _session_logs.append(log)

    yield keep
    for log in kept:
        _session_logs.remove(log)


@pytest.fixture
def mock_broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(TOPICS) as broker:
        yield broker


@pytest.fixture(scope="session")
def mongod(
    tmp_path_factory: pytest.TempPathFactory, _session_logs: list[Path]
) -> Iterator[EmbeddedMongod]:
    try:
        find_mongod()
    except EmbeddedServiceError as error:
        unavailable(error)
    server = EmbeddedMongod(tmp_path_factory.mktemp("mongod"))
    _session_logs.append(server.log_file)
    with server:
        yield server


@pytest.fixture
def mongo_uri(mongod: EmbeddedMongod) -> str:
    return mongod.uri


@pytest.fixture
def mongo_database(mongo_uri: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    yield name
    client: MongoClient[dict[str, Any]]
    with MongoClient(mongo_uri, serverSelectionTimeoutMS=5000) as client:
        client.drop_database(name)


@pytest.fixture(scope="session")
def java() -> str:
    """The java that runs a Kafka broker; its jars may still have to come through Maven."""
    try:
        found = require_java()
        resolve_jars(CURRENT_VERSION)
    except EmbeddedServiceError as error:
        unavailable(error)
    return found


@pytest.fixture(scope="session")
def kafka(
    request: pytest.FixtureRequest,
    java: str,
    tmp_path_factory: pytest.TempPathFactory,
    _session_logs: list[Path],
) -> Iterator[KafkaBroker]:
    version = (
        getattr(request, "param", None) or os.environ.get("TEST_KAFKA_VERSION") or CURRENT_VERSION
    )
    broker = KafkaBroker(version, tmp_path_factory.mktemp(f"kafka-{version}"))
    _session_logs.append(broker.log_file)
    with broker:
        yield broker
