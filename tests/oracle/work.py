"""Requests: when they work, how much, and on which GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from tests.oracle.numbers import HOUR_US, MINUTE_US, Doc, round_half_up

METHODS = ("sweep", "sweep_no_ttft", "window", "unknown_gpu")


@dataclass(frozen=True)
class OracleParams:
    """The ledger's parameters. weights: model -> (input, cached, output); `*` is the default of all
    models."""

    gap_us: int = 30_000_000
    model_loaded_mb: float = 1024.0
    model_kept_us: int = HOUR_US
    cell_us: int = MINUTE_US
    weights: Mapping[str, tuple[float, float, float]] = field(
        default_factory=lambda: {"*": (1.0, 0.1, 4.0)}
    )


def gpus_of(doc: Doc, meanings: Mapping[str, str]) -> list[str]:
    """The distinct GPUs of a usage, in the order of their names: two names of one GPU are one
    GPU."""
    cards = doc.get("cards", {})
    return list(
        dict.fromkeys(
            meanings.get(name, cards.get(name, name)) for name in sorted(set(doc["gpus"]))
        )
    )


class Work:
    """One usage event as work on this GPU: (from, to, work per microsecond, is prefill)
    segments."""

    def __init__(self, doc: Doc, gpus: list[str], gpu: str, params: OracleParams) -> None:
        self.doc = doc
        self.rank = gpus.index(gpu)
        self.count = len(gpus)
        self.start, self.end = doc["start_us"], doc["ts_us"]
        latency, ttft = doc.get("latency_ms"), doc.get("ttft_ms")
        self.first: int | None = doc.get("first_us")
        if self.first is None and latency is not None and ttft is not None:
            self.first = doc["ts_us"] - round((latency - ttft) * 1000)
        if self.first is not None and not self.start < self.first < self.end:
            self.first = None
        self.method = "sweep_no_ttft" if self.first is None else "sweep"
        if doc.get("latency_ms") is None:
            self.method, self.first = "window", None
            self.start = doc["ts_us"] // params.cell_us * params.cell_us
            self.end = self.start + params.cell_us
        a_in, a_cached, a_out = (
            Fraction(a) for a in params.weights.get(doc["model"], params.weights["*"])
        )
        uncached = doc["prompt_tokens"] - doc["cached_tokens"]
        w_in = (a_in * uncached + a_cached * doc["cached_tokens"]) / self.count
        w_out = a_out * doc["completion_tokens"] / self.count
        if w_in + w_out == 0:
            w_out = Fraction(1, self.count)
        self.segments: list[tuple[int, int, Fraction, bool]]
        if self.first is not None and w_in > 0 and w_out > 0:
            self.segments = [
                (self.start, self.first, w_in / (self.first - self.start), True),
                (self.first, self.end, w_out / (self.end - self.first), False),
            ]
        else:
            # Known to have been active for no time at all: a point, which counts its tokens and
            # shares in nothing.
            active = self.end - self.start
            self.segments = (
                [(self.start, self.end, (w_in + w_out) / active, False)] if active else []
            )

    def touches(self, low: int, high: int) -> bool:
        """Whether it is active in [low, high), or is a point in it."""
        return self.start < high and max(self.end, self.start + 1) > low and low < high

    def tokens(self, low: int, high: int) -> tuple[int, int, int, int]:
        """Tokens inside [low, high) that this GPU carries: every count-th one, from its own
        rank."""
        prefill = (self.start, self.end if self.first is None else self.first)
        decode = (self.start if self.first is None else self.first, self.end)

        def carried(name: str, span: tuple[int, int]) -> int:
            total, (begin, end) = self.doc[name], span
            if begin == end:
                end += 1  # all of a point's tokens are in its microsecond

            def upto(at: int) -> int:
                return round_half_up(
                    Fraction(total * min(max(at - begin, 0), end - begin), end - begin)
                )

            first, stop = upto(low), upto(high)
            return len(range(first + (self.rank - first) % self.count, stop, self.count))

        return (
            carried("prompt_tokens", prefill),
            carried("cached_tokens", prefill),
            carried("completion_tokens", decode),
            carried("reasoning_tokens", decode),
        )


def active_us(work: list[Work], low: int, high: int) -> int:
    """Microseconds of [low, high) in which any request was active."""
    total, until = 0, low
    for item in sorted(work, key=lambda item: item.start):
        begin, end = max(item.start, until), min(item.end, high)
        if end > begin:
            total, until = total + end - begin, end
    return total
