"""A server process: its readiness, its death, and that it never outlives whoever started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpu_token_analytics.embedded import child
from gpu_token_analytics.embedded.child import LOOPBACK, ChildServer, free_port
from gpu_token_analytics.errors import EmbeddedServiceError

READY = "echo ready; exec sleep 60"


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def is_ready(log: str) -> bool:
    return "ready" in log


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie still has its pid; nobody but init may be there to collect it.
    return (
        not Path(f"/proc/{pid}/stat").exists()
        or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    )


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_free_ports_are_free_and_outside_the_range_of_outgoing_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    with socket.socket() as listener:
        listener.bind((LOOPBACK, port))
        monkeypatch.setattr(child, "_PORTS", range(port, port + 1))
        with pytest.raises(
            EmbeddedServiceError, match=f"no free port found on loopback between {port}"
        ):
            free_port()
    assert free_port() == port
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if limits.exists() and int(limits.read_text().split()[0]) == 32768:  # Linux's default
        assert port < 32768


def test_starts_reports_its_pid_and_stops(tmp_path: Path) -> None:
    server = ChildServer("toy", tmp_path / "logs" / "toy.log")
    server.start(sh(READY), is_ready, 10)
    pid = server.pid
    assert pid is not None
    assert alive(pid)
    with pytest.raises(EmbeddedServiceError, match=f"runs already \\(pid {pid}\\)"):
        server.start(sh(READY), is_ready, 10)
    server.stop()
    assert server.pid is None
    assert not alive(pid)
    server.stop()  # nothing to do is not an error


def test_early_death_shows_the_exit_code_and_what_it_said(tmp_path: Path) -> None:
    server = ChildServer("toy", tmp_path / "toy.log")
    with pytest.raises(
        EmbeddedServiceError, match=r"toy ended at once \(exit code 3\)[\s\S]*the disk is on fire"
    ):
        server.start(sh("echo the disk is on fire >&2; exit 3"), is_ready, 10)
    with pytest.raises(EmbeddedServiceError, match="killed by SIGABRT"):
        server.start(sh("kill -ABRT $$"), is_ready, 10)


def test_the_first_errors_are_shown_even_when_much_follows(tmp_path: Path) -> None:
    server = ChildServer("toy", tmp_path / "toy.log")
    script = (
        'echo \'INFO fine\'; echo \'[main] ERROR no room\'; echo \'{"s":"F","msg":"abort"}\'; seq '
        "1000 1100; exit 1"
    )
    with pytest.raises(EmbeddedServiceError, match="ended at once") as caught:
        server.start(sh(script), is_ready, 10)
    shown = str(caught.value).splitlines()[1:]
    assert shown[:2] == ["[main] ERROR no room", '{"s":"F","msg":"abort"}']
    assert shown[2:] == [str(number) for number in range(1089, 1101)]


def test_a_server_that_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    server = ChildServer("toy", tmp_path / "toy.log")
    with pytest.raises(EmbeddedServiceError, match=r"not ready within 0\.5 s[\s\S]*pid=\d+"):
        server.start(sh("echo pid=$$; exec sleep 60"), is_ready, 0.5)
    pid = int(server.log().partition("pid=")[2])
    assert not alive(pid)


def test_readiness_is_read_from_this_run_only(tmp_path: Path) -> None:
    server = ChildServer("toy", tmp_path / "toy.log")
    server.start(sh(READY), is_ready, 10)
    server.stop()
    with pytest.raises(EmbeddedServiceError, match="not ready"):
        server.start(sh("exec sleep 60"), is_ready, 0.3)
    assert server.log_file.read_text() == "ready\n"


def test_sigterm_ignored_ends_in_sigkill(tmp_path: Path) -> None:
    server = ChildServer("toy", tmp_path / "toy.log")
    server.start(sh("trap '' TERM; echo ready; while :; do sleep 0.1; done"), is_ready, 10)
    pid = server.pid
    assert pid is not None
    started = time.monotonic()
    server.stop(grace_seconds=0.3)
    assert 0.3 <= time.monotonic() - started < 5
    assert not alive(pid)


def test_ctrl_c_in_the_terminal_reaches_only_us(tmp_path: Path) -> None:
    server = ChildServer("toy", tmp_path / "toy.log")
    server.start(sh(READY), is_ready, 10)
    try:
        assert server.pid is not None
        assert os.getpgid(server.pid) != os.getpgid(0)
    finally:
        server.stop()


def test_a_large_log_is_put_aside_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_ROTATE_LOG_BYTES", 100)
    log = tmp_path / "toy.log"
    log.write_text("x" * 101)
    server = ChildServer("toy", log)
    server.start(sh(READY), is_ready, 10)
    server.stop()
    assert log.read_text() == "ready\n"
    assert (tmp_path / "toy.log.1").read_text() == "x" * 101


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can tie a child to its parent (prctl)"
)
def test_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, time\n"
        "from gpu_token_analytics.embedded.child import ChildServer\n"
        f"server = ChildServer('toy', pathlib.Path({str(tmp_path / 'toy.log')!r}))\n"
        f"server.start(['/bin/sh', '-c', {READY!r}], lambda log: 'ready' in log, 10)\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        wait_for(lambda: not alive(pid))
