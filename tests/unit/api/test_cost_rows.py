"""Rows of /v1/costs are made as structs and described as models: both say the same."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import fields

from gpu_token_analytics.api import cost_rows
from gpu_token_analytics.api.models import costs as models


@pytest.mark.parametrize("name", ["Money", "Tokens", "Rates", "Quality", "CostRow"])
def test_structs_have_the_fields_of_the_described_models(name: str) -> None:
    struct: type[Struct] = getattr(cost_rows, name)
    model: type[Any] = getattr(models, name)
    assert [field.name for field in fields(struct)] == list(model.model_fields)
