"""The events this process stored last: closing takes them from here instead of reading them back.

A cell must not depend on who computes it. So they are used for a cell only where they are all of
its events, and the cell says so itself: every mark adds one to its `gen`, and whoever stores an
event that touches a cell marks it, unless one of his own is still ahead (cells/marks.py). Where
`gen` is the number of marks this process made for batches it remembers, nobody else marked the
cell, and no event of anybody else is among those it is computed from. One that comes later marks it
later: as ever, the cell is computed again.

That holds because, and breaks when:

- a batch is remembered only if all of it was stored for the first time, durably, by this process.
  Of one that was not, a mark may have been left out: its cells are forgotten, and their `gen` is
  then ahead of what is counted from here on, for ever;
- marks are counted after MongoDB has confirmed them, and those counted after a cell was taken do
  not prove anything (`moment`);
- cells are expected before anybody decides that a mark of theirs can be left out: a process that
  stands still between that and the batch being added would else take a cell, find its `gen` as
  counted, and compute it without the events of this batch, which nothing marks again;
- events leave (too many, or too old: nothing but retention removes what is stored, and that comes
  much later than KEPT_SECONDS) together with the cells that they touched first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from gpu_token_analytics.clock import Clock, SystemClock
from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, GpuMinute, minute_of
from gpu_token_analytics.ledger.requests import UsageRows, active_on
from gpu_token_analytics.mongo.errors import Document

KEPT_SECONDS = 3600.0
# As held_bytes() counts: some 300,000 requests of a few models and tenants, or 80,000 of as many.
MOST_BYTES = 64 * 1024 * 1024
_REQUEST_BYTES, _LABELS_BYTES, _SAMPLE_BYTES = 144, 640, 700  # measured as resident memory


def held_bytes(parts: Sequence[UsageRows], samples: Sequence[Document]) -> int:
    """What a batch takes here, about. Labels are one object for all requests that have them; they
    may be as many as these."""
    labels = {id(labels) for part in parts for labels in part.labels.table}
    requests = sum(map(len, parts))
    return _REQUEST_BYTES * requests + _LABELS_BYTES * len(labels) + _SAMPLE_BYTES * len(samples)


@dataclass(slots=True)
class _Marks:
    """What this process knows of a cell."""

    first: int  # number of the first batch that touched it
    last: int = 0  # and of the last one that marked it
    count: int = 0


class _Batch:
    def __init__(
        self,
        number: int,
        stored_at: float,
        size_bytes: int,
        requests: UsageRows,
        samples: Sequence[Document],
        *,
        counted: bool,
    ) -> None:
        self.counted = counted
        self.number, self.stored_at, self.size_bytes = number, stored_at, size_bytes
        self.opened: list[GpuMinute] = []  # cells that no batch before it touched
        self.requests, self._samples = requests, samples

    # What costs time is done when somebody looks; two threads may do it at once.

    @cached_property
    def samples(self) -> Mapping[GpuId, Sequence[Document]]:
        by_gpu: dict[GpuId, list[Document]] = {}
        for sample in self._samples:
            by_gpu.setdefault(sample["gpu"], []).append(sample)
        return by_gpu

    @cached_property
    def last_end_us(self) -> int:
        """The last end of a request; -1 without any."""
        return int(self.requests.ts_us.max(initial=-1))

    @cached_property
    def sampled_us(self) -> tuple[int, int]:
        """The times of the first and the last sample; (0, -1) without any."""
        times = [sample["ts_us"] for sample in self._samples]
        return min(times, default=0), max(times, default=-1)


class Known:
    """The events of some GPUs, read at one moment."""

    def __init__(self, gpus: Collection[GpuId] = (), batches: Sequence[_Batch] = ()) -> None:
        self.gpus = frozenset(gpus)  # whose events are all here, in the minutes that were asked for
        self._batches = batches

    @property
    def without_counters(self) -> frozenset[GpuId]:
        """Those GPUs of which no engine counted anything in these minutes: what it counted marks
        them as requests do, and is in no batch. Where a batch has any, they are to be read."""
        return frozenset() if any(batch.counted for batch in self._batches) else self.gpus

    def requests(self, names: Iterable[str], start_us: int, end_us: int) -> UsageRows:
        """Requests naming one of `names` that can be active in [start, end), each once."""
        wanted = list(names)
        near = [
            batch.requests for batch in self._batches if batch.last_end_us >= minute_of(start_us)
        ]
        active = ((rows, active_on(rows, wanted, start_us, end_us, US_PER_MINUTE)) for rows in near)
        return UsageRows.joined([rows.take(where) for rows, where in active if len(where)])

    def samples(self, spans: Mapping[GpuId, tuple[int, int]]) -> dict[GpuId, list[Document]]:
        """Samples of each GPU with start <= ts < end, by time (equal times: by id). spans: {GPU:
        (start_us, end_us)}."""
        by_gpu: dict[GpuId, list[Document]] = {gpu: [] for gpu in spans}
        low, high = min(start for start, _ in spans.values()), max(end for _, end in spans.values())
        for batch in self._batches:
            first, last = batch.sampled_us
            if last < low or first >= high:
                continue
            for gpu, (start, end) in spans.items():
                by_gpu[gpu] += [
                    sample
                    for sample in batch.samples.get(gpu, ())
                    if start <= sample["ts_us"] < end
                ]
        for samples in by_gpu.values():
            samples.sort(key=lambda sample: (sample["ts_us"], sample["_id"]))
        return by_gpu


NOTHING_KNOWN = Known()


class RecentEvents:
    """Bounded; the oldest batches go first. One thread adds, any may look."""

    def __init__(self, clock: Clock | None = None, most_bytes: int = MOST_BYTES) -> None:
        self._clock = clock or SystemClock()
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._batches: deque[_Batch] = deque()
        self._bytes = 0
        self._ever_bytes = 0
        self._number = 0  # of the last batch
        self._cells: dict[GpuMinute, _Marks] = {}
        self._gpus: dict[GpuId, float] = {}  # when each was touched last
        self._expected: Collection[GpuMinute] = ()  # of the batch that is being marked

    def expect(self, touched: Collection[GpuMinute]) -> None:
        """A batch was stored that touches these cells, and is about to mark them. Until it is added
        or forgotten they are not all here."""
        with self._lock:
            self._expected = frozenset(touched)

    def add(
        self,
        parts: Sequence[UsageRows],
        samples: Sequence[Document],
        size_bytes: int,
        touched: Collection[GpuMinute],
        marked: Iterable[GpuMinute],
        *,
        counted: bool = False,
    ) -> None:
        """A batch that this process has just stored, each event for the first time, and durably.

        size_bytes: see held_bytes(). touched: the cells its events touch; marked: those whose mark
        was not left out. counted: engines' counters are among them; these are not held here.
        """
        if not parts and not samples and not touched:
            self.expect(())
            return
        # At once: thousands of small arrays, each of its own moment, would keep the memory around
        # them from being freed.
        requests = UsageRows.joined(parts)
        with self._lock:
            self._expected = ()
            self._number += 1
            batch = _Batch(
                self._number,
                self._clock.monotonic(),
                size_bytes,
                requests,
                samples,
                counted=counted,
            )
            self._touch(touched)
            for cell in touched:
                if cell not in self._cells:
                    self._cells[cell] = _Marks(first=batch.number)
                    batch.opened.append(cell)
            for cell in marked:
                marks = self._cells[cell]
                marks.last = batch.number
                marks.count += 1
            self._batches.append(batch)
            self._bytes += size_bytes
            self._ever_bytes += size_bytes
            self._let_go()

    def forget(self, touched: Collection[GpuMinute]) -> None:
        """Events of these cells were stored, but not all of the batch for the first time by this
        process."""
        with self._lock:
            self._expected = ()
            self._touch(touched)
            for cell in touched:
                self._cells.pop(cell, None)

    @property
    def gpus(self) -> frozenset[GpuId]:
        """The GPUs touched lately."""
        oldest = self._clock.monotonic() - KEPT_SECONDS
        with self._lock:
            self._gpus = {gpu: at for gpu, at in self._gpus.items() if at >= oldest}
            return frozenset(self._gpus)

    @property
    def turnover(self) -> float:
        """How often all that can be remembered was replaced since the start: what was stored one
        turnover ago is forgotten."""
        return self._ever_bytes / self._most_bytes

    @property
    def moment(self) -> int:
        """To be asked before cells are taken: what is counted later does not prove anything about
        their `gen`."""
        return self._number

    def whole(self, gpu: GpuId, minutes: Mapping[int, int], moment: int) -> frozenset[int]:
        """Those minutes of a GPU whose events are all here. minutes: {start in us: the cell's `gen`
        as it was taken}."""
        with self._lock:
            self._let_go()
            return frozenset(
                minute
                for minute, gen in minutes.items()
                if self._is_whole((gpu, minute), gen, moment)
            )

    def known(self, gens: Mapping[GpuId, Mapping[int, int]], moment: int) -> Known:
        """What is here of the GPUs whose events are all here, in the minutes of `gens`: {GPU:
        {start of a minute in microseconds: the cell's `gen` as it was taken}}. A GPU with a hole
        between its minutes is not among them."""
        with self._lock:
            self._let_go()
            whole = [
                gpu
                for gpu, minutes in gens.items()
                if _without_hole(minutes) and self._are_whole(gpu, minutes, moment)
            ]
            return Known(whole, tuple(self._batches)) if whole else NOTHING_KNOWN

    def _are_whole(self, gpu: GpuId, minutes: Mapping[int, int], moment: int) -> bool:
        return all(
            self._is_whole((gpu, minute_us), gen, moment) for minute_us, gen in minutes.items()
        )

    def _is_whole(self, cell: GpuMinute, gen: int, moment: int) -> bool:
        marks = self._cells.get(cell)
        return (
            marks is not None
            and marks.count == gen
            and marks.last <= moment
            and cell not in self._expected
        )

    def _touch(self, cells: Iterable[GpuMinute]) -> None:
        self._gpus |= dict.fromkeys((gpu for gpu, _ in cells), self._clock.monotonic())

    def _let_go(self) -> None:
        oldest = self._clock.monotonic() - KEPT_SECONDS
        while self._batches and (
            self._bytes > self._most_bytes or self._batches[0].stored_at < oldest
        ):
            batch = self._batches.popleft()
            self._bytes -= batch.size_bytes
            for cell in batch.opened:
                marks = self._cells.get(cell)
                if marks is not None and marks.first == batch.number:
                    del self._cells[cell]


def _without_hole(minutes_us: Collection[int]) -> bool:
    return max(minutes_us) - min(minutes_us) == (len(minutes_us) - 1) * US_PER_MINUTE
