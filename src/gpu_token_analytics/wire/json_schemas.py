"""JSON Schema of each contract, generated from its struct; a test keeps the files in docs/ and the
package equal to it."""

from __future__ import annotations

import re
from functools import cache
from inspect import cleandoc
from typing import Any

import msgspec

from gpu_token_analytics.wire.events import KINDS
from gpu_token_analytics.wire.kind import Kind
from gpu_token_analytics.wire.strict_json import MAX_KEYS, MAX_STRING
from gpu_token_analytics.wire.values import TIMESTAMP_PATTERN


def prose(docstring: str) -> str:
    """A docstring as a published description: a line each paragraph, wherever its source wraps."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", cleandoc(docstring))


@cache
def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each contract, by schema tag; generated, never written by hand."""
    return {kind.tag: _schema(kind) for kind in KINDS}


def _schema(kind: Kind[Any]) -> dict[str, Any]:
    definition = dict(msgspec.json.schema(kind.struct)["$defs"][kind.struct.__name__])
    definition["description"] = prose(kind.struct.__doc__ or "")
    definition["maxProperties"] = MAX_KEYS
    optional = definition["properties"].keys() - set(definition["required"])
    for name, field in definition["properties"].items():
        definition["properties"][name] = _as_read(field, nullable=name in optional)
    definition["properties"]["ts"] |= {
        "format": "date-time",
        "pattern": TIMESTAMP_PATTERN,
        "maxLength": MAX_STRING,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:gpu-token-analytics:{kind.tag}",
        **definition,
    }


def _as_read(field: dict[str, Any], *, nullable: bool) -> dict[str, Any]:
    """A field's schema with what decode() does beyond the type: null is unknown, and no text has a
    NUL in it."""
    if field.get("type") == "array":
        field = field | {"items": _as_read(field["items"], nullable=False)}
    if field.get("type") == "string" and "format" not in field:
        field = field | {"not": {"pattern": "\\u0000"}}
    if "anyOf" in field:
        return field | {"anyOf": [_as_read(one, nullable=False) for one in field["anyOf"]]}
    if not nullable:
        return field
    rest = {name: value for name, value in field.items() if name != "default"}
    return {"anyOf": [rest, {"type": "null"}], "default": field.get("default")}
