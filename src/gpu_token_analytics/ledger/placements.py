"""Which UUID a `host/index` label meant at a time.

The index of a GPU can change at each boot, so samples teach which UUID a label carried from when to when. A request that
names a label means the UUID whose time covers the request's end, else the one nearest in time: a function of the set of
samples, not of the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gpu_token_analytics.documents import GpuId

_FAR_US = 1 << 62


@dataclass(frozen=True, order=True)
class Placement:
    """`label` carried `gpu` in the samples from first_us to last_us."""

    label: str
    gpu: GpuId
    first_us: int
    last_us: int

    @staticmethod
    def of(document: Mapping[str, Any]) -> Placement:
        """The placement in a document of `inventory`."""
        return Placement(document["label"], document["gpu"], document["first_us"], document["last_us"])

    def distance_us(self, at_us: int) -> int:
        """How far a time is from this placement's own; 0 inside it."""
        return max(self.first_us - at_us, at_us - self.last_us, 0)


class Placements:
    """All placements, ready to be asked."""

    def __init__(self, placements: Iterable[Placement] = ()) -> None:
        self._by_label: dict[str, list[Placement]] = {}
        self._labels: dict[GpuId, set[str]] = {}
        self._times: dict[tuple[str, GpuId], list[tuple[int, int]]] = {}
        for placement in sorted(placements):
            self._by_label.setdefault(placement.label, []).append(placement)
            self._labels.setdefault(placement.gpu, set()).add(placement.label)

    def labels(self, gpu: GpuId) -> list[str]:
        """Labels this GPU ever carried, sorted."""
        return sorted(self._labels.get(gpu, ()))

    def meanings(self, label: str) -> list[GpuId]:
        """Every GPU that ever carried a label, sorted."""
        return sorted({placement.gpu for placement in self._by_label.get(label, ())})

    def is_label(self, name: str) -> bool:
        """Whether a GPU ever carried this name as a label: what it means then depends on the time."""
        return name in self._by_label

    def resolve_all(self, names: Sequence[str], at_us: int) -> list[GpuId]:
        """The distinct GPUs that these names mean at a time, in the order of the names: two labels of one GPU are one GPU."""
        return list(dict.fromkeys(self.resolve(name, at_us) for name in names))

    def resolve(self, name: str, at_us: int) -> GpuId:
        """The GPU that `name` (a UUID or a label) means at a time; an unknown label stands for itself."""
        candidates = self._by_label.get(name)
        if not candidates:
            return name
        # Of equal distances the later placement wins: a replaced card takes over at the moment of its first sample.
        return min(candidates, key=lambda p: (p.distance_us(at_us), -p.first_us, p.gpu)).gpu

    def times(self, name: str, gpu: GpuId) -> list[tuple[int, int]]:
        """The times [from_us, to_us) at which `resolve` says `gpu`, ascending, within [-2^62, 2^62)."""
        found = self._times.get((name, gpu))
        if found is None:
            found = self._times[name, gpu] = self._cut_times(name, gpu)
        return found

    def _cut_times(self, name: str, gpu: GpuId) -> list[tuple[int, int]]:
        candidates = self._by_label.get(name, [])
        ends = {at for p in candidates for at in (p.first_us, p.last_us + 1)}
        # Two that do not overlap meet half way between them.
        halves = {(p.last_us + q.first_us) // 2 + step for p in candidates for q in candidates for step in (0, 1)}
        cuts = sorted({-_FAR_US, _FAR_US, *ends, *halves})
        found: list[tuple[int, int]] = []
        for start, end in pairwise(cuts):
            if self.resolve(name, start) != gpu:
                continue
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
        return found
