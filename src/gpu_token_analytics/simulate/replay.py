"""Replay of a trace: its requests as usages, placed on GPUs, models and tenants by a seeded rule
where the trace does not say.

What the trace knows (arrival and tokens; in some files durations, GPUs, models, tenants) is kept
exactly. The rest is assumed:

    GPU and tenant of row n = a hash of (seed, n); the model is the one its GPU runs (models repeat
    over the GPUs)
    start   = arrival, or when one of its GPU's `concurrency` places becomes free
    ttft    = queue + base_ms + prefill_ms_per_token x (context tokens - cached tokens)
    latency = ttft + decode_ms_per_token x (generated tokens - 1)

A second replay of the same file with the same assumptions is exactly the same events, ids included,
so it changes nothing downstream. Other assumptions are other events (they have other ids): they add
to the first, they do not replace it. Where the file has an id of each request, that is its
identity: the same request in two files counts once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from heapq import heappop, heappush
from uuid import UUID, uuid5

from msgspec import structs

from gpu_token_analytics.errors import SettingsError, TraceUnreadable
from gpu_token_analytics.simulate.fleet import H100, SimGpu, TokenTimes
from gpu_token_analytics.simulate.serving import GpuGauge, Server
from gpu_token_analytics.simulate.trace import TraceRow
from gpu_token_analytics.simulate.trace_layout import AZURE, Field, Layout
from gpu_token_analytics.wire.fields import MAX_LATENCY_MS
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.times import to_us

_NAMESPACE = UUID("b6c0a4b2-60b4-5a6e-8c2f-2f3d4c1e9a70")
_KEYED = UUID("3f0f9d6e-6d0b-5b43-9a53-2b9c6f1f6a11")  # of requests that have an id in their file

# Of the order of a 70-billion-parameter model on H100s: an assumption, not part of any trace.
DEFAULT_TIMES = TokenTimes(base_ms=20.0, prefill_ms_per_token=0.05, decode_ms_per_token=30.0)


@dataclass(frozen=True)
class Assumptions:
    """Everything a replay adds to the trace. Two replays that share these and the file are the same
    events."""

    trace_sha256: str
    trace_name: str = "trace"
    seed: int = 1
    gpus: int = 4
    hosts: int = 2
    models: tuple[str, ...] = ("chat-a", "chat-b")
    tenants: tuple[str, ...] = ("team-a", "team-b", "team-c")
    times: TokenTimes = DEFAULT_TIMES
    concurrency: int = 32
    shift_us: int = 0
    sample_interval_seconds: float | None = None
    layout: Layout = field(default=AZURE, repr=False)
    # of times that count from the start of the file
    start_us: int | None = field(default=None, repr=False)

    def needed(self) -> Assumptions:
        """Without what the file says itself: what is not used changes no id."""
        default, layout = Assumptions(self.trace_sha256), self.layout
        has_tenants, has_models = Field.TENANT in layout.columns, Field.MODEL in layout.columns
        return replace(
            self,
            seed=default.seed if layout.has_gpus and has_tenants else self.seed,
            gpus=default.gpus if layout.has_gpus else self.gpus,
            hosts=default.hosts if layout.has_gpus else self.hosts,
            models=default.models if has_models else self.models,
            tenants=default.tenants if has_tenants else self.tenants,
            times=default.times if layout.has_durations else self.times,
            concurrency=default.concurrency if layout.has_durations else self.concurrency,
        )

    def check(self) -> Assumptions:
        """Raises SettingsError naming the value that cannot be used; returns self."""
        for name, value, most in (
            ("gpus", self.gpus, 4096),
            ("hosts", self.hosts, self.gpus),
            ("concurrency", self.concurrency, 100_000),
        ):
            if not 1 <= value <= most:
                raise SettingsError(f"--{name} {value} cannot be used; give 1..{most}")
        for name, names in (("models", self.models), ("tenants", self.tenants)):
            if not names or not all(0 < len(item) <= 256 for item in names):
                raise SettingsError(
                    f"--{name} {','.join(names)!r} cannot be used; give names separated by commas"
                )
        for name, ms in (
            ("base-ms", self.times.base_ms),
            ("prefill-ms-per-token", self.times.prefill_ms_per_token),
            ("decode-ms-per-token", self.times.decode_ms_per_token),
        ):
            if not 0 <= ms <= 3_600_000:
                raise SettingsError(f"--{name} {ms} cannot be used; give milliseconds, 0 or more")
        if (
            self.sample_interval_seconds is not None
            and not 0.1 <= self.sample_interval_seconds <= 3600
        ):
            raise SettingsError(
                f"sample interval {self.sample_interval_seconds} s cannot be used; give 0.1..3600"
            )
        if self.sample_interval_seconds is not None and (
            self.layout.has_gpus or self.layout.has_durations
        ):
            raise SettingsError(
                "--gpu-samples cannot be used: they are made of assumed durations on assumed GPUs, "
                "and the file has its own; "
                "declare its GPUs instead (gpu-tokens gpus declare)"
            )
        return self

    @cached_property
    def namespace(self) -> UUID:
        """Namespace of the event ids: whatever changes a payload changes it."""
        namespace = uuid5(_NAMESPACE, repr(replace(self, sample_interval_seconds=None)))
        read = self.layout.identity
        return (
            uuid5(namespace, f"{read}/{self.start_us}")
            if read or self.start_us is not None
            else namespace
        )

    def placed_gpus(self) -> list[SimGpu]:
        """The GPUs, dealt evenly over the hosts."""
        hosts = [f"replay-{number % self.hosts + 1}" for number in range(self.gpus)]
        return [SimGpu(host, hosts[:number].count(host), H100) for number, host in enumerate(hosts)]


def replay(
    rows: Iterable[TraceRow], assumptions: Assumptions, limit: int | None = None
) -> Iterator[Event]:
    """The events of a trace in order of `ts`; memory is bounded by the requests in flight.

    A row that is earlier than the one before it counts as waiting in the queue until then. Raises
    TraceUnreadable when a request would take longer than an event can say.
    """
    return _Replay(assumptions.check(), limit).run(rows)


def shift_to_now_us(
    rows: Iterable[TraceRow], assumptions: Assumptions, now: datetime, speed: float
) -> int:
    """The shift that makes a replay at `speed` (0: as fast as possible) starting at `now` look
    live.

    At speed 1 or less the first request ends now. Faster, event time runs ahead of the clock, so
    the replay starts in the past and its last request ends just when it is sent: no event is ever
    ahead of the clock. 0 without requests.
    """
    ends_us = (
        to_us(event.ts)
        for event in replay(rows, replace(assumptions, sample_interval_seconds=None))
    )
    first_us = next(ends_us, None)
    if first_us is None:
        return 0
    last_us = max(ends_us, default=first_us)
    ahead = 1.0 if speed <= 0 else max(0.0, 1 - 1 / speed)
    return to_us(now) - first_us - round((last_us - first_us) * ahead)


class _Replay:
    def __init__(self, assumptions: Assumptions, limit: int | None) -> None:
        self._assumptions = assumptions
        self._limit = limit
        self._gpus = assumptions.placed_gpus()
        self._uuids = [[gpu.uuid] for gpu in self._gpus]
        self._servers = [self._server() for _ in self._gpus]
        # where the file says on which GPUs a request ran
        self._servers_of: dict[tuple[str, ...], Server] = {}
        self._gauges = [GpuGauge(gpu, "replay", H100.mem_total_mb * 0.5, 0.1) for gpu in self._gpus]
        self._pending: list[tuple[int, int, Event]] = []
        self._latest_arrival_us = 0
        self._next_sample_us: int | None = None

    def run(self, rows: Iterable[TraceRow]) -> Iterator[Event]:
        for row in rows:
            if self._limit is not None and row.number > self._limit:
                break
            arrival_us = row.arrival_us + self._assumptions.shift_us
            self._latest_arrival_us = max(self._latest_arrival_us, arrival_us)
            yield from self._until(self._latest_arrival_us)
            end_us, event = self._usage(row, arrival_us)
            heappush(self._pending, (end_us, row.number, event))
        while self._pending:
            yield from self._until(self._pending[0][0])

    def _until(self, now_us: int) -> Iterator[Event]:
        """What happened up to now: requests that ended, and samples that fell due, in order of
        time."""
        interval_seconds = self._assumptions.sample_interval_seconds
        if interval_seconds is not None:
            interval_us = round(interval_seconds * 1e6)
            if self._next_sample_us is None:
                self._next_sample_us = now_us // interval_us * interval_us
            while self._next_sample_us <= now_us:
                yield from self._ended(self._next_sample_us)
                yield from self._samples(self._next_sample_us, interval_us)
                self._next_sample_us += interval_us
        yield from self._ended(now_us)

    def _ended(self, now_us: int) -> Iterator[Event]:
        while self._pending and self._pending[0][0] <= now_us:
            yield heappop(self._pending)[2]

    def _samples(self, at_us: int, interval_us: int) -> Iterator[Event]:
        # The limit decides which requests the last samples know of, so it is part of their
        # identity.
        for number, (gauge, server) in enumerate(zip(self._gauges, self._servers, strict=True)):
            usage = server.usage(at_us - interval_us, at_us)
            event_id = str(
                uuid5(
                    self._assumptions.namespace,
                    f"sample/{interval_us}/{self._limit}/{number}/{at_us}",
                )
            )
            yield gauge.sample(at_us, interval_us, usage, self._assumptions.concurrency, event_id)

    def _server(self) -> Server:
        return Server(self._assumptions.times, self._assumptions.concurrency)

    def _usage(self, row: TraceRow, arrival_us: int) -> tuple[int, Event]:
        assumed, layout = self._assumptions, self._assumptions.layout
        digest = hashlib.blake2b(f"{assumed.seed}/{row.number}".encode(), digest_size=16).digest()
        number = int.from_bytes(digest[:8], "big") % len(self._gpus)
        tenant = assumed.tenants[int.from_bytes(digest[8:], "big") % len(assumed.tenants)]
        event_id = str(
            uuid5(assumed.namespace, str(row.number)) if row.key is None else uuid5(_KEYED, row.key)
        )
        told = row._replace(
            arrival_us=arrival_us,
            tenant=row.tenant or tenant,
            model=row.model or assumed.models[number % len(assumed.models)],
        )
        if not layout.has_durations:
            told = self._timed(
                told,
                self._servers_of.setdefault(row.gpus, self._server())
                if row.gpus
                else self._servers[number],
            )
        usage = told.usage(event_id, f"{assumed.trace_name}-{row.number}")
        if not row.gpus:
            gpu = self._gpus[number]
            host = row.host or gpu.host
            usage = structs.replace(
                usage, gpu_uuids=self._uuids[number], gpu_index=gpu.index, host=host
            )
        return told.end_us, usage

    def _timed(self, row: TraceRow, server: Server) -> TraceRow:
        """The row with the times of the duration model."""
        served = server.serve(
            self._latest_arrival_us,
            row.context_tokens - row.cached_tokens,
            row.context_tokens,
            row.generated_tokens,
        )
        latency_ms = (served.end_us - row.arrival_us) / 1000
        if latency_ms > MAX_LATENCY_MS:
            raise TraceUnreadable(
                f"line {row.line}: the request would take {latency_ms / 3.6e6:.1f} h on "
                f"{self._assumptions.gpus} GPUs; "
                "give more --gpus, a higher --concurrency, or a trace in order of time"
            )
        return row._replace(
            latency_ms=latency_ms,
            queue_ms=(served.start_us - row.arrival_us) / 1000,
            ttft_ms=(served.first_token_us - row.arrival_us) / 1000,
        )
