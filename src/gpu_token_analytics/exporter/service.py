"""All of the exporter in one process: looks (main thread), audits, and /health /ready /metrics on
HTTP_PORT."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gpu_token_analytics import __version__
from gpu_token_analytics.books.teams import TeamStore
from gpu_token_analytics.budgets.spending import Spending
from gpu_token_analytics.budgets.store import BudgetStore
from gpu_token_analytics.clock import SystemClock
from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.audit_report import AuditReport
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.costs.lookups import Reads
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.exporter.budget_figures import BudgetFigures
from gpu_token_analytics.exporter.figures import LedgerFigures
from gpu_token_analytics.exporter.metrics import ExporterMetrics
from gpu_token_analytics.exporter.watch import Audit, KafkaLook, LedgerLook, Looks, RecurringAudit
from gpu_token_analytics.http_server import serving
from gpu_token_analytics.kafka.group_watch import GroupWatch
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.metrics import SiteRegistry
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.settings import Settings

_log = logging.getLogger(__name__)

_STUCK_LOOKS = 4  # intervals without a round after which the process calls itself unhealthy
_LONGEST_LOOK_SECONDS = 60.0  # timeouts of Kafka and MongoDB, one after another


def run_exporter(settings: Settings, stop: threading.Event) -> None:
    """Run until `stop`. Raises StoreError when MongoDB cannot be used at the start, SettingsError
    for a port that is taken."""
    clock, metrics = SystemClock(), ExporterMetrics(SiteRegistry(settings.site))
    every = settings.exporter_refresh_seconds
    with ExitStack() as stack:
        store = open_store(settings, "gpu-tokens-exporter")
        stack.callback(store.close)
        kafka = KafkaLook(lambda: GroupWatch(settings), metrics, clock)
        stack.callback(kafka.close)
        costs = CostReads(store.database, settings.api_query_timeout_ms)
        ledger = LedgerLook(
            Reads(store.database, settings.api_query_timeout_ms),
            [
                LedgerFigures(costs, metrics, settings.metrics_max_names),
                BudgetFigures(
                    BudgetStore(store.database, settings.api_query_timeout_ms),
                    Spending(costs, TeamStore(store.database, settings.api_query_timeout_ms).book),
                    metrics,
                    settings.metrics_max_names,
                ),
            ],
            metrics,
            store.now,
            settings.close_debounce_seconds,
        )
        looks = Looks([kafka, ledger], metrics, clock, every)
        recurring = RecurringAudit(
            _audit_of(store, settings),
            metrics,
            clock,
            settings.audit_every_seconds,
            settings.audit_last_hours,
        )
        limit = _STUCK_LOOKS * every + _LONGEST_LOOK_SECONDS
        stack.enter_context(
            serving(make_app(metrics, lambda: clock.monotonic() - looks.last_at < limit), settings)
        )
        stack.callback(stop.set)
        audits = _Audits(recurring, stop)
        if settings.audit_every_seconds:
            audits.start()
        looks.run(stop)
        audits.check()
        _log.info("stopped")


class _Audits(threading.Thread):
    """The recurring audit in a thread, whose error ends the process instead of vanishing with
    it."""

    def __init__(self, recurring: RecurringAudit, stop: threading.Event) -> None:
        super().__init__(name="audit", daemon=True)
        self._recurring, self._stop_all = recurring, stop
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._recurring.run(self._stop_all)
        except BaseException as error:  # noqa: BLE001  # check() raises it in the main thread
            self._error = error
            self._stop_all.set()

    def check(self) -> None:
        """Raise what it ended with."""
        if self._error is not None:
            raise self._error


def _audit_of(store: Store, settings: Settings) -> Audit:
    ledger, params = LedgerStore(store, settings.close_debounce_seconds), params_of(settings)

    def run(
        start: datetime, end: datetime, before_second_look: Callable[[int], object]
    ) -> AuditReport:
        return audit(
            ledger,
            params,
            start,
            end,
            raw_complete_for=settings.raw_complete_for,
            before_second_look=before_second_look,
        )

    return run


def make_app(metrics: ExporterMetrics, alive: Callable[[], bool]) -> FastAPI:
    """The HTTP app. It is ready as soon as it answers: what it cannot see, its metrics say."""
    app = FastAPI(
        title="gpu-tokens exporter",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )

    @app.get("/health")
    @app.get("/ready")
    def health() -> JSONResponse:
        """200 while the loop goes round; 503 when it is stuck."""
        fine = alive()
        return JSONResponse(
            {"status": "ok" if fine else "the loop is stuck"}, status_code=200 if fine else 503
        )

    @app.get("/metrics", response_class=Response)
    def prometheus() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app
