"""README's first screen, as a new user walks it: a fresh copy of what git tracks, every line of its
blocks as it stands.

What cannot run everywhere is left out with its reason: pipx and uv where they are not installed,
`docker build` (the base images are a registry's), and "Use it on your GPUs", whose commands run
against a real Kafka in tests/integration/.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, unavailable

from gpu_token_analytics.demo.commands import DASHBOARD_PORT
from gpu_token_analytics.embedded.mongod import find_mongod
from gpu_token_analytics.errors import EmbeddedServiceError

pytestmark = pytest.mark.timeout(900)


def blocks(heading: str) -> list[str]:
    """The ```sh blocks of a section of README."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("KAFKA_BOOTSTRAP", "MONGODB_URI", "VIRTUAL_ENV")
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fresh clone holds, changes that are not committed included."""
    folder = tmp_path_factory.mktemp("clone")
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture
def demo(clone: Path, demos_port: int) -> Iterator[Path]:
    """`make demo` as README writes it, running; ended by Ctrl-C."""
    try:
        find_mongod()
    except EmbeddedServiceError as error:
        unavailable(error)
    (command,) = blocks("Try it")[0].strip().splitlines()
    assert command == "make demo"
    log = clone / "demo.txt"
    with log.open("w") as out:
        child = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=clone,
            env=environment() | {"PYTHON": sys.executable},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        while "price x time" not in log.read_text():
            assert child.poll() is None, log.read_text()
            time.sleep(0.5)
        yield clone
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does it
        child.wait()
        assert "the ledger holds to the nano-dollar" in log.read_text()
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def first_event() -> dict[str, Any] | None:
    """The event of README as the API shows it; None before it is stored."""
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{DASHBOARD_PORT}/v1/requests/my-first"
        ) as answer:
            (event,) = json.load(answer)["events"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    found: dict[str, Any] = event
    return found


def test_from_the_first_screen_to_the_cost_of_an_event_of_ones_own(demo: Path) -> None:
    done = subprocess.run(
        ["sh", "-e"],
        input=blocks("Try it")[1],
        cwd=demo,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "llama" in done.stdout
    assert done.stdout.strip().endswith(
        re.findall(r"The answer is `([^`]+)`", (ROOT / "README.md").read_text())[0]
    )
    assert f"talking to the demo in {demo}" in done.stderr

    while (event := first_event()) is None or event["cost_nusd"] is None:
        time.sleep(0.5)
    assert event["cost_nusd"] > 0
    assert event["cells"][0]["usd_per_hour"] is not None


@pytest.mark.parametrize("tool", ["pip", "pipx", "uv"])
def test_the_install_line_puts_the_command_on_path(tool: str, clone: Path, tmp_path: Path) -> None:
    (line,) = re.findall(
        rf"(?m)({tool} (?:tool )?install \.)", blocks("Install it")[0].replace(":", "\n")
    )
    folder = tmp_path / "bin"
    own = environment() | {
        "PIPX_HOME": f"{tmp_path}/pipx",
        "PIPX_BIN_DIR": str(folder),
        "UV_TOOL_BIN_DIR": str(folder),
    }
    own |= {"UV_TOOL_DIR": f"{tmp_path}/uv", "HOME": str(tmp_path)}
    if tool == "pip":
        subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    elif shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    own["PATH"] = f"{folder}:{own['PATH']}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=clone, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for command in ("gpu-tokens --version", "gpu-tokens --show-completion"):
        # Two commands, so that bash stays: completion is for the shell that asks.
        asked = ["bash", "-c", f"{command}; exit $?"]
        done = subprocess.run(
            asked, cwd=tmp_path, env=own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "gpu-tokens" in done.stdout
    assert Path(shutil.which("gpu-tokens", path=own["PATH"]) or "").parent == folder
