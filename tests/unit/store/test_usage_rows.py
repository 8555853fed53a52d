"""Rows out of raw batches say what the documents say."""

from __future__ import annotations

from typing import Any

import bson
import pytest

from gpu_token_analytics.ledger.requests import UsageRow
from gpu_token_analytics.store.usage_rows import usage_rows


def usage(number: int) -> dict[str, Any]:
    found = {
        "_id": f"u{number}",
        "ts_us": 1_000_000 * number,
        "start_us": 900_000 * number,
        "host": "h\u00e9",
        "gpus": ["GPU-a", "GPU-b"][: 1 + number % 2],
        "model": "m",
        "tenant": "t",
        "prompt_tokens": 2**31 + number,
        "completion_tokens": number,
        "cached_tokens": 1,
        "reasoning_tokens": 2,
    }
    return found if number % 3 else {**found, "first_us": 950_000 * number}


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (15, 16, 17), (100,)])
def test_rows_say_what_the_documents_say(sizes: tuple[int, ...]) -> None:
    batches = [[usage(number) for number in range(size)] for size in sizes]
    rows = usage_rows(b"".join(map(bson.encode, batch)) for batch in batches)
    assert rows == [UsageRow.of(document) for batch in batches for document in batch]
    assert all(row.first_us == (950_000 * row.completion_tokens if row.completion_tokens % 3 == 0 else -1) for row in rows)
