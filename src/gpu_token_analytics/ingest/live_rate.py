"""The live rate: tokens per second and cost per token of a GPU over the trailing seconds of event
time.

An estimate of the moment, put on each usage as it is stored; the ledger is the truth. A request on
several GPUs counts its tokens in equal parts on each, and is priced at the sum of its GPUs.

    tps            = tokens on its GPUs that ended in the last `window_seconds` / window_seconds
    cost_per_token = price per hour of its GPUs / (tps x 3600)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gpu_token_analytics.documents import US_PER_SECOND, GpuId
from gpu_token_analytics.ledger.labels import LabelColumn, Labels
from gpu_token_analytics.ledger.money import Float64, Int64
from gpu_token_analytics.units import MIG_SEVENTHS


class LiveRates(NamedTuple):
    """Of each request; shapes (n,). nan where not known: `tps` of an event older than the window,
    the cost also where a price is unknown."""

    tps: Float64
    cost_per_token_usd: Float64


class LiveRate:
    """Trailing token rates and latest prices, for at most `max_gpus` GPUs (the ones known longest
    are forgotten)."""

    def __init__(
        self,
        window_seconds: int,
        default_usd_per_hour: float | None,
        max_gpus: int = 20_000,
        known: set[str] | None = None,
    ) -> None:
        """known: names of GPUs that were sampled or declared, as far as this process knows; what
        requests on others cost is not known. None: all are."""
        self._window_seconds = window_seconds
        self._default = default_usd_per_hour
        self._max_gpus = max_gpus
        self._known = known
        self._windows: dict[GpuId, _Window] = {}
        self._prices: dict[GpuId, float] = {}

    def see_gpu(self, *names: str | None) -> None:
        """A sample tells of a GPU, and of the label it has."""
        if self._known is not None:
            self._known.update(name for name in names if name is not None)

    def see_price(
        self, gpu: GpuId, usd_per_hour: float | None, mig_profile: str | None = None
    ) -> None:
        """The price a sample of this GPU (or MIG slice: its part of the card) names; null: the
        default."""
        price = self._default if usd_per_hour is None else usd_per_hour
        if mig_profile is not None and price is not None:
            price = price * int(mig_profile[0]) / MIG_SEVENTHS
        if price is None or (price == self._default and gpu not in self._prices):
            return
        self._prices[gpu] = price
        if len(self._prices) > self._max_gpus:
            self._prices.pop(next(iter(self._prices)))

    def see_usages(self, labels: LabelColumn, ts_us: Int64, tokens: Int64) -> LiveRates:
        """Count requests, in this order; each one's own tokens are in the rate it gets. Shapes
        (n,)."""
        windows: list[list[_Window]] = [[] for _ in labels.table]
        in_window: list[float] = []
        for code, second, count in zip(
            labels.codes.tolist(), (ts_us // US_PER_SECOND).tolist(), tokens.tolist(), strict=True
        ):
            of_gpus = windows[code]
            if not of_gpus:
                of_gpus += [
                    self._windows.get(gpu) or self._open(gpu, second)
                    for gpu in labels.table[code].gpus
                ]
            if len(of_gpus) == 1:
                in_window.append(of_gpus[0].add(second, count))
            else:
                part = count / len(of_gpus)
                in_window.append(sum(window.add(second, part) for window in of_gpus))
        sums = np.array(in_window, dtype=np.float64)
        tps = np.where(sums > 0, sums, np.nan) / self._window_seconds
        return LiveRates(tps, labels.each(self._usd_per_hour, np.float64) / (tps * 3600))

    def _usd_per_hour(self, labels: Labels) -> float | None:
        if self._known is not None and not self._known.issuperset(labels.gpus):
            return None
        prices = [self._prices.get(gpu, self._default) for gpu in labels.gpus]
        return None if None in prices else sum(prices)  # type: ignore[arg-type]  # no None in it

    def _open(self, gpu: GpuId, second: int) -> _Window:
        if len(self._windows) >= self._max_gpus:
            del self._windows[next(iter(self._windows))]
        window = self._windows[gpu] = _Window(self._window_seconds, second)
        return window


class _Window:
    """Tokens per second of event time: a ring of `width` seconds that ends at `head`."""

    __slots__ = ("head", "ring", "total", "width")

    def __init__(self, width: int, head: int) -> None:
        self.width = width
        self.head = head
        self.ring: list[float] = [0] * width
        self.total: float = 0

    def add(self, second: int, tokens: float) -> float:
        """Count `tokens` at `second`; returns the sum over the window, 0 for a second that left it
        already."""
        ahead = second - self.head
        if ahead > 0:
            self._advance(ahead, second)
        elif ahead <= -self.width:
            return 0
        self.ring[second % self.width] += tokens
        self.total += tokens
        return self.total

    def _advance(self, ahead: int, second: int) -> None:
        if ahead >= self.width:
            self.ring = [0] * self.width
            self.total = 0
        else:
            for passed in range(self.head + 1, second + 1):
                self.total -= self.ring[passed % self.width]
                self.ring[passed % self.width] = 0
        self.head = second
