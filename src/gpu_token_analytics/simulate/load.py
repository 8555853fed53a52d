"""Requests on a simulated fleet: `generate()` is a pure function of fleet, load, start and seed.

    per slice of time: bursts switch -> arrivals are drawn -> tokens are drawn -> servers queue and
                       run them -> GPUs report the slice -> everything that ended in it leaves, in
                       order of event time

Same arguments, same bytes (ids included), on the same numpy: NEP 19 lets distributions change
between numpy versions.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.simulate.fleet import Fleet, default_fleet
from gpu_token_analytics.simulate.serving import GpuGauge, Server, Usage
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.times import from_us, to_us
from gpu_token_analytics.wire.usage import TokenUsage

# a request that would wait longer is turned away: no tokens, hence no event
_MAX_QUEUE_US = 60_000_000
_MAX_PROMPT = 120_000
_MAX_COMPLETION = 8_000
_SLICE_WITHOUT_SAMPLES_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests arrive, over the whole fleet.

    The rate follows the hour of the day (UTC): rate x (1 + diurnal_amplitude x cos(2 pi (hour -
    peak_hour) / 24)). Each deployment also switches between calm and bursts (a Markov-modulated
    Poisson process) of `burst_factor` times the calm rate, exponentially long; the long-run mean
    stays `requests_per_second`.
    """

    requests_per_second: float = 10.0
    diurnal_amplitude: float = 0.6
    peak_hour: float = 15.0
    burst_factor: float = 4.0
    calm_seconds: float = 120.0
    burst_seconds: float = 15.0

    def check(self) -> Load:
        """Raises SettingsError naming the value that cannot be used; returns self."""
        rules: tuple[tuple[str, float, bool, str], ...] = (
            (
                "requests_per_second",
                self.requests_per_second,
                0 <= self.requests_per_second <= 1e6,
                "0..1,000,000",
            ),
            ("diurnal_amplitude", self.diurnal_amplitude, 0 <= self.diurnal_amplitude <= 1, "0..1"),
            ("burst_factor", self.burst_factor, 1 <= self.burst_factor <= 1000, "1..1000"),
            ("calm_seconds", self.calm_seconds, 0 < self.calm_seconds < math.inf, "more than 0"),
            ("burst_seconds", self.burst_seconds, 0 < self.burst_seconds < math.inf, "more than 0"),
        )
        for name, value, holds, rule in rules:
            if not holds:
                raise SettingsError(f"{name}={value} cannot be used; give {rule}")
        return self


def generate(
    fleet: Fleet,
    start: datetime,
    duration_seconds: float | None,
    seed: int,
    *,
    load: Load | None = None,
    sample_interval_seconds: float | None = 5.0,
) -> Iterator[Event]:
    """Usages and GPU samples of `fleet`, in order of `ts`; memory is bounded by the requests in
    flight.

    duration_seconds: arrivals stop then and the requests in flight still end; None never stops.
    sample_interval_seconds: None leaves GPU samples out. The first samples carry `start`.
    """
    simulation = _Simulation(fleet, start, seed, (load or Load()).check(), sample_interval_seconds)
    return simulation.run(duration_seconds)


def events_for_bench(count: int, seed: int = 1) -> list[Event]:
    """The first `count` events of a busy fleet of 64 GPUs (160 requests/s of event time): for
    benches and tests."""
    load = Load(requests_per_second=160.0, diurnal_amplitude=0.0)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return list(islice(generate(default_fleet(8, 8), start, None, seed, load=load), count))


class _Draw(NamedTuple):
    prompt: int
    completion: int
    cached: int
    reasoning: int
    tenant: int
    high: int  # random bits of the event id
    low: int


class _Simulation:
    """The state behind one `generate()`."""

    def __init__(
        self, fleet: Fleet, start: datetime, seed: int, load: Load, interval_seconds: float | None
    ) -> None:
        if interval_seconds is not None and not 0.001 <= interval_seconds <= 3600:
            raise SettingsError(
                f"sample interval {interval_seconds} s cannot be used; give 0.001..3600 or leave "
                "samples out"
            )
        if interval_seconds is None and load.requests_per_second == 0:
            raise SettingsError(
                "no requests and no GPU samples: there is nothing to simulate; give one of the two"
            )
        self._fleet = fleet
        self._load = load
        self._start_us = to_us(start)
        self._slice_us = round(1e6 * (interval_seconds or _SLICE_WITHOUT_SAMPLES_SECONDS))
        self._sampling = interval_seconds is not None
        # Whatever changes a payload must change the ids too: two runs that share a seed but not a
        # fleet must not send two different events under one id.
        world = repr(
            (fleet.gpus, fleet.deployments, fleet.tenants, load, start, interval_seconds)
        ).encode()
        fingerprint = int.from_bytes(hashlib.sha256(world).digest()[:8], "big")
        self._rng = np.random.default_rng([seed & (2**64 - 1), fingerprint])

        deployments = fleet.deployments
        weights = np.array([deployment.weight for deployment in deployments], dtype=float)
        if load.requests_per_second > 0 and not weights.sum() > 0:
            raise SettingsError(
                "the fleet has no model that takes requests; give it more GPUs per host or --rate 0"
            )
        self._rates = load.requests_per_second * weights / (weights.sum() or 1.0)
        self._bursting = np.zeros(len(deployments), dtype=bool)
        self._servers = [
            Server(item.model.times, item.model.max_concurrency) for item in deployments
        ]
        self._uuids = [[gpu.uuid for gpu in item.gpus] for item in deployments]
        self._logs = np.log(
            [[item.model.prompt_median, item.model.completion_median] for item in deployments]
        ).reshape(-1, 2)
        self._sigmas = np.array(
            [[item.model.prompt_sigma, item.model.completion_sigma] for item in deployments]
        ).reshape(-1, 2)
        self._cached = np.array([item.model.cached_share for item in deployments])
        self._reasoning = np.array([item.model.reasoning_share for item in deployments])
        tenant_weights = np.array([weight for _, weight in fleet.tenants], dtype=float)
        self._tenant_edges = np.cumsum(tenant_weights / tenant_weights.sum())[:-1]
        self._gauges = self._make_gauges()

    def run(self, duration_seconds: float | None) -> Iterator[Event]:
        """All events, in order."""
        end_us = (
            None if duration_seconds is None else self._start_us + round(duration_seconds * 1e6)
        )
        at_us = self._start_us
        pending: list[tuple[int, int, Event]] = []
        number = 0
        if self._sampling:
            yield from self._samples(at_us - self._slice_us, at_us)
        while end_us is None or at_us < end_us or pending:
            to = at_us + self._slice_us
            arrivals_to = to if end_us is None else min(to, end_us)
            produced: list[tuple[int, Event]] = (
                self._requests(at_us, arrivals_to) if arrivals_to > at_us else []
            )
            if self._sampling and (end_us is None or to <= end_us):
                produced.extend((to, sample) for sample in self._samples(at_us, to))
            for ts_us, event in produced:
                pending.append((ts_us, number, event))
                number += 1
            pending.sort(key=itemgetter(0, 1))
            keep = bisect_right(pending, to, key=itemgetter(0))
            for _, _, event in pending[:keep]:
                yield event
            del pending[:keep]
            at_us = to

    def _requests(self, since_us: int, until_us: int) -> list[tuple[int, Event]]:
        """Requests that arrive in [from, to), with the time each ends."""
        counts = self._rng.poisson(
            self._arrival_rates(since_us, until_us) * (until_us - since_us) / 1e6
        )
        total = int(counts.sum())
        if total == 0:
            return []
        which = np.repeat(np.arange(len(counts)), counts)
        arrivals = since_us + np.floor(self._rng.random(total) * (until_us - since_us)).astype(
            np.int64
        )
        order = np.argsort(arrivals, kind="stable")
        which, arrivals = which[order], arrivals[order]
        rows = zip(which.tolist(), arrivals.tolist(), self._draw(which), strict=True)
        return [request for row in rows if (request := self._request(*row)) is not None]

    def _arrival_rates(self, since_us: int, until_us: int) -> Any:
        """Requests per second of each deployment in this slice; switches the bursts first."""
        load = self._load
        seconds = (until_us - since_us) / 1e6
        chance = np.where(
            self._bursting,
            1 - math.exp(-seconds / load.burst_seconds),
            1 - math.exp(-seconds / load.calm_seconds),
        )
        self._bursting ^= self._rng.random(len(self._bursting)) < chance
        share = load.burst_seconds / (load.burst_seconds + load.calm_seconds)
        calm = 1 / (1 + share * (load.burst_factor - 1))
        hour = (since_us / 3.6e9) % 24
        day = 1 + load.diurnal_amplitude * math.cos(2 * math.pi * (hour - load.peak_hour) / 24)
        return self._rates * day * np.where(self._bursting, calm * load.burst_factor, calm)

    def _draw(self, which: Any) -> list[_Draw]:
        """What chance decides about each request."""
        rng, total = self._rng, len(which)
        tokens = np.exp(self._logs[which] + self._sigmas[which] * rng.standard_normal((total, 2)))
        prompt = np.clip(tokens[:, 0], 1, _MAX_PROMPT).astype(np.int64)
        completion = np.clip(tokens[:, 1], 1, _MAX_COMPLETION).astype(np.int64)
        uniform = rng.random((total, 4))
        # A cached prefix is whole blocks of 16 tokens and never the whole prompt, as in paged
        # attention.
        cached = (
            np.where(uniform[:, 0] < self._cached[which], (prompt - 1) * uniform[:, 1], 0).astype(
                np.int64
            )
            // 16
            * 16
        )
        reasoning = np.minimum(
            completion, completion * self._reasoning[which] * (0.7 + 0.6 * uniform[:, 2])
        ).astype(np.int64)
        tenant = np.searchsorted(self._tenant_edges, uniform[:, 3], side="right")
        bits = rng.integers(0, 2**64, size=(2, total), dtype=np.uint64)
        columns = (prompt, completion, cached, reasoning, tenant, bits[0], bits[1])
        return list(map(_Draw._make, zip(*(column.tolist() for column in columns), strict=True)))

    def _request(self, which: int, arrival: int, draw: _Draw) -> tuple[int, Event] | None:
        server = self._servers[which]
        if server.wait_us(arrival) > _MAX_QUEUE_US:
            return None
        start, first, end = server.serve(
            arrival, draw.prompt - draw.cached, draw.prompt, draw.completion
        )
        deployment = self._fleet.deployments[which]
        return end, TokenUsage(
            event_id=uuid7_at(end, draw.high, draw.low),
            ts=from_us(end),
            host=deployment.host,
            model=deployment.model.name,
            request_id=f"req-{draw.low:016x}",
            prompt_tokens=draw.prompt,
            completion_tokens=draw.completion,
            gpu_uuids=self._uuids[which],
            gpu_index=deployment.gpus[0].index,
            tenant=self._fleet.tenants[draw.tenant][0],
            cached_tokens=draw.cached,
            reasoning_tokens=draw.reasoning,
            latency_ms=(end - arrival) / 1000,
            queue_ms=(start - arrival) / 1000,
            ttft_ms=(first - arrival) / 1000,
            finish_reason="length" if draw.completion == _MAX_COMPLETION else "stop",
        )

    def _make_gauges(self) -> list[tuple[GpuGauge, int | None, int]]:
        """For each GPU its gauge, the deployment on it (or None), and how many requests fill it."""
        on_gpu = {
            gpu: number for number, item in enumerate(self._fleet.deployments) for gpu in item.gpus
        }
        gauges: list[tuple[GpuGauge, int | None, int]] = []
        for gpu in self._fleet.gpus:
            number = on_gpu.get(gpu)
            if number is None:
                gauges.append((GpuGauge(gpu, "seed"), None, 1))
            else:
                model = self._fleet.deployments[number].model
                gauge = GpuGauge(gpu, "seed", model.weights_mb_per_gpu, model.kv_mb_per_token)
                gauges.append((gauge, number, model.max_concurrency))
        return gauges

    def _samples(self, since_us: int, until_us: int) -> Iterator[Event]:
        """One sample of each GPU at `to`, about [from, to). Their source is `seed`: declared, not
        measured."""
        usages = [server.usage(since_us, until_us) for server in self._servers]
        bits = self._rng.integers(0, 2**64, size=(len(self._gauges), 2), dtype=np.uint64).tolist()
        for (gauge, number, concurrency), (high, low) in zip(self._gauges, bits, strict=True):
            usage = Usage(0.0, 0.0, 0.0) if number is None else usages[number]
            yield gauge.sample(
                until_us, until_us - since_us, usage, concurrency, uuid7_at(until_us, high, low)
            )


def uuid7_at(ts_us: int, high: int, low: int) -> str:
    """The UUIDv7 (RFC 9562) of an event time: its millisecond, then 12 bits of `high` and 62 bits
    of `low`."""
    number = ts_us // 1000 << 80 | 7 << 76 | high >> 52 << 64 | 2 << 62 | low >> 2
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
