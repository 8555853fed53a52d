"""From sums to what /v1 answers: money by class, tokens, ratios, quality. Plain dicts in the shape of models/costs.py.

Dicts, because a page may have 10,000 rows: building and checking as many models would take longer than reading them.
Tests validate them against the models instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi.responses import Response

from gpu_token_analytics.store.cost_reads import FLAG_COLUMNS, ROW_COLUMNS, CostQuery, Row

Json = dict[str, Any]
US_PER_SECOND = 1_000_000
# nano-USD per token x 1e6 tokens / 1e9 nano-USD
USD_PER_MILLION = 1e-3
_encoder = msgspec.json.Encoder(enc_hook=int)  # the driver's 64-bit integers are a subclass of int


def json_response(body: Any, status: int = 200) -> Response:
    """`body` as JSON, fast."""
    return Response(_encoder.encode(body), status, media_type="application/json")


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC, with `Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def ratio(numerator: float, denominator: float) -> float | None:
    """Null instead of a division by zero."""
    return numerator / denominator if denominator else None


def usd_per_million(nusd: int, tokens: int) -> float | None:
    """USD per million tokens."""
    return nusd / tokens * USD_PER_MILLION if tokens else None


def money(row: Row) -> Json:
    """The money columns of a row."""
    return {
        "attributed_nusd": row["cost_nusd"],
        "unmetered_work_nusd": row["unmetered_work_nusd"],
        "warm_idle_nusd": row["warm_idle_nusd"],
        "cold_idle_nusd": row["cold_idle_nusd"],
        "unobserved_nusd": row["unobserved_nusd"],
        "total_nusd": row.money_nusd,
    }


def tokens(row: Row) -> Json:
    """The token counts of a row."""
    prompt, completion = row["prompt_tokens"], row["completion_tokens"]
    return {
        "prompt": prompt,
        "cached": row["cached_tokens"],
        "completion": completion,
        "reasoning": row["reasoning_tokens"],
        "total": prompt + completion,
    }


def rates(row: Row, now: datetime, *, loaded: bool) -> Json:
    """The ratios of a row: sums over sums, null without divisor."""
    count = row["prompt_tokens"] + row["completion_tokens"]
    elapsed_seconds = (min(row.end, now) - row.start).total_seconds()
    decode_nusd = row["split_cost_nusd"] - row["split_prefill_nusd"]
    return {
        "active_usd_per_million": usd_per_million(row["cost_nusd"], count),
        "loaded_usd_per_million": usd_per_million(row["cost_nusd"] + row["warm_idle_nusd"], count) if loaded else None,
        "input_usd_per_million": usd_per_million(row["split_prefill_nusd"], row["split_prompt_tokens"]),
        "output_usd_per_million": usd_per_million(decode_nusd, row["split_completion_tokens"]),
        "tokens_per_second": count / elapsed_seconds if elapsed_seconds > 0 else None,
        "joules_per_token": ratio(row["energy_mj"] / 1000, row["energy_tokens"]),
    }


def quality(row: Row, low_volume_tokens: int) -> Json:
    """How far to trust a row."""
    gpu_us, total = row["gpu_us"], row.money_nusd
    return {
        "provisional": row["provisional_cells"] > 0,
        "corrected_cells": row["corrected_cells"],
        "low_volume": row["prompt_tokens"] + row["completion_tokens"] < low_volume_tokens,
        "unobserved_share": ratio(row["unobserved_nusd"], total) if gpu_us else None,
        "coverage": 1 - row["unobserved_us"] / gpu_us if gpu_us else None,
    }


def cost_row(row: Row, query: CostQuery, now: datetime, low_volume_tokens: int) -> Json:
    """One row of /v1/costs."""
    return {
        "bucket": None if row.bucket is None else row.bucket.isoformat(),
        "group": dict(zip(query.group_by, row.key, strict=True)),
        "money": money(row),
        "tokens": tokens(row),
        "requests": row["requests"],
        "gpu_seconds": row["gpu_us"] / US_PER_SECOND,
        "rates": rates(row, now, loaded=query.tenant_lock is None),
        "quality": quality(row, low_volume_tokens),
    }


def total_row(query: CostQuery, rows: Iterable[Row]) -> Row:
    """All rows as one. Flags are those of the buckets, each once."""
    values = [0] * len(ROW_COLUMNS)
    first_flag = len(ROW_COLUMNS) - len(FLAG_COLUMNS)
    last_start: datetime | None = None
    for row in rows:
        upto = len(ROW_COLUMNS) if row.start != last_start else first_flag
        for index in range(upto):
            values[index] += row.values[index]
        last_start = row.start
    return Row(None, query.start, query.end, (), values)
