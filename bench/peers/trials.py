"""What is measured of a contestant.

speed     start -> warm-up records -> SIGSTOP -> produce -> SIGCONT and the clock -> all stored
          (ledger: nothing is due)
killed    SIGKILL at a quarter and at six tenths, started again each time: what is lost, what is
          there twice
poisoned  one record of invalid JSON in the middle: who still lives, what is stored, where the
          record went
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from bench.ingest_bench import insert_commands
from bench.peers.contestants import Contestant, Kind
from bench.peers.trial import Ended, Installed, Trial
from bench.peers.world import Record, World, until
from bench.processes import cpu_seconds, peak_rss_mb
from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.mongo.commands import write_command

LONG_SESSION_MS = 45_000  # a stopped process must stay in its group
SHORT_SESSION_MS = 6_000  # the shortest that a broker allows by default
_LEDGER_SECONDS = 180
_QUIET_SECONDS = 15
_POISON = b'{"schema":"token.usage.v1","event_id":"broken'


@dataclass(frozen=True)
class Speed:
    """Of one round. None: there is no such process."""

    rate: float
    cpu_us: float
    rss_mb: float | None
    whole: bool  # all was stored in time


@dataclass(frozen=True)
class Killed:
    """After two deaths."""

    sent: int
    kills: tuple[int, ...]  # documents stored at each death
    lost: int
    doubled: int
    audit_holds: bool | None = None  # None: it has no ledger


@dataclass(frozen=True)
class Poisoned:
    """After one record that nobody can read."""

    sent: int
    missing: int
    ended: bool
    task_failed: bool
    dead_letters: int

    @property
    def verdict(self) -> str:
        """In words."""
        if self.ended or self.task_failed:
            return (
                f"{'task fails' if self.task_failed else 'ends'}, {self.missing:,} good ones not "
                "stored"
            )
        if self.missing:
            return f"goes on, {self.missing:,} good ones not stored"
        return (
            "dead letter, goes on"
            if self.dead_letters
            else "goes on, the record is gone without a trace"
        )


def share_of(who: Contestant, sent: Sequence[Record]) -> Sequence[Record]:
    """The records it is given."""
    return sent[: max(100, int(len(sent) * who.share))]


def speed(
    world: World, who: Contestant, peers: Installed, warm: Sequence[Record], timed: Sequence[Record]
) -> Speed:
    """Raises TimeoutError, Ended."""
    warm, timed = share_of(who, warm), share_of(who, timed)
    with Trial(world, who, peers, session_ms=LONG_SESSION_MS) as trial:
        if who.kind is Kind.LIMIT:
            return _limit(trial, warm, timed)
        trial.start()
        trial.ready()
        world.produce(trial.topic, warm)
        until(
            lambda: trial.alive_or_raise() and trial.stored() >= len(warm),
            90,
            "storing the first records",
        )
        if who.ledger:
            until(lambda: trial.due() == 0, _LEDGER_SECONDS, "closing the first records")
        until(
            lambda: world.lag(trial.group, trial.topic) == 0,
            30,
            "committing the first records",
            0.3,
        )
        pid = trial.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            world.produce(trial.topic, timed)
            cpu_begun, begun = cpu_seconds(pid), time.perf_counter()
        finally:
            os.kill(pid, signal.SIGCONT)
        stored = 0
        while stored < len(timed) and (passed := time.perf_counter() - begun) < who.most_seconds:
            trial.alive_or_raise()
            # asked the more often the nearer the end is: each time costs mongod and the contestant
            # time
            left = passed * (len(timed) - stored) / max(stored, 1)
            time.sleep(min(max(left / 4, 0.005), 0.25))
            stored = trial.stored() - len(warm)
        if who.ledger:
            until(lambda: trial.due() == 0, _LEDGER_SECONDS, "closing", 0.02)
        seconds = time.perf_counter() - begun
        stored = min(stored, len(timed))
        cpu_us = (cpu_seconds(pid) - cpu_begun) / max(stored, 1) * 1e6
        return Speed(stored / seconds, cpu_us, peak_rss_mb(pid), stored == len(timed))


def _limit(trial: Trial, warm: Sequence[Record], timed: Sequence[Record]) -> Speed:
    """The rate at which mongod takes these documents when nothing else has to be done."""
    assert trial.store is not None
    assert trial.settings is not None
    store, now = trial.store, datetime.now(UTC)
    first, commands = (
        insert_commands([record.value for record in sent], now, trial.settings.batch_max_records)
        for sent in (warm, timed)
    )
    for name, joined in first:
        write_command(store[name], "insert", joined)
    cpu_begun, begun = time.process_time(), time.perf_counter()
    inserted = sum(write_command(store[name], "insert", joined)["n"] for name, joined in commands)
    seconds = time.perf_counter() - begun
    cpu_us = (time.process_time() - cpu_begun) / len(timed) * 1e6
    assert inserted == len(timed), f"{inserted:,} of {len(timed):,} documents were inserted"
    return Speed(inserted / seconds, cpu_us, None, whole=True)


def killed(world: World, who: Contestant, peers: Installed, sent: Sequence[Record]) -> Killed:
    """Raises TimeoutError, Ended."""
    sent = share_of(who, sent)
    with Trial(world, who, peers, session_ms=SHORT_SESSION_MS) as trial:
        world.produce(trial.topic, sent)
        trial.start()
        kills = []
        for share in (0.25, 0.6):
            wanted = int(share * len(sent))
            until(partial(_stored_least, trial, wanted), 180, "storing", 0.002)
            trial.kill()
            kills.append(trial.stored())
            trial.start()
        until(
            lambda: trial.alive_or_raise() and world.lag(trial.group, trial.topic) == 0,
            180,
            "committing all",
            0.5,
        )
        holds = None
        if who.ledger:
            assert trial.store is not None
            assert trial.settings is not None
            until(lambda: trial.due() == 0, _LEDGER_SECONDS, "closing")
            holds = audit(LedgerStore(trial.store), params_of(trial.settings)).holds
        lost, doubled = trial.lost_and_doubled({record.event_id for record in sent})
        return Killed(len(sent), tuple(kills), lost, doubled, holds)


def _stored_least(trial: Trial, wanted: int) -> bool:
    return trial.alive_or_raise() and trial.stored() >= wanted


def poisoned(
    world: World, who: Contestant, peers: Installed, sent: Sequence[Record], *, tolerant: bool
) -> Poisoned:
    """Raises TimeoutError."""
    sent = share_of(who, sent)
    middle = len(sent) // 2
    with Trial(world, who, peers, session_ms=SHORT_SESSION_MS, tolerant=tolerant) as trial:
        trial.start()
        trial.ready()
        world.produce(trial.topic, sent[:middle])
        world.produce(trial.topic, [Record(sent[middle].key, _POISON, "")])
        world.produce(trial.topic, sent[middle:])
        wanted, seen, since = len(sent), -1, time.perf_counter()
        while seen < wanted and time.perf_counter() - since < _QUIET_SECONDS:
            time.sleep(0.5)
            if (now := trial.stored()) != seen:
                seen, since = now, time.perf_counter()
        time.sleep(2)  # a dead letter of the last batch is on its way
        missing, _ = trial.lost_and_doubled({record.event_id for record in sent})
        try:
            ended = not trial.alive_or_raise()
        except Ended:
            ended = True
        return Poisoned(
            len(sent), missing, ended, trial.failed_task(), world.count(trial.dead_letter_topic)
        )
