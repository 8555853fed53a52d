"""The columns of sums, and vectors of them: the one arithmetic behind rollups, /v1/costs, exports
and reports. Exact integers.

A sum has two parts. `space` is about GPU time (money by class, owned time, energy, cells); `lines`
is about usage, by (model, tenant). Both are plain vectors of integers, so adding sums is adding
vectors, in any order and any grouping.

    unknown_gpu_* is the part of a line that ran on GPUs nobody told of: its money is unknown, and 0
    stands in the vector default_* is the money of cells in which the default price held, if only
    for a part of them
    energy is unknown where the observed time (tokens with known energy) is 0; 0 stands in the
    vector then split_* is the part of a line whose method knows the first token: input and output
    rates come from it alone warm_idle_nusd of a line is its share of the warm idle money, see
    warm.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import add, sub
from typing import Any, TypeAlias

from gpu_token_analytics.documents import COUNTS, MoneyClass

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
    # Of no request, an engine counted them (ledger/counted.py): a part of the tokens above, and of
    # the money of unmetered work.
    "counted_nusd",
    "unmetered_prompt_tokens",
    "unmetered_cached_tokens",
    "unmetered_completion_tokens",
    # of these the ones whose money is not known: on GPUs without utilisation, or that nobody told
    # of
    "unmeasured_tokens",
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
    # of attributed money the lines know
    *(f"default_{name}_nusd" for name in CLASSES if name != MoneyClass.ATTRIBUTED),
)
COST = LINE_COLUMNS.index("cost_nusd")
WARM = LINE_COLUMNS.index("warm_idle_nusd")
SPACE_COST = SPACE_COLUMNS.index("cost_nusd")
SPACE_WARM = SPACE_COLUMNS.index("warm_idle_nusd")
ZERO_LINE = (0,) * len(LINE_COLUMNS)
COUNTED, UNMETERED_PROMPT = (
    LINE_COLUMNS.index(name) for name in ("counted_nusd", "unmetered_prompt_tokens")
)
PROMPT, CACHED, COMPLETION = (
    LINE_COLUMNS.index(f"{name}_tokens") for name in ("prompt", "cached", "completion")
)
UNMEASURED = LINE_COLUMNS.index("unmeasured_tokens")
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
    for column in (
        COUNTED,
        UNMETERED_PROMPT,
        UNMETERED_PROMPT + 1,
        UNMETERED_PROMPT + 2,
        UNMEASURED,
    ):
        unmetered[column] = vector[column]
    unmetered[PROMPT], unmetered[CACHED], unmetered[COMPLETION] = vector[
        UNMETERED_PROMPT : UNMETERED_PROMPT + 3
    ]
    attributed = list(map(sub, vector, unmetered))
    attributed[WARM] = 0
    return unmetered, attributed


def weight_of(vector: Vector) -> int:
    """What a line's share of warm idle money goes by: all money of work on the GPU."""
    return vector[COST] + vector[COUNTED]


def lines_less(
    whole: Iterable[tuple[str | None, str | None, Vector]],
    part: Iterable[tuple[str | None, str | None, Vector]],
) -> list[tuple[str | None, str | None, Vector]]:
    """Lines of a whole less those of a part of it."""
    taken = {(model, tenant): vector for model, tenant, vector in part}
    return [
        (model, tenant, list(map(sub, vector, taken.get((model, tenant), ZERO_LINE))))
        for model, tenant, vector in whole
    ]


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
