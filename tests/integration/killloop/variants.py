"""Deliberately wrong processors. The judge must report the damage of each, or it could not be
trusted with the right one."""

from __future__ import annotations

from typing import Any

from pymongo import UpdateOne

from gpu_token_analytics.documents import minute_of
from gpu_token_analytics.errors import StoreError
from gpu_token_analytics.ingest import run
from gpu_token_analytics.ingest.run import Ingest
from gpu_token_analytics.ingest.settle import BatchWriter, LoopStage
from gpu_token_analytics.ingest.shaped import Raws, Shaped
from gpu_token_analytics.processor import service
from gpu_token_analytics.raw.insert import InsertOutcome
from gpu_token_analytics.wire.kind import Kind
from gpu_token_analytics.wire.usage import USAGE

COMMIT_FIRST = "commit_before_write"
INC_SUMS = "inc_sums"
INC_SUMS_COLLECTION = "inc_sums"  # {_id: minute in microseconds, requests, tokens}


def install(variant: str) -> None:
    """Put a variant in place of the real thing, in this process. "" installs nothing."""
    if variant == COMMIT_FIRST:
        setattr(service, "Ingest", CommitFirst)  # noqa: B010  # mypy would call it a type error
    elif variant == INC_SUMS:
        setattr(run, "BatchWriter", IncSums)  # noqa: B010
    elif variant:
        raise ValueError(variant)


class CommitFirst(Ingest):
    """Step 7 before step 4: what dies in between is never read again."""

    def _read(self) -> Shaped | None:
        shaped = super()._read()
        if shaped is not None:
            self._source.commit(shaped.records.positions)
            # the moment that is wrong: a loop of few deaths must not miss it by chance
            for _ in range(4):
                self._checkpoint(LoopStage.COMMITTED)
        return shaped


class IncSums(BatchWriter):
    """Rollups by `$inc` of what the batch inserted newly: the tempting variant ("a duplicate was
    counted already")."""

    def _insert(self, kind: Kind[Any], raws: Raws) -> InsertOutcome:
        fresh: set[bytes] = set()
        if kind is USAGE:
            fresh = self._fresh(raws.documents.ids)
        outcome = super()._insert(kind, raws)
        sums: dict[int, list[int]] = {}
        for document in raws.documents.decoded():
            if document["_id"] in fresh:
                fresh.remove(document["_id"])
                total = sums.setdefault(minute_of(document["ts_us"]), [0, 0])
                total[0] += 1
                total[1] += document["prompt_tokens"] + document["completion_tokens"]
        if sums:
            self._store.database[INC_SUMS_COLLECTION].bulk_write(
                [
                    UpdateOne(
                        {"_id": minute},
                        {"$inc": {"requests": requests, "tokens": tokens}},
                        upsert=True,
                    )
                    for minute, (requests, tokens) in sums.items()
                ]
            )
        return outcome

    def _fresh(self, ids: list[bytes]) -> set[bytes]:
        try:
            known = self._store[USAGE.collection].find({"_id": {"$in": ids}}, {"_id": 1})
            return set(ids) - {found["_id"] for found in known}
        except StoreError:
            return set()
