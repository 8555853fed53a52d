"""L3 against the independent oracle: the cells that must be there, and what each must say, from
what was sent alone."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.killloop.world import World
from tests.oracle.ledger import OracleCell, oracle_cells
from tests.oracle.raw_documents import identity
from tests.oracle.work import OracleParams

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings

MINUTE_US = 60_000_000
# cells compared in full, drawn by the world's seed; all are compared for being there
MAX_JUDGED = 1500
MAX_LISTED = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ledger_against_oracle(
    store: Store, settings: Settings, world: World, prices: Sequence[dict[str, Any]] = ()
) -> list[str]:
    """Problems of the ledger, judged without the package's own ledger. `prices` are rows besides
    the default one."""
    usages, samples = _documents(world)
    stored: dict[str, dict[int, Any]] = {}
    for cell in store[Collection.LEDGER_CELLS].find({"owned_us": {"$gt": 0}}):
        stored.setdefault(cell["gpu"], {})[_us(cell["minute"])] = cell
    # Nobody owns the time of a GPU that is unknown: its cells hold tokens, and are judged where
    # they are found.
    touched = {gpu: minutes for gpu, minutes in _touched(usages, samples).items() if gpu in samples}
    problems = [f"L3 {gpu} is not in the ledger" for gpu in sorted(touched.keys() - stored.keys())]
    wanted = [
        (gpu, minute) for gpu, minutes in sorted(touched.items()) for minute in sorted(minutes)
    ]
    problems += [
        f"L3 {gpu} {_shown(minute)} is missing"
        for gpu, minute in wanted
        if minute not in stored.get(gpu, {})
    ]
    present = [
        (gpu, minute) for gpu, minutes in sorted(stored.items()) for minute in sorted(minutes)
    ]
    chosen = sorted(random.Random(world.seed).sample(present, min(MAX_JUDGED, len(present))))
    price: dict[str, Any] = {
        "_id": "d",
        "scope": "default",
        "key": None,
        "usd_per_hour": settings.price_per_hour_usd,
    }
    price |= {"mode": "on_demand", "usd_per_kwh": None, "valid_from": _EPOCH, "valid_to": None}
    for gpu, minute in chosen:
        # No request of this world is longer than 7 minutes; where the memory is not known, one
        # counts for an hour after it.
        low, high = minute - 70 * MINUTE_US, minute + 10 * MINUTE_US
        near = [
            doc for doc in usages.get(gpu, []) if doc["ts_us"] >= low and doc["start_us"] <= high
        ]
        heard = [doc for doc in samples.get(gpu, []) if low <= doc["ts_us"] <= high]
        (expected,) = oracle_cells(
            gpu,
            [(minute, minute + MINUTE_US)],
            near,
            heard,
            [price, *prices],
            OracleParams(),
            known=gpu in samples,
        )
        problems += _differences(stored[gpu][minute], expected)
        if len(problems) > MAX_LISTED:
            break
    return problems[:MAX_LISTED]


def _differences(cell: dict[str, Any], expected: OracleCell) -> Iterable[str]:
    name = cell["_id"]
    for field in ("cost_nusd", "classes", "class_us", "memory_unknown_us"):
        if cell[field] != getattr(expected, field):
            yield f"L3 {name} {field}: {cell[field]}, expected {getattr(expected, field)}"
    lines = expected.lines()
    if [(line["model"], line["tenant"]) for line in cell["lines"]] != [
        (line["model"], line["tenant"]) for line in lines
    ]:
        yield f"L3 {name}: lines {cell['lines']}, expected {lines}"
        return
    for line, wanted in zip(cell["lines"], lines, strict=True):
        for field in ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "busy_us"):
            if line[field] != wanted[field]:
                yield (
                    f"L3 {name} {line['model']} {line['tenant']} {field}: {line[field]}, expected "
                    f"{wanted[field]}"
                )
        if abs(line["cost_nusd"] - wanted["cost_nusd"]) >= wanted["members"] * 1.01:
            yield (
                f"L3 {name} {line['model']} {line['tenant']} cost: {line['cost_nusd']}, expected "
                f"{float(wanted['cost_nusd'])}"
            )


def _identity(owner: str, event: dict[str, Any]) -> bytes:
    """What decides between equal remainders."""
    return identity(owner, event["event_id"])


def _documents(world: World) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Requests and samples by GPU, from the bytes that were sent. A label means the GPU whose
    samples carried it."""
    events = [json.loads(value) for value in world.valid.values()]
    placed = {
        f"{e['host']}/{e['gpu_index']}": e["gpu_uuid"]
        for e in events
        if e["schema"] == "gpu.metrics.v1"
    }
    usages: dict[str, list[Any]] = {}
    samples: dict[str, list[Any]] = {}
    for event in events:
        ts_us = _us(datetime.fromisoformat(event["ts"]))
        if event["schema"] == "gpu.metrics.v1":
            unknown = {
                "energy_j": None,
                "price_per_hour_usd": None,
                "mem_used_mb": None,
                "power_w": None,
            }
            samples.setdefault(event["gpu_uuid"], []).append(
                {**unknown, **event, "_id": _identity(event["host"], event), "ts_us": ts_us}
            )
            continue
        label = f"{event['host']}/{event.get('gpu_index')}"
        gpus = sorted(set(event.get("gpu_uuids") or [placed.get(label, label)]))
        latency_ms = event.get("latency_ms")
        document = {
            "_id": _identity(event.get("tenant", "default"), event),
            "ts_us": ts_us,
            "latency_ms": latency_ms,
            "start_us": ts_us if latency_ms is None else ts_us - round(latency_ms * 1000),
            "gpus": gpus,
            "model": event["model"],
            "tenant": event.get("tenant", "default"),
            **{
                f"{kind}_tokens": event.get(f"{kind}_tokens", 0)
                for kind in ("prompt", "cached", "completion", "reasoning")
            },
        }
        if event.get("ttft_ms") is not None and latency_ms is not None:
            document["first_us"] = ts_us - round((latency_ms - event["ttft_ms"]) * 1000)
        for gpu in gpus:
            usages.setdefault(gpu, []).append(document)
    return usages, samples


def _touched(usages: dict[str, list[Any]], samples: dict[str, list[Any]]) -> dict[str, set[int]]:
    """Minutes with evidence, by GPU."""
    found: dict[str, set[int]] = {}
    for gpu, documents in usages.items():
        for doc in documents:
            last = max(doc["start_us"], doc["ts_us"] - 1)
            minutes = range(doc["start_us"] // MINUTE_US * MINUTE_US, last + 1, MINUTE_US)
            found.setdefault(gpu, set()).update(minutes)
    for gpu, documents in samples.items():
        found.setdefault(gpu, set()).update(
            doc["ts_us"] // MINUTE_US * MINUTE_US for doc in documents
        )
    return found


def _us(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def _shown(minute_us: int) -> str:
    return f"{_EPOCH + timedelta(microseconds=minute_us):%H:%M}"
