"""OpenAPI describes the structs that are answered: same names, types, limits, words; nothing is
declared twice."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
import pytest
from msgspec.structs import fields

from gpu_token_analytics.api.routes import ROUTES
from gpu_token_analytics.api.schema import model_of
from gpu_token_analytics.costs.answers.base import Answer, Count, LocalTime, NanoUsd, Next, field

STRUCTS = sorted(
    {route.struct for route in ROUTES if route.struct is not None},
    key=lambda struct: struct.__name__,
)


class Inner(Answer):
    """A part."""

    share: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Outer(Answer):
    """A whole."""

    from_: datetime = field(name="from")
    at: LocalTime | None
    money: Annotated[NanoUsd | None, msgspec.Meta(description="Null: unknown.")]
    parts: dict[str, list[Inner]]
    count: Count
    next: Next


def test_a_struct_is_described_as_it_is() -> None:
    schema = model_of(Outer).model_json_schema(mode="serialization")
    assert schema["description"] == "A whole."
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["from", "at", "money", "parts", "count"], (
        "a reader may leave `next` out of his mind"
    )
    properties = schema["properties"]
    assert properties["from"] == {"format": "date-time", "title": "From", "type": "string"}
    assert properties["at"]["anyOf"][0] == {"format": "date-time", "type": "string"}
    assert properties["money"]["description"] == "Null: unknown."
    assert properties["money"]["anyOf"][0]["description"].startswith("Nano-USD")
    assert properties["parts"]["additionalProperties"] == {
        "items": {"$ref": "#/$defs/Inner"},
        "type": "array",
    }
    assert properties["count"] == {"minimum": 0, "title": "Count", "type": "integer"}
    assert schema["$defs"]["Inner"]["properties"]["share"] == {
        "maximum": 1,
        "minimum": 0,
        "title": "Share",
        "type": "number",
    }


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_answer_has_its_description(struct: type[msgspec.Struct]) -> None:
    model: Any = model_of(struct)
    assert list(model.model_fields) == [field.encode_name for field in fields(struct)]
    assert model.__doc__ == struct.__doc__
