"""The client against a server that is there, away, wrong or hostile to single records."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from door import Door, serve

from gpu_tokens_client import UsageClient, new_event_id, sender
from gpu_tokens_client.spool import Spool

TOKENS: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 3}
HERE: dict[str, Any] = {"host": "h1", "gpu_uuids": ["GPU-1"], "model": "m"}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "LINGER_SECONDS", 0.02)
    monkeypatch.setattr(sender, "_FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(sender, "_LAST_RETRY_SECONDS", 0.1)
    for name in ("URL", "API_KEY", "SPOOL_DIR", "HOST"):
        monkeypatch.delenv(f"GPU_TOKENS_{name}", raising=False)


def emit(client: UsageClient, count: int, **fields: Any) -> list[str]:
    """Emit `count` events; their ids."""
    ids = [client.emit(**TOKENS, **fields) for _ in range(count)]
    assert None not in ids
    return [identity for identity in ids if identity]


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("spooled", [False, True])
def test_every_event_arrives_once_with_its_fields(
    door: Door, tmp_path: Path, spooled: bool
) -> None:
    with UsageClient(
        door.url, "gta_key", spool_dir=tmp_path if spooled else None, **HERE
    ) as client:
        ids = emit(client, 1500, latency_ms=12.5, tenant="team", cached_tokens=4)
        assert client.flush()
        assert client.stats().delivered == 1500
        assert client.stats().pending_bytes == 0
    assert door.ids == ids
    assert door.headers["Authorization"] == "Bearer gta_key"
    assert door.requests < 100
    first = door.records[0]
    assert first.pop("ts").endswith("Z")
    assert first == {
        "schema": "token.usage.v1", "event_id": ids[0], "request_id": ids[0], "host": "h1",
        "gpu_uuids": ["GPU-1"],
        "model": "m", "tenant": "team", "prompt_tokens": 10, "completion_tokens": 3,
        "cached_tokens": 4, "latency_ms": 12.5,
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [429, 500, 503, 401, 404])
def test_what_the_server_cannot_take_now_is_sent_again_under_the_same_ids(
    door: Door, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu_tokens_client.transport._MISCONFIGURED_RETRY_SECONDS", 0.05)
    answers = [(status, {"detail": "later"}, {"Retry-After": "0.05"})] * 2
    door.script = lambda records: answers.pop() if answers else None
    with UsageClient(door.url, **HERE) as client:
        ids = emit(client, 7)
        assert client.flush()
        assert "later" in str(client.stats().last_error)
    assert door.ids == ids


def test_a_two_hundred_of_somebody_else_is_no_acknowledgment(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu_tokens_client.transport._MISCONFIGURED_RETRY_SECONDS", 0.05)
    portals: list[Any] = [(200, {"welcome": "please log in"}, {})]
    original = door.answer
    door.answer = lambda body: portals.pop() if portals else original(body)  # type: ignore[method-assign]
    with UsageClient(door.url, **HERE) as client:
        ids = emit(client, 3)
        assert client.flush()
    assert door.ids == ids


def test_one_refused_record_does_not_hold_up_its_neighbours_and_is_kept(
    door: Door, tmp_path: Path
) -> None:
    def script(records: list[dict[str, Any]]) -> Any:
        errors = [
            {"index": index, "message": "model=poison: no"}
            for index, record in enumerate(records)
            if record["model"] == "poison"
        ]
        if len(errors) == len(records):
            return 422, {"code": "all_records_invalid", "detail": "model=poison: no"}, {}
        return 200, {"errors": errors}, {}

    door.script = script
    with UsageClient(door.url, spool_dir=tmp_path, **HERE) as client:
        before, poison, after = emit(client, 20), emit(client, 1, model="poison"), emit(client, 20)
        assert client.flush()
        emit(client, 3, model="poison")
        assert client.flush()
        assert (client.stats().delivered, client.stats().rejected) == (40, 4)
    assert door.ids == before + after
    kept = [json.loads(line) for line in (tmp_path / "rejected.ndjson").read_text().splitlines()]
    assert len(kept) == 4
    assert kept[0]["record"]["event_id"] == poison[0]
    assert kept[0]["reason"] == "model=poison: no"


def test_a_batch_that_is_too_large_is_halved_until_it_fits(door: Door) -> None:
    door.script = lambda records: (413, {"detail": "smaller"}, {}) if len(records) > 3 else None
    with UsageClient(door.url, **HERE) as client:
        ids = emit(client, 50)
        assert client.flush()
        assert client.stats().rejected == 0
    assert door.ids == ids


def test_emitting_costs_nothing_while_the_server_hangs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are taken, nobody answers
        client = UsageClient(
            f"http://127.0.0.1:{silent.getsockname()[1]}", spool_dir=tmp_path, **HERE
        )
        emit(client, 2000)  # returns: a client that waited for the server would never get here
        client.close(timeout_seconds=0.1)
    assert len(list(tmp_path.glob("*/*.ndjson"))) == 1


def test_a_full_buffer_drops_the_newest_counts_them_and_never_raises(door: Door) -> None:
    door.script = lambda records: (503, {}, {})
    client = UsageClient(door.url, max_memory_bytes=2_000, **HERE)
    taken = [client.emit(**TOKENS) is not None for _ in range(50)]
    assert 0 < taken.count(True) < 20
    assert client.stats().dropped == taken.count(False)
    assert client.stats().pending_bytes <= 2_000
    door.script = lambda records: None
    assert client.flush()
    assert len(door.ids) == taken.count(True)
    client.close()
    assert client.emit(**TOKENS) is None


def test_a_value_without_a_form_is_left_out_and_said(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    with UsageClient(door.url, **HERE) as client:
        assert client.emit(prompt_tokens="many", completion_tokens=1) is None  # type: ignore[arg-type]
        assert client.emit(prompt_tokens=1, completion_tokens=object()) is None  # type: ignore[arg-type]
        ids = emit(client, 1)
        assert client.flush()
        assert client.stats().invalid == 2
    assert door.ids == ids
    assert "many" not in caplog.text or "prompt_tokens" in caplog.text


class Contrary:
    """Raises whatever is asked of it, as a tensor on a lost device does."""

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("no")

    __bool__ = __iter__ = __len__ = __str__ = __repr__ = __eq__ = _raise
    __hash__ = object.__hash__


@pytest.mark.parametrize("field", list(signature(UsageClient.emit).parameters)[1:])
def test_no_value_of_any_field_reaches_the_caller_as_an_error(door: Door, field: str) -> None:
    around: list[Any] = []
    around.append(around)
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    with UsageClient(door.url, **HERE) as client:
        for value in (Contrary(), around, deep, [Contrary()], 10**400, "\ud800", lambda: 1):
            client.emit(**{**TOKENS, field: value})
        ids = emit(client, 1)
        assert client.flush()
    assert ids[0] in door.ids


def test_without_an_address_it_says_how_to_give_one() -> None:
    with pytest.raises(ValueError, match="GPU_TOKENS_URL"):
        UsageClient()
    with pytest.raises(ValueError, match="base address"):
        UsageClient("analytics:8080")


def test_a_spool_folder_that_cannot_be_made_falls_back_to_memory(
    door: Door, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with UsageClient(door.url, spool_dir=tmp_path / "file", **HERE) as client:
        ids = emit(client, 2)
        assert client.flush()
    assert door.ids == ids
    assert "events wait in memory instead" in caplog.text


_CHILD = """
import sys, time
from gpu_tokens_client import UsageClient
client = UsageClient(sys.argv[1], spool_dir=sys.argv[2], host="h1", gpu_uuids=["GPU-1"], model="m")
while True:
    print(client.emit(prompt_tokens=1, completion_tokens=1), flush=True)
    time.sleep(float(sys.argv[3]))
"""


def killed_child(url: str, spool: Path, events: int, pause_seconds: float) -> list[str]:
    """Run a process that emits, kill it with SIGKILL after `events` ids; the ids whose emit had
    returned."""
    command = [sys.executable, "-c", _CHILD, url, str(spool), str(pause_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        ids = [child.stdout.readline().strip() for _ in range(events)]
        child.send_signal(signal.SIGKILL)
        rest, _ = child.communicate()
    return ids + [line for line in rest.splitlines() if len(line) == 36]


@pytest.mark.parametrize("door_open", [False, True])
def test_events_of_a_killed_process_are_sent_by_the_next_one(
    tmp_path: Path, door_open: bool
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    door = Door()
    if door_open:
        with serve(door, port):
            ids = killed_child(url, tmp_path, 400, 0.001)
    else:
        ids = killed_child(url, tmp_path, 400, 0.0)
    with serve(door, port), UsageClient(url, spool_dir=tmp_path, **HERE) as client:
        last = emit(client, 1)
        until(lambda: set(door.ids) >= {*ids, *last})
        assert client.flush()
    # One more than printed at most: killed between the return of emit and the print.
    assert len(set(door.ids) - {*ids, *last}) <= 1
    # Sent twice at most is the one batch whose acknowledgment died with the process; never lost,
    # and one event by its id.
    assert len(door.ids) - len(set(door.ids)) <= sender.BATCH_RECORDS
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_torn_last_line_of_a_killed_process_is_passed_over(tmp_path: Path, door: Door) -> None:
    spool = Spool.create(tmp_path, 10_000)
    assert spool.append(b'{"event_id": "whole"}')
    (segment,) = tmp_path.glob("*/0*.ndjson")
    with segment.open("ab") as file:
        file.write(b'{"event_id": "torn')
    os.close(spool._lock_fd)  # the process died
    with UsageClient(door.url, spool_dir=tmp_path, **HERE) as client:
        ids = emit(client, 1)
        until(lambda: len(door.ids) == 2)
        assert client.flush()
        assert sorted(door.ids) == sorted(["whole", *ids])


def test_segments_follow_one_another_and_are_removed(
    tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpu_tokens_client.spool.SEGMENT_BYTES", 1_000)
    door.script = lambda records: (503, {}, {})
    client = UsageClient(door.url, spool_dir=tmp_path, **HERE)
    ids = emit(client, 60)
    assert len(list(tmp_path.glob("*/0*.ndjson"))) > 5
    door.script = lambda records: None
    assert client.flush()
    assert len(list(tmp_path.glob("*/0*.ndjson"))) == 1
    ids += emit(client, 5)
    client.close(10)
    assert door.ids == ids


def test_a_disk_that_takes_half_a_record_leaves_no_half_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.create(tmp_path, 10_000)
    assert spool.append(b"first")
    real_write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:2]))
        with pytest.raises(OSError, match="disk full"):
            spool.append(b"second")
    assert spool.append(b"third")
    assert spool.head(10, 10_000).records == [b"first", b"third"]
    spool.close()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("spooled", [False, True])
def test_a_forked_child_sends_its_own_events_and_not_its_parents(
    door: Door, tmp_path: Path, spooled: bool
) -> None:
    door.script = lambda records: (503, {}, {})
    client = UsageClient(door.url, spool_dir=tmp_path if spooled else None, **HERE)
    parents = emit(client, 20)
    until(lambda: door.requests > 0)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # the child says its ids and ends without clean-up, as workers of a server do
        os.close(read)
        childs = emit(client, 5)
        os.write(write, json.dumps(childs).encode())
        os.close(write)
        os._exit(0 if client.flush(20) else 1)
    os.close(write)
    with os.fdopen(read) as pipe:
        childs = json.loads(pipe.read())
    door.script = lambda records: None
    assert os.waitpid(pid, 0)[1] == 0
    assert client.flush()
    client.close()
    assert sorted(door.ids) == sorted(parents + childs)


def test_threads_emit_together_and_nothing_is_lost(door: Door, tmp_path: Path) -> None:
    with UsageClient(door.url, spool_dir=tmp_path, **HERE) as client:
        ids: list[str] = []
        threads = [threading.Thread(target=lambda: ids.extend(emit(client, 300))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush()
    assert sorted(door.ids) == sorted(ids)


def test_ids_are_version_7_and_ordered_by_time() -> None:
    first = new_event_id()
    time.sleep(0.003)
    second = new_event_id()
    assert UUID(first).version == 7
    assert UUID(first).variant == UUID("0190163d-8694-739b-aea5-966c26f8ad91").variant
    assert first < second
