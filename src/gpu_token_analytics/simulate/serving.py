"""One running model: a queue, a limited number of requests at a time, and what its GPUs would
report meanwhile.

Times are integer microseconds since 1970 UTC, so that nothing here depends on floating-point
rounding of large numbers.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

from gpu_token_analytics.simulate.fleet import COLD_MEM_MB, SimGpu, TokenTimes
from gpu_token_analytics.wire.fields import Source
from gpu_token_analytics.wire.sample import GpuSample
from gpu_token_analytics.wire.times import from_us


class Served(NamedTuple):
    """When a request left the queue, gave its first token, and ended (microseconds)."""

    start_us: int
    first_token_us: int
    end_us: int


class Usage(NamedTuple):
    """How a server was used in one interval."""

    busy: float  # share of the time with at least one request running, 0..1
    batch: float  # requests running, on average
    tokens: float  # tokens held in memory, on average


class Server:
    """First come, first served, at most `max_concurrency` requests at a time. Arrivals must come in
    order of time."""

    def __init__(self, times: TokenTimes, max_concurrency: int) -> None:
        self._times = times
        self._max_concurrency = max_concurrency
        self._ends: list[int] = []  # heap: when each occupied place becomes free
        self._recent: list[tuple[int, int, int]] = []  # start, end, tokens; starts never go back

    def wait_us(self, arrival_us: int) -> int:
        """How long a request arriving now would wait in the queue."""
        self._forget_ended(arrival_us)
        return self._ends[0] - arrival_us if len(self._ends) >= self._max_concurrency else 0

    def serve(
        self, arrival_us: int, uncached_tokens: int, prompt_tokens: int, completion_tokens: int
    ) -> Served:
        """Take one request and say when it runs. The duration model is the one of `TokenTimes`."""
        self._forget_ended(arrival_us)
        start = (
            arrival_us
            if len(self._ends) < self._max_concurrency
            else max(arrival_us, heappop(self._ends))
        )
        times = self._times
        first = start + round(1000 * (times.base_ms + times.prefill_ms_per_token * uncached_tokens))
        per_token_us = (
            1000 * times.decode_ms_per_token * (1 + times.batch_slowdown * len(self._ends))
        )
        end = first + round(per_token_us * max(0, completion_tokens - 1))
        heappush(self._ends, end)
        self._recent.append((start, end, prompt_tokens + completion_tokens))
        return Served(start, first, end)

    def usage(self, since_us: int, until_us: int) -> Usage:
        """How it was used in [from, to). Call with intervals in order of time: older requests are
        forgotten."""
        span = until_us - since_us
        busy = area = token_area = 0
        covered = since_us
        for start, end, tokens in self._recent:
            if start >= until_us:
                break
            until = min(end, until_us)
            overlap = until - max(start, since_us)
            if overlap <= 0:
                continue
            area += overlap
            token_area += overlap * tokens
            if until > covered:
                busy += until - max(start, covered)
                covered = until
        self._recent = [item for item in self._recent if item[1] > until_us]
        return Usage(busy / span, area / span, token_area / span)

    def _forget_ended(self, now_us: int) -> None:
        while self._ends and self._ends[0] <= now_us:
            heappop(self._ends)


class GpuGauge:
    """What one simulated GPU reports: utilization, memory, power, temperature and the energy
    counter, from its load.

    power = idle + (max - idle) x (0.4 x busy + 0.6 x batch / max concurrency): a GPU that runs one
    request draws about half of what a full batch draws. Energy is exactly power x interval, so the
    counter and the samples agree.
    """

    def __init__(
        self,
        gpu: SimGpu,
        source: Source,
        weights_mb: float | None = None,
        kv_mb_per_token: float = 0.0,
    ) -> None:
        self._gpu = gpu
        self._uuid = gpu.uuid
        self._source = source
        self._base_mb = COLD_MEM_MB if weights_mb is None else weights_mb
        self._kv_mb_per_token = kv_mb_per_token
        # a counter since driver load: it does not begin at 0
        self._energy_mj = 3_600_000_000 * (gpu.index + 1)

    def sample(
        self, ts_us: int, interval_us: int, usage: Usage, max_concurrency: int, event_id: str
    ) -> GpuSample:
        """The sample at `ts_us`, about the `interval_us` before it."""
        gpu, kind = self._gpu, self._gpu.kind
        busy = min(1.0, usage.busy + gpu.background_utilization)
        load = 0.4 * busy + 0.6 * max(
            min(1.0, usage.batch / max_concurrency), gpu.background_utilization
        )
        power_w = round(kind.idle_power_w + (kind.max_power_w - kind.idle_power_w) * load, 2)
        self._energy_mj += round(power_w * interval_us / 1000)
        used_mb = self._base_mb + self._kv_mb_per_token * usage.tokens
        if gpu.background_utilization:
            used_mb = max(used_mb, kind.mem_total_mb * 0.3)
        return GpuSample(
            event_id=event_id,
            ts=from_us(ts_us),
            host=gpu.host,
            gpu_index=gpu.index,
            source=self._source,
            gpu_uuid=self._uuid,
            name=kind.name,
            utilization=round(busy, 2),
            mem_used_mb=float(round(min(used_mb, kind.mem_total_mb * 0.95))),
            mem_total_mb=float(kind.mem_total_mb),
            power_w=power_w,
            temperature_c=float(round(30 + 45 * load)),
            energy_j=self._energy_mj / 1000,
            price_per_hour_usd=kind.price_per_hour_usd,
        )
