"""Plausible ledger cells by the million, for query benches and API tests: conserving like real
ones, seeded, quick.

Every cell keeps the ledger's identity (classes sum to C, lines sum to `attributed`, class times sum
to the owned time). They are not computed from events: what is measured and tested over them is the
reading side.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from gpu_token_analytics.documents import (
    US_PER_MINUTE,
    CellState,
    GpuId,
    Method,
    MoneyClass,
    cell_id,
)
from gpu_token_analytics.ledger.document import CellFields, LedgerLine, opened
from gpu_token_analytics.wire.times import to_us

PRICES_NUSD_PER_MINUTE = {"NVIDIA H100 80GB HBM3": 41_500_000, "NVIDIA L40S": 14_166_667}
TEMPLATES_PER_GPU = 120
METHODS = [Method.SWEEP] * 8 + [Method.SWEEP_NO_TTFT, Method.WINDOW]


@dataclass(frozen=True)
class Fleet:
    """How many of what."""

    gpus: int = 64
    gpus_per_host: int = 8
    models: int = 8
    tenants: int = 20
    seed: int = 7

    def gpu(self, index: int) -> tuple[str, str, str]:
        """(GPU id, host, GPU name)."""
        names = list(PRICES_NUSD_PER_MINUTE)
        host = index // self.gpus_per_host
        return f"GPU-{index:04d}", f"host-{host:02d}", names[host % len(names)]


def cells(
    fleet: Fleet, start: datetime, minutes: int, *, now: datetime | None = None
) -> Iterator[dict[str, Any]]:
    """All cells of the fleet, minute by minute, as they are inserted. Those older than a day at
    `now` are final."""
    rng = random.Random(fleet.seed)
    templates = [
        (fleet.gpu(index)[0], _templates(fleet, rng, index)) for index in range(fleet.gpus)
    ]
    final_before = None if now is None else now - timedelta(days=1)
    for minute_index in range(minutes):
        minute = start + timedelta(minutes=minute_index)
        for gpu, of_gpu in templates:
            yield _cell(gpu, rng.choice(of_gpu), minute, final_before)


def _cell(
    gpu: GpuId, fields: CellFields, minute: datetime, final_before: datetime | None
) -> dict[str, Any]:
    final = final_before is not None and minute < final_before
    return {
        "_id": cell_id(gpu, to_us(minute)),
        **opened(gpu, to_us(minute), minute),
        **fields,
        "state": str(CellState.FINAL if final else CellState.PROVISIONAL),
        "final_at": minute + timedelta(days=1),
        "computed_at": minute + timedelta(minutes=2),
        "params": "synthetic",
        "gen": 1,
        "done_gen": 1,
        "revision": 1,
        "rolled": False,
    }


def _templates(fleet: Fleet, rng: random.Random, index: int) -> list[CellFields]:
    _, host, name = fleet.gpu(index)
    served = rng.sample(range(fleet.models), k=min(fleet.models, rng.choice((1, 1, 2, 3))))
    return [_template(fleet, rng, host, name, served) for _ in range(TEMPLATES_PER_GPU)]


def _template(
    fleet: Fleet, rng: random.Random, host: str, name: str, served: list[int]
) -> CellFields:
    cost = PRICES_NUSD_PER_MINUTE[name] + rng.randint(0, 1)
    busy = rng.choice((0.0, 0.2, 0.6, 0.9, 1.0))
    times = _split(rng, US_PER_MINUTE, busy)
    money = _split(rng, cost, busy)
    energy = None if rng.random() < 0.05 else rng.randint(4_000_000, 40_000_000)
    lines = _lines(fleet, rng, served, money[0], energy) if money[0] else []
    return {
        "host": host,
        "gpu_name": name,
        "card": None,
        "cost_nusd": cost,
        "owned_us": US_PER_MINUTE,
        "classes": dict(zip(map(str, MoneyClass), money, strict=True)),
        "class_us": dict(zip(map(str, MoneyClass), times, strict=True)),
        "memory_unknown_us": 0,
        "energy_mj": energy,
        "energy_observed_us": 0 if energy is None else US_PER_MINUTE,
        "lines": lines,
        "price": {"row": f"name-{name}", "nusd_per_hour": cost * 60, "mode": "on_demand"},
        "default_price": False,
        "price_rows": [f"name-{name}"],
        "own_price": None,
        "silent": False,
        "samples": 12,
        "requests_active": sum(line["requests"] for line in lines),
    }


def _split(rng: random.Random, amount: int, busy: float) -> list[int]:
    """`amount` over the five classes, in integers that sum to it; `busy` of it attributed."""
    cuts = sorted(rng.randint(0, amount - int(amount * busy)) for _ in range(3))
    rest = amount - int(amount * busy)
    return [int(amount * busy), cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1], rest - cuts[2]]


def _lines(
    fleet: Fleet, rng: random.Random, served: list[int], attributed: int, energy: int | None
) -> list[LedgerLine]:
    keys = sorted(
        {
            (rng.choice(served), rng.randrange(fleet.tenants), str(rng.choice(METHODS)))
            for _ in range(rng.randint(1, 6))
        }
    )
    cuts = [0, *sorted(rng.randint(0, attributed) for _ in keys[1:]), attributed]
    lines: list[LedgerLine] = []
    for (model, tenant, method), low, high in zip(keys, cuts[:-1], cuts[1:], strict=True):
        prompt, completion = rng.randint(0, 40_000), rng.randint(0, 9_000)
        lines.append(
            {
                "model": f"model-{model}",
                "tenant": f"tenant-{tenant:02d}",
                "method": method,
                "requests": rng.randint(0, 30),
                "prompt_tokens": prompt,
                "cached_tokens": prompt // 3,
                "completion_tokens": completion,
                "reasoning_tokens": completion // 5,
                "cost_nusd": high - low,
                "prefill_cost_nusd": (high - low) // 3 if method == Method.SWEEP else 0,
                "energy_mj": None if energy is None else energy // len(keys),
                "busy_us": rng.randint(1, US_PER_MINUTE),
            }
        )
    return lines
