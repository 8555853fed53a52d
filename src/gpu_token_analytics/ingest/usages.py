"""What follows from requests: their live rate, the tokens of models, and the cells that they can
change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_token_analytics.documents import US_PER_MINUTE
from gpu_token_analytics.ingest.kinds import KindShaper
from gpu_token_analytics.ingest.shaped import Shaped
from gpu_token_analytics.ingest.touched import touch
from gpu_token_analytics.ledger.arrays import sum_by
from gpu_token_analytics.ledger.labels import Labels
from gpu_token_analytics.ledger.money import Float64
from gpu_token_analytics.ledger.requests import active_span
from gpu_token_analytics.raw.encoding import five_digits
from gpu_token_analytics.raw.usage_columns import UsageColumns
from gpu_token_analytics.wire.usage import TokenUsage


class UsageShaper(KindShaper[TokenUsage, Labels]):
    """Requests: they touch cells, far-reaching ones later."""

    def columns(self, events: Sequence[TokenUsage]) -> UsageColumns:
        """As in KindShaper."""
        return UsageColumns(events, self._book)

    def numbers(self, columns: UsageColumns, shaped: Shaped) -> Mapping[str, NDArray[Any]]:
        """As in KindShaper: the live rate."""
        tps, cost_per_token_usd = self._rate.see_usages(
            columns.labels, columns.ts_us, columns.tokens
        )
        _count(shaped, columns, cost_per_token_usd)
        return {"tps": five_digits(tps), "cost_per_token": five_digits(cost_per_token_usd)}

    def follow(self, columns: UsageColumns, shaped: Shaped) -> None:
        """As in KindShaper: the cells they touch."""
        shaped.rows.append(columns.rows)
        _touch(shaped, columns, self._gap_us, self._limits.batch_cells)


def _count(shaped: Shaped, usages: UsageColumns, cost_per_token_usd: Float64) -> None:
    """Tokens by model, and what one costs at the moment."""
    models: dict[str, int] = {}
    model = usages.labels.each(
        lambda labels: models.setdefault(labels.model, len(models)), np.int64
    )
    for name, tokens in zip(
        models, sum_by(model, usages.tokens, len(models)).tolist(), strict=True
    ):
        shaped.tokens_by_model[name] = shaped.tokens_by_model.get(name, 0) + tokens
    names, known = list(models), np.flatnonzero(~np.isnan(cost_per_token_usd))[::-1]
    last, where = np.unique(model[known], return_index=True)
    for code, usd in zip(last.tolist(), cost_per_token_usd[known][where].tolist(), strict=True):
        shaped.cost_per_token_by_model[names[code]] = usd


def _touch(shaped: Shaped, usages: UsageColumns, gap_us: int, most_cells: int) -> None:
    """The cells that requests can change, and the labels they named instead of a GPU."""
    gpus: dict[tuple[str, ...], int] = {}
    code = usages.labels.each(lambda labels: gpus.setdefault(labels.gpus, len(gpus)), np.int64)
    for labels in usages.labels.table:
        for gpu in labels.gpus:
            shaped.named.setdefault(gpu, labels.tenant)
    active_from, active_until = active_span(usages.rows, US_PER_MINUTE)
    # What samples say of an interval depends on the requests in all of it, and a cell may hold a
    # part of it (unmetered.py).
    touch(
        shaped,
        list(gpus),
        code,
        (active_from - gap_us, active_until + gap_us, usages.ts_us),
        most_cells,
    )
