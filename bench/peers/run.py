"""`python -m bench peers`: everything of the table, in a bounded time."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.peers.contestants import CONTESTANTS, Contestant, Kind
from bench.peers.installs import connect_jars, quix_python
from bench.peers.table import Results, machine, rows, settings, text, versions, write_readme
from bench.peers.trial import Ended, Installed
from bench.peers.trials import killed, poisoned, speed
from bench.peers.world import Record, World, records, world
from gpu_token_analytics.errors import GpuTokensError

PARTS = ("speed", "kills", "poison")


def main(argv: list[str]) -> None:
    """Run and print. Exit code 1 when a contestant gave no figure, or this processor lost or
    doubled anything."""
    given = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all of it is removed
    peers = Installed(connect_jars(), quix_python())
    who = [one for one in CONTESTANTS if not given.only or one.key in given.only.split(",")]
    events = records(max(given.events + given.warm, given.kill_events, given.poison_events))
    bytes_each = sum(len(event.value) for event in events) / len(events)
    run = (
        f"{given.events:,} events of {bytes_each:.0f} bytes, medians of {given.rounds} interleaved "
        "rounds"
    )
    run += f", kill -9 twice within {given.kill_events:,}"
    results = Results.read(given.results) if given.go_on else Results()
    with world() as services:
        said = {"run": run, "machine": machine(), "versions": versions(services, peers)}
        print(f"{run}\n{said['machine']}\n{said['versions']}\n{settings()}\n", flush=True)
        _Run(services, who, peers, results, time.monotonic() + given.most_minutes * 60).all(
            given, events
        )
    results.write(given.results)
    table = rows(results, CONTESTANTS)
    print(f"\n{text(table)}\n\n{machine()} at the end")
    if given.readme:
        write_readme(table, datetime.now(UTC), said)
    problems = results.failures + broken_promises(results)
    if problems:
        sys.exit("\n".join(problems))


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench peers", description=__doc__)
    parser.add_argument("--events", type=int, default=40_000, help="of a measurement of speed")
    parser.add_argument(
        "--warm", type=int, default=5_000, help="events before it, for imports, JIT and connections"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kill-events", type=int, default=30_000)
    parser.add_argument("--poison-events", type=int, default=2_000)
    parser.add_argument("--parts", default=",".join(PARTS), help="such as speed,kills")
    parser.add_argument("--only", default="", help="such as limit,ledger,quix")
    parser.add_argument("--most-minutes", type=float, default=15, help="nothing begins after this")
    parser.add_argument(
        "--results", type=Path, default=Path("build/peers/results.json"), help="where they are kept"
    )
    parser.add_argument(
        "--go-on", action="store_true", help="add to what is kept: parts that another run left out"
    )
    parser.add_argument("--readme", action="store_true", help="write the table into the README")
    given = parser.parse_args(argv)
    if unknown := set(given.parts.split(",")) - set(PARTS):
        parser.error(f"--parts {unknown.pop()!r} is none of {', '.join(PARTS)}")
    if unknown := set(filter(None, given.only.split(","))) - {one.key for one in CONTESTANTS}:
        parser.error(
            f"--only {unknown.pop()!r} is none of {', '.join(one.key for one in CONTESTANTS)}"
        )
    return given


def broken_promises(results: Results) -> list[str]:
    """What this processor says of itself, held against what was seen."""
    problems = []
    for one in CONTESTANTS:
        kill = results.kills.get(one.key)
        if (
            one.kind is Kind.PRODUCT
            and kill is not None
            and (kill.lost or kill.doubled or kill.audit_holds is False)
        ):
            problems.append(f"{one.name}: {kill}")
        for _, poison in results.poisons.get(one.key, []) if one.kind is Kind.PRODUCT else []:
            if poison.missing or poison.ended or poison.dead_letters != 1:
                problems.append(f"{one.name}: {poison}")
    return problems


class _Run:
    """Trial after trial, until the time is over."""

    def __init__(
        self,
        services: World,
        who: Sequence[Contestant],
        peers: Installed,
        results: Results,
        end: float,
    ) -> None:
        self._services, self._who, self._peers, self._results, self._end = (
            services,
            who,
            peers,
            results,
            end,
        )

    def all(self, given: argparse.Namespace, events: Sequence[Record]) -> None:
        parts = given.parts.split(",")
        if "speed" in parts:
            warm, timed = events[: given.warm], events[given.warm : given.warm + given.events]
            # interleaved: what else the machine does hits all of them
            for number in range(given.rounds):
                for one in self._who if number % 2 == 0 else self._who[::-1]:
                    self._trial(f"round {number + 1}", one, partial(self._speed, one, warm, timed))
        running = [one for one in self._who if one.kind is not Kind.LIMIT and one.share == 1]
        if "kills" in parts:
            for one in running:
                self._trial("kill -9", one, partial(self._kills, one, events[: given.kill_events]))
        if "poison" in parts:
            for one in running:
                for tolerant in (
                    (False, True) if one.kind in (Kind.CONNECT, Kind.QUIX) else (False,)
                ):
                    poison = partial(
                        self._poison, one, events[: given.poison_events], tolerant=tolerant
                    )
                    self._trial("poison", one, poison)

    def _trial(self, what: str, who: Contestant, measure: Callable[[], object]) -> None:
        """A contestant that fails costs its own figure only."""
        if time.monotonic() > self._end:
            self._results.failures.append(f"{what}, {who.name}: the time was over (--most-minutes)")
            return
        try:
            print(f"{what:8} {who.name:42} {measure()}", flush=True)
        except (Ended, TimeoutError, GpuTokensError, OSError) as error:
            self._results.failures.append(f"{what}, {who.name}: {error}")
            print(f"{what:8} {who.name:42} FAILED: {error}", flush=True)

    def _speed(self, who: Contestant, warm: Sequence[Record], timed: Sequence[Record]) -> object:
        seen = speed(self._services, who, self._peers, warm, timed)
        self._results.speeds.setdefault(who.key, []).append(seen)
        return (
            f"{seen.rate:10,.0f}/s  {seen.cpu_us:8.1f} us CPU  RSS "
            f"{seen.rss_mb or float('nan'):6.0f} MB"
        )

    def _kills(self, who: Contestant, sent: Sequence[Record]) -> object:
        self._results.kills[who.key] = seen = killed(self._services, who, self._peers, sent)
        return seen

    def _poison(self, who: Contestant, sent: Sequence[Record], *, tolerant: bool) -> object:
        seen = poisoned(self._services, who, self._peers, sent, tolerant=tolerant)
        self._results.poisons.setdefault(who.key, []).append((tolerant, seen))
        return f"{'tolerant: ' if tolerant else ''}{seen.verdict}"
