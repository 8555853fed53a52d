"""Finding and loading the librdkafka of the confluent-kafka wheel; what it does when loaded: the
integration tests."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from gpu_token_analytics.embedded import broker
from gpu_token_analytics.embedded.broker import EmbeddedBroker, bundled_library
from gpu_token_analytics.errors import EmbeddedServiceError


class _File:
    """A row of a wheel's file list."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path

    def locate(self) -> Path:
        return self._path


def wheel_with(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [_File(path) for path in paths])


@pytest.mark.parametrize(
    "where",
    ["confluent_kafka.libs/librdkafka-0cb94173.so.1", "confluent_kafka/.dylibs/librdkafka.1.dylib"],
)
def test_finds_the_library_of_linux_and_macos_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    library = tmp_path / where
    library.parent.mkdir(parents=True)
    library.touch()
    extension = tmp_path / "confluent_kafka" / "cimpl.cpython-311-x86_64-linux-gnu.so"
    wheel_with(
        monkeypatch, extension, tmp_path / "confluent_kafka" / "gone" / "librdkafka.so.1", library
    )
    assert bundled_library() == library


def test_a_build_without_the_library_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel_with(monkeypatch, tmp_path / "cimpl.so")
    with pytest.raises(EmbeddedServiceError, match=r"source build.*KAFKA_BOOTSTRAP"):
        bundled_library()


def test_no_confluent_kafka_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(EmbeddedServiceError, match=r"not installed.*KAFKA_BOOTSTRAP"):
        bundled_library()


def test_a_library_that_cannot_be_loaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "librdkafka.so.1"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(broker, "bundled_library", lambda: broken)
    with pytest.raises(EmbeddedServiceError, match=r"librdkafka\.so\.1 cannot serve"):
        EmbeddedBroker({"tokens": 1})


def test_a_refused_topic_is_an_error_and_closes_the_cluster() -> None:
    with pytest.raises(EmbeddedServiceError, match="'tokens' with 0 partitions"):
        EmbeddedBroker({"tokens": 0})


def test_close_twice() -> None:
    broker_ = EmbeddedBroker({})
    broker_.close()
    broker_.close()
