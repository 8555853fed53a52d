"""A cell as records: every line once, in parts that the topic takes, and the fields that the
ledger's lines have."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import msgspec
from bson.int64 import Int64

from gpu_token_analytics.kafka.topics import TOPIC_MAX_MESSAGE_BYTES
from gpu_token_analytics.ledger.document import CellDocument, CellPrice, CountedTokens, LedgerLine
from gpu_token_analytics.warehouse.record import Counted, LedgerCell, Line, Price, records_of

MINUTE = datetime(2026, 1, 31, 12, tzinfo=UTC)


def line(number: int, name: str = "m") -> dict[str, Any]:
    counts = dict.fromkeys(
        ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"),
        number,
    )
    money = {"cost_nusd": Int64(number), "prefill_cost_nusd": None, "energy_mj": None, "busy_us": 1}
    return {"model": name, "tenant": f"t{number}", "method": "sweep", **counts, **money}


def cell(lines: list[dict[str, Any]]) -> CellDocument:
    fields: dict[str, Any] = {
        "_id": "GPU-a|2026-01-31T12:00Z",
        "revision": 7,
        "gpu": "GPU-a",
        "minute": MINUTE,
        "host": None,
        "gpu_name": "H100",
        "cost_nusd": Int64(5),
        "owned_us": 60_000_000,
        "classes": {"attributed": Int64(5)},
        "class_us": {"attributed": 60_000_000},
        "memory_unknown_us": 0,
        "energy_mj": None,
        "energy_observed_us": 0,
        "price": {"row": "r", "nusd_per_hour": Int64(850_000_000), "mode": "spot"},
        "default_price": False,
        "samples": 12,
        "requests_active": 3,
        "params": "p",
        "computed_at": MINUTE,
        "final_at": MINUTE,
        "corrections": [{"corrections": 3}, {}],
        "lines": lines,
    }
    return cast("CellDocument", fields)


def decoded(lines: list[dict[str, Any]]) -> list[tuple[str, LedgerCell]]:
    return [
        (key, msgspec.json.decode(value, type=LedgerCell)) for key, value in records_of(cell(lines))
    ]


def test_few_lines_are_one_record() -> None:
    ((key, record),) = decoded([line(1), line(2)])
    assert key == record.cell == "GPU-a|2026-01-31T12:00Z"
    assert (record.revision, record.part, record.parts, record.corrections) == (7, 0, 1, 4)
    assert [one.cost_nusd for one in record.lines] == [1, 2]
    assert decoded([])[0][1].lines == []


def test_many_lines_and_the_longest_names_come_in_parts_that_the_topic_takes() -> None:
    lines = [line(number, "\x01" * 256) for number in range(20_000)]
    records = decoded(lines)
    assert len(records) > 10
    assert {record.parts for _, record in records} == {len(records)}
    assert [key for key, _ in records] == [
        records[0][0],
        *(f"{records[0][0]}#{part}" for part in range(1, len(records))),
    ]
    assert sum(one.cost_nusd or 0 for _, record in records for one in record.lines) == sum(
        range(20_000)
    )
    assert (
        max(len(value) for _, value in records_of(cell(lines))) < TOPIC_MAX_MESSAGE_BYTES * 3 // 4
    )


def test_a_record_has_the_fields_of_lines_and_prices() -> None:
    assert set(Line.__struct_fields__) == {
        *LedgerLine.__required_keys__,
        *LedgerLine.__optional_keys__,
    }
    assert set(Counted.__struct_fields__) == CountedTokens.__required_keys__
    assert set(Price.__struct_fields__) == CellPrice.__required_keys__
