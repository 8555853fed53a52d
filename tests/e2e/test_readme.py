"""README's first screen, as a new user walks it: a fresh copy of what git tracks, every line of its
blocks as it stands.

What cannot run everywhere is left out with its reason: `docker build` (the base images are a
registry's), and "Use it on your GPUs", whose commands run against a real Kafka in
tests/integration/.
"""

from __future__ import annotations

import fcntl
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
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, unavailable

from gpu_token_analytics import __version__
from gpu_token_analytics.demo.commands import DASHBOARD_PORT
from gpu_token_analytics.embedded.mongod import find_mongod
from gpu_token_analytics.errors import EmbeddedServiceError

pytestmark = pytest.mark.timeout(900)

INSTALLERS = ROOT / "requirements" / "installers.txt"


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


@pytest.fixture(scope="module")
def installers() -> Path:
    """The folder of pipx's and uv's commands: hash-checked, kept in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpu-tokens"
    version = f"{sys.version_info.major}.{sys.version_info.minor}".encode()
    folder = base / "installers" / sha256(INSTALLERS.read_bytes() + version).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            command = [str(folder / "bin" / "pip"), "install", "--quiet", "--require-hashes"]
            command += ["--only-binary", ":all:", "-r", str(INSTALLERS)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = " ".join(done.stderr.split())[-400:]
                unavailable(EmbeddedServiceError(f"pipx and uv cannot be installed: {said}"))
            (folder / "installed").touch()
    return folder / "bin"


# Completion as an interactive bash asks for it: what its startup file loads, then the function that
# is bound to the command, for what was typed.
COMPLETE = """
. ~/.bashrc
set -- $(complete -p gpu-tokens)
while [ "$1" != -F ]; do shift; done
COMP_WORDS=(gpu-tokens TYPED) COMP_CWORD=CURSOR
"$2" gpu-tokens
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("tool", ["pip", "pipx", "uv"])
def test_the_install_lines_put_the_command_on_path_and_complete_it(
    tool: str, clone: Path, installers: Path, tmp_path: Path
) -> None:
    install = blocks("Install it")[0]
    (line,) = re.findall(rf"(?m)({tool} (?:tool )?install \.)", install.replace(":", "\n"))
    (completion,) = re.findall(r"(?m)^(gpu-tokens --install-completion) ", install)
    folder = tmp_path / "bin"
    own = environment() | {
        "PIPX_HOME": f"{tmp_path}/pipx",
        "PIPX_BIN_DIR": str(folder),
        "PIPX_DEFAULT_PYTHON": sys.executable,
        "UV_TOOL_BIN_DIR": str(folder),
        "UV_TOOL_DIR": f"{tmp_path}/uv",
        "UV_PYTHON": sys.executable,
        "HOME": str(tmp_path),
    }
    if tool == "pip":
        subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    own["PATH"] = f"{folder}:{installers}:{os.defpath}"

    def said(command: str, *, cwd: Path = tmp_path) -> str:
        # Two commands, so that bash stays: completion is for the shell that asks.
        asked = ["bash", "-c", f"{command}\nexit $?"]
        done = subprocess.run(asked, cwd=cwd, env=own, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said(line, cwd=clone)
    assert Path(shutil.which("gpu-tokens", path=own["PATH"]) or "").parent == folder
    assert said("gpu-tokens --version") == f"gpu-tokens {__version__}\n"
    said(completion)
    for typed, cursor, found in (
        ("rep", 1, {"replay", "report"}),
        ("budgets s", 2, {"set", "status"}),
        ("report --cur", 2, {"--currency"}),
    ):
        script = COMPLETE.replace("TYPED", typed).replace("CURSOR", str(cursor))
        assert set(said(script).split()) == found, typed
