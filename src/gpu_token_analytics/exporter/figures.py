"""What the ledger says of the last whole hour, of this one and of today, ready for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from prometheus_client import Gauge

from gpu_token_analytics.costs.query import CostQuery, Row
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.documents import NUSD_PER_USD
from gpu_token_analytics.exporter.metrics import ExporterMetrics
from gpu_token_analytics.rollups.spans import DAY, HOUR, floor

OTHER = "(other)"
_SECOND_US = 1e6

Series = Mapping[tuple[str, ...], float]


def windows(now: datetime) -> dict[str, tuple[datetime, datetime]]:
    """The windows by name. They are whole hours and days, so each is read from a few sums."""
    hour, day = floor(now, HOUR), floor(now, DAY)
    return {
        "last_hour": (hour - HOUR, hour),
        "this_hour": (hour, hour + HOUR),
        "today": (day, day + DAY),
    }


class LedgerFigures:
    """Reads the money and puts it into the metrics, all of it at once."""

    def __init__(self, costs: CostReads, metrics: ExporterMetrics, max_names: int) -> None:
        self._costs, self._metrics, self._max_names = costs, metrics, max_names

    def update(self, now: datetime) -> None:
        """Read every window, then replace what is shown. Raises the database's errors; nothing is
        changed then."""
        metrics = self._metrics
        shown: dict[Gauge, dict[tuple[str, ...], float]] = {gauge: {} for gauge in self._gauges()}
        for window, (start, end) in windows(now).items():
            by_class = list(self._costs.rows(CostQuery(start, end, group_by=("class",)), now))
            default_nusd = unknown_tokens = unknown_requests = 0
            for row in by_class:
                name = str(row.key[0])
                shown[metrics.cost][window, name] = row.money_nusd / NUSD_PER_USD
                shown[metrics.gpu_seconds][window, name] = row["gpu_us"] / _SECOND_US
                default_nusd += row.default_price_nusd
                unknown_tokens += row["unknown_gpu_tokens"]
                unknown_requests += row["unknown_gpu_requests"]
            if by_class:
                shown[metrics.default_price_cost][(window,)] = default_nusd / NUSD_PER_USD
                shown[metrics.unknown_gpu_tokens][(window,)] = unknown_tokens
                shown[metrics.unknown_gpu_requests][(window,)] = unknown_requests
                shown[metrics.requests][(window,)] = sum(row["requests"] for row in by_class)
            models = self._costs.rows(CostQuery(start, end, group_by=("model", "class")), now)
            self._models(shown, window, [row for row in models if row.key[0] is not None])
            tenants = self._costs.rows(CostQuery(start, end, group_by=("tenant",)), now)
            self._tenants(shown, window, [row for row in tenants if row.key[0] is not None])
        for gauge, series in shown.items():
            replace_series(gauge, series)

    def forget(self) -> None:
        """Show none of it: the ledger cannot be read, and old money must not look like today's."""
        for gauge in self._gauges():
            gauge.clear()

    def _gauges(self) -> tuple[Gauge, ...]:
        metrics = self._metrics
        return (
            metrics.cost,
            metrics.gpu_seconds,
            metrics.requests,
            metrics.default_price_cost,
            metrics.unknown_gpu_tokens,
            metrics.unknown_gpu_requests,
            metrics.model_cost,
            metrics.model_tokens,
            metrics.model_priced_tokens,
            metrics.tenant_cost,
            metrics.tenant_tokens,
        )

    def _models(
        self, shown: dict[Gauge, dict[tuple[str, ...], float]], window: str, rows: list[Row]
    ) -> None:
        label = _labels(rows, self._max_names)
        for row in rows:
            model, name = label[str(row.key[0])], str(row.key[1])
            if not row.is_unpriced:  # absent: not known
                _add(
                    shown[self._metrics.model_cost],
                    (window, model, name),
                    row.money_nusd / NUSD_PER_USD,
                )
            _add(shown[self._metrics.model_tokens], (window, model), _tokens(row))
            _add(shown[self._metrics.model_priced_tokens], (window, model), row.priced_tokens)

    def _tenants(
        self, shown: dict[Gauge, dict[tuple[str, ...], float]], window: str, rows: list[Row]
    ) -> None:
        label = _labels(rows, self._max_names)
        for row in rows:
            tenant = label[str(row.key[0])]
            if not row.is_unpriced:
                _add(
                    shown[self._metrics.tenant_cost],
                    (window, tenant),
                    row["cost_nusd"] / NUSD_PER_USD,
                )
            _add(shown[self._metrics.tenant_tokens], (window, tenant), _tokens(row))


def replace_series(gauge: Gauge, series: Series) -> None:
    """Make a labelled gauge show exactly these series."""
    gauge.clear()
    for labels, value in series.items():
        gauge.labels(*labels).set(value)


def _labels(rows: Iterable[Row], most: int) -> dict[str, str]:
    """The label of each name: its own for the `most` with the most money, `(other)` for the
    rest."""
    money: dict[str, int] = {}
    for row in rows:
        name = str(row.key[0])
        money[name] = money.get(name, 0) + row.money_nusd
    ranked = sorted(money, key=lambda name: (-money[name], name))
    return {name: name if rank < most else OTHER for rank, name in enumerate(ranked)}


def _add(series: dict[tuple[str, ...], float], key: tuple[str, ...], value: float) -> None:
    series[key] = series.get(key, 0.0) + value


def _tokens(row: Row) -> int:
    return row["prompt_tokens"] + row["completion_tokens"]
