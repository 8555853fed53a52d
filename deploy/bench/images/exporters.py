"""Exporters of others that are no packages of Debian's: fetched or built once, kept in the user's
cache folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

from deploy.bench.report import NotChecked
from deploy.bench.shell import run

JMX_AGENT = "io.prometheus.jmx:jmx_prometheus_javaagent:1.0.1"
MONGODB_EXPORTER = "github.com/percona/mongodb_exporter@v0.43.1"


def jmx_agent(cache: Path, timeout_seconds: float = 300) -> Path:
    """Prometheus' agent for a JVM, through Maven the first time. Raises CommandFailed with Maven's
    words."""
    _, name, version = JMX_AGENT.split(":")
    jar = cache / f"{name}-{version}.jar"
    if not jar.exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = ["mvn", "--batch-mode", "--quiet", "--no-transfer-progress", "dependency:copy"]
        run(
            [*command, f"-Dartifact={JMX_AGENT}", f"-DoutputDirectory={cache}"],
            timeout_seconds=timeout_seconds,
        )
    return jar


def mongodb_exporter(timeout_seconds: float = 1800) -> Path:
    """percona's exporter: MONGODB_EXPORTER, one on PATH, else built from its Go module, which takes
    two minutes of two cores.

    Raises NotChecked without Go, CommandFailed when the build fails.
    """
    if named := os.environ.get("MONGODB_EXPORTER") or shutil.which("mongodb_exporter"):
        return Path(named)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpu-token-analytics"
    program = base / f"mongodb_exporter-{MONGODB_EXPORTER.partition('@v')[2]}"
    if not program.exists() and not shutil.which("go"):
        raise NotChecked(
            f"{MONGODB_EXPORTER} cannot be built, this machine lacks: go (apt-get install golang)"
        )
    base.mkdir(parents=True, exist_ok=True)
    with (base / "mongodb_exporter.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(base / "mongodb_exporter.part", program, timeout_seconds)
    return program


def _build(work: Path, program: Path, timeout_seconds: float) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    env = {
        "GOMODCACHE": str(work / "gomod"), "GOCACHE": str(work / "gocache"),
        "GOTOOLCHAIN": "local", "CGO_ENABLED": "0",
        "GOFLAGS": "", "GOWORK": "off",
    }  # fmt: skip
    try:
        said = run(
            ["go", "mod", "download", "-json", MONGODB_EXPORTER],
            cwd=work,
            env=env,
            timeout_seconds=300,
        ).stdout
        # A copy: `go install MODULE@VERSION` also wants the list of all versions, which not every
        # proxy has.
        source = work / "source"
        shutil.copytree(json.loads(said[said.index("{\n") :])["Dir"], source)
        run(["chmod", "-R", "u+w", str(source)])
        build = [
            "nice",
            "-n",
            "10",
            "go",
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-p",
            "2",
            "-ldflags",
            "-s -w",
        ]
        run(
            [*build, "-o", str(work / "program"), "."],
            cwd=source,
            env=env,
            timeout_seconds=timeout_seconds,
        )
        (work / "program").rename(program)
    finally:
        run(["chmod", "-R", "u+w", str(work)], check=False)  # Go writes its module cache read-only
        shutil.rmtree(work, ignore_errors=True)
