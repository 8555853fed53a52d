"""The disaster-recovery drill: one row per misfortune, real processes, ids compared.

After each row, with nothing left under way: every acknowledged id is in the store and nothing else
is; every id acknowledged at the active site is in the standby's topic once; `dbHash` is equal on
all members; `gpu-tokens audit` holds at both sites.

`--without REMEDY` takes one thing out that a row relies on; that row has to fail then
(CA4/README.md has the list).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from deploy.bench.report import Report, expect
from deploy.bench.shell import CommandFailed, run, wait
from deploy.bench.sites import network
from deploy.bench.sites.readers import Readers
from deploy.bench.sites.rows import Row
from deploy.bench.sites.sites import PRODUCT, Sites
from deploy.sites.table import Kind

REMEDIES = {
    "exactly-once": "MirrorMaker copies at least once",
    "voter": "no third site: the member there is stopped",
    "mirror": "MirrorMaker is stopped when the lost site returns",
    "positions": "MirrorMaker keeps its positions when a site comes back without its disk",
}
MONGODB_RTO_SECONDS = 30
CUT_SECONDS = 20
_HURRIED_RATE = 200  # requests a second, where a row needs many events
_DRAIN_SECONDS = 400  # waits end as soon as they may; a machine that others use takes its time


Ids = Set[str]


class Drill:
    """The rows, in the order in which they build on each other."""

    def __init__(self, sites: Sites, report: Report, without: Set[str] = frozenset()) -> None:
        self.sites = sites
        self.report = report
        self.without = without
        self.rows: list[Row] = []
        self.a, self.b = sites.active, sites.standby
        self._key = ""
        self._uncopied: set[str] = set()
        self._gone: set[str] = set()
        self._doubled = 0  # in B's topic, by the rows before
        self._began = datetime.now(UTC)

    def run(self, *, full: bool = False, only: Sequence[int] = ()) -> None:
        """All rows, or those with the numbers `only` (4 needs 3).

        What a row leaves is what the next one starts from, so a row that failed is said and the
        next is tried.
        """
        self._key = json.loads(
            self.sites.product(self.a, "keys", "create", "drill", "--scope", "read", "--json")
        )["secret"]
        rows: list[tuple[str, Callable[[Row], None]]] = [
            (f"link cut for {CUT_SECONDS} s while A lives", self.link_cut),
            ("MirrorMaker killed twice", self.mirror_killed),
            ("site A lost, B promoted", self.site_lost),
            ("A returns with its disk, failback", self.site_returns),
            ("A and its disk lost, B promoted, A comes back empty", self.disk_lost),
            ("backup restored elsewhere", self.backup_restored),
        ]
        if full:
            rows.append(("link cut for 120 s while A lives", lambda row: self.link_cut(row, 120)))
            rows.append(("both sites active", self.both_active))
        for number, (name, step) in enumerate(rows, 1):
            if only and number not in only:
                continue
            row = Row(name)
            self.rows.append(row)
            with self.report.check(f"drill: {name}"):
                try:
                    step(row)
                finally:
                    for site in (self.a, self.b):
                        self.sites.stop_load(site)

    # The rows

    def link_cut(self, row: Row, seconds: float = CUT_SECONDS) -> None:
        """Nobody is promoted: a short cut is waited out, and both sides go on by themselves."""
        self.sites.start_load(self.a)
        self._await_growth(self.a)
        network.cut(self.a)
        try:
            time.sleep(seconds)
        finally:
            network.heal(self.a)
        healed = time.monotonic()
        self._await_growth(self.a)
        row.notes.append(
            f"the store grows {time.monotonic() - healed:.1f} s after the link is back"
        )
        self._await_mirrored_growth()
        row.notes.append(f"B's topic {time.monotonic() - healed:.1f} s after")
        self.sites.stop_load(self.a)
        self._settle(row)

    def mirror_killed(self, row: Row) -> None:
        """kill -9 in the middle of copying, twice."""
        self.sites.start_load(self.a, rate=50)
        for _ in range(2):
            self._await_mirrored_growth()
            time.sleep(3)
            self.sites.processes.kill(f"mirror-{self.b}")
            time.sleep(2)
            self.sites.servers.start_mirror(exactly_once="exactly-once" not in self.without)
        self._await_mirrored_growth()
        self.sites.stop_load(self.a)
        self._settle(row)
        said = self.sites.servers.mirrors_exactly_once(self.b)
        expect(said, "MirrorMaker's log does not say that exactly once is on")
        row.notes.append("exactly once on, as MirrorMaker's log says")

    def site_lost(self, row: Row) -> None:
        """Cut first, dead three seconds later: what A acknowledged in between is on A's disk
        alone."""
        self.sites.start_load(self.a)
        self._await_growth(self.a)
        self._await_mirrored_growth()
        if "voter" in self.without:
            self.sites.processes.stop("mongo-5")
        self._lose_and_promote(row, seconds_cut_before_dead=3)
        at_risk = self._acknowledged() - self._stored_or_mirrored()
        row.rpo = f"0 with A's disk, {len(at_risk)} without"
        row.notes.append(f"{len(at_risk)} acknowledged events are on A's disk alone")
        row.acknowledged = len(self._acknowledged())
        expect(len(at_risk) > 0, "nothing was on A's disk alone: the next row would show nothing")
        self.sites.stop_load(self.b)  # members are compared, and events would come in between
        self._healthy_at((self.b,))

    def site_returns(self, row: Row) -> None:
        """A's disk has what nobody else had; MirrorMaker copies it by itself. Then back, while
        readers look at the totals."""
        if "mirror" in self.without:
            self.sites.processes.stop(f"mirror-{self.b}")
        self.sites.start_load(self.b)
        with self._readers() as readers:
            self.sites.bring_back(self.a)
            self._await_stored(self._acknowledged())
            row.notes.append("A's tail is in the store")
            self.sites.fail_back(self.drained)
            self.sites.start_load(self.a)
            self._await_growth(self.a)
            self.sites.stop_load(self.a)
        self._settle(row)
        readings, wrong = readers.judged()
        row.notes.append(f"{readings} totals read meanwhile at both sites, {len(wrong)} wrong")
        expect(not wrong, f"a reader saw a wrong total: {wrong[:3]}")
        expect(readings > 10, f"only {readings} totals were read")

    def disk_lost(self, row: Row) -> None:
        """Everything at once, and the disk too: what was on its way is lost, and the row says how
        much."""
        self.sites.start_load(self.a)
        self._await_growth(self.a)
        self._await_mirrored_growth()
        self._lose_and_promote(row, seconds_cut_before_dead=0, lose_disk=True)
        gone = self._acknowledged() - self._stored_or_mirrored()
        uncopied = self._acknowledged(self.a) - set(self._mirrored())
        row.rpo = f"{len(gone)} events"
        row.notes.append(
            f"{len(uncopied)} events had not reached B's topic, {len(uncopied - gone)} of them are "
            "in the store"
        )
        before = len(self._acknowledged(self.a))
        self.sites.bring_back(self.a, empty=True, forget_positions="positions" not in self.without)
        self.sites.fail_back(lambda: not (self._missing_in_store() - gone))
        self.sites.start_load(self.a, rate=_HURRIED_RATE)
        self._await_growth(self.a)
        # MirrorMaker comes last, as it may: by then the new broker has more than the old one had,
        # and a position of the old one is a valid one of the new. One that lies behind the end
        # would be refused, and MirrorMaker begin anew by itself.
        wait(
            lambda: len(self._acknowledged(self.a)) > 2.2 * before,
            _DRAIN_SECONDS,
            "the new broker takes too few events",
        )
        self.sites.servers.start_mirror()
        self._await_mirrored_growth()
        self.sites.stop_load(self.a)
        self._settle(row, gone=gone, uncopied=uncopied)

    def backup_restored(self, row: Row) -> None:
        """Taken at B while events flow, encrypted; restored into a MongoDB of its own at C, which
        has nothing of ours."""
        self.sites.start_load(self.a)
        self._await_growth(self.a)
        folder, key = self.sites.folder / "backup", self.sites.folder / "backup.key"
        recipient = self.sites.product(self.b, "backup-key", str(key)).strip()
        began = time.monotonic()
        said = self.sites.product(self.b, "backup", str(folder), "--recipient", recipient, "--json")
        manifest = json.loads(said.splitlines()[-1])
        row.notes.append(f"backup {time.monotonic() - began:.1f} s while events flow")
        self.sites.stop_load(self.a)
        uri = self.sites.servers.start_elsewhere("c")
        env = {"MONGODB_URI": uri, "SITE": "c"}
        began = time.monotonic()
        self.report.say(
            self.sites.product("c", "restore", str(folder), "--identity", str(key), env=env).strip()
        )
        row.notes.append(
            f"restore {time.monotonic() - began:.1f} s, every document as in the backup"
        )
        said = self.sites.product("c", "audit", env=env)  # raises when it does not hold
        expect("holds" in said, said[-1000:])
        self.sites.processes.stop("mongo-elsewhere")
        documents = sum(part["documents"] for part in manifest["parts"].values())
        row.notes.append(f"{documents:,} documents, audit of the copy holds")
        expect(
            manifest["consistency"] == "snapshot",
            f"the backup is consistent by {manifest['consistency']}",
        )
        self._settle(row)

    def both_active(self, row: Row) -> None:
        """Events at both sites, mirrored both ways under prefixed names, each read at both sites:
        still one document each."""
        topic = self.sites.table.topics.events
        others = {self.a: f"{self.b}.{topic}", self.b: f"{self.a}.{topic}"}
        acknowledged = {site: self._acknowledged(site) for site in others}
        self.sites.activate_both(others)
        for site in others:
            self.sites.start_load(site)
        self._await_growth(self.a)
        time.sleep(15)
        for site in others:
            self.sites.stop_load(site)
        for site, other in others.items():
            source = self.b if site == self.a else self.a
            new = self._acknowledged(source) - acknowledged[source]
            wait(
                lambda: not new - set(self._read(site, other)),  # noqa: B023
                _DRAIN_SECONDS,
                f"{other} at {site} misses events of {source}",
            )
            ids = [event_id for event_id in self._read(site, other) if event_id in new]
            expect(len(ids) == len(new), f"{len(ids) - len(new)} records doubled in {other}")
            names = self.sites.probe(site).ask(
                "topics", bootstrap=self.sites.settings(site)["KAFKA_BOOTSTRAP"]
            )
            rounds = [
                name
                for name in names
                if name.startswith((f"{self.a}.{self.b}.", f"{self.b}.{self.a}.", f"{site}."))
            ]
            expect(
                not [name for name in rounds if "internal" not in name],
                f"topics that go round at {site}: {rounds}",
            )
            row.notes.append(f"{len(new)} events of {source} in {other} at {site}, once")
        missing = self._acknowledged() - self._gone
        self._await_stored(missing)
        row.acknowledged = len(missing)
        stored = self._stored()
        row.doubled_in_store = len(stored) - len(set(stored))
        expect(set(stored) <= self._sent(), "the store holds ids that nobody sent")
        self._healthy_at((self.a, self.b))

    def _lose_and_promote(
        self, row: Row, *, seconds_cut_before_dead: float, lose_disk: bool = False
    ) -> None:
        ours = f".{self.b}"
        before = self._ask(self.a, "in_ledger", host=ours)
        cut = time.monotonic()
        killer = threading.Thread(
            target=self.sites.lose,
            args=(self.a,),
            kwargs={"seconds_cut_before_dead": seconds_cut_before_dead},
        )
        killer.start()
        self.sites.start_load(self.b)  # producers go where a broker answers
        row.mongodb_rto_seconds = self.sites.promote(self.b) - cut
        wait(lambda: self._in_ledger(ours) > before, 180, "no event produced at B is in the ledger")
        row.rto_seconds = time.monotonic() - cut
        killer.join()
        if lose_disk:
            self.sites.lose_disk(self.a)
        expect(
            row.mongodb_rto_seconds < MONGODB_RTO_SECONDS,
            f"MongoDB took writes again after {row.mongodb_rto_seconds:.1f} s",
        )

    def _in_ledger(self, host: str) -> int:
        with suppress(CommandFailed):
            return int(self._ask(self.b, "in_ledger", host=host))
        return 0

    def drained(self) -> bool:
        """Whether every acknowledged event is in the store."""
        return not self._missing_in_store() - self._gone

    # What holds after a row

    def _settle(self, row: Row, gone: Ids = frozenset(), uncopied: Ids = frozenset()) -> None:
        """Nothing is under way any more; then everything is compared.

        gone: ids that went with a disk; uncopied: those that will never reach B's topic, though the
        store may have them.
        """
        self._gone |= gone
        acknowledged = self._acknowledged() - self._gone
        self._await_stored(acknowledged)
        self._uncopied |= uncopied
        at_a = self._acknowledged(self.a) - self._uncopied
        self._await_mirrored(at_a)
        stored, sent = self._stored(), self._sent()
        row.acknowledged = len(acknowledged)
        row.lost = len(acknowledged - set(stored)) + len(gone)
        row.doubled_in_store = len(stored) - len(set(stored))
        topic = self._mirrored()
        doubled = len(topic) - len(set(topic))
        row.doubled_in_topic, self._doubled = doubled - self._doubled, doubled
        expect(
            not acknowledged - set(stored), f"lost in the store: {len(acknowledged - set(stored))}"
        )
        expect(not at_a - set(topic), f"lost in B's topic: {len(at_a - set(topic))}")
        expect(set(stored) <= sent, f"{len(set(stored) - sent)} stored ids that nobody sent")
        expect(row.doubled_in_store == 0, f"{row.doubled_in_store} doubled in the store")
        expect(row.doubled_in_topic == 0, f"{row.doubled_in_topic} records doubled in B's topic")
        self._healthy_at((self.a, self.b))

    def _healthy_at(self, sites: tuple[str, ...]) -> None:
        """The ledger holds at these sites, and all living members hold the same."""
        wait(lambda: self._ask(sites[-1], "due") == 0, _DRAIN_SECONDS, "cells stay due")
        with ThreadPoolExecutor(len(sites)) as pool:
            for said in pool.map(self._audit, sites):
                expect("holds" in said, said[-1500:])
        homes = {member.port: member.site for member in self.sites.table.of(Kind.MONGODB)}
        ports = [
            port for port, site in homes.items() if site in sites or site not in (self.a, self.b)
        ]
        if "voter" in self.without:
            ports = [port for port in ports if homes[port] in (self.a, self.b)]
        seen: list[str] = []

        def equal() -> bool:
            seen[:] = self.sites.probe(sites[-1]).ask("hashes", ports=ports)
            return len(set(seen)) == 1

        with suppress(CommandFailed):
            wait(equal, _DRAIN_SECONDS, "dbHash differs")
        expect(len(set(seen)) == 1, f"dbHash differs between members: {seen}")
        self.report.say(
            f"dbHash of {len(seen)} members: {seen[0]}; audit holds at {' and '.join(sites)}"
        )

    def _audit(self, site: str) -> str:
        done = run(
            network.inside(site, *PRODUCT, "audit"),
            env=self.sites.settings(site),
            timeout_seconds=300,
            check=False,
        )
        return (
            done.stdout
            if done.returncode == 0
            else f"audit at {site}: exit {done.returncode}: {done.stdout[-1500:]}"
        )

    # Ids

    def _acknowledged(self, site: str = "") -> set[str]:
        return self._noted(f"load-{site}*.acknowledged")

    def _sent(self) -> set[str]:
        return self._noted("load-*.sent")

    def _noted(self, pattern: str) -> set[str]:
        return {
            line
            for path in self.sites.folder.glob(pattern)
            for line in path.read_text().split("\n")
            if len(line) == 36
        }

    def _stored(self) -> list[str]:
        file = self.sites.folder / "stored"
        self._ask(self.b, "store_ids", into=str(file))
        return file.read_text().split()

    def _mirrored(self) -> list[str]:
        return self._read(self.b, self.sites.table.topics.events)

    def _read(self, site: str, topic: str) -> list[str]:
        """Ids of a topic at a site, one per record."""
        file = self.sites.folder / "read"
        bootstrap = self.sites.settings(site)["KAFKA_BOOTSTRAP"]
        self.sites.probe(site).ask("topic_ids", bootstrap=bootstrap, topic=topic, into=str(file))
        return file.read_text().split()

    def _stored_or_mirrored(self) -> set[str]:
        return set(self._stored()) | set(self._mirrored())

    def _missing_in_store(self) -> set[str]:
        return self._acknowledged() - set(self._stored())

    def _await_stored(self, ids: set[str]) -> None:
        wait(
            lambda: not ids - set(self._stored()),
            _DRAIN_SECONDS,
            f"not all of {len(ids)} acknowledged events are in the store",
        )

    def _await_mirrored(self, ids: set[str]) -> None:
        wait(
            lambda: not ids - set(self._mirrored()),
            _DRAIN_SECONDS,
            f"not all of {len(ids)} events of A are in B's topic",
        )

    def _await_growth(self, site: str) -> None:
        before = -1

        def grows() -> bool:
            nonlocal before
            with suppress(CommandFailed):
                now = int(self._ask(site, "count"))
                if before < 0:
                    before = now
                return now > before + 20
            return False

        wait(grows, 180, "the store does not grow")

    def _await_mirrored_growth(self) -> None:
        before = len(self._mirrored())
        wait(lambda: len(self._mirrored()) > before + 20, 300, "B's topic does not grow")

    def _ask(self, site: str, question: str, **arguments: object) -> int:
        answer: int = self.sites.probe(site).ask(question, uri=self.sites.uri, **arguments)
        return answer

    # Readers

    @contextmanager
    def _readers(self) -> Iterator[Readers]:
        readers = Readers(self.sites, self._key, self._began)
        readers.start((self.a, self.b))
        try:
            yield readers
        finally:
            readers.stop()
