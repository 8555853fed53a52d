"""The samples that runs of several GPUs depend on, from memory or read together: three commands at
most, however many GPUs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId
from gpu_token_analytics.ledger.events import SamplesAround
from gpu_token_analytics.mongo.errors import Document
from gpu_token_analytics.raw.read import GpuTime, RawReads
from gpu_token_analytics.raw.recent import Known


def load_samples(
    raw: RawReads,
    runs: Mapping[GpuId, Sequence[int]],
    cards: Mapping[GpuId, GpuId],
    reach_us: int,
    known: Known,
) -> tuple[dict[GpuId, SamplesAround], dict[GpuId, SamplesAround]]:
    """Samples around one run of minutes of each GPU; and of each MIG slice those of its card around
    the slice's run.

    runs: minutes, ascending, by GPU; near each other in time, since one range is read for all.
    cards: MIG slice -> card, whose samples price it. reach_us: how far around a run every sample is
    needed. known: GPUs of which all of these are in memory.
    """
    low = min(run[0] for run in runs.values()) - reach_us
    high = max(run[-1] for run in runs.values()) + US_PER_MINUTE + reach_us
    # of a card, those around its slices' runs are needed, too
    remembered = runs.keys() & known.gpus - set(cards.values())
    samples: dict[GpuId, list[Document]] = {}
    until = dict.fromkeys(runs, high)
    if remembered:
        # One that is reach_us away touches no minute of the run, so it may be missing there.
        spans = {
            gpu: (runs[gpu][0] - reach_us + 1, runs[gpu][-1] + US_PER_MINUTE + reach_us)
            for gpu in remembered
        }
        samples |= known.samples(spans)
        until |= {gpu: end for gpu, (_, end) in spans.items()}
    if others := (runs.keys() | set(cards.values())) - remembered:
        samples |= raw.samples(others, low, high)
    times = {gpu: [sample["ts_us"] for sample in of_gpu] for gpu, of_gpu in samples.items()}
    starts = {(name, run[0]) for gpu, run in runs.items() for name in {gpu, cards.get(gpu, gpu)}}
    earlier = raw.last_samples(
        {(name, at) for name, at in starts if not bisect_left(times[name], at)}
    )
    unseen = {
        (gpu, until[gpu])
        for gpu, run in runs.items()
        if not samples[gpu] and (gpu, run[0]) not in earlier
    }
    later = {gpu: sample for (gpu, _), sample in raw.first_samples(unseen).items()}

    def around(name: GpuId, run: Sequence[int]) -> SamplesAround:
        of_gpu, start, end = samples[name], run[0], run[-1] + US_PER_MINUTE
        low, high = (bisect_left(times[name], at) for at in (start - reach_us, end + reach_us))
        before = _before(of_gpu, times[name], (name, start), earlier)
        return SamplesAround(of_gpu[low:high], before, of_gpu[0] if of_gpu else later.get(name))

    return (
        {gpu: around(gpu, run) for gpu, run in runs.items()},
        {gpu: around(card, runs[gpu]) for gpu, card in cards.items()},
    )


def _before(
    samples: Sequence[Document],
    times_us: Sequence[int],
    at: GpuTime,
    earlier: Mapping[GpuTime, Document],
) -> Document | None:
    """The newest sample of a GPU before a time."""
    index = bisect_left(times_us, at[1])
    return samples[index - 1] if index else earlier.get(at)
