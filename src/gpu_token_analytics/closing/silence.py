"""GPUs that are paid for but say nothing: their minutes are opened up to the last whole one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.documents import US_PER_HOUR, US_PER_MINUTE, GpuId, minute_of
from gpu_token_analytics.ledger.changes import Change, ChangeKind
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.wire.times import to_us

# another process may have died between closing a cell and opening the silence after it
LOOK_AGAIN_US = US_PER_HOUR


@dataclass(slots=True)
class _Silence:
    """How far the silence is opened that a GPU is in."""

    opened_until_us: int
    owned_until_us: int  # if nothing is heard until then
    looked_at_us: int


class Silences:
    """Opens silent minutes.

    A GPU that was switched off for good stays in the inventory, so what was opened is remembered:
    while it is silent, it is one command a minute until nobody owns its minutes any more, and then
    a few an hour.
    """

    def __init__(self, store: LedgerStore, params: LedgerParams) -> None:
        self._store, self._params = store, params
        self._silences: dict[GpuId, _Silence] = {}

    def heard(self, gpus: Iterable[GpuId]) -> None:
        """Something was heard of these: where their silence begins is looked for again."""
        for gpu in gpus:
            self._silences.pop(gpu, None)

    def extend(self) -> None:
        """Open the minutes that have passed since every live GPU was last heard of."""
        now_us = to_us(self._store.now())
        limit = minute_of(now_us)
        books = self._store.books.read()
        for gpu in books.whole_gpus:
            row = books.row(gpu)
            if not row.get("live"):
                continue
            if row["last_us"] >= limit - 1:
                self._silences.pop(gpu, None)
                # sampled in the last whole minute or since: closing that opens what silence lies
                # before it
                continue
            silence = self._silences.get(gpu)
            if silence is None or now_us - silence.looked_at_us >= LOOK_AGAIN_US:
                self._open(gpu, now_us)
                continue
            until = min(limit, silence.owned_until_us)
            if silence.opened_until_us < until:
                self._store.changes.open(gpu, range(silence.opened_until_us, until, US_PER_MINUTE))
                silence.opened_until_us = until

    def _open(self, gpu: GpuId, now_us: int) -> None:
        """The minutes since a GPU was last heard of. Those computed as not owned are looked at
        again."""
        heard = self._store.cells.last_heard(gpu)
        if heard is None:
            return
        start = to_us(heard) + US_PER_MINUTE
        owned_until = start + self._params.silent_owned_us
        minutes = range(start, min(minute_of(now_us), owned_until), US_PER_MINUTE)
        if minutes:
            if self._store.cells.count_cells(gpu, start, minutes.stop) < len(minutes):
                self._store.changes.open(gpu, minutes)
            self._store.changes.mark([Change(gpu, ChangeKind.NOT_OWNED, start, minutes.stop)])
        self._silences[gpu] = _Silence(max(start, minutes.stop), owned_until, now_us)
