"""/v1/gpus and `gpu-tokens top`: every GPU now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import asdict

from gpu_token_analytics.costs.answers.gpus import GpuMoney, GpusResponse, GpuState, Liveness
from gpu_token_analytics.costs.cursors import decode_cursor, encode_cursor
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.query import CostQuery, Row
from gpu_token_analytics.costs.questions import check_zone, gpus_asked, hosts_asked
from gpu_token_analytics.costs.rows import IDLE_COLUMNS, money_of, ratio
from gpu_token_analytics.documents import NUSD_PER_USD
from gpu_token_analytics.errors import Refused
from gpu_token_analytics.ledger.document import CellDocument
from gpu_token_analytics.rollups.spans import MINUTE, Step, bucket_start, ceil, floor

Json = dict[str, Any]
SHOWN_MINUTES = 60
MAX_MODELS = 20
MODELS_OF_LAST_MINUTES = 5
_SAMPLE_FIELDS = ("utilization", "mem_used_mb", "mem_total_mb", "power_w", "temperature_c")


def fleet(
    desk: Desk,
    time_zone: str,
    ids: Collection[str],
    hosts: Collection[str],
    limit: int,
    cursor: str | None,
) -> GpusResponse:
    """One page of the GPUs of these ids and hosts (none: of all); `today` begins at midnight of the
    zone. Raises Refused."""
    tz = check_zone(time_zone)
    inventory = desk.reads.gpus()
    ids, hosts = gpus_asked(ids), hosts_asked(hosts)
    rows = [
        row
        for row in inventory
        if (not ids or row["_id"] in ids) and (not hosts or row.get("host") in hosts)
    ]
    total = len(rows)
    if cursor is not None:
        (after,) = decode_cursor(cursor, (str,))
        at = next((index for index, row in enumerate(rows) if row["_id"] == after), None)
        if at is None:
            raise Refused("invalid_cursor", "cursor is not a `next` of this list", "cursor")
        rows = rows[at + 1 :]
    more, rows = len(rows) > limit, rows[:limit]
    now = desk.now()
    midnight = bucket_start(now, Step.DAY, tz)
    return GpusResponse(
        as_of=now,
        today_from=midnight.isoformat(),
        total=total,
        gpus=gpu_states(desk, rows, now, midnight),
        next=encode_cursor(rows[-1]["_id"]) if more else None,
    )


def gpu_states(
    desk: Desk, inventory: list[Json], now: datetime, midnight: datetime
) -> list[GpuState]:
    """The states of these GPUs of the inventory."""
    ids = [row["_id"] for row in inventory]
    if not ids:
        return []
    samples = desk.reads.latest_samples(ids)
    minutes = ceil(now, MINUTE)
    cells: dict[str, list[CellDocument]] = {}
    for cell in desk.reads.recent_cells(minutes - SHOWN_MINUTES * MINUTE, minutes, ids):
        cells.setdefault(cell["gpu"], []).append(cell)
    query = CostQuery(floor(midnight, MINUTE), minutes, group_by=("gpu",), gpus=frozenset(ids))
    today = {row.key[0]: row for row in desk.costs.rows(query, now)}
    return [
        _state(
            desk,
            row,
            samples.get(row["_id"]),
            cells.get(row["_id"], []),
            today.get(row["_id"]),
            now,
        )
        for row in inventory
    ]


def _state(
    desk: Desk,
    row: Json,
    sample: Json | None,
    cells: list[CellDocument],
    today: Row | None,
    now: datetime,
) -> GpuState:
    sample = sample or {}
    sampled_at: datetime | None = sample.get("ts")
    price = cells[-1].get("price") if cells else None
    hourly = None if price is None else price["nusd_per_hour"]
    return GpuState(
        gpu=row["_id"],
        host=row.get("host"),
        gpu_index=row.get("gpu_index"),
        name=row.get("name"),
        mig_profile=row.get("mig_profile"),
        parent_uuid=row.get("parent_uuid"),
        state=_liveness(desk, sampled_at, now),
        sampled_at=sampled_at,
        **{name: sample.get(name) for name in _SAMPLE_FIELDS},
        models=_models(cells, now),
        usd_per_hour=None if hourly is None else hourly / NUSD_PER_USD,
        price_row=None if price is None else price["row"],
        today=None if today is None else _money(today),
        idle_share_today=None
        if today is None
        else ratio(sum(today[name] for name in IDLE_COLUMNS), today.money_nusd),
        newest_minutes=_newest_minutes(cells, ceil(now, MINUTE)),
    )


def _money(today: Row) -> GpuMoney:
    return GpuMoney(**asdict(money_of(today)))


def _liveness(desk: Desk, sampled_at: datetime | None, now: datetime) -> Liveness:
    settings = desk.settings
    if sampled_at is None or now - sampled_at > timedelta(
        minutes=settings.silent_gpu_owned_minutes
    ):
        return Liveness.SILENT
    if now - sampled_at > timedelta(seconds=settings.sample_gap_limit_seconds):
        return Liveness.STALE
    return Liveness.LIVE


def _models(cells: list[CellDocument], now: datetime) -> list[str]:
    spent: Counter[str] = Counter()
    for cell in cells:
        if cell["minute"] >= now - timedelta(minutes=MODELS_OF_LAST_MINUTES):
            for line in cell.get("lines") or cell.get("top_models", ()):
                spent[line["model"]] += line["cost_nusd"] or 0
    return [model for model, _ in sorted(spent.items(), key=lambda item: (-item[1], item[0]))][
        :MAX_MODELS
    ]


def _newest_minutes(cells: list[CellDocument], end: datetime) -> list[str | None]:
    shown: list[str | None] = [None] * SHOWN_MINUTES
    for cell in cells:
        index = SHOWN_MINUTES - int((end - cell["minute"]) / MINUTE)
        if 0 <= index < SHOWN_MINUTES and cell["owned_us"]:
            # By time, so that a GPU priced at nothing still shows what it did.
            times = cell.get("class_us") or cell["classes"]
            shown[index] = max(times, key=lambda name: times[name])
    return shown
