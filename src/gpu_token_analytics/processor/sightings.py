"""Which GPUs were seen since the inventory was last written, and which of that has to be written now."""

from __future__ import annotations

from gpu_token_analytics.events import GpuSample
from gpu_token_analytics.store.inventory import GpuDescription, Sighting

WRITE_EVERY_SECONDS = 10.0
_LIVE_SOURCES = frozenset({"nvml", "nvidia-smi", "seed"})


class Sightings:
    """Remembers what the inventory holds, for at most `max_known` descriptions.

    A GPU is written at once when it is new, described differently, or seen earlier than known; else every
    WRITE_EVERY_SECONDS, as only its `last_us` grows.
    """

    def __init__(self, max_known: int = 50_000) -> None:
        self._max_known = max_known
        self._written: dict[GpuDescription, tuple[int, float]] = {}  # first_us, when (monotonic)
        self._seen: dict[GpuDescription, tuple[int, int]] = {}  # first_us, last_us

    def see(self, sample: GpuSample, ts_us: int) -> None:
        """Note one sample."""
        described = GpuDescription(
            gpu=sample.gpu,
            has_uuid=sample.gpu_uuid is not None,
            host=sample.host,
            gpu_index=sample.gpu_index,
            name=sample.name,
            mig_profile=sample.mig_profile,
            parent_uuid=sample.parent_uuid,
            source=sample.source,
            live=sample.source in _LIVE_SOURCES,
        )
        first_us, last_us = self._seen.get(described, (ts_us, ts_us))
        self._seen[described] = (min(first_us, ts_us), max(last_us, ts_us))

    def take(self, monotonic: float, *, everything: bool = False) -> list[Sighting]:
        """What has to be in the inventory before this batch's marks. It counts as written from here on: the caller
        writes it, or the process ends."""
        found = [
            Sighting(described, first_us, last_us)
            for described, (first_us, last_us) in self._seen.items()
            if everything or self._due(described, first_us, monotonic)
        ]
        if len(self._written) + len(found) > self._max_known:
            self._written.clear()  # forgetting costs a write, nothing else
        for described, first_us, _ in found:
            del self._seen[described]
            known_us, _at = self._written.get(described, (first_us, 0.0))
            self._written[described] = (min(first_us, known_us), monotonic)
        return sorted(found, key=lambda sighting: sighting.last_us)

    def _due(self, described: GpuDescription, first_us: int, monotonic: float) -> bool:
        known = self._written.get(described)
        return known is None or monotonic - known[1] >= WRITE_EVERY_SECONDS or first_us < known[0]
