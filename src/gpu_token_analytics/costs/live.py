"""What happens now: the figures of the last minutes, for /v1/stream and `gpu-tokens top`."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from gpu_token_analytics.costs.answers.live import Live, LiveModel
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.query import COLUMN_OF_CLASS, CostQuery, Row
from gpu_token_analytics.costs.rows import usd_per_million
from gpu_token_analytics.documents import NUSD_PER_USD
from gpu_token_analytics.rollups.spans import MINUTE, ceil

WINDOW_MINUTES = 5
MAX_LIVE_MODELS = 200


class _Spending(NamedTuple):
    """What is known of the GPUs in the window; of a tenant's view only its own spend rate."""

    usd_per_hour: float | None
    owned_seconds: float  # by which tokens are divided
    classes: dict[str, int] | None = None
    gpus: int | None = None
    cells_due: int | None = None
    watermark: datetime | None = None


def live_figures(desk: Desk, tenant: str | None) -> Live:
    """The last minutes, the one under way included: its cells count for the part of it that was
    computed."""
    now = desk.now()
    end = ceil(now, MINUTE)
    query = CostQuery(
        end - (WINDOW_MINUTES + 1) * MINUTE, end, group_by=("model",), tenant_lock=tenant
    )
    rows = list(desk.costs.rows(query, now))
    spending = (
        _of_fleet(desk, query, rows)
        if tenant is None
        else _of_tenant(rows, (now - query.start).total_seconds())
    )
    models = [row for row in rows if row.key[0] is not None]
    tokens = sum(_tokens(row) for row in models)
    priced = sum(row.priced_tokens for row in models)
    work_nusd = sum(row.work_nusd for row in models)
    loaded_nusd = sum(row.loaded_nusd for row in rows)
    return Live(
        at=now,
        window_from=query.start,
        window_to=now,
        tokens_per_second=tokens / spending.owned_seconds if spending.owned_seconds else None,
        active_usd_per_million=usd_per_million(work_nusd, priced),
        loaded_usd_per_million=usd_per_million(loaded_nusd, priced) if tenant is None else None,
        cost_nusd=sum(row.money_nusd for row in rows),
        default_price_nusd=sum(row.default_price_nusd for row in rows),
        unknown_gpu_tokens=sum(row["unknown_gpu_tokens"] for row in rows),
        models=[
            _model(row, spending.owned_seconds, loaded=tenant is None) for row in _most(models)
        ],
        changed=True,
        usd_per_hour=spending.usd_per_hour,
        classes=spending.classes,
        gpus=spending.gpus,
        cells_due=spending.cells_due,
        watermark=spending.watermark,
    )


def _most(models: list[Row]) -> list[Row]:
    """Those that did something, in their order; of very many the ones that cost most."""
    busy = [row for row in models if _tokens(row) or row.work_nusd]
    if len(busy) <= MAX_LIVE_MODELS:
        return busy
    least = sorted((row.work_nusd for row in busy), reverse=True)[MAX_LIVE_MODELS - 1]
    return [row for row in busy if row.work_nusd >= least][:MAX_LIVE_MODELS]


def _of_fleet(desk: Desk, query: CostQuery, rows: list[Row]) -> _Spending:
    recent = desk.reads.recent_cells(query.start, query.end)
    gpus = {cell["gpu"] for cell in recent if cell["owned_us"]}
    owned_us = sum(row["gpu_us"] for row in rows)
    cost = sum(row.money_nusd for row in rows)
    due, _ = desk.reads.due()
    return _Spending(
        # Money per owned microsecond and GPU: right also while the newest minute is only partly
        # computed.
        usd_per_hour=cost / owned_us * len(gpus) * 3.6e9 / NUSD_PER_USD if owned_us else None,
        owned_seconds=owned_us / 1e6 / len(gpus) if gpus else 0.0,
        classes={
            name: sum(row[column] for row in rows) for name, column in COLUMN_OF_CLASS.items()
        },
        gpus=len(gpus),
        cells_due=due,
        watermark=max((cell["minute"] for cell in recent), default=None),
    )


def _of_tenant(rows: list[Row], seconds: float) -> _Spending:
    cost = sum(row.money_nusd for row in rows)
    return _Spending(cost / NUSD_PER_USD / seconds * 3600 if rows and seconds else None, seconds)


def _model(row: Row, seconds: float, *, loaded: bool) -> LiveModel:
    tokens, priced = _tokens(row), row.priced_tokens
    return LiveModel(
        model=str(row.key[0]),
        attributed_nusd=None if row.is_unpriced else row["cost_nusd"],
        tokens=tokens,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        active_usd_per_million=usd_per_million(row.work_nusd, priced),
        loaded_usd_per_million=usd_per_million(row.loaded_nusd, priced) if loaded else None,
    )


def _tokens(row: Row) -> int:
    return row["prompt_tokens"] + row["completion_tokens"]
