"""A real mongod: small, on loopback, and its data outlives its death."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient, WriteConcern
from pymongo.errors import OperationFailure

from gpu_token_analytics.embedded.mongod import EmbeddedMongod, find_mongod
from gpu_token_analytics.errors import EmbeddedServiceError

Document = dict[str, Any]


def client_of(server: EmbeddedMongod) -> MongoClient[Document]:
    # A client that is closed after its server died must not look for it for half a minute to end
    # its sessions.
    return MongoClient(server.uri, serverSelectionTimeoutMS=5000)


@pytest.fixture
def data_dir(mongod: EmbeddedMongod, tmp_path: Path, keep_log: Callable[[Path], None]) -> Path:
    """A fresh folder; asking for the session's mongod first skips where none runs."""
    keep_log(tmp_path / "data" / "mongod.log")
    return tmp_path / "data"


def test_runs_as_configured(mongod: EmbeddedMongod, mongo_database: str) -> None:
    with client_of(mongod) as client:
        client[mongo_database].things.insert_one({"_id": 1})
        options = client.admin.command("getCmdLineOpts")["parsed"]
        assert options["net"]["bindIp"] == "127.0.0.1"
        assert options["net"]["unixDomainSocket"] == {"enabled": False}
        assert (
            client.admin.command("serverStatus")["wiredTiger"]["cache"]["maximum bytes configured"]
            == 256 * 1024**2
        )
    assert mongod.data_dir.joinpath("mongod.log").exists()


def test_offers_no_zlib_on_the_wire(mongod: EmbeddedMongod) -> None:
    with client_of(mongod) as client:
        hello = client.admin.command({"hello": 1, "compression": ["zlib", "zstd"]})
    assert hello["compression"] == ["zstd"]


def test_not_reachable_from_outside(mongod: EmbeddedMongod) -> None:
    address = next(
        (
            info[4][0]
            for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
            if not str(info[4][0]).startswith("127.")
        ),
        None,
    )
    if address is None:
        pytest.skip("this machine has no address but loopback")
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection((str(address), mongod.port), timeout=5),
    ):
        pass


@pytest.mark.parametrize("replica_set", [None, "rs0"])
def test_acknowledged_writes_survive_kill_9(data_dir: Path, replica_set: str | None) -> None:
    server = EmbeddedMongod(data_dir, replica_set=replica_set)
    with server:
        port = server.port
        for round_ in range(3):
            with client_of(server) as client:
                things = client.db.get_collection(
                    "things", write_concern=WriteConcern(w="majority")
                )
                for number in range(20):
                    things.insert_one({"round": round_, "number": number})
            pid = server.pid
            server.kill()
            assert server.pid is None
            # the stale lock the next start must overcome
            assert (data_dir / "mongod.lock").read_text().strip() == str(pid)
            server.start()
            assert server.port == port
        with client_of(server) as client:
            assert client.db.things.count_documents({}) == 60


def test_data_survives_a_clean_stop_and_another_object_opens_it(data_dir: Path) -> None:
    with EmbeddedMongod(data_dir) as first, client_of(first) as client:
        client.db.things.insert_one({"_id": 1})
    with EmbeddedMongod(data_dir, start_timeout_seconds=30) as second, client_of(second) as client:
        assert client.db.things.count_documents({}) == 1


def test_a_folder_in_use_is_refused_with_the_pid(data_dir: Path) -> None:
    with EmbeddedMongod(data_dir) as server, client_of(server) as client:
        with pytest.raises(
            EmbeddedServiceError, match=f"in use by a running mongod \\(pid {server.pid}\\)"
        ):
            EmbeddedMongod(data_dir).start()
        assert client.admin.command("ping")["ok"] == 1


def test_a_folder_of_something_else_shows_what_mongod_said(data_dir: Path) -> None:
    with EmbeddedMongod(data_dir):
        pass
    (data_dir / "WiredTiger.turtle").write_bytes(b"not this")
    with pytest.raises(EmbeddedServiceError, match=r"mongod ended at once[\s\S]*WiredTiger"):
        EmbeddedMongod(data_dir).start()


def test_a_start_is_bounded_in_time(data_dir: Path) -> None:
    server = EmbeddedMongod(data_dir, start_timeout_seconds=0)
    with pytest.raises(EmbeddedServiceError, match="not ready within 0 s"):
        server.start()
    assert server.pid is None


@pytest.mark.parametrize("replica_set", [None, "rs0"])
def test_auth_is_required_and_kept(data_dir: Path, replica_set: str | None) -> None:
    server = EmbeddedMongod(data_dir, replica_set=replica_set, auth=("root", "p@ss/word"))
    with server:
        with client_of(server) as client:
            client.db.things.insert_one({"_id": 1})
        with (
            MongoClient[Document]("127.0.0.1", server.port, directConnection=True) as anonymous,
            pytest.raises(OperationFailure, match="requires authentication"),
        ):
            anonymous.db.things.find_one()
    with server, client_of(server) as client:  # the administrator exists already
        assert client.db.things.count_documents({}) == 1
    wrong = EmbeddedMongod(
        data_dir, port=server.port, replica_set=replica_set, auth=("root", "other")
    )
    with pytest.raises(
        EmbeddedServiceError, match="another replica set name, port, user or password"
    ):
        wrong.start()
    assert wrong.pid is None


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can tie a child to its parent (prctl)"
)
def test_dies_cleanly_when_its_owner_is_killed(data_dir: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from gpu_token_analytics.embedded.mongod import EmbeddedMongod\n"
        "server = EmbeddedMongod(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(data_dir)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert int(owner.stdout.readline()) > 0
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
    deadline = time.monotonic() + 20
    while os.stat(data_dir / "mongod.lock").st_size:  # noqa: PTH116 - mongod empties it as the last step of a clean end
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with EmbeddedMongod(data_dir):
        pass


def test_the_wheel_brings_one_that_runs(
    monkeypatch: pytest.MonkeyPatch, mongod: EmbeddedMongod
) -> None:
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the wheel is for Linux on x86-64")
    on_path = shutil.which("mongod")
    monkeypatch.setenv("PATH", "/nonexistent")
    found = find_mongod()
    assert found.name == "mongod"
    assert str(found) != on_path
