"""Raw events as the ledger and its audit read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection as MongoCollection

from gpu_token_analytics.documents import (
    LEDGER_SAMPLE_FIELDS,
    LONG_REQUEST_US,
    TOKEN_COUNTS,
    US_PER_MINUTE,
    GpuId,
    minute_of,
)
from gpu_token_analytics.ledger.counted import CounterRow
from gpu_token_analytics.ledger.requests import UsageRows
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.errors import Document, each, mapped, store_errors
from gpu_token_analytics.wire.counters import COUNTERS, MAX_INTERVAL_MS
from gpu_token_analytics.wire.fields import MAX_LATENCY_MS
from gpu_token_analytics.wire.kind import Kind, Touches
from gpu_token_analytics.wire.names import host_and_uuid, sample_of
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE

GpuTime: TypeAlias = tuple[GpuId, int]  # a GPU and a time in microseconds

_ROWS_AT_ONCE = 10_000  # requests read as documents
_SEARCHES_AT_ONCE = 250  # MongoDB takes 1000 stages

MAX_REQUEST_US = MAX_LATENCY_MS * 1000
MAX_COUNTED_US = MAX_INTERVAL_MS * 1000

_SAMPLE_FIELDS = dict.fromkeys(LEDGER_SAMPLE_FIELDS, 1)
_USAGE_FIELDS = dict.fromkeys(
    (
        "ts_us",
        "start_us",
        "first_us",
        "latency_ms",
        "ttft_ms",
        "host",
        "gpus",
        "model",
        "tenant",
        *TOKEN_COUNTS,
    ),
    1,
)

_COUNTER_FIELDS = {"_id": 0} | dict.fromkeys(CounterRow._fields[:7], 1)
_COUNTER_FIELDS |= dict.fromkeys((f"{name}_tokens" for name in CounterRow._fields[7:]), 1)


class UsageTime(NamedTuple):
    """Requests that named a UUID or a label and ended in [start, end), next to a time."""

    name: str
    start_us: int
    end_us: int
    at_us: int


class RawReads:
    """Reads of `token_usage` and `gpu_metrics`. Every method raises StoreUnreachable, StoreRefused
    or StoreOutcomeUnknown."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._usage = store[USAGE.collection]
        self._samples = store[SAMPLE.collection]
        self._counters = store[COUNTERS.collection]

    @mapped
    def usage(self, names: Sequence[str], start_us: int, end_us: int) -> UsageRows:
        """Requests naming one of `names` that can be active in [start, end), each once. Also some
        that are not, and of cards that share a UUID those that named it on another host."""
        # an index for each
        either = {"$or": [_near(names, start_us, end_us), _far(names, start_us, end_us)]}
        rows = self._usage.find(either, _USAGE_FIELDS).batch_size(_ROWS_AT_ONCE)
        # Columns take a fraction of what documents take: of 72,000 requests, 50 MB instead of 150
        # with all of them at once.
        return UsageRows.joined(
            [UsageRows.of(some) for some in iter(lambda: list(islice(rows, _ROWS_AT_ONCE)), [])]
        )

    @mapped
    def samples(self, gpus: Set[GpuId], start_us: int, end_us: int) -> dict[GpuId, list[Document]]:
        """Samples of these GPUs with start <= ts < end, each GPU's by time (equal times: by id)."""
        where = {"gpu": {"$in": _stored_names(gpus)}, "ts_us": {"$gte": start_us, "$lt": end_us}}
        by_gpu: dict[GpuId, list[Document]] = {gpu: [] for gpu in gpus}
        for sample in self._samples.find(where, _SAMPLE_FIELDS).batch_size(20_000):
            for gpu in _names_of(sample):
                if gpu in by_gpu:
                    by_gpu[gpu].append(sample)
        for samples in by_gpu.values():
            samples.sort(key=lambda sample: (sample["ts_us"], sample["_id"]))
        return by_gpu

    def last_samples(self, before: Set[GpuTime]) -> dict[GpuTime, Document]:
        """The newest sample of each GPU before a time (equal times: the greatest id); GPUs without
        one are left out."""
        return self._nearest(before, "$lt", DESCENDING)

    def first_samples(self, since: Set[GpuTime]) -> dict[GpuTime, Document]:
        """The oldest sample of each GPU at or after a time (equal times: the smallest id)."""
        return self._nearest(since, "$gte", ASCENDING)

    @mapped
    def _nearest(self, wanted: Set[GpuTime], side: str, order: int) -> dict[GpuTime, Document]:
        # Sorted by the index alone: with the id as a second key MongoDB would read and sort every
        # sample on that side, a month of them. Two samples of one time are rare, and looked at
        # again.
        searches: list[list[Document]] = [
            [
                {"$match": {**sample_of(gpu), "ts_us": {side: at_us}}},
                {"$sort": {"ts_us": order}},
                {"$limit": 2},
                {"$project": {**_SAMPLE_FIELDS, "asked": {"$literal": [gpu, at_us]}}},
            ]
            for gpu, at_us in sorted(wanted)
        ]
        by_time: dict[GpuTime, Document] = {}
        for sample in _each_search(self._samples, searches):
            key: GpuTime = tuple(sample.pop("asked"))
            nearest = by_time.setdefault(key, sample)
            if nearest is not sample and nearest["ts_us"] == sample["ts_us"]:
                same = self._samples.find(
                    {**sample_of(key[0]), "ts_us": sample["ts_us"]}, _SAMPLE_FIELDS
                )
                by_time[key] = next(iter(same.sort("_id", order).limit(1)), nearest)
        return by_time

    @mapped
    def sampled(
        self, gpus: Sequence[GpuId], start_us: int, end_us: int
    ) -> list[tuple[GpuId, list[int]]]:
        """The times of the samples of these GPUs in [start, end), from the index alone."""
        where = {"gpu": {"$in": _stored_names(gpus)}, "ts_us": {"$gte": start_us, "$lt": end_us}}
        times: dict[GpuId, list[int]] = {gpu: [] for gpu in gpus}
        # without, the index alone is read
        hosts = {"host": 1} if any(map(host_and_uuid, gpus)) else {}
        for doc in self._samples.find(where, {"_id": 0, "gpu": 1, "ts_us": 1, **hosts}):
            for gpu in _names_of(doc):
                if gpu in times:
                    times[gpu].append(doc["ts_us"])
        return list(times.items())

    def usage_before(self, asked: Sequence[UsageTime]) -> dict[int, Document]:
        """The newest request of each that was active before its time: {start_us, ts_us}, by place
        in `asked`."""
        # A request is active up to its end, its end excluded; one without a duration is its end.
        return self._nearest_usage(
            [
                {
                    **_usage_of(name),
                    "ts_us": {"$gte": start_us, "$lt": min(end_us, at_us + 1)},
                    "start_us": {"$lt": at_us},
                }
                for name, start_us, end_us, at_us in asked
            ],
            DESCENDING,
        )

    def usage_from(self, asked: Sequence[UsageTime]) -> dict[int, Document]:
        """The request of each that ended first of those active at or after its time."""
        return self._nearest_usage(
            [
                {
                    **_usage_of(name),
                    "ts_us": {"$gte": max(start_us, at_us), "$lt": end_us},
                    "$nor": [{"ts_us": at_us, "start_us": {"$lt": at_us}}],
                }
                for name, start_us, end_us, at_us in asked
            ],
            ASCENDING,
        )

    @mapped
    def _nearest_usage(self, matches: Sequence[Document], order: int) -> dict[int, Document]:
        searches: list[list[Document]] = [
            [
                {"$match": match},
                {"$sort": {"ts_us": order}},
                {"$limit": 1},
                {"$project": {"_id": 0, "start_us": 1, "ts_us": 1, "place": {"$literal": place}}},
            ]
            for place, match in enumerate(matches)
        ]
        return {usage.pop("place"): usage for usage in _each_search(self._usage, searches)}

    @mapped
    def labelled_usage(self, label: str) -> Iterable[Document]:
        """Requests, and engines' counters, that named a GPU by its `host/index` label: {start_us,
        ts_us, gpus}."""
        fields = {"_id": 0, "start_us": 1, "ts_us": 1, "gpus": 1}
        return chain(
            *(
                each(events.find(_usage_of(label), fields))
                for events in (self._usage, self._counters)
            )
        )

    @mapped
    def counters(self, names: Sequence[str], start_us: int, end_us: int) -> list[CounterRow]:
        """What engines that name one of `names` counted in times that meet [start, end)."""
        ended = {"$gt": start_us, "$lt": end_us + MAX_COUNTED_US}
        where = {"gpus": {"$in": _stored_names(names)}, "ts_us": ended, "start_us": {"$lt": end_us}}
        return [
            CounterRow.of(document)
            for document in self._counters.find(where, _COUNTER_FIELDS).batch_size(_ROWS_AT_ONCE)
        ]

    @mapped
    def gpus_of(self, kind: Kind[Any], touches: Touches) -> list[str]:
        """Every GPU that an event of a kind speaks of, as its documents call it."""
        return list(self._store[kind.collection].distinct(touches.gpus))

    @mapped
    def spans_of(self, kind: Kind[Any], touches: Touches, name: str) -> Iterable[tuple[int, int]]:
        """[since, until) in microseconds of all events of a kind that speak of a GPU by one name;
        equal: a point in time."""
        fields = {"_id": 0, "ts_us": 1, touches.since: 1}
        documents = each(
            self._store[kind.collection].find(_speaking_of(name, touches.gpus), fields)
        )
        return ((document[touches.since], document["ts_us"]) for document in documents)

    @mapped
    def usage_totals(self) -> dict[str, int]:
        """Requests and their tokens of all raw events."""
        sums = {name: {"$sum": f"${name}"} for name in TOKEN_COUNTS}
        totals = list(
            self._usage.aggregate([{"$group": {"_id": None, "requests": {"$sum": 1}, **sums}}])
        )
        return {name: value for name, value in totals[0].items() if name != "_id"} if totals else {}

    @mapped
    def counter_totals(self) -> tuple[int, int]:
        """Prompt and completion tokens of all raw events of engines."""
        sums = {name: {"$sum": f"${name}"} for name in ("prompt_tokens", "completion_tokens")}
        found = next(iter(self._counters.aggregate([{"$group": {"_id": None, **sums}}])), {})
        return found.get("prompt_tokens", 0), found.get("completion_tokens", 0)


def _stored_names(names: Iterable[str]) -> list[str]:
    """Under which names events of these GPUs are stored; `host/UUID`, the one of several cards, is
    stored by its UUID."""
    pairs = filter(None, map(host_and_uuid, names))
    return sorted({*names, *(uuid for _, uuid in pairs)})


def _names_of(sample: Document) -> tuple[str, ...]:
    """A sample's GPU, and the card that it is where its UUID is shared."""
    gpu: str = sample["gpu"]
    return (gpu, f"{sample['host']}/{gpu}") if "host" in sample else (gpu,)


def _speaking_of(name: str, field: str) -> Document:
    """Events that name a GPU in a field; `host/UUID`, of several cards that share the UUID, also by
    that on its host."""
    pair = host_and_uuid(name)
    return (
        {field: name}
        if pair is None
        else {"$or": [{field: name}, {field: pair[1], "host": pair[0]}]}
    )


def _usage_of(name: str) -> Document:
    return _speaking_of(name, "gpus")


def _near(names: Sequence[str], start_us: int, end_us: int) -> Document:
    """Requests that ended since `start`, and not long after `end`; those without a latency, which
    take all of the minute in which they ended, in any minute of [start, end)."""
    timed = {"ts_us": {"$gte": start_us}, "start_us": {"$lt": end_us}}
    windows = {"latency_ms": None, "ts_us": {"$lt": minute_of(end_us - 1) + US_PER_MINUTE}}
    ended = {"$gte": minute_of(start_us), "$lt": end_us + LONG_REQUEST_US}
    return {"gpus": {"$in": _stored_names(names)}, "ts_us": ended, "$or": [timed, windows]}


def _far(names: Sequence[str], start_us: int, end_us: int) -> Document:
    """Those that began before `end` and ended later than _near() looks."""
    began = {"$gte": start_us - MAX_REQUEST_US, "$lt": end_us}
    return {
        "long": True,
        "gpus": {"$in": _stored_names(names)},
        "start_us": began,
        "ts_us": {"$gte": end_us + LONG_REQUEST_US},
    }


def _each_search(
    collection: MongoCollection[Document], searches: Sequence[list[Document]]
) -> Iterator[Document]:
    """What several searches find in one collection, with one command for many of them."""
    for start in range(0, len(searches), _SEARCHES_AT_ONCE):
        first, *others = searches[start : start + _SEARCHES_AT_ONCE]
        united: list[Document] = [
            {"$unionWith": {"coll": collection.name, "pipeline": other}} for other in others
        ]
        yield from collection.aggregate([*first, *united])


def latest_samples(store: Store) -> list[Document]:
    """The newest stored sample of every GPU, by GPU id (one index entry is read per GPU)."""
    with store_errors("read the latest samples"):
        return list(
            store[SAMPLE.collection].aggregate(
                [
                    {"$sort": {"gpu": -1, "ts_us": -1}},
                    {"$group": {"_id": "$gpu", "sample": {"$first": "$$ROOT"}}},
                    {"$replaceRoot": {"newRoot": "$sample"}},
                    {"$sort": {"gpu": 1}},
                ]
            )
        )
