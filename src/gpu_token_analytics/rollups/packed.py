"""Lines as rollups store them: names, and the vectors as bytes; in pieces where they are many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from struct import Struct
from typing import Any

from gpu_token_analytics.mongo.pieces import pieces, utf8_length
from gpu_token_analytics.rollups.vectors import LINE_COLUMNS, ZERO_LINE, LineKey, Vector, add_into

_VECTOR = Struct(f"<{len(LINE_COLUMNS)}q")


def pack_lines(lines: Mapping[LineKey, Vector]) -> dict[str, Any]:
    """Lines as rollups store them: {model: [...], tenant: [...], values: bytes}, sorted by model
    and tenant.

    values: the vectors one after another, little-endian int64. Rollups are derived from cells,
    which stay readable; read from 720 hours, packed lines cost a fifth of the time of named
    integers.
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
    """(model, tenant, vector) of packed lines, or of all pieces of them; tenant None where they are
    by model."""
    if "pieces" in packed:
        return chain.from_iterable(map(unpack, packed["pieces"]))
    models = packed["model"]
    tenants = packed.get("tenant") or [None] * len(models)
    return zip(
        models,
        [tenant or None for tenant in tenants],
        _vectors(packed["values"], len(models)),
        strict=True,
    )


def _vectors(values: bytes, count: int) -> Iterable[tuple[int, ...]]:
    """The vectors of so many lines. Earlier versions of this program had fewer columns: the others
    are 0."""
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
    """Packed lines in pieces that fit a chunk each: {model, tenant?, values}, `unpack`ed one after
    another the same lines."""
    models, tenants, values = packed["model"], packed.get("tenant"), packed["values"]

    vector = len(values) // max(1, len(models))  # an earlier version's is shorter

    def size_of(index: int) -> int:
        return (
            vector
            + utf8_length(models[index])
            + (0 if tenants is None else utf8_length(tenants[index]))
            + 24
        )

    for places in pieces(range(len(models)), size_of):
        low, high = places[0], places[-1] + 1
        piece = {"model": models[low:high], "values": values[low * vector : high * vector]}
        yield piece if tenants is None else piece | {"tenant": tenants[low:high]}


def _pack(vectors: Sequence[Vector]) -> bytes:
    packed = bytearray(_VECTOR.size * len(vectors))
    for index, vector in enumerate(vectors):
        _VECTOR.pack_into(packed, index * _VECTOR.size, *vector)
    return bytes(packed)
