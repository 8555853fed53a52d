"""A fleet for the dashboard's tests: minutes of GPUs whose money conserves, by arithmetic instead
of events.

The pattern of a day repeats, so any range has data, back to `history`. Every minute of a GPU costs
the same whole number of nano-USD; its classes, and the shares of its tenants, sum to it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

CLASSES = ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved")
MODELS = ("llama-3.3-70b-instruct", "qwen2.5-coder-32b", "mistral-small-24b", "bge-m3-embedding")
TENANTS = ("search", "support-assistant", "research", "batch")
NAMES = (("NVIDIA H100 80GB HBM3", 2_490_000_000, 81_559), ("NVIDIA L40S", 850_000_000, 46_068))
DAY_MINUTES = 1440
# by model: 0.65, 0.24, 0.16, 0.021 USD per million
TOKENS_PER_NUSD = (1 / 650, 1 / 240, 1 / 160, 1 / 21)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Gpu:
    """One card. `model` is None where nothing is loaded."""

    id: str
    host: str
    index: int
    kind: int
    model: int | None

    @property
    def name(self) -> str:
        return NAMES[self.kind][0]

    @property
    def nusd_per_minute(self) -> int:
        return NAMES[self.kind][1] // 60


class Fleet:
    """`share[gpu, minute of day, atom, class]`: atoms are the tenants, then what belongs to
    none."""

    def __init__(
        self, gpus: int, now: datetime, history: timedelta = timedelta(days=9), seed: int = 11
    ) -> None:
        self.now = now.astimezone(UTC).replace(second=0, microsecond=0)
        self.began = self.now - history
        rng = np.random.default_rng(seed)
        self.gpus = [_gpu(index, gpus) for index in range(gpus)]
        self.cost = np.array([gpu.nusd_per_minute for gpu in self.gpus], dtype=np.int64)
        state = _states(rng, self.gpus)  # [gpu, minute]: which class leads
        lead = (self.cost[:, None] * rng.uniform(0.72, 1.0, state.shape)).astype(np.int64)
        second = np.where(state == 0, 2, np.where(state == 2, 0, state))
        classes = np.zeros((gpus, DAY_MINUTES, 5), dtype=np.int64)
        np.put_along_axis(
            classes, second[..., None], (self.cost[:, None] - lead)[..., None], axis=2
        )
        rest = self.cost[:, None] - lead
        np.put_along_axis(
            classes,
            state[..., None],
            np.where(second == state, lead + rest, lead)[..., None],
            axis=2,
        )
        unloaded = np.array([gpu.model is None for gpu in self.gpus])
        for taken in (0, 2):  # nothing is attributed to, or kept warm on, a card without a model
            classes[unloaded, :, 3] += classes[unloaded, :, taken]
            classes[unloaded, :, taken] = 0
        self.classes = classes
        self.share = self._atoms(rng)
        self.silent = np.array([index % 97 == 41 for index in range(gpus)])

    def _atoms(self, rng: np.random.Generator) -> Array:
        weights = rng.dirichlet(np.array([4.0, 3.0, 2.0, 1.0]), len(self.gpus))
        share = np.zeros((len(self.gpus), DAY_MINUTES, len(TENANTS) + 1, 5), dtype=np.int64)
        for column in (0, 2):
            whole = self.classes[:, :, column]
            cuts = np.cumsum(weights, axis=1)
            edges = (whole[..., None] * cuts[:, None, :]).astype(np.int64)
            edges[..., -1] = whole
            share[:, :, : len(TENANTS), column] = np.diff(edges, axis=2, prepend=0)
        for column in (1, 3, 4):
            share[:, :, -1, column] = self.classes[:, :, column]
        return share

    def minutes(self, start: datetime, end: datetime) -> Array:
        """Minutes of the day of [start, end), as far as there is history."""
        start, end = max(start, self.began), min(end, self.now)
        count = max(0, int((end - start).total_seconds() // 60))
        first = start.hour * 60 + start.minute
        return (first + np.arange(count)) % DAY_MINUTES

    def sums(self, start: datetime, end: datetime) -> Array:
        """[gpu, atom, class] over the range."""
        counts = np.bincount(self.minutes(start, end), minlength=DAY_MINUTES)
        return np.asarray(np.einsum("gmac,m->gac", self.share, counts))


def _gpu(index: int, count: int) -> Gpu:
    host = index // 8
    kind = host % 3 // 2
    model = (
        None
        if index % 13 == 7
        else (host + index // 5) % len(MODELS)
        if count > 8
        else index % len(MODELS)
    )
    return Gpu(
        f"GPU-{index:04x}{index * 7919 % 65536:04x}-5b1d-4c2a-9e0f-{index:012x}",
        f"gpu-node-{host + 1:02d}",
        index % 8,
        kind,
        model,
    )


def _states(rng: np.random.Generator, gpus: list[Gpu]) -> Array:
    minute = np.arange(DAY_MINUTES)
    busy = 0.35 + 0.3 * np.sin((minute - 540) / DAY_MINUTES * 2 * np.pi)
    state = np.zeros((len(gpus), DAY_MINUTES), dtype=np.int64)
    for row, gpu in enumerate(gpus):
        noise = np.repeat(rng.uniform(0, 1, DAY_MINUTES // 6), 6)
        state[row] = np.where(noise < busy + 0.25, 0, 2)
        state[row][(noise > 0.955)] = 1
        if gpu.model is None:
            state[row] = 3
        start = int(rng.integers(0, DAY_MINUTES - 40))
        if row % 3 == 0:
            state[row, start : start + int(rng.integers(8, 40))] = 4
        if row % 4 == 1:
            state[row, : 5 * 60] = 3
    return state
