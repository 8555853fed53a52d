"""A ledger cell as a record of the topic: `ledger.cell.v1`.

The key of part 0 is the cell's id, that of part n `<cell>#<n>`. Of each key the record of the
highest `revision` counts. A cell is its part 0 and the parts 1 to `parts` - 1 of the same revision;
parts of an older one belong to nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.mongo.pieces import pieces
from gpu_token_analytics.wire.json_schemas import prose

TAG = "ledger.cell.v1"
_LINE_BYTES = 400  # of a line as JSON, without its names
_ESCAPED_BYTES = 6  # of one character as JSON, at most: \u0000

Nusd: TypeAlias = Annotated[int, Meta(description="Nano-USD: 1,000,000,000 is one dollar.")]
Microseconds: TypeAlias = Annotated[int, Meta(ge=0)]
Whole: TypeAlias = Annotated[int, Meta(ge=0)]


class Price(Struct, frozen=True, gc=False):
    """The price at the start of the minute."""

    row: Annotated[str, Meta(description="Row of the price book, or `sample`.")]
    nusd_per_hour: Nusd
    mode: Annotated[str, Meta(description="on_demand, reserved, spot or owned.")]


class Counted(Struct, frozen=True, gc=False):
    """What an engine counted on the GPU in the minute; the tokens of the line itself are those that
    no request explains."""

    instance: str
    engine: str
    prompt_tokens: Whole
    completion_tokens: Whole
    more_prompt_tokens: Annotated[
        Whole, Meta(description="Requests tell of so many more than the engine counted.")
    ]
    more_completion_tokens: Whole
    unmetered_nusd: Annotated[
        int | None,
        Meta(
            description="Nano-USD of the class unmetered_work; null where utilisation is not known."
        ),
    ]


class Line(Struct, frozen=True, gc=False):
    """The attributed part of the cell of one model, tenant and method; with `counted` tokens of no
    request."""

    model: str
    tenant: Annotated[str, Meta(description="Empty: of no request, so of nobody.")]
    method: Annotated[
        str,
        Meta(
            description=(
                "How the money was found: sweep, sweep_no_ttft, window, counter or unknown_gpu."
            )
        ),
    ]
    requests: Annotated[
        Whole, Meta(description="Requests that ended in the minute, each counted on its first GPU.")
    ]
    prompt_tokens: Whole
    cached_tokens: Annotated[Whole, Meta(description="Part of prompt_tokens.")]
    completion_tokens: Whole
    reasoning_tokens: Annotated[Whole, Meta(description="Part of completion_tokens.")]
    cost_nusd: Annotated[
        int | None,
        Meta(description="Nano-USD; null: nobody knows the GPU, so nobody knows the money."),
    ]
    prefill_cost_nusd: Annotated[int | None, Meta(description="Part of cost_nusd.")]
    energy_mj: Annotated[int | None, Meta(description="Millijoules; null: not known.")]
    busy_us: Annotated[
        Microseconds, Meta(description="Request-microseconds on this GPU within the minute.")
    ]
    counted: Counted | None = None


class LedgerCell(Struct, tag_field="schema", tag=TAG, frozen=True, gc=False, kw_only=True):
    """One part of one revision of a ledger cell: one GPU, one UTC minute. Money is integer
    nano-USD, unknown is null.

    The classes sum to cost_nusd, and cost_nusd of the lines of all parts sums to the class
    `attributed`. All fields but `part` and `lines` are the same in every part.
    """

    cell: Annotated[str, Meta(description="The cell's id, `<gpu>|<minute>`.")]
    revision: Annotated[
        int, Meta(ge=1, description="Grows with every change of the cell. The highest counts.")
    ]
    part: Annotated[Whole, Meta(description="Number of this part, from 0.")]
    parts: Annotated[int, Meta(ge=1, description="Parts of this revision.")]
    gpu: str
    minute: Annotated[datetime, Meta(tz=True, description="Start of the minute, UTC.")]
    host: str | None
    gpu_name: str | None
    cost_nusd: Nusd
    owned_us: Annotated[
        Microseconds, Meta(description="Microseconds of the minute that somebody pays for.")
    ]
    classes: Annotated[
        dict[str, Nusd], Meta(description=f"Money by class: {', '.join(MoneyClass)}.")
    ]
    class_us: Annotated[
        dict[str, Microseconds], Meta(description="Time by class; sums to owned_us.")
    ]
    memory_unknown_us: Annotated[
        Microseconds,
        Meta(description="Of the idle time, what was classed without a memory reading."),
    ]
    energy_mj: Annotated[int | None, Meta(description="Millijoules; null: not known.")]
    energy_observed_us: Annotated[
        Microseconds, Meta(description="The part of owned_us that energy_mj covers.")
    ]
    price: Annotated[Price | None, Meta(description="null: nobody knows the GPU.")]
    default_price: Annotated[bool, Meta(description="Nobody priced the GPU.")]
    samples: Whole
    requests_active: Whole
    params: Annotated[str, Meta(description="Version of the ledger parameters.")]
    computed_at: Annotated[datetime, Meta(tz=True)]
    final_at: Annotated[
        datetime, Meta(tz=True, description="From then on a change of the cell is a correction.")
    ]
    corrections: Annotated[
        Whole, Meta(description="Changes after it was final, this one included.")
    ]
    lines: list[Line]


_encode = msgspec.json.Encoder(enc_hook=int).encode  # BSON has its own type of large integers


def records_of(cell: CellDocument) -> Iterator[tuple[str, bytes]]:
    """Key and value of each part of a computed cell with all its lines. A value is at most some 1.2
    MB."""
    lines = [msgspec.convert(line, Line) for line in cell["lines"]]
    parts = list(pieces(lines, _line_bytes)) or [[]]
    head = _head(cell)
    for part, of_part in enumerate(parts):
        key = cell["_id"] if part == 0 else f"{cell['_id']}#{part}"
        yield key, _encode(LedgerCell(**head, part=part, parts=len(parts), lines=of_part))


def json_schema() -> dict[str, Any]:
    """The contract as JSON Schema (2020-12)."""
    definitions = msgspec.json.schema(LedgerCell)["$defs"]
    record = definitions.pop(LedgerCell.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:gpu-token-analytics:{TAG}",
        **record,
        "description": prose(LedgerCell.__doc__ or ""),
        "$defs": definitions,
    }


def _head(cell: CellDocument) -> dict[str, Any]:
    price = cell["price"]
    return {
        "cell": cell["_id"],
        "revision": cell["revision"],
        "gpu": cell["gpu"],
        "minute": cell["minute"],
        "host": cell["host"],
        "gpu_name": cell["gpu_name"],
        "cost_nusd": cell["cost_nusd"],
        "owned_us": cell["owned_us"],
        "classes": cell["classes"],
        "class_us": cell["class_us"],
        "memory_unknown_us": cell["memory_unknown_us"],
        "energy_mj": cell["energy_mj"],
        "energy_observed_us": cell["energy_observed_us"],
        "price": None
        if price is None
        else Price(price["row"], price["nusd_per_hour"], price["mode"]),
        "default_price": cell["default_price"],
        "samples": cell["samples"],
        "requests_active": cell["requests_active"],
        "params": cell["params"],
        "computed_at": cell["computed_at"],
        "final_at": cell["final_at"],
        "corrections": sum(one.get("corrections", 1) for one in cell.get("corrections", ())),
    }


def _line_bytes(line: Line) -> int:
    return _LINE_BYTES + _ESCAPED_BYTES * (len(line.model) + len(line.tenant))
