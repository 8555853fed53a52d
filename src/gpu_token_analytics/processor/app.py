"""The processor over HTTP: is it alive, is it ready, how is it doing, what do the GPUs do.

/health is about this process only: a MongoDB that is down must not make an orchestrator restart it.
/ready is about work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from gpu_token_analytics import __version__
from gpu_token_analytics.clock import Clock
from gpu_token_analytics.errors import StoreError
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.mongo.errors import Document
from gpu_token_analytics.raw.read import latest_samples


@dataclass(frozen=True)
class Condition:
    """What the processor knows of itself, at one moment."""

    idle_seconds: float  # since the consuming loop last went round
    waiting_seconds: float  # since writes stopped going through; 0: they do
    partitions: int
    threads: dict[str, bool]  # name -> runs
    sums_lag_seconds: float = 0.0  # for how long a computed cell has been waiting to be in the sums
    set_aside: int = 0  # cells and sums that MongoDB refuses for good
    clock_skew: str | None = None  # what to say while this machine's clock and MongoDB's differ
    bad_records: str | None = None  # while too many of the records read are bad


SUMS_LAG_WARNING_SECONDS = 60.0
SUMS_LAG_PROBLEM_SECONDS = 900.0


class Problems(BaseModel):
    """`status` is "ok", or `problems` says what is wrong. `warnings` ask for somebody's look, while
    work goes on."""

    status: str
    problems: list[str]
    warnings: list[str] = []


class GpuInfo(BaseModel):
    """The latest sample of one GPU. Null is unknown."""

    gpu: str
    gpu_uuid: str | None
    host: str
    gpu_index: int
    name: str | None
    mig_profile: str | None
    parent_uuid: str | None
    utilization: float | None
    mem_used_mb: float | None
    mem_total_mb: float | None
    power_w: float | None
    temperature_c: float | None
    price_per_hour_usd: float | None
    source: str
    ts: datetime
    age_seconds: float


def make_app(
    store: Store,
    metrics: Metrics,
    clock: Clock,
    stuck_after_seconds: float,
    condition: Callable[[], Condition],
) -> FastAPI:
    """The HTTP app; `condition` is asked at each request."""
    app = FastAPI(title="gpu-tokens processor", version=__version__, docs_url=None, redoc_url=None)

    @app.get("/health", response_model=Problems)
    def health() -> JSONResponse:
        """200 while the loops run; 503 when one died or the consuming loop is stuck."""
        now = condition()
        return _answer(
            unhealthy(now, stuck_after_seconds), [now.clock_skew] if now.clock_skew else []
        )

    @app.get("/ready", response_model=Problems)
    def ready() -> JSONResponse:
        """200 when partitions are assigned, MongoDB answers, writes go through and the sums are not
        far behind the cells."""
        now = condition()
        problems = unhealthy(now, stuck_after_seconds)
        if not now.partitions:
            problems.append(
                "no partition is assigned (joining the group, or more processors than partitions)"
            )
        if now.waiting_seconds > 0:
            problems.append(f"writes have not gone through for {now.waiting_seconds:.0f} s")
        try:
            store.ping()
        except StoreError as error:
            problems.append(str(error))
        if now.sums_lag_seconds > SUMS_LAG_PROBLEM_SECONDS:
            problems.append(_sums_lag(now))
        return _answer(problems, _warnings(now))

    @app.get("/metrics", response_class=Response)
    def prometheus() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/gpu/info", response_model=list[GpuInfo])
    def gpu_info() -> Any:
        """The latest stored sample of each GPU, and how old it is."""
        try:
            samples = latest_samples(store)
        except StoreError as error:
            return _answer([str(error)])
        now = clock.now()
        return [_gpu_info(sample, now) for sample in samples]

    return app


def unhealthy(condition: Condition, stuck_after_seconds: float) -> list[str]:
    """What is wrong with the process itself."""
    problems = [f"{name} has ended" for name, runs in condition.threads.items() if not runs]
    if condition.idle_seconds > stuck_after_seconds:
        problems.append(
            f"the consuming loop has made no progress for {condition.idle_seconds:.0f} s"
        )
    return problems


def _warnings(condition: Condition) -> list[str]:
    warnings = []
    if SUMS_LAG_WARNING_SECONDS < condition.sums_lag_seconds <= SUMS_LAG_PROBLEM_SECONDS:
        warnings.append(_sums_lag(condition))
    if condition.set_aside:
        warnings.append(
            f"{condition.set_aside} cells or sums are set aside: MongoDB refuses them for good "
            "(see /v1/quality); "
            "they stay as they were, and everything else goes on"
        )
    if condition.clock_skew is not None:
        warnings.append(condition.clock_skew)
    # no problem: whoever may send could keep a new processor from getting ready
    if condition.bad_records is not None:
        warnings.append(condition.bad_records)
    return warnings


def _sums_lag(condition: Condition) -> str:
    return (
        f"the hourly and daily sums are {condition.sums_lag_seconds:.0f} s behind the cells: costs "
        "shown are too old"
    )


def _answer(problems: list[str], warnings: Sequence[str] = ()) -> JSONResponse:
    body = {
        "status": "failing" if problems else "ok",
        "problems": problems,
        "warnings": list(warnings),
    }
    return JSONResponse(body, status_code=503 if problems else 200)


def _gpu_info(sample: Document, now: datetime) -> GpuInfo:
    age_seconds = max(0.0, (now - sample["ts"]).total_seconds())
    return GpuInfo.model_validate(
        {"mig_profile": None, "parent_uuid": None, **sample, "age_seconds": age_seconds}
    )
