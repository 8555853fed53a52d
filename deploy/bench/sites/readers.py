"""Clients that read the API at both sites all the while a row of the drill goes on, and what they
saw."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from deploy.bench.shell import CommandFailed
from deploy.bench.sites.sites import Probe, Sites
from deploy.sites.table import LOOPBACK


@dataclass(frozen=True)
class Reading:
    """One total as a reader saw it, and how many requests had been sent by then."""

    requests: int
    sent: int
    classes_nusd: int
    total_nusd: int


class Readers:
    """Somebody at each site who reads the totals of the whole run through Envoy, over and over."""

    def __init__(self, sites: Sites, key: str, began: datetime) -> None:
        self._sites = sites
        self._key = key
        start = began.replace(second=0, microsecond=0)
        end = (start + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%MZ")
        port = sites.table.api.port
        self._url = f"http://{LOOPBACK}:{port}/v1/costs?from={start:%Y-%m-%dT%H:%MZ}&to={end}"
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._readings: dict[str, list[Reading]] = {}

    def start(self, at: tuple[str, ...]) -> None:
        """One reader at each of these sites."""
        for site in at:
            self._readings[site] = []
            thread = threading.Thread(target=self._read, args=(site,))
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """No more readings."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def judged(self) -> tuple[int, list[str]]:
        """How many totals were read, and those that were wrong: fewer requests than before, more
        than were sent by then, or classes that do not add up to the money."""
        wrong = []
        for site, readings in self._readings.items():
            before = 0
            for reading in readings:
                if (
                    not before <= reading.requests <= reading.sent
                    or reading.classes_nusd != reading.total_nusd
                ):
                    wrong.append(f"{site}: {reading} after {before} requests")
                before = reading.requests
        return sum(len(readings) for readings in self._readings.values()), wrong

    def _read(self, site: str) -> None:
        probe = Probe(site)
        try:
            while not self._stop.wait(0.4):
                with suppress(CommandFailed, ValueError, KeyError):
                    totals = json.loads(probe.ask("page", url=self._url, key=self._key))["totals"]
                    money = totals["money"]
                    classes = sum(value for name, value in money.items() if name != "total_nusd")
                    sent = sum(
                        path.read_bytes().count(b"\n")
                        for path in self._sites.folder.glob("load-*.usages")
                    )
                    self._readings[site].append(
                        Reading(totals["requests"], sent, classes, money["total_nusd"])
                    )
        finally:
            probe.close()
