"""/v1/ledger/cells, /v1/ledger/corrections, /v1/audit, /v1/quality."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from fastapi.responses import Response

from gpu_token_analytics.api import params as p
from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.models.problem import Nearest
from gpu_token_analytics.api.queries import check_cost, check_range, cost_query, cursor_time, decode_cursor, encode_cursor
from gpu_token_analytics.api.render import json_response, timestamp, total_row, unknown_gpu
from gpu_token_analytics.api.services import AskDep, Services
from gpu_token_analytics.books.unknown_names import unknown_names
from gpu_token_analytics.costs.lookups import CellFilter
from gpu_token_analytics.costs.read import CostQuery, Row
from gpu_token_analytics.costs.rows import ratio
from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.errors import KafkaError
from gpu_token_analytics.rollups.spans import HOUR, floor

_log = logging.getLogger(__name__)
Json = dict[str, Any]

SHOWN_UNKNOWN = 20
MAX_AUDIT_CELLS = 500_000
LATE_AFTER = timedelta(minutes=10)
MAX_LATE_RANGE = timedelta(days=2)
_CELL_FIELDS = ("host", "gpu_name", "energy_mj", "params")
_LINE_FIELDS = (
    "model",
    "tenant",
    "method",
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost_nusd",
    "prefill_cost_nusd",
    "energy_mj",
    "busy_us",
)
CHECKED = [
    "In every computed cell the five classes sum to C.",
    "In every computed cell the class times sum to the owned time.",
    "In every computed cell the lines sum to `attributed`.",
    "The rollups of whole hours hold the same money as their cells (when nothing waits to be rolled).",
]


def cells(
    ask: AskDep,
    start: p.From,
    to: p.To,
    gpu: p.Gpus = [],  # noqa: B006  FastAPI copies defaults
    limit: p.CellLimit = 200,
    cursor: p.Cursor = None,
) -> Response:
    """Cells as stored, by minute then GPU: every figure of /v1 is a sum of these."""
    return _cell_page(ask.services, start, to, frozenset(gpu), limit, cursor, corrected=False)


def corrections(
    ask: AskDep,
    start: p.From,
    to: p.To,
    gpu: p.Gpus = [],  # noqa: B006
    limit: p.CellLimit = 200,
    cursor: p.Cursor = None,
) -> Response:
    """Cells that were changed after they were final, with what moved between the classes."""
    return _cell_page(ask.services, start, to, frozenset(gpu), limit, cursor, corrected=True)


def _cell_page(
    services: Services,
    start: datetime,
    to: datetime,
    gpus: frozenset[str],
    limit: int,
    cursor: str | None,
    *,
    corrected: bool,
) -> Response:
    low, high = check_range(start, to)
    after = None
    if cursor is not None:
        minute, gpu = decode_cursor(cursor, (str, str))
        after = (max(low, cursor_time(minute)), gpu)
    found, more = services.reads.cells(CellFilter(low, high, gpus, corrected), after, limit)
    following = encode_cursor(timestamp(found[-1]["minute"]), found[-1]["gpu"]) if more else None
    body = {"from": timestamp(low), "to": timestamp(high), "cells": [cell(one) for one in found], "next": following}
    return json_response(body)


def cell(document: Json) -> Json:
    """A stored cell as /v1 shows it; one that is not computed yet has zeros and the state `pending`."""
    computed_at = document.get("computed_at")
    lines = document.get("lines", ())
    return {
        "cell": document["_id"],
        "gpu": document["gpu"],
        "minute": timestamp(document["minute"]),
        "state": document["state"],
        "cost_nusd": document.get("cost_nusd", 0),
        "owned_us": document.get("owned_us", 0),
        "classes": document.get("classes") or dict.fromkeys(map(str, MoneyClass), 0),
        "class_us": document.get("class_us") or dict.fromkeys(map(str, MoneyClass), 0),
        "memory_unknown_us": document.get("memory_unknown_us", 0),
        "energy_observed_us": document.get("energy_observed_us", 0),
        **{name: document.get(name) for name in _CELL_FIELDS},
        "lines": [{name: line[name] for name in _LINE_FIELDS} for line in lines],
        "lines_left_out": document["line_ref"]["lines"] - len(lines) if "line_ref" in document else 0,
        "price": document.get("price") or {},
        "samples": document.get("samples", 0),
        "requests_active": document.get("requests_active", 0),
        "revision": document.get("revision", 0),
        "due": "due_at" in document,
        "computed_at": None if computed_at is None else timestamp(computed_at),
        "corrections": [_plain(one) for one in document.get("corrections", ())],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def audit(ask: AskDep, start: p.From, to: p.To) -> Response:
    """The identity, checked now in every stored cell of the range and in total, and against the hourly sums.

    `gpu-tokens audit` also computes every cell again from raw events.
    """
    low, high = check_range(start, to)
    services = ask.services
    count = services.reads.cell_count(low, high)
    if count > MAX_AUDIT_CELLS:
        shorter = high - floor_hours((high - low) * (MAX_AUDIT_CELLS / count))
        nearest = Nearest.model_validate({"from": timestamp(shorter), "to": timestamp(high), "bucket": "none"})
        raise ApiProblem(
            "range_too_long", f"{count:,} cells; at most {MAX_AUDIT_CELLS:,} are audited in one request", nearest=nearest
        )
    total, broken = services.reads.identity(low, high)
    findings = [_finding(one) for one in broken]
    not_rolled = services.costs.not_rolled(low, high)
    rolled: int | None = None
    if low == floor(low, HOUR) and high == floor(high, HOUR):
        rolled = services.costs.total(CostQuery(low, high), services.now()).money_nusd
        if not not_rolled and rolled != total["cost_nusd"]:
            detail = f"rollups hold {rolled}, cells {total['cost_nusd']}"
            findings.append({"cell": "total", "rule": "rollups_equal_cells", "detail": detail})
    body = {
        "from": timestamp(low),
        "to": timestamp(high),
        "next": None,
        "as_of": timestamp(services.now()),
        "holds": not findings,
        "cells": total["cells"],
        "cells_pending": services.reads.pending_count(low, high),
        "cells_not_rolled": not_rolled,
        "cost_nusd": total["cost_nusd"],
        "classes": {str(name): total[str(name)] for name in MoneyClass},
        "lines_nusd": total["lines_nusd"],
        "rollups_nusd": rolled,
        "default_price_nusd": total["default_price_nusd"],
        "unknown_gpu_requests": total["unknown_gpu_requests"],
        "unknown_gpu_tokens": total["unknown_gpu_tokens"],
        "findings": findings,
        "checked": CHECKED,
    }
    return json_response(body)


def floor_hours(length: timedelta) -> timedelta:
    """Whole hours of a length, one at least."""
    return max(HOUR, length - length % HOUR)


def _finding(broken: Json) -> Json:
    if broken["class_sum"] != broken["cost_nusd"]:
        rule, detail = "classes_sum_to_cost", f"classes {broken['class_sum']}, C {broken['cost_nusd']}"
    elif broken["time_sum"] != broken["owned_us"]:
        rule, detail = "times_sum_to_owned", f"times {broken['time_sum']} us, owned {broken['owned_us']} us"
    else:
        detail = f"lines {broken['lines_nusd']}, attributed {broken['classes']['attributed']}"
        rule = "lines_sum_to_attributed"
    return {"cell": broken["_id"], "rule": rule, "detail": detail}


def quality(ask: AskDep, start: p.From, to: p.To) -> Response:
    """Coverage, provisional, late and corrected cells by hour, and the dead letters by reason."""
    services = ask.services
    query = cost_query(start, to, p.Bucket.HOUR)
    check_cost(query, services.reads.gpu_count())
    now = services.now()
    hours = list(services.costs.rows(query, now))
    whole = total_row(query, hours)
    _, oldest_due = services.reads.due()
    behind_since = services.reads.sums_behind_since()
    set_aside, first = services.reads.set_aside()
    unknown_count, unknown = unknown_names(services.store, services.ledger.books, SHOWN_UNKNOWN)
    short = query.end - query.start <= MAX_LATE_RANGE
    attributed = whole["cost_nusd"]
    body = {
        "from": timestamp(query.start),
        "to": timestamp(query.end),
        "next": None,
        "as_of": timestamp(now),
        "coverage": _coverage(whole),
        "unobserved_share": ratio(whole["unobserved_nusd"], whole.money_nusd),
        "memory_unknown_share": ratio(whole["memory_unknown_us"], whole["gpu_us"]),
        "cells": whole["cells"],
        "provisional_cells": whole["provisional_cells"],
        "corrected_cells": whole["corrected_cells"],
        "cells_pending": services.reads.pending_count(query.start, query.end),
        "cells_not_rolled": services.costs.not_rolled(query.start, query.end),
        "sums_behind_since": None if behind_since is None else timestamp(behind_since),
        "set_aside_count": set_aside,
        "set_aside": [
            {"document": f"{row['of']} {row['owner']}", "why": row["why"], "since": timestamp(row["since"])} for row in first
        ],
        "unknown_gpu_count": unknown_count,
        "unknown_gpus": [unknown_gpu(name) for name in unknown],
        "unknown_gpu_requests": whole["unknown_gpu_requests"],
        "unknown_gpu_tokens": whole["unknown_gpu_tokens"],
        "default_price_nusd": whole.default_price_nusd,
        "default_price_share": ratio(whole.default_price_nusd, whole.money_nusd),
        "oldest_due_at": None if oldest_due is None else timestamp(oldest_due),
        "clock_skew_seconds": services.clock_ahead().total_seconds(),
        "late_cells": services.reads.late_count(query.start, query.end, LATE_AFTER) if short else None,
        "first_token_known": ratio(whole["split_cost_nusd"], attributed),
        "dead_letters": _dead_letters(services),
        "dead_letters_topic": services.settings.dlq_topic,
        "hours": [_hour(row) for row in hours],
    }
    return json_response(body)


def _hour(row: Row) -> Json:
    return {
        "hour": timestamp(row.start),
        "cells": row["cells"],
        "provisional_cells": row["provisional_cells"],
        "corrected_cells": row["corrected_cells"],
        "coverage": _coverage(row),
        "unobserved_nusd": row["unobserved_nusd"],
    }


def _coverage(row: Row) -> float | None:
    return 1 - row["unobserved_us"] / row["gpu_us"] if row["gpu_us"] else None


def _dead_letters(services: Services) -> dict[str, int] | None:
    """Null when Kafka cannot be asked: the rest of the page does not depend on it."""
    if services.dead_letters is None:
        return None
    try:
        return services.dead_letters()
    except KafkaError as error:
        _log.warning("the dead-letter topic cannot be read: %s", error)
        return None
