"""The samples that runs of several GPUs depend on, read together: three commands at most, however many GPUs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.store.client import Document
from gpu_token_analytics.store.raw_reads import RawReads


class RunSamples:
    """Samples around one run of minutes of each GPU, and the nearest ones beyond."""

    def __init__(self, raw: RawReads, runs: Mapping[GpuId, Sequence[int]], cards: Mapping[GpuId, GpuId], reach_us: int) -> None:
        """runs: minutes, ascending, by GPU; near each other in time, since one range is read for all. cards: MIG slice ->
        card, whose samples price it. reach_us: how far around a run every sample is needed."""
        low = min(run[0] for run in runs.values()) - reach_us
        high = max(run[-1] for run in runs.values()) + US_PER_MINUTE + reach_us
        self._samples = raw.samples(runs.keys() | set(cards.values()), low, high)
        self._times = {gpu: [sample["ts_us"] for sample in samples] for gpu, samples in self._samples.items()}
        starts = {(name, run[0]) for gpu, run in runs.items() for name in {gpu, cards.get(gpu, gpu)}}
        self._earlier = raw.last_samples({(name, at) for name, at in starts if not bisect_left(self._times[name], at)})
        unseen = {(gpu, high) for gpu, run in runs.items() if not self._samples[gpu] and (gpu, run[0]) not in self._earlier}
        self._later = {gpu: sample for (gpu, _), sample in raw.first_samples(unseen).items()}

    def within(self, gpu: GpuId, start_us: int, end_us: int) -> list[Document]:
        """Those with start <= ts < end, no further around a run than `reach_us`; by time, then id."""
        times = self._times[gpu]
        return self._samples[gpu][bisect_left(times, start_us) : bisect_left(times, end_us)]

    def before(self, gpu: GpuId, start_us: int) -> Document | None:
        """The newest one before a run of this GPU (or of its slice) that starts here."""
        index = bisect_left(self._times[gpu], start_us)
        return self._samples[gpu][index - 1] if index else self._earlier.get((gpu, start_us))

    def first(self, gpu: GpuId) -> Document | None:
        """The oldest one of a GPU that has none before its run."""
        return self._samples[gpu][0] if self._samples[gpu] else self._later.get(gpu)
