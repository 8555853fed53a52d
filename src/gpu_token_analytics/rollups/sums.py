"""Sums of cells: the one arithmetic behind rollups, /v1/costs, exports and reports. Pure, exact integers.

A sum has two parts. `space` is about GPU time (money by class, owned time, energy, cells); `lines` is about usage, by
(model, tenant). Both are plain vectors of integers, so adding sums is adding vectors, in any order and any grouping.

    unknown_gpu_* is the part of a line that ran on GPUs nobody told of: its money is unknown, and 0 stands in the vector
    default_* is the money of cells in which the default price held, if only for a part of them
    energy is unknown where the observed time (tokens with known energy) is 0; 0 stands in the vector then
    split_* is the part of a line whose method knows the first token: input and output rates come from it alone
    warm_idle_nusd of a line is its share of the warm idle money, see `WarmShares`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import add, sub
from struct import Struct
from typing import Any, TypeAlias

import numpy as np

from gpu_token_analytics.documents import COUNTS, CellState, Method, MoneyClass
from gpu_token_analytics.ledger.document import COMPUTED_STATES, CellDocument, LedgerLine
from gpu_token_analytics.ledger.money import split_exactly
from gpu_token_analytics.mongo.pieces import pieces, utf8_length

LINE_COLUMNS = (
    *COUNTS,
    "cost_nusd",
    "warm_idle_nusd",
    "split_cost_nusd",
    "split_prefill_nusd",
    "split_prompt_tokens",
    "split_completion_tokens",
    "energy_mj",
    "energy_tokens",
    "busy_us",
    "unknown_gpu_requests",
    "unknown_gpu_tokens",  # prompt and completion
    "default_cost_nusd",
    # Of no request, an engine counted them (ledger/counted.py): a part of the tokens above, and of the money of unmetered work.
    "counted_nusd",
    "unmetered_prompt_tokens",
    "unmetered_cached_tokens",
    "unmetered_completion_tokens",
    "unmeasured_tokens",  # of these the ones whose money is not known: on GPUs without utilisation, or that nobody told of
)
CLASSES = tuple(str(name) for name in MoneyClass)
SPACE_COLUMNS = (
    "cost_nusd",
    "owned_us",
    *(f"{name}_nusd" for name in CLASSES),
    *(f"{name}_us" for name in CLASSES),
    "energy_mj",
    "energy_observed_us",
    "cells",
    "provisional_cells",
    "corrected_cells",
    "memory_unknown_us",  # idle time, classed without a reading of the memory
    *(f"default_{name}_nusd" for name in CLASSES if name != MoneyClass.ATTRIBUTED),  # of attributed money the lines know
)
_VECTOR = Struct(f"<{len(LINE_COLUMNS)}q")
COST = LINE_COLUMNS.index("cost_nusd")
WARM = LINE_COLUMNS.index("warm_idle_nusd")
SPACE_COST = SPACE_COLUMNS.index("cost_nusd")
SPACE_WARM = SPACE_COLUMNS.index("warm_idle_nusd")
MAX_INT64 = 2**63 - 1
MANY_WEIGHTS = 256  # above this many, cells are shared one after the other
FEW_AMOUNTS = 8  # below this many, plain integers are faster than arrays
ZERO_LINE = (0,) * len(LINE_COLUMNS)
COUNTED, UNMETERED_PROMPT = (LINE_COLUMNS.index(name) for name in ("counted_nusd", "unmetered_prompt_tokens"))
_PROMPT, _CACHED, _COMPLETION = (LINE_COLUMNS.index(f"{name}_tokens") for name in ("prompt", "cached", "completion"))
_UNMEASURED = LINE_COLUMNS.index("unmeasured_tokens")
_NOT_COUNTED = (0,) * (len(LINE_COLUMNS) - COUNTED)
ZERO_SPACE = (0,) * len(SPACE_COLUMNS)

Vector: TypeAlias = Sequence[int]
LineKey: TypeAlias = tuple[str, str]  # model, tenant
Lines: TypeAlias = dict[LineKey, list[int]]


def add_into(lines: dict[Any, list[int]], key: Any, vector: Vector) -> None:
    """lines[key] += vector."""
    before = lines.get(key)
    lines[key] = list(vector) if before is None else list(map(add, before, vector))


def added(vectors: Iterable[Vector], zero: Vector) -> list[int]:
    """Sum of vectors."""
    total = list(zero)
    for vector in vectors:
        total = list(map(add, total, vector))
    return total


def counts(cell: CellDocument) -> bool:
    """Whether a cell has money: computed and not void."""
    return cell["state"] in COMPUTED_STATES


def price_mode(cell: CellDocument) -> str | None:
    """How the GPU was paid for at the beginning of a cell."""
    price = cell.get("price")
    return None if price is None else price["mode"]


def cell_space(cell: CellDocument) -> list[int]:
    """The space vector of one cell."""
    classes, class_us = cell["classes"], cell["class_us"]
    return [
        cell["cost_nusd"],
        cell["owned_us"],
        *[classes.get(name, 0) for name in CLASSES],
        *[class_us.get(name, 0) for name in CLASSES],
        cell["energy_mj"] or 0,
        cell["energy_observed_us"],
        1,
        int(cell["state"] == CellState.PROVISIONAL),
        int(bool(cell.get("corrections"))),
        cell.get("memory_unknown_us", 0),  # cells of an earlier version had none: such time was unobserved
        *[classes.get(name, 0) if cell.get("default_price") else 0 for name in CLASSES if name != MoneyClass.ATTRIBUTED],
    ]


def cell_lines(cell: CellDocument) -> Iterable[tuple[LineKey, list[int]]]:
    """The line vectors of one cell, without their share of warm idle money (0)."""
    for line in cell["lines"]:
        if "counted" in line:
            yield (line["model"], line["tenant"]), _counted_vector(line)
            continue
        prompt, completion, cost = line["prompt_tokens"], line["completion_tokens"], line["cost_nusd"] or 0
        energy, unknown = line["energy_mj"], line["cost_nusd"] is None
        split = line["method"] == Method.SWEEP
        yield (
            (line["model"], line["tenant"]),
            [
                line["requests"],
                prompt,
                line["cached_tokens"],
                completion,
                line["reasoning_tokens"],
                cost,
                0,
                cost if split else 0,
                (line["prefill_cost_nusd"] or 0) if split else 0,
                prompt if split else 0,
                completion if split else 0,
                energy or 0,
                0 if energy is None else prompt + completion,
                line["busy_us"],
                line["requests"] if unknown else 0,
                prompt + completion if unknown else 0,
                cost if cell.get("default_price") else 0,
                *_NOT_COUNTED,
            ],
        )


def _counted_vector(line: LedgerLine) -> list[int]:
    """Of a line of an engine."""
    vector = list(ZERO_LINE)
    prompt, cached, completion = line["prompt_tokens"], line["cached_tokens"], line["completion_tokens"]
    vector[_PROMPT], vector[_CACHED], vector[_COMPLETION] = prompt, cached, completion
    nusd = line["counted"]["unmetered_nusd"]
    vector[COUNTED], unpriced = nusd or 0, nusd is None
    vector[UNMETERED_PROMPT], vector[UNMETERED_PROMPT + 1], vector[UNMETERED_PROMPT + 2] = prompt, cached, completion
    vector[_UNMEASURED] = prompt + completion if unpriced else 0
    return vector


def share_out_each(amounts: Sequence[int], weights: Sequence[int]) -> list[list[int]]:
    """`split_exactly` of each amount; the result by weight: [weight][amount]."""
    if len(weights) == 1:
        return [list(amounts)]
    if len(amounts) < FEW_AMOUNTS or max(amounts) * max(weights) > MAX_INT64:
        return [list(shares) for shares in zip(*(split_exactly(amount, weights) for amount in amounts), strict=True)]
    whole = np.array(amounts, np.int64)
    products = whole[:, None] * np.array(weights, np.int64)
    total = sum(weights)
    shares = products // total
    rests = products - shares * total
    left = whole - shares.sum(axis=1)
    more = np.zeros_like(shares)
    order = np.argsort(-rests, axis=1, kind="stable")  # stable: ties stay in order
    np.put_along_axis(more, order, np.arange(len(weights)) < left[:, None], axis=1)
    by_weight: list[list[int]] = (shares + more).T.tolist()
    return by_weight


def share_out_quickly(amount: int, weights: Sequence[int]) -> list[int]:
    """`split_exactly` for many weights: the same result from arrays, where their products fit."""
    if len(weights) < FEW_AMOUNTS or amount * max(weights) > MAX_INT64:
        return split_exactly(amount, weights)
    products = np.array(weights, np.int64) * amount
    shares, rests = np.divmod(products, sum(weights))
    left = amount - int(shares.sum())
    if left:
        shares[np.argsort(-rests, kind="stable")[:left]] += 1  # stable: ties stay in order
    parts: list[int] = shares.tolist()
    return parts


class WarmShares:
    """Who a GPU's warm idle money is for, in one UTC hour.

    Each cell's warm idle nano-USD are shared among the models attributed on that GPU in that UTC hour in proportion to
    their attributed nano-USD of the hour (largest remainder, ties by model name), then within a model among its tenants
    likewise. Cell by cell, so that any bucket finer or coarser than the hour adds up to the same figures. Where nothing
    was attributed in the hour, nobody gets it.
    """

    def __init__(self, attributed: Mapping[LineKey, int]) -> None:
        by_model: dict[str, list[tuple[str, int]]] = {}
        for (model, tenant), cost in sorted(attributed.items()):
            if cost > 0:
                by_model.setdefault(model, []).append((tenant, cost))
        self._weights = [sum(cost for _, cost in tenants) for tenants in by_model.values()]
        self._within = [[cost for _, cost in tenants] for tenants in by_model.values()]
        self._keys = [[(model, tenant) for tenant, _ in tenants] for model, tenants in by_model.items()]

    def of_all(self, amounts_nusd: Sequence[int], *, by_tenant: bool = True) -> Iterator[tuple[tuple[str, str | None], int]]:
        """The shares of several cells, each shared by itself, as sums; those of 0 are left out. by_tenant false: by model."""
        if not amounts_nusd or not self._keys:
            return
        if len(self._weights) > MANY_WEIGHTS:
            yield from self._of_each(amounts_nusd, by_tenant=by_tenant)
            return
        for keys, within, parts in zip(self._keys, self._within, share_out_each(amounts_nusd, self._weights), strict=True):
            if not by_tenant:
                shared: Iterable[tuple[tuple[str, str | None], int]] = [((keys[0][0], None), sum(parts))]
            elif len(within) <= MANY_WEIGHTS:
                shared = zip(keys, map(sum, share_out_each(parts, within)), strict=True)
            else:
                shared = zip(keys, _summed(parts, within), strict=True)
            yield from ((key, nusd) for key, nusd in shared if nusd)

    def _of_each(self, amounts_nusd: Sequence[int], *, by_tenant: bool) -> Iterator[tuple[tuple[str, str | None], int]]:
        """The same one cell after the other: with weights x cells in one array, a hundred thousand models took a gigabyte."""
        several = [index for index, keys in enumerate(self._keys) if len(keys) > 1] if by_tenant else []
        sums = [0] * len(self._keys)
        within = {index: [0] * len(self._keys[index]) for index in several}
        for amount in amounts_nusd:
            parts = share_out_quickly(amount, self._weights)
            sums = list(map(add, sums, parts))
            for index in several:
                if parts[index]:
                    within[index] = list(map(add, within[index], share_out_quickly(parts[index], self._within[index])))
        for index, keys in enumerate(self._keys):
            if not by_tenant:
                shared: Iterable[tuple[tuple[str, str | None], int]] = [((keys[0][0], None), sums[index])]
            else:
                shared = zip(keys, within.get(index, [sums[index]]), strict=True)
            yield from ((key, nusd) for key, nusd in shared if nusd)


def _summed(amounts: Sequence[int], weights: Sequence[int]) -> list[int]:
    """The sums by weight of `split_exactly` of each amount."""
    total = [0] * len(weights)
    for amount in amounts:
        if amount:
            total = list(map(add, total, share_out_quickly(amount, weights)))
    return total


def add_warm(lines: dict[Any, list[int]], key: Any, nusd: int) -> None:
    """Add a share of warm idle money to a line; 0 opens none."""
    line = lines.get(key)
    if line is not None:
        line[WARM] += nusd
    elif nusd:
        lines[key] = warm_vector(nusd)


def warm_vector(nusd: int) -> list[int]:
    """A line vector that holds nothing but a share of warm idle money."""
    vector = list(ZERO_LINE)
    vector[WARM] = nusd
    return vector


def parted(vector: Vector) -> tuple[list[int], list[int]]:
    """(what engines counted, what is attributed) of a line, its warm idle money in neither."""
    unmetered = list(ZERO_LINE)
    for column in (COUNTED, UNMETERED_PROMPT, UNMETERED_PROMPT + 1, UNMETERED_PROMPT + 2, _UNMEASURED):
        unmetered[column] = vector[column]
    unmetered[_PROMPT], unmetered[_CACHED], unmetered[_COMPLETION] = vector[UNMETERED_PROMPT : UNMETERED_PROMPT + 3]
    attributed = list(map(sub, vector, unmetered))
    attributed[WARM] = 0
    return unmetered, attributed


def weight_of(vector: Vector) -> int:
    """What a line's share of warm idle money goes by: all money of work on the GPU."""
    return vector[COST] + vector[COUNTED]


def pack_lines(lines: Mapping[LineKey, Vector]) -> dict[str, Any]:
    """Lines as rollups store them: {model: [...], tenant: [...], values: bytes}, sorted by model and tenant.

    values: the vectors one after another, little-endian int64. Rollups are derived from cells, which stay readable; read
    from 720 hours, packed lines cost a fifth of the time of named integers.
    """
    keys = sorted(lines)
    return {
        "model": [key[0] for key in keys],
        "tenant": [key[1] for key in keys],
        "values": _pack([lines[key] for key in keys]),
    }


def pack_models(lines: Mapping[LineKey, Vector]) -> dict[str, Any]:
    """Lines by model alone: {model: [...], values: bytes}."""
    models: dict[str, list[int]] = {}
    for (model, _), vector in lines.items():
        add_into(models, model, vector)
    keys = sorted(models)
    return {"model": keys, "values": _pack([models[key] for key in keys])}


def unpack(packed: Mapping[str, Any]) -> Iterable[tuple[str, str | None, tuple[int, ...]]]:
    """(model, tenant, vector) of packed lines, or of all pieces of them; tenant None where they are by model."""
    if "pieces" in packed:
        return chain.from_iterable(map(unpack, packed["pieces"]))
    models = packed["model"]
    tenants = packed.get("tenant") or [None] * len(models)
    return zip(models, [tenant or None for tenant in tenants], _vectors(packed["values"], len(models)), strict=True)


def _vectors(values: bytes, count: int) -> Iterable[tuple[int, ...]]:
    """The vectors of so many lines. Earlier versions of this program had fewer columns: the others are 0."""
    if len(values) == count * _VECTOR.size:
        return _VECTOR.iter_unpack(values)
    earlier = Struct(f"<{len(values) // 8 // count}q")
    rest = ZERO_LINE[earlier.size // 8 :]
    return ((*vector, *rest) for vector in earlier.iter_unpack(values))


def packed_bytes(packed: Mapping[str, Any]) -> int:
    """About how many bytes packed lines have in a document."""
    names = sum(map(utf8_length, packed["model"])) + sum(map(utf8_length, packed.get("tenant", ())))
    return len(packed["values"]) + names + 24 * len(packed["model"])


def cut(packed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Packed lines in pieces that fit a chunk each: {model, tenant?, values}, `unpack`ed one after another the same lines."""
    models, tenants, values = packed["model"], packed.get("tenant"), packed["values"]

    vector = len(values) // max(1, len(models))  # an earlier version's is shorter

    def size_of(index: int) -> int:
        return vector + utf8_length(models[index]) + (0 if tenants is None else utf8_length(tenants[index])) + 24

    for places in pieces(range(len(models)), size_of):
        low, high = places[0], places[-1] + 1
        piece = {"model": models[low:high], "values": values[low * vector : high * vector]}
        yield piece if tenants is None else piece | {"tenant": tenants[low:high]}


def lines_less(
    whole: Iterable[tuple[str | None, str | None, Vector]], part: Iterable[tuple[str | None, str | None, Vector]]
) -> list[tuple[str | None, str | None, Vector]]:
    """Lines of a whole less those of a part of it."""
    taken = {(model, tenant): vector for model, tenant, vector in part}
    return [(model, tenant, list(map(sub, vector, taken.get((model, tenant), ZERO_LINE)))) for model, tenant, vector in whole]


def _pack(vectors: Sequence[Vector]) -> bytes:
    packed = bytearray(_VECTOR.size * len(vectors))
    for index, vector in enumerate(vectors):
        _VECTOR.pack_into(packed, index * _VECTOR.size, *vector)
    return bytes(packed)


def space_document(space: Vector) -> dict[str, int]:
    """A space vector with its names."""
    return dict(zip(SPACE_COLUMNS, space, strict=True))


def read_space(document: Mapping[str, int]) -> list[int]:
    """The vector of `space_document`."""
    return [document.get(name, 0) for name in SPACE_COLUMNS]  # an earlier version's has fewer


def total_document(lines: Iterable[Vector]) -> dict[str, int]:
    """The sum of all lines with its names."""
    return dict(zip(LINE_COLUMNS, added(lines, ZERO_LINE), strict=True))


def read_total(document: Mapping[str, int]) -> list[int]:
    """The vector of `total_document`."""
    return [document.get(name, 0) for name in LINE_COLUMNS]
