"""Placements of pods: what the kubelet says, told to the API whenever it changes, effective-dated.

    a pod is there, or its GPUs changed     its row holds from the first look on that says so
    a pod is gone                           a row without GPUs holds from the last look on in which
                                            it was there

A pod of a StatefulSet may come back on another node, which tells of it before this one has looked
again: it went no later than it came, so by these times the row of the node where it is always
holds. What cannot be told is kept, under its times, and told later.
"""

from __future__ import annotations

import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gpu_token_analytics.agent.metrics import PodMetrics
from gpu_token_analytics.agent.pods.devices import LookUp, PodGpus, gpus_of
from gpu_token_analytics.agent.pods.kubelet import PodSource
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.errors import GpuTokensError, SourceUnavailable

_log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0
MOST_ROWS = 1_000  # of one request
MOST_WAITING = 10_000
TIMEOUT_SECONDS = 15.0


class NotTold(GpuTokensError):
    """The API has not taken placements; the message says why. They are told again."""


class Refused(GpuTokensError):
    """The API will never take these placements; the message says why."""


Row = dict[str, Any]
Tell = Callable[[list[Row]], None]


class PlacementsDoor:
    """`POST {url}/v1/placements`."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/") + "/v1/placements?changes_only=true"
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __call__(self, rows: list[Row]) -> None:
        """Tell these rows. Raises NotTold, Refused."""
        request = urllib.request.Request(self._url, json.dumps(rows).encode(), self._headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            said = error.read(2_000).decode("utf-8", "replace")
            if error.code in (401, 403):
                fix = "PLACEMENTS_API_KEY needs a key with the scope `placements`"
                raise NotTold(f"the API answers {error.code}: {fix}") from None
            if error.code in (400, 413, 422):
                raise Refused(f"the API answers {error.code}: {said}") from None
            raise NotTold(f"the API answers {error.code}: {said}") from None
        except OSError as error:
            raise NotTold(f"{self._url} cannot be reached ({type(error).__name__})") from None


@dataclass(frozen=True)
class _Seen:
    gpus: tuple[str, ...]
    at: datetime  # of the last look in which it was there


class PodPlacements:
    """What is known of this node's pods, and what of it is still to be told."""

    def __init__(
        self,
        source: PodSource,
        tell: Tell,
        clock: Clock,
        host: str,
        look_up: LookUp,
        metrics: PodMetrics,
    ) -> None:
        self._source, self._tell, self._clock, self._host = source, tell, clock, host
        self._look_up, self._metrics = look_up, metrics
        self._seen: dict[str, _Seen] = {}
        self._waiting: list[Row] = []
        self._said: str | None = None
        self._unknown: frozenset[tuple[str, ...]] = frozenset()

    def look(self) -> None:
        """One look at the kubelet, and all that is to be told. Failures are logged once per change
        and counted."""
        try:
            pods = pods_on_gpus(self._source, self._host, self._look_up)
        except SourceUnavailable as error:
            self._metrics.kubelet_up.set(0)
            self._say(str(error))
            return
        self._metrics.kubelet_up.set(1)
        self._note(pods)
        self._say_unknown(pods)
        try:
            self._told()
        except NotTold as error:
            self._metrics.failures.inc()
            self._say(str(error))
        else:
            self._said = None
        self._metrics.waiting.set(len(self._waiting))

    def _note(self, pods: list[PodGpus]) -> None:
        now = self._clock.now()
        for pod in pods:
            seen = self._seen.get(pod.instance)
            # on some of them it would cost those too much: tokens without money
            gpus = () if pod.unknown else pod.gpus
            if seen is None or seen.gpus != gpus:
                self._wait(pod.instance, gpus, now)
            self._seen[pod.instance] = _Seen(gpus, now)
        for instance in self._seen.keys() - {pod.instance for pod in pods}:
            self._wait(instance, (), self._seen.pop(instance).at)

    def _wait(self, instance: str, gpus: tuple[str, ...], since: datetime) -> None:
        row = {
            "instance": instance,
            "gpus": list(gpus),
            "host": self._host,
            "valid_from": since.isoformat(),
        }
        self._waiting.append(row)
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[0]
            self._metrics.dropped.inc()

    def _told(self) -> None:
        while self._waiting:
            rows = self._waiting[:MOST_ROWS]
            try:
                self._tell(rows)
            except Refused as error:
                if len(rows) == 1:
                    _log.error("the placement of %s is given up: %s", rows[0]["instance"], error)
                    self._metrics.dropped.inc()
                    del self._waiting[0]
                    continue
                self._tell_one_by_one(rows)
                continue
            del self._waiting[: len(rows)]
            self._metrics.placements.inc(len(rows))

    def _tell_one_by_one(self, rows: list[Row]) -> None:
        """All or none are taken, and one of these never will be."""
        for row in rows:
            try:
                self._tell([row])
                self._metrics.placements.inc()
            except Refused as error:
                _log.error("the placement of %s is given up: %s", row["instance"], error)
                self._metrics.dropped.inc()
            del self._waiting[0]

    def _say(self, problem: str) -> None:
        if problem != self._said:
            _log.error("placements of pods are not told, trying again: %s", problem)
        self._said = problem

    def _say_unknown(self, pods: list[PodGpus]) -> None:
        unknown = frozenset((pod.instance, *pod.unknown) for pod in pods if pod.unknown)
        for instance, *devices in sorted(unknown - self._unknown):
            _log.warning(
                "%s has devices of which it is not known which GPUs they are: %s",
                instance,
                ", ".join(devices),
            )
        self._unknown = unknown


def pods_on_gpus(source: PodSource, host: str, look_up: LookUp) -> list[PodGpus]:
    """The pods of the node that have GPUs. Raises SourceUnavailable."""
    placed = (gpus_of(pod, host, look_up) for pod in source.pods())
    return sorted((pod for pod in placed if pod is not None), key=lambda pod: pod.instance)


def watch_pods(placements: PodPlacements, clock: Clock, stop: threading.Event) -> None:
    """Look every EVERY_SECONDS until `stop`."""
    while not stop.is_set():
        placements.look()
        clock.wait(stop, EVERY_SECONDS)
