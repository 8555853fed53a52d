"""The demo as a person runs it: it shows figures, keeps its data, audits itself and leaves nothing
running."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import ROOT, unavailable

from gpu_token_analytics.demo.commands import DASHBOARD_PORT
from gpu_token_analytics.embedded.mongod import find_mongod
from gpu_token_analytics.errors import EmbeddedServiceError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    try:
        find_mongod()
    except EmbeddedServiceError as error:
        unavailable(error)
    shutil.copy(ROOT / "gpu_seed.json", tmp_path)
    return tmp_path


def demo(
    folder: Path, *options: str, meanwhile: Callable[[], None] | None = None
) -> tuple[str, float]:
    """Its output, and the seconds until its first figures, when `meanwhile` is called."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("KAFKA_BOOTSTRAP", "MONGODB_URI")
    }
    begun = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "gpu_token_analytics", "demo", *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines, first = [], 0.0
    assert child.stdout is not None
    with child.stdout as output:
        for line in output:
            lines.append(line)
            if "price x time" in line and not first:
                first = time.monotonic() - begun
                if meanwhile is not None:
                    meanwhile()
    assert child.wait(60) == 0, "".join(lines)
    return "".join(lines), first


def nano_usd(out: str) -> int:
    """C of the audit."""
    return int(re.findall(r"C = ([\d,]+) nano-USD", out)[-1].replace(",", ""))


def dollars(out: str, name: str) -> float:
    return float(re.findall(rf"{name}\s+([\d.,]+) \$", out)[-1].replace(",", ""))


@pytest.mark.usefixtures("demos_port")
def test_it_runs_twice_keeps_its_data_and_the_ledger_holds(folder: Path) -> None:
    seen: list[str] = []

    def meanwhile() -> None:
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("KAFKA_BOOTSTRAP", "MONGODB_URI")
        }
        command = [sys.executable, "-m", "gpu_token_analytics", "report", "--json"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert int(json.loads(done.stdout)["totals"]["money"]["total_nusd"]) > 0, (
            "the command beside it finds the demo"
        )
        seen.append(done.stderr)

    out, first = demo(folder, "--duration", "12", "--history-hours", "0.2", meanwhile=meanwhile)
    assert str(folder / "data" / "demo") in seen[0], "and says what it talks to"
    address = re.compile(rf"dashboard http://127\.0\.0\.1:{DASHBOARD_PORT}/")
    lines = [line for line in out.splitlines() if line.strip()]
    assert address.match(lines[0])
    assert address.match(lines[-1]), "the address stands first and last"
    assert 0 < first < 40, "figures came while it ran"
    assert "the ledger holds to the nano-dollar" in out
    assert "active $/M" in out
    assert "llama" in out
    parts = sum(
        dollars(out, name)
        for name in ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved")
    )
    assert parts == pytest.approx(dollars(out, "price x time"), abs=5e-9) != 0
    assert not left_over(folder), "every process it started has ended"

    with socket.create_server(("127.0.0.1", DASHBOARD_PORT)):
        again, _ = demo(folder, "--duration", "6")
    assert f":{DASHBOARD_PORT + 1}/ (port {DASHBOARD_PORT} is taken)" in again.splitlines()[0]
    assert nano_usd(again) > nano_usd(out) > 1_000_000_000, "data survives between runs"
    assert "the ledger holds to the nano-dollar" in again


def test_it_deletes_only_what_a_demo_made(folder: Path) -> None:
    precious = folder / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for options in (("--fresh",), ()):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "gpu_token_analytics",
                "demo",
                "--data-dir",
                str(precious),
                *options,
            ],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert "--data-dir" in done.stderr
    assert (precious / "thesis.txt").read_text() == "years of work"


def left_over(folder: Path) -> list[str]:
    """Processes that still have the demo's folder on their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command and "pytest" not in command:
            found.append(command)
    return found
