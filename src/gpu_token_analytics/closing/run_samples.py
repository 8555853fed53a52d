"""The samples that runs of several GPUs depend on, from memory or read together: three commands at most, however many GPUs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.mongo.client import Document
from gpu_token_analytics.raw.read import RawReads
from gpu_token_analytics.raw.recent import Known


class RunSamples:
    """Samples around one run of minutes of each GPU, and the nearest ones beyond."""

    def __init__(
        self,
        raw: RawReads,
        runs: Mapping[GpuId, Sequence[int]],
        cards: Mapping[GpuId, GpuId],
        reach_us: int,
        known: Known,
    ) -> None:
        """runs: minutes, ascending, by GPU; near each other in time, since one range is read for all. cards: MIG slice ->
        card, whose samples price it. reach_us: how far around a run every sample is needed. known: GPUs of which all of
        these are in memory."""
        low = min(run[0] for run in runs.values()) - reach_us
        high = max(run[-1] for run in runs.values()) + US_PER_MINUTE + reach_us
        remembered = runs.keys() & known.gpus - set(cards.values())  # of a card, those around its slices' runs are needed, too
        self._samples: dict[GpuId, list[Document]] = {}
        until = dict.fromkeys(runs, high)
        if remembered:
            # One that is reach_us away touches no minute of the run, so it may be missing there.
            spans = {gpu: (runs[gpu][0] - reach_us + 1, runs[gpu][-1] + US_PER_MINUTE + reach_us) for gpu in remembered}
            self._samples |= known.samples(spans)
            until |= {gpu: end for gpu, (_, end) in spans.items()}
        if others := (runs.keys() | set(cards.values())) - remembered:
            self._samples |= raw.samples(others, low, high)
        self._times = {gpu: [sample["ts_us"] for sample in samples] for gpu, samples in self._samples.items()}
        starts = {(name, run[0]) for gpu, run in runs.items() for name in {gpu, cards.get(gpu, gpu)}}
        self._earlier = raw.last_samples({(name, at) for name, at in starts if not bisect_left(self._times[name], at)})
        unseen = {
            (gpu, until[gpu]) for gpu, run in runs.items() if not self._samples[gpu] and (gpu, run[0]) not in self._earlier
        }
        self._later = {gpu: sample for (gpu, _), sample in raw.first_samples(unseen).items()}

    def within(self, gpu: GpuId, start_us: int, end_us: int) -> list[Document]:
        """Those with start <= ts < end, no further around a run than `reach_us`; by time, then id."""
        times = self._times[gpu]
        return self._samples[gpu][bisect_left(times, start_us) : bisect_left(times, end_us)]

    def before(self, gpu: GpuId, start_us: int) -> Document | None:
        """The newest one before a run of this GPU (or of its slice) that starts here."""
        index = bisect_left(self._times[gpu], start_us)
        return self._samples[gpu][index - 1] if index else self._earlier.get((gpu, start_us))

    def memory_is_unknown(self, gpu: GpuId) -> bool:
        """Whether any of them around its run does not say how much memory is held."""
        return any(sample.get("mem_used_mb") is None for sample in self._samples[gpu])

    def first(self, gpu: GpuId) -> Document | None:
        """The oldest one of a GPU that has none before its run."""
        return self._samples[gpu][0] if self._samples[gpu] else self._later.get(gpu)
