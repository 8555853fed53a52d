"""What the peers need, fetched once and kept under the hash of what pins it:
`~/.cache/gpu-tokens/peers`, safe to delete.

connect_jars    Kafka Connect and MongoDB's sink, by Maven; every jar is held to jars.sha256
quix_python     a virtual environment of its own, from requirements/peers.txt and its hashes
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

from gpu_token_analytics.embedded.kafka_jvm import default_cache

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
JAR_SUMS = HERE / "jars.sha256"
REQUIREMENTS = HERE.parents[1] / "requirements" / "peers.txt"
MOST_SECONDS = 900


class InstallFailed(Exception):
    """A peer could not be fetched, or is not what was pinned; the text says which and what to
    do."""


def connect_jars(cache: Path | None = None) -> Path:
    """The folder of Kafka Connect's jars. Raises InstallFailed."""

    def fetch(folder: Path) -> None:
        maven = shutil.which("mvn")
        if maven is None:
            raise InstallFailed(
                "Kafka Connect comes through Maven and there is no mvn on PATH; install Maven"
            )
        command = [maven, "--batch-mode", "--quiet", "--strict-checksums", "--no-transfer-progress"]
        command += ["--file", str(POM), f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
        _run([*command, "dependency:copy-dependencies"], "Kafka Connect")
        check_sums(folder)

    return kept("connect", [POM, JAR_SUMS], fetch, cache)


def quix_python(cache: Path | None = None) -> Path:
    """The Python that has Quix Streams. Raises InstallFailed."""

    def fetch(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        command = [
            str(folder / "bin/python"),
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--quiet",
        ]
        command += [
            "install",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--requirement",
            str(REQUIREMENTS),
        ]
        _run(command, "Quix Streams")

    return kept("quix", [REQUIREMENTS], fetch, cache) / "bin/python"


def check_sums(folder: Path) -> None:
    """Raises InstallFailed where a jar is missing, is not listed, or is not the one that was
    listed."""
    wanted = {
        name: digest
        for digest, name in (line.split() for line in JAR_SUMS.read_text().splitlines())
    }
    seen = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.jar")
    }
    for name in sorted(wanted.keys() | seen.keys()):
        if wanted.get(name) != seen.get(name):
            raise InstallFailed(
                f"{name} is {seen.get(name, 'missing')}, {JAR_SUMS.name} says "
                f"{wanted.get(name, 'nothing of it')}; "
                f"if the version was changed on purpose, write {JAR_SUMS} again with sha256sum"
            )


def kept(name: str, pins: list[Path], fetch: Callable[[Path], None], cache: Path | None) -> Path:
    """`fetch` into a folder named by the hash of `pins`; one that was not finished is never taken
    for one that was."""
    pinned = b"\0".join(pin.read_bytes() for pin in pins) + sys.version.encode()
    cache = (cache or default_cache().parent / "peers").absolute()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{hashlib.sha256(pinned).hexdigest()[:16]}"
    complete = folder / ".complete"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            print(f"installing {name} into {folder} (once)", flush=True)
            # an environment cannot be moved, so it is made where it stays
            shutil.rmtree(folder, ignore_errors=True)
            fetch(folder)
            complete.touch()
    return folder


def _run(command: list[str], what: str) -> None:
    with tempfile.TemporaryFile("w+") as said:
        try:
            code = subprocess.run(
                command, stdout=said, stderr=said, timeout=MOST_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise InstallFailed(
                f"{what} was not fetched within {MOST_SECONDS} s; try again"
            ) from None
        said.seek(0)
        if code != 0:
            raise InstallFailed(f"{what} could not be fetched: {said.read()[-800:]}")
