"""The table of a run: on the terminal, and between two marks of the README."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from bench.pages import put_between
from bench.peers.contestants import CONTESTANTS, Contestant
from bench.peers.trial import Installed
from bench.peers.trials import Killed, Poisoned, Speed
from bench.peers.world import CACHE_MB, HEAP_MB, World
from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION

README = Path(__file__).parents[2] / "README.md"
_BEGIN, _END = "<!-- peers: written by `make peers ARGS=--readme` -->", "<!-- peers: end -->"
_HEAD = (
    "",
    "events/s",
    "to the limit",
    "CPU µs/event",
    "peak RSS, MB",
    "after kill -9 twice",
    "one invalid record",
)


@dataclass
class Results:
    """What a run has seen so far, by contestant. `failures` are those that gave no figure, and
    why."""

    speeds: dict[str, list[Speed]] = field(default_factory=dict)
    kills: dict[str, Killed] = field(default_factory=dict)
    poisons: dict[str, list[tuple[bool, Poisoned]]] = field(default_factory=dict)  # (tolerant, ...)
    failures: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Keep it for a run of the other parts."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Results:
        """What write() kept. Raises OSError, ValueError."""
        kept = json.loads(path.read_text())
        return cls(
            speeds={
                key: [Speed(**speed) for speed in rounds] for key, rounds in kept["speeds"].items()
            },
            kills={
                key: Killed(**{**kill, "kills": tuple(kill["kills"])})
                for key, kill in kept["kills"].items()
            },
            poisons={
                key: [(tolerant, Poisoned(**poison)) for tolerant, poison in outcomes]
                for key, outcomes in kept["poisons"].items()
            },
            failures=kept["failures"],
        )


def rows(results: Results, who: Sequence[Contestant]) -> list[tuple[str, ...]]:
    """One per contestant. A figure that was not taken is empty, never 0."""
    limits = results.speeds.get("limit", [])
    limit = statistics.median(speed.rate for speed in limits) if limits else None
    return [
        (one.name, *_speed(results.speeds.get(one.key, []), limit), *_faults(results, one.key))
        for one in who
    ]


def _speed(rounds: Sequence[Speed], limit: float | None) -> tuple[str, ...]:
    if not rounds:
        return ("", "", "", "")
    rate = statistics.median(speed.rate for speed in rounds)
    resident = [speed.rss_mb for speed in rounds if speed.rss_mb is not None]
    cut = "" if all(speed.whole for speed in rounds) else " (cut)"
    return (
        f"{rate:,.0f}{cut}",
        f"{rate / limit:.2f}" if limit else "",
        f"{statistics.median(speed.cpu_us for speed in rounds):,.0f}",
        f"{max(resident):,.0f}" if resident else "",
    )


def _faults(results: Results, key: str) -> tuple[str, str]:
    kill, poison = results.kills.get(key), results.poisons.get(key, [])
    died = ""
    if kill is not None:
        died = f"{kill.lost:,} lost, {kill.doubled:,} doubled"
        if min(kill.kills) >= kill.sent and not kill.doubled:
            died = "died after all was stored: says nothing"
        if kill.audit_holds is not None:
            died += ", audit holds" if kill.audit_holds else ", AUDIT FAILS"
    said = [f"{'tolerant: ' if tolerant else ''}{outcome.verdict}" for tolerant, outcome in poison]
    return died, "; ".join(said)


def text(table: Sequence[tuple[str, ...]]) -> str:
    """For the terminal."""
    lines = [_HEAD, *table]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 0 < column < 5 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(table: Sequence[tuple[str, ...]]) -> str:
    """For the README."""
    rule = "|" + "|".join("---:" if 0 < column < 5 else "---" for column in range(len(_HEAD))) + "|"
    return "\n".join(
        ["| " + " | ".join(_HEAD) + " |", rule, *("| " + " | ".join(row) + " |" for row in table)]
    )


def settings() -> str:
    """Every contestant's."""
    return "\n".join(f"  {one.name:42} {one.says}" for one in CONTESTANTS)


def versions(world: World, peers: Installed) -> str:
    """Of everything that runs."""
    asked = (
        "import importlib.metadata as m; print(*[m.version(n) for n in ('quixstreams', "
        "'confluent-kafka', 'pymongo')])"
    )
    command = [str(peers.quix_python), "-c", asked]
    quix, quix_kafka, quix_mongo = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    (sink,) = peers.jars.glob("mongo-kafka-connect-*.jar")
    (driver,) = peers.jars.glob("mongodb-driver-sync-*.jar")
    return (
        f"Kafka and Connect {CURRENT_VERSION} (broker heap {HEAP_MB} MB), mongod "
        f"{world.client.server_info()['version']} "
        f"(cache {CACHE_MB} MB, w:majority, journal), {sink.stem}, {driver.stem}, "
        f"quixstreams {quix} (confluent-kafka {quix_kafka}, pymongo {quix_mongo}), "
        f"Python {platform.python_version()}, confluent-kafka {version('confluent-kafka')}, "
        f"pymongo {version('pymongo')}"
    )


def machine() -> str:
    """What it ran on, and how busy that was: of a busy machine only the ratios of one run say
    something."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def write_readme(
    table: Sequence[tuple[str, ...]], when: datetime, said: Mapping[str, str], path: Path = README
) -> None:
    """Put the table between its marks. Raises ValueError where they are missing."""
    run = f"`make peers` on {when:%Y-%m-%d}: {said['run']}; {said['machine']}. {said['versions']}."
    put_between(path, _BEGIN, _END, [run, "", markdown(table)])
