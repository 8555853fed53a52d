"""Which UUID a `host/index` label meant at a time.

The index of a GPU can change at each boot, so samples teach which UUID a label carried from when to
when. A request that names a label means the UUID whose time covers the request's end, else the one
nearest in time: a function of the set of samples, not of the order in which they came.

A name that nobody sampled or declared may be another spelling of one that somebody did:
`node1.example/0` of `node1/0`, or the beginning of a UUID. It means that GPU where exactly one
fits; where two do, it is not guessed, and stands for itself. So the meaning of a name depends on
what is known, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.wire.names import may_be_same, name_key

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
        return Placement(
            document["label"], document["gpu"], document["first_us"], document["last_us"]
        )

    def distance_us(self, at_us: int) -> int:
        """How far a time is from this placement's own; 0 inside it."""
        return max(self.first_us - at_us, at_us - self.last_us, 0)


class Placements:
    """All placements, ready to be asked."""

    def __init__(
        self,
        placements: Iterable[Placement] = (),
        known: Iterable[GpuId] = (),
        named: Iterable[str] = (),
    ) -> None:
        """known: GPUs that were sampled or declared. named: what requests called their GPUs
        besides, if it may mean one."""
        self._by_label: dict[str, list[Placement]] = {}
        self._labels: dict[GpuId, set[str]] = {}
        self._times: dict[tuple[str, GpuId], list[tuple[int, int]]] = {}
        for placement in sorted(placements):
            self._by_label.setdefault(placement.label, []).append(placement)
            self._labels.setdefault(placement.gpu, set()).add(placement.label)
        # another spelling -> the names of which it may be one, sorted
        self._aliases: dict[str, tuple[str, ...]] = {}
        if candidates := set(named):
            self._find_aliases(candidates, {*known, *self._by_label})

    def _find_aliases(self, named: Iterable[str], exact: Iterable[str]) -> None:
        exact = set(exact)
        by_key: dict[str, list[str]] = {}
        for name in exact:
            by_key.setdefault(name_key(name), []).append(name)
        for name in named:
            fitting = sorted(
                other for other in by_key.get(name_key(name), ()) if may_be_same(name, other)
            )
            if name in exact or not fitting:
                continue
            self._aliases[name] = tuple(fitting)
            for gpu in self.meanings(name):
                self._labels.setdefault(gpu, set()).add(name)

    def aliases_of(self, name: str) -> list[str]:
        """Other spellings that may mean this UUID or label, sorted."""
        return sorted(alias for alias, fitting in self._aliases.items() if name in fitting)

    def labels(self, gpu: GpuId) -> list[str]:
        """Labels this GPU ever carried, and other spellings that may mean it, sorted."""
        return sorted(self._labels.get(gpu, ()))

    def meanings(self, label: str) -> list[GpuId]:
        """Every GPU that ever carried a label, sorted; every one that another spelling may mean."""
        if label in self._aliases:
            return sorted(
                {gpu for name in self._aliases[label] for gpu in self.meanings(name) or [name]}
            )
        return sorted({placement.gpu for placement in self._by_label.get(label, ())})

    def is_label(self, name: str) -> bool:
        """Whether this is not a GPU's own name: one ever carried it as a label, or it is another
        spelling. What it means then depends on the time."""
        return name in self._by_label or name in self._aliases

    def resolve_all(self, names: Sequence[str], at_us: int) -> list[GpuId]:
        """The distinct GPUs that these names mean at a time, in the order of the names: two labels
        of one GPU are one GPU."""
        return list(dict.fromkeys(self.resolve(name, at_us) for name in names))

    def resolve(self, name: str, at_us: int) -> GpuId:
        """The GPU that `name` (a UUID or a label) means at a time; an unknown label stands for
        itself."""
        candidates = self._by_label.get(name)
        if not candidates:
            meant = {self.resolve(other, at_us) for other in self._aliases.get(name, ())}
            return meant.pop() if len(meant) == 1 else name
        # Of equal distances the later placement wins: a replaced card takes over at the moment of
        # its first sample.
        return min(candidates, key=lambda p: (p.distance_us(at_us), -p.first_us, p.gpu)).gpu

    def times(self, name: str, gpu: GpuId) -> list[tuple[int, int]]:
        """The times [from_us, to_us) at which `resolve` says `gpu`, ascending, within [-2^62,
        2^62)."""
        times = self._times.get((name, gpu))
        if times is None:
            times = self._times[name, gpu] = self._cut_times(name, gpu)
        return times

    def _cut_times(self, name: str, gpu: GpuId) -> list[tuple[int, int]]:
        candidates = [
            p
            for label in (name, *self._aliases.get(name, ()))
            for p in self._by_label.get(label, ())
        ]
        ends = {at for p in candidates for at in (p.first_us, p.last_us + 1)}
        # Two that do not overlap meet half way between them.
        halves = {
            (p.last_us + q.first_us) // 2 + step
            for p in candidates
            for q in candidates
            for step in (0, 1)
        }
        cuts = sorted({-_FAR_US, _FAR_US, *ends, *halves})
        times: list[tuple[int, int]] = []
        for start, end in pairwise(cuts):
            if self.resolve(name, start) != gpu:
                continue
            if times and times[-1][1] == start:
                times[-1] = (times[-1][0], end)
            else:
                times.append((start, end))
        return times
