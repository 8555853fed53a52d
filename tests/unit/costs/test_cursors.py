"""Where a page ends, in a text that the next question may bring: also after names as long, and as
odd, as names may be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from gpu_token_analytics.api.params import CostsAsked
from gpu_token_analytics.costs.choices import Dimension
from gpu_token_analytics.costs.cursors import RowPosition, encode_cursor, read_row_position
from gpu_token_analytics.costs.query import sort_key
from gpu_token_analytics.costs.questions import cost_query

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "character", ["m", "é", "模", "😀", "\U0010ffff", "\x01", '"', "\\", "\x7f", "\u2028"]
)
@pytest.mark.parametrize("names", [1, 6])
def test_a_page_goes_on_after_any_names(character: str, names: int) -> None:
    key = [character * 256] * names
    groups = [dimension.value for dimension in Dimension][-names:]
    cursor = encode_cursor(",".join(("NONE", *groups)), "2026-01-01T00:00:00Z", key, 2**64 - 1)
    asked = CostsAsked.model_validate(
        {
            "from": "2026-01-01T00:00:00Z",
            "to": "2026-01-02T00:00:00Z",
            "group_by": groups,
            "cursor": cursor,
        }
    )
    query = cost_query(START, START + timedelta(days=1), group_by=groups)
    position = RowPosition(START, sort_key(tuple(key)), 2**64 - 1)
    assert read_row_position(asked.cursor or "", query) == position
