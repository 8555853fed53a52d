"""What one cell adds to the sums: its two vectors (vectors.py)."""

from __future__ import annotations

from collections.abc import Iterable

from gpu_token_analytics.documents import CellState, Method, MoneyClass
from gpu_token_analytics.ledger.document import COMPUTED_STATES, CellDocument, LedgerLine
from gpu_token_analytics.rollups.vectors import (
    CACHED,
    CLASSES,
    COMPLETION,
    COUNTED,
    LINE_COLUMNS,
    PROMPT,
    UNMEASURED,
    UNMETERED_PROMPT,
    ZERO_LINE,
    LineKey,
)

_NOT_COUNTED = (0,) * (len(LINE_COLUMNS) - COUNTED)


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
        # cells of an earlier version had none: such time was unobserved
        cell.get("memory_unknown_us", 0),
        *[
            classes.get(name, 0) if cell.get("default_price") else 0
            for name in CLASSES
            if name != MoneyClass.ATTRIBUTED
        ],
    ]


def cell_lines(cell: CellDocument) -> Iterable[tuple[LineKey, list[int]]]:
    """The line vectors of one cell, without their share of warm idle money (0)."""
    for line in cell["lines"]:
        if "counted" in line:
            yield (line["model"], line["tenant"]), _counted_vector(line)
            continue
        prompt, completion, cost = (
            line["prompt_tokens"],
            line["completion_tokens"],
            line["cost_nusd"] or 0,
        )
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
    prompt, cached, completion = (
        line["prompt_tokens"],
        line["cached_tokens"],
        line["completion_tokens"],
    )
    vector[PROMPT], vector[CACHED], vector[COMPLETION] = prompt, cached, completion
    nusd = line["counted"]["unmetered_nusd"]
    vector[COUNTED], unpriced = nusd or 0, nusd is None
    vector[UNMETERED_PROMPT], vector[UNMETERED_PROMPT + 1], vector[UNMETERED_PROMPT + 2] = (
        prompt,
        cached,
        completion,
    )
    vector[UNMEASURED] = prompt + completion if unpriced else 0
    return vector
