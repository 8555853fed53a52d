"""What a host runs out of, or does to its processes: descriptors, memory, room for logs, the right
time."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.delivery_support import (
    ROOT,
    Processor,
    Start,
    all_is_stored_once,
    delivery_settings,
    environment_of,
    eventually,
    lag,
    send,
    stored,
    usages,
)
from tests.programs import GPU_TOKENS, running

from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.embedded.broker import EmbeddedBroker
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.topics import seed_offsets
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="limits of a running process are Linux's"
)


@pytest.fixture
def settings(mock_broker: EmbeddedBroker, mongo_uri: str, mongo_database: str) -> Settings:
    made = delivery_settings(mock_broker.bootstrap, mongo_uri, mongo_database)
    seed_offsets(made)
    return made


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    opened = open_store(settings)
    yield opened
    opened.close()


def test_out_of_file_descriptors_it_waits_and_loses_nothing(
    mock_broker: EmbeddedBroker, tmp_path: Path, start: Start
) -> None:
    """MongoDB is started again, and there is no descriptor for a connection to it."""
    with EmbeddedMongod(tmp_path / "mongod") as mongod:
        settings = delivery_settings(
            mock_broker.bootstrap, mongod.uri, "faults", mongodb_timeout_ms=1000
        )
        seed_offsets(settings)
        processor = start(settings).wait_ready()
        sent = send(settings, usages(500, hosts=60))
        eventually(lambda: lag(settings) == 0)
        pid, port = processor.process.pid, processor.url.rpartition(":")[2]
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, most))
        mongod.kill()
        mongod.start()
        sent |= send(settings, usages(500, hosts=60))
        time.sleep(6)
        assert processor.process.poll() is None or processor.process.returncode == 1, (
            processor.text()
        )
        assert lag(settings) == 500, f"nothing is committed that is not stored (port {port})"
        if processor.process.poll() is None:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
        else:
            processor = start(settings).wait_ready()
        eventually(lambda: lag(settings) == 0, 60, "going on")
        with closing(open_store(settings)) as opened:
            assert stored(opened).keys() == sent.keys()
        assert not list(read_dead_letters(settings))
        assert processor.stop() == 0


def test_out_of_memory_it_ends_and_the_next_one_loses_nothing(
    settings: Settings, store: Store, start: Start
) -> None:
    """An address space that cannot grow: allocations fail wherever they happen to be. It ends by
    itself, or it gets by."""
    processor = start(settings, BATCH_MAX_RECORDS="10000", STUCK_AFTER_SECONDS="10").wait_ready()
    sent = send(settings, usages(200, hosts=60))
    eventually(lambda: lag(settings) == 0)
    pages = int(Path(f"/proc/{processor.process.pid}/statm").read_text().split()[0])
    size = pages * os.sysconf("SC_PAGE_SIZE")
    _, most = resource.prlimit(processor.process.pid, resource.RLIMIT_AS)
    resource.prlimit(processor.process.pid, resource.RLIMIT_AS, (size, most))
    sent |= send(settings, usages(20_000, hosts=60))

    def over() -> bool:
        return processor.process.poll() is not None or lag(settings) == 0

    eventually(over, 180, "ending, or getting by with what it has")
    print(f"exit code {processor.process.poll()}, {lag(settings)} records left")
    assert processor.process.poll() != 0, "whoever watches it sees that it failed"
    processor.process.kill()
    processor.process.wait(10)
    again = start(settings).wait_ready()
    eventually(lambda: lag(settings) == 0, 60)
    all_is_stored_once(settings, sent)
    assert again.stop() == 0


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group of its own for memory, as a container is put into."""
    hierarchy = Path("/sys/fs/cgroup/memory")
    if not hierarchy.is_dir():
        hierarchy = Path("/sys/fs/cgroup")
    group = hierarchy / f"gpu-tokens-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group for memory can be made here ({error})")
    yield group
    eventually(lambda: not (group / "cgroup.procs").read_text().strip(), what="its end")
    group.rmdir()


def limit_memory(group: Path, processor: Processor, more_bytes: int) -> None:
    """From now on it gets `more_bytes`, and then the kernel ends it."""
    limit = next(
        (
            group / name
            for name in ("memory.limit_in_bytes", "memory.max")
            if (group / name).exists()
        ),
        None,
    )
    if limit is None:
        pytest.skip(f"{group.parent} has no control of memory for its groups")
    limit.write_text(str(more_bytes))
    (group / "cgroup.procs").write_text(str(processor.process.pid))


def test_the_kernels_end_for_want_of_memory_loses_nothing(
    settings: Settings, store: Store, start: Start, memory_group: Path
) -> None:
    processor = start(settings, BATCH_MAX_RECORDS="10000").wait_ready()
    sent = send(settings, usages(200, hosts=60))
    eventually(lambda: lag(settings) == 0)
    limit_memory(memory_group, processor, 4 * 1024 * 1024)  # what it has already does not count
    sent |= send(settings, usages(20_000, hosts=60))
    assert processor.wait(60) == -signal.SIGKILL
    again = start(settings).wait_ready()
    eventually(lambda: lag(settings) == 0, 60)
    all_is_stored_once(settings, sent)
    assert again.stop() == 0


def test_a_full_log_volume_stops_nobody(settings: Settings, store: Store) -> None:
    """/dev/full answers every write as a full disk does."""
    command = [*GPU_TOKENS, "processor", "--port", "0"]
    with running(
        command, Path("/dev/full"), {**environment_of(settings), "LOG_LEVEL": "DEBUG"}, ROOT
    ) as process:
        sent = send(settings, usages(1000, hosts=60))
        eventually(lambda: process.poll() is not None or lag(settings) == 0, 60, "storing")
        assert process.poll() is None, "a line that cannot be written is no reason to end"
        sent |= send(settings, usages(1000, hosts=60))
        eventually(lambda: process.poll() is not None or lag(settings) == 0, 60, "storing more")
        assert stored(store).keys() == sent.keys()


@pytest.fixture(scope="module")
def stepped_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that sets the wall clock of one process."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on PATH: a clock of one process cannot be set here")
    library = tmp_path_factory.mktemp("clock") / "clock_step.so"
    source = Path(__file__).with_name("clock_step.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True
    )
    return library


def set_step(file: Path, seconds: int) -> None:
    """In place: the processor has the file mapped."""
    with file.open("r+b") as mapped:
        mapped.write(struct.pack("=q", seconds))


@pytest.mark.parametrize("step_seconds", [3600, -3600])
def test_a_clock_that_is_set_by_an_hour_changes_no_value(
    step_seconds: int,
    settings: Settings,
    store: Store,
    start: Start,
    stepped_clock: Path,
    tmp_path: Path,
) -> None:
    """By such a clock events would be dated wrongly: it stops and says so; set right, it goes on
    where it was."""
    step = tmp_path / "step"
    step.write_bytes(struct.pack("=q", 0))
    clock = {"LD_PRELOAD": str(stepped_clock), "CLOCK_STEP_FILE": str(step)}
    processor = start(settings, **clock).wait_ready()
    sent = send(settings, usages(500, hosts=60))
    eventually(lambda: lag(settings) == 0)
    set_step(step, step_seconds)
    deadline = time.monotonic() + 120
    while processor.process.poll() is None:
        assert time.monotonic() < deadline, "it goes on with a clock that is an hour off"
        sent |= send(settings, usages(50, hosts=60))
        time.sleep(1)
    assert processor.process.returncode == 1
    assert "clock" in processor.text().strip().splitlines()[-1]
    set_step(step, 0)
    again = start(settings, **clock).wait_ready()
    eventually(lambda: lag(settings) == 0)
    assert stored(store).keys() == sent.keys()
    ledger = LedgerStore(store)
    eventually(lambda: ledger.cells.count_due() == 0, 60, "closing")
    assert again.stop() == 0
    report = audit(ledger, params_of(settings))
    assert report.holds, report.findings[:3]
    ingested = [document["ingested_at"] for document in stored(store).values()]
    assert (max(ingested) - min(ingested)).total_seconds() < 900, (
        "dated by MongoDB's clock, not by the one that was set"
    )
