"""What engines counted beyond the requests that are known of: tokens of `unmetered_work`, by model,
exact integers.

Per engine (those that run on the same GPUs together) and minute, of prompt and of completion tokens
each:

    counted = of requests + unexplained
    counted = of requests + unexplained - more   where requests tell of more than the engine
                                                 counted, the rest is `more`: of the two one is 0,
                                                 and neither is ever negative

Both sides are taken at the time of counting, which is not that of work: an engine counts a prompt
at its first token or at the end, an answer as it is made or at the end (wire/engines.py). So of a
request those tokens count in a minute that its engine counted then; only time for which the
engine's counters are known is compared.

A request is an engine's where it ran on the same GPUs. Of several engines on the same GPUs, and of
several models, it is that of its model, else of all of them. A request that names others of the
GPUs, too, or only some, is taken off on those it names.

Tokens go round robin over the GPUs of an engine, as a request's do. The money of `unmetered_work`
of a cell is split over models by the work of their unexplained tokens (params.WorkWeights). Where
nobody told of a request, an engine that counts at the end has counted nothing, and one model alone
is served, the money is that model's: its tokens are still to be counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from gpu_token_analytics.documents import US_PER_MINUTE, GpuId, Method, NanoUsd
from gpu_token_analytics.ledger.document import LedgerLine
from gpu_token_analytics.ledger.money import Int64, split_exactly
from gpu_token_analytics.ledger.params import LedgerParams
from gpu_token_analytics.ledger.placements import Placements
from gpu_token_analytics.ledger.requests import UNKNOWN_US, Requests
from gpu_token_analytics.ledger.shared import SharedUuids
from gpu_token_analytics.wire.engines import COUNTED, Engine, When

NOBODY = ""  # the tenant of tokens that no request tells of; null wherever it is shown
_PER_WEIGHT = 1_000_000  # work in whole numbers


class CounterRow(NamedTuple):
    """What one engine counted for one model in [start, ts): a document of `engine_counters`. None:
    it does not count that."""

    gpus: tuple[str, ...]
    host: str
    instance: str
    engine: Engine
    model: str
    start_us: int
    ts_us: int
    prompt: int | None
    cached: int | None
    completion: int | None

    @staticmethod
    def of(document: Mapping[str, Any]) -> CounterRow:
        """From a document."""
        tokens = (document[f"{name}_tokens"] for name in ("prompt", "cached", "completion"))
        names = (
            document[name] for name in ("host", "instance", "engine", "model", "start_us", "ts_us")
        )
        return CounterRow(tuple(document["gpus"]), *names, *tokens)

    def of_cards(self, shared: SharedUuids) -> CounterRow:
        """The same with the names of the cards that are meant by UUIDs that several have."""
        return (
            self._replace(gpus=tuple(shared.card(gpu, self.host) for gpu in self.gpus))
            if shared
            else self
        )

    def within(self, count: int | None, low_us: int, high_us: int) -> int:
        """The part of a count in [low, high): spread evenly, telescoping, so that parts sum to the
        count."""
        length = max(self.ts_us - self.start_us, 1)

        def upto(at_us: int) -> int:
            done = min(max(at_us - self.start_us, 0), length)
            return (2 * (count or 0) * done + length) // (2 * length)

        return upto(high_us) - upto(low_us)


class _Tokens(NamedTuple):
    prompt: int
    cached: int
    completion: int


class _Name(NamedTuple):
    instance: str
    model: str


@dataclass(frozen=True)
class _Engine:
    """The counters of engines of one kind on the same GPUs, in one minute."""

    engine: Engine
    gpus: tuple[GpuId, ...]  # sorted
    rows: Sequence[CounterRow]

    def counted(self, low_us: int, high_us: int) -> dict[_Name, _Tokens]:
        """On all of its GPUs, by instance and model."""
        sums: dict[_Name, _Tokens] = {}
        for row in sorted(self.rows, key=lambda row: (row.instance, row.model)):
            name = _Name(row.instance, row.model)
            before = sums.get(name, _Tokens(0, 0, 0))
            more = (
                row.within(count, low_us, high_us)
                for count in (row.prompt, row.cached, row.completion)
            )
            sums[name] = _Tokens(*(a + b for a, b in zip(before, more, strict=True)))
        return sums

    def covered(self, low_us: int, high_us: int) -> list[tuple[int, int]]:
        """The time of [low, high) for which its counters are known: ascending, apart from each
        other."""
        spans = sorted((max(row.start_us, low_us), min(row.ts_us, high_us)) for row in self.rows)
        joined: list[tuple[int, int]] = []
        for start, end in spans:
            if joined and start <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(joined[-1][1], end)
            else:
                joined.append((start, end))
        return joined


def counter_lines(
    minute_us: int,
    gpu: GpuId,
    rows: Sequence[CounterRow],
    requests: Requests,
    placements: Placements,
    unmetered_nusd: NanoUsd | None,
    params: LedgerParams,
) -> list[LedgerLine]:
    """The lines of engines in the cell of a GPU and a minute, ordered by model and instance.

    rows: what names the GPU, and more does no harm. requests: those of the timeline.
    unmetered_nusd: the money of unmetered work in the cell; None: utilisation is not known there,
    and so not what the engine's work cost.
    """
    low_us, high_us = minute_us, minute_us + US_PER_MINUTE
    engines = _engines_on(
        gpu, [row for row in rows if row.start_us < high_us and row.ts_us > low_us], placements
    )
    lines: list[LedgerLine] = []
    weights: list[int] = []
    belongs = _owners(engines, requests, placements, (low_us, high_us)) if engines else {}
    for index, engine in enumerate(engines):
        for line in _lines(engine, gpu, requests, belongs.get(index, {}), (low_us, high_us)):
            of_model = params.weights(line["model"])
            uncached = line["prompt_tokens"] - line["cached_tokens"]
            work = of_model.input * uncached + of_model.cached * line["cached_tokens"]
            weights.append(
                round((work + of_model.output * line["completion_tokens"]) * _PER_WEIGHT)
            )
            lines.append(line)
    if not any(weights) and _is_to_be_counted(engines, lines, belongs):
        weights = [1] * len(lines)
    if unmetered_nusd is None:
        parts: list[NanoUsd | None] = [None] * len(lines)
    else:
        parts = [*split_exactly(unmetered_nusd, weights)] if any(weights) else [0] * len(lines)
    for line, part in zip(lines, parts, strict=True):
        line["counted"]["unmetered_nusd"] = part
    return sorted(lines, key=lambda line: (line["model"], line["counted"]["instance"]))


def _engines_on(gpu: GpuId, rows: Sequence[CounterRow], placements: Placements) -> list[_Engine]:
    together: dict[tuple[Engine, tuple[GpuId, ...]], list[CounterRow]] = {}
    for row in rows:
        gpus = tuple(sorted(placements.resolve_all(row.gpus, row.ts_us)))
        if gpu in gpus:
            together.setdefault((row.engine, gpus), []).append(row)
    return [
        _Engine(engine, gpus, of_engine) for (engine, gpus), of_engine in sorted(together.items())
    ]


# Requests of an engine: those on all of its GPUs, and those of which it takes this GPU's part.
_Owned = dict[bool, list[int]]


def _owners(
    engines: Sequence[_Engine], requests: Requests, placements: Placements, minute: tuple[int, int]
) -> dict[int, _Owned]:
    """Which requests (places) are whose, by engine: True for those on exactly its GPUs."""
    models = [{row.model for row in engine.rows} for engine in engines]
    meant: dict[tuple[int, int], tuple[int, bool]] = {}
    near = (requests.start_us < minute[1]) & (
        np.maximum(requests.ts_us, requests.seen_until_us) >= minute[0]
    )
    owned: dict[int, _Owned] = {}
    for place in np.flatnonzero(near).tolist():
        labels = requests.labels.at(place)
        moving = int(requests.ts_us[place]) if any(map(placements.is_label, labels.gpus)) else 0
        key = int(requests.labels.codes[place]), moving
        if key not in meant:
            gpus = tuple(sorted(placements.resolve_all(labels.gpus, moving)))
            fitting = [index for index, engine in enumerate(engines) if engine.gpus == gpus] or [
                *range(len(engines))
            ]
            named = [index for index in fitting if labels.model in models[index]]
            index = (named or fitting)[0]
            meant[key] = index, engines[index].gpus == gpus
        index, whole = meant[key]
        owned.setdefault(index, {}).setdefault(whole, []).append(place)
    return owned


def _lines(
    engine: _Engine, gpu: GpuId, requests: Requests, owned: _Owned, minute: tuple[int, int]
) -> list[LedgerLine]:
    """Its lines on one GPU, without their money."""
    counted = engine.counted(*minute)
    covered = engine.covered(*minute)
    rank, number = engine.gpus.index(gpu), len(engine.gpus)
    names = list(counted)
    told = _told(engine.engine, requests, owned.get(True, []), covered, names, None)
    part = _told(engine.engine, requests, owned.get(False, []), covered, names, (rank, number))
    # [unexplained prompt, cached, completion, more prompt, completion] of this GPU
    rest: list[list[int]] = []
    columns: dict[str, tuple[list[int], list[int]]] = {}
    for field in _Tokens._fields:
        said = [getattr(counted[name], field) for name in names]
        unexplained, more = _compared(said, *told[field])
        mine = [_of_rank(count, rank, number) for count in unexplained]
        over = [_of_rank(count, rank, number) for count in more]
        mine, again = _compared(mine, *part[field])
        columns[field] = mine, [a + b for a, b in zip(over, again, strict=True)]
    for place in range(len(names)):
        prompt, completion = columns["prompt"][0][place], columns["completion"][0][place]
        cached = min(columns["cached"][0][place], prompt)
        rest.append(
            [
                prompt,
                cached,
                completion,
                columns["prompt"][1][place],
                columns["completion"][1][place],
            ]
        )
    return [
        {
            "model": name.model,
            "tenant": NOBODY,
            "method": Method.COUNTER.value,
            "requests": 0,
            "prompt_tokens": prompt,
            "cached_tokens": cached,
            "completion_tokens": completion,
            "reasoning_tokens": 0,
            "cost_nusd": 0,
            "prefill_cost_nusd": 0,
            "energy_mj": None,
            "busy_us": 0,
            "counted": {
                "instance": name.instance,
                "engine": engine.engine,
                "prompt_tokens": _of_rank(counted[name].prompt, rank, number),
                "completion_tokens": _of_rank(counted[name].completion, rank, number),
                "more_prompt_tokens": more_prompt,
                "more_completion_tokens": more_completion,
                "unmetered_nusd": None,
            },
        }
        for name, (prompt, cached, completion, more_prompt, more_completion) in zip(
            names, rest, strict=True
        )
    ]


def _of_rank(count: int, rank: int, number: int) -> int:
    """This GPU's part of tokens that go round robin over `number` of them."""
    return (count + number - 1 - rank) // number


def _told(
    engine: Engine,
    requests: Requests,
    places: Sequence[int],
    covered: Sequence[tuple[int, int]],
    names: Sequence[_Name],
    share: tuple[int, int] | None,
) -> dict[str, tuple[list[int], int]]:
    """Tokens of requests that the engine counted in the time covered: by name where the model says
    whose they are, and those that are anybody's. share: of requests of which this GPU has a part:
    that part, by the request's own GPUs."""
    at = np.array(places, dtype=np.int64)
    by_model: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        by_model.setdefault(name.model, []).append(place)
    alone = {model: found[0] for model, found in by_model.items() if len(found) == 1}
    whose = [alone.get(requests.labels.at(place).model, -1) for place in places]
    when = COUNTED[engine]
    told: dict[str, tuple[list[int], int]] = {}
    for field in _Tokens._fields:
        kind = when.completion if field == "completion" else when.prompt
        counts = _counted_within(requests, at, getattr(requests, field)[at], kind, covered)
        if share is not None:
            counts = (
                counts + requests.gpu_count[at] - 1 - requests.gpu_rank[at]
            ) // requests.gpu_count[at]
        sums, anybody = [0] * len(names), 0
        for index, count in zip(whose, counts.tolist(), strict=True):
            if index < 0:
                anybody += count
            else:
                sums[index] += count
        told[field] = sums, anybody
    return told


def _counted_within(
    requests: Requests, at: Int64, counts: Int64, when: When, covered: Sequence[tuple[int, int]]
) -> Int64:
    """Of requests (places) the part of their tokens that is counted in the time covered. Shape
    (n,)."""
    start_us, ts_us, first_us = requests.start_us[at], requests.ts_us[at], requests.first_us[at]
    begun_us = np.where(first_us == UNKNOWN_US, np.minimum(start_us, ts_us), first_us)
    within = np.zeros(len(at), dtype=np.int64)
    if when is When.LIVE:
        length = np.maximum(ts_us - begun_us, 1)
        for low, high in covered:
            for edge, sign in ((high, 1), (low, -1)):
                done = np.clip(edge - begun_us, 0, length)
                within += sign * ((2 * counts * done + length) // (2 * length))
        return within
    # its end is excluded, unless it is all there is
    ended_us = np.maximum(ts_us - 1, np.minimum(start_us, ts_us))
    moment = {When.END: ended_us, When.START: start_us, When.FIRST_TOKEN: begun_us}[when]
    for low, high in covered:
        within += np.where((moment >= low) & (moment < high), counts, 0)
    return within


def _compared(
    said: Sequence[int], told: Sequence[int], anybody: int
) -> tuple[list[int], list[int]]:
    """(unexplained, more) of each name: what was said, less what was told of it, less what is
    anybody's as far as it goes.

    Their sums are those of all names together: of both at most one is not 0.
    """
    short = [max(0, a - b) for a, b in zip(said, told, strict=True)]
    over = [max(0, b - a) for a, b in zip(said, told, strict=True)]
    spare = anybody + sum(over)
    taken = min(spare, sum(short))
    unexplained = [a - b for a, b in zip(short, _split_within(taken, short), strict=True)]
    left = spare - taken
    more = split_exactly(left, over if sum(over) else [*said]) if left else [0] * len(said)
    return unexplained, more


def _split_within(total: int, most: Sequence[int]) -> list[int]:
    """`total` <= sum(most) in parts of at most `most` each, in proportion: cut at the running sums,
    so that no part is more."""
    whole = sum(most)
    if not whole:
        return [0] * len(most)
    edges = [total * edge // whole for edge in accumulate(most, initial=0)]
    return [high - low for low, high in pairwise(edges)]


def _is_to_be_counted(
    engines: Sequence[_Engine], lines: Sequence[LedgerLine], belongs: Mapping[int, _Owned]
) -> bool:
    """Whether busy time is one model's, which is served alone, although it counted nothing yet."""
    late = all(COUNTED[engine.engine].completion is When.END for engine in engines)
    nothing = not any(
        line["counted"]["prompt_tokens"] or line["counted"]["completion_tokens"] for line in lines
    )
    return late and nothing and not belongs and len({line["model"] for line in lines}) == 1
