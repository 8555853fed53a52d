"""What /v1/costs and /v1/export are asked in the same words: grouping, zone and filters, as one dependency."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeAlias

from fastapi import Depends

from gpu_token_analytics.api import params as p
from gpu_token_analytics.api.queries import cost_query
from gpu_token_analytics.costs.read import CostQuery

# (start, end, length of rows, the only tenant that may be seen) -> query; raises ApiProblem for what cannot be asked
Select: TypeAlias = Callable[[datetime, datetime, p.Bucket, str | None], CostQuery]


async def _select(  # async: it waits for nothing, and FastAPI would hand anything else to a worker thread
    group_by: p.GroupBy = [],  # noqa: B006  FastAPI copies defaults
    time_zone: p.TimeZone = "UTC",
    models: p.Models = [],  # noqa: B006
    tenants: p.Tenants = [],  # noqa: B006
    gpus: p.Gpus = [],  # noqa: B006
    hosts: p.Hosts = [],  # noqa: B006
    gpu_names: p.GpuNames = [],  # noqa: B006
    classes: p.Classes = [],  # noqa: B006
) -> Select:
    def select(start: datetime, end: datetime, bucket: p.Bucket, tenant_lock: str | None) -> CostQuery:
        return cost_query(
            start,
            end,
            bucket,
            time_zone,
            group_by,
            models=models,
            tenants=tenants,
            gpus=gpus,
            hosts=hosts,
            gpu_names=gpu_names,
            classes=classes,
            tenant_lock=tenant_lock,
        )

    return select


SelectDep = Annotated[Select, Depends(_select)]
