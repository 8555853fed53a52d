"""How far to trust the data of a range: coverage, late and corrected cells, money and requests that
are not known."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import convert

from gpu_token_analytics.costs.answers.declarations import UnknownGpu
from gpu_token_analytics.costs.answers.ledger import (
    EngineCoverage,
    HourQuality,
    QualityResponse,
    SetAside,
    SharedUuid,
)
from gpu_token_analytics.costs.choices import Bucket
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.query import Row
from gpu_token_analytics.costs.questions import check_cost, cost_query
from gpu_token_analytics.costs.rows import ratio, total_row
from gpu_token_analytics.errors import KafkaError
from gpu_token_analytics.wire.times import to_us

_log = logging.getLogger(__name__)

SHOWN_ENGINES = 50
WELL_COVERED = 0.98  # scrapes and ends of requests are not at the same millisecond
SHOWN_UNKNOWN = SHOWN_SHARED = 20
LATE_AFTER = timedelta(minutes=10)
MAX_LATE_RANGE = timedelta(days=2)


def quality_of(desk: Desk, start: datetime, end: datetime) -> QualityResponse:
    """Coverage, provisional, late and corrected cells by hour, and the dead letters by reason.
    Raises Refused."""
    query = cost_query(start, end, Bucket.HOUR)
    check_cost(query, desk.reads.gpu_count())
    now = desk.now()
    hours = list(desk.costs.rows(query, now))
    whole = total_row(query, hours)
    _, oldest_due = desk.reads.due()
    behind_since = desk.reads.sums_behind_since()
    set_aside, first = desk.reads.set_aside()
    unknown_count, unknown = desk.unknown_names(SHOWN_UNKNOWN)
    unmarked = desk.unmarked(to_us(query.start), to_us(query.end))
    shared = desk.books.read().shared
    short = query.end - query.start <= MAX_LATE_RANGE
    attributed = whole["cost_nusd"]
    engines = desk.reads.engines(query.start, query.end, SHOWN_ENGINES) if short else (0, [])
    return QualityResponse(
        from_=query.start,
        to=query.end,
        next=None,
        as_of=now,
        coverage=_coverage(whole),
        unobserved_share=ratio(whole["unobserved_nusd"], whole.money_nusd),
        memory_unknown_share=ratio(whole["memory_unknown_us"], whole["gpu_us"]),
        cells=whole["cells"],
        provisional_cells=whole["provisional_cells"],
        corrected_cells=whole["corrected_cells"],
        cells_pending=desk.reads.pending_count(query.start, query.end) + unmarked,
        cells_not_rolled=desk.costs.not_rolled(query.start, query.end),
        sums_behind_since=behind_since,
        set_aside_count=set_aside,
        set_aside=[
            SetAside(f"{row['of']} {row['owner']}", row["why"], row["since"]) for row in first
        ],
        unknown_gpu_count=unknown_count,
        unknown_gpus=convert(unknown, list[UnknownGpu], from_attributes=True),
        unknown_gpu_requests=whole["unknown_gpu_requests"],
        unknown_gpu_tokens=whole["unknown_gpu_tokens"],
        shared_uuid_count=len(shared.hosts),
        shared_uuids=[
            SharedUuid(uuid, shared.cards(uuid)[:SHOWN_SHARED])
            for uuid in sorted(shared.hosts)[:SHOWN_SHARED]
        ],
        engine_count=engines[0] if short else None,
        engines=[coverage_of(engine) for engine in engines[1]],
        default_price_nusd=whole.default_price_nusd,
        default_price_share=ratio(whole.default_price_nusd, whole.money_nusd),
        oldest_due_at=oldest_due,
        clock_skew_seconds=desk.clock_ahead().total_seconds(),
        late_cells=desk.reads.late_count(query.start, query.end, LATE_AFTER) if short else None,
        first_token_known=ratio(whole["split_cost_nusd"], attributed),
        dead_letters=_dead_letters(desk),
        dead_letters_topic=desk.settings.dlq_topic,
        hours=[_hour(row) for row in hours],
    )


def coverage_of(engine: Mapping[str, Any]) -> EngineCoverage:
    """What is said of one engine. engine: as lookups.engines() sums it."""
    counted, unexplained, more = engine["counted"], engine["unexplained"], engine["more"]
    coverage = ratio(counted - unexplained, counted)
    return EngineCoverage(
        instance=engine["_id"],
        engine=engine["engine"],
        counted_tokens=counted,
        unexplained_tokens=unexplained,
        more_tokens=more,
        coverage=coverage,
        gpus_known=not engine["unplaced"],
        to_do=_to_do(
            engine["_id"], engine["unplaced"], coverage, more / counted if counted else float(more)
        ),
    )


def _to_do(instance: str, unplaced: bool, coverage: float | None, more: float) -> str | None:
    if unplaced:
        return f"say on which GPUs it runs: gpu-tokens placements add {instance} --gpu GPU"
    if more > 1 - WELL_COVERED:
        return (
            "requests tell of tokens that it did not count: is its placement right, is every rank "
            "scraped, and is one request "
            "told twice (gpu-tokens placements ... --counted-by engine)?"
        )
    if coverage is None or coverage >= WELL_COVERED:
        return None
    if not coverage:
        return (
            "no request on its GPUs is told: for costs by tenant send the engine's spans, or put a "
            "callback before it"
        )
    return (
        "some requests are not told: cut streams, clients beside the gateway, sampled traces, or "
        "requests placed elsewhere"
    )


def _hour(row: Row) -> HourQuality:
    return HourQuality(
        hour=row.start,
        cells=row["cells"],
        provisional_cells=row["provisional_cells"],
        corrected_cells=row["corrected_cells"],
        coverage=_coverage(row),
        unobserved_nusd=row["unobserved_nusd"],
    )


def _coverage(row: Row) -> float | None:
    return 1 - row["unobserved_us"] / row["gpu_us"] if row["gpu_us"] else None


def _dead_letters(desk: Desk) -> dict[str, int] | None:
    """Null when Kafka cannot be asked: the rest of the page does not depend on it."""
    if desk.dead_letters is None:
        return None
    try:
        return desk.dead_letters()
    except KafkaError as error:
        _log.warning("the dead-letter topic cannot be read: %s", error)
        return None
