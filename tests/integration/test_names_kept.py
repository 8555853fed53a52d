"""Names of GPUs nobody knows: bounded, whoever makes them up; and what a process that begins
knows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tests.integration.ledger_support import MINUTE, Pipeline, minutes_ago, sample, usage

from gpu_token_analytics.books.gpu_names import GpuNames, NameLimits
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.wire.usage import USAGE

FULL = "8F4C2A1B-77aa-4f1e-9d52-0c1d2e3f4a5b"


def kept(one: Pipeline) -> list[str]:
    return sorted(row["name"] for row in one.store[Collection.INVENTORY].find({"kind": "name"}))


def test_names_that_anybody_makes_up_are_kept_up_to_a_number_an_hour(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    dropped: list[int] = []
    names = GpuNames(one.store, NameLimits(per_hour=10, kept=100), dropped.append)
    names.resolve({f"node-{number}/0": "liar" for number in range(8)})
    names.resolve({f"node-{number}/1": "liar" for number in range(8)})
    assert kept(one) == sorted(
        [*(f"node-{number}/0" for number in range(8)), "node-0/1", "node-1/1"]
    )
    names.resolve({"node-2/0": "liar", "node-9/9": "liar"})
    assert len(kept(one)) == 10
    assert sum(dropped) == 7


def test_of_too_many_the_oldest_go(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline()
    dropped: list[int] = []
    names = GpuNames(one.store, NameLimits(per_hour=1_000_000, kept=5), dropped.append)
    for number in range(12):
        names.resolve({f"node-{number:02d}/{index}": "liar" for index in range(5)})
        assert len(kept(one)) <= 10
    names.resolve({f"last/{index}": "liar" for index in range(5)})
    assert kept(one) == [f"last/{index}" for index in range(5)]
    assert sum(dropped) == 60
    names.resolve({"node-00/0": "liar"})
    assert "node-00/0" in kept(one), "one that was forgotten and is used again is kept again"


def test_a_name_that_was_not_kept_has_money_when_its_gpu_is_sampled(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0, gpu_names_per_hour=1)
    at = minutes_ago(30)
    one.ingest([usage(n, at + timedelta(seconds=40), gpu_uuids=[f"GPU-{n}"]) for n in range(3)])
    one.close()
    assert len(kept(one)) == 1
    one.ingest(
        [sample(n, at + timedelta(seconds=30), gpu_uuid=f"GPU-{n}", gpu_index=n) for n in range(3)]
    )
    one.close()
    lines = [line for cell in one.cells().values() for line in cell["lines"]]
    assert len(lines) == 3
    assert all(line["cost_nusd"] for line in lines)
    report = one.audit()
    assert report.holds, report.findings


def test_a_process_that_begins_knows_the_gpus_of_the_one_before(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    one.declare("GPU-declared")
    one.ingest([sample(1, minutes_ago(30))])
    one.restart()
    named = (["GPU-a"], ["GPU-declared"], ["h1/0"], ["GPU-nobody"])
    one.ingest(
        [
            usage(n, minutes_ago(20), gpu_uuids=gpus, gpu_index=0 if "/" in gpus[0] else None)
            for n, gpus in enumerate(named)
        ]
    )
    found = {
        usage["gpus"][0]: usage["cost_per_token"] for usage in one.store[USAGE.collection].find()
    }
    assert {gpu for gpu, cost in found.items() if cost} == {"GPU-a", "GPU-declared", "h1/0"}
    assert found["GPU-nobody"] is None


def test_every_spelling_of_a_sampled_uuid_is_one_gpu(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    spellings = [FULL, FULL.lower(), f"GPU-{FULL}", f"gpu-{FULL.lower()}", f"GPU-{FULL}::3"]
    one.ingest(
        [
            *(
                sample(n, at + timedelta(seconds=10 * n), gpu_uuid=uuid)
                for n, uuid in enumerate(spellings)
            ),
            *(
                usage(n, at + timedelta(seconds=40 + n), gpu_uuids=[uuid])
                for n, uuid in enumerate(spellings)
            ),
        ]
    )
    one.close()
    assert {cell["gpu"] for cell in one.cells().values() if cell["cost_nusd"]} == {
        f"GPU-{FULL.lower()}"
    }
    assert sum(
        cell["requests"] for cell in (line for c in one.cells().values() for line in c["lines"])
    ) == len(spellings)
    assert sum(cell["cost_nusd"] for cell in one.cells(minute=at).values()) in (
        14_166_666,
        14_166_667,
    )
    slices: dict[str, Any] = {
        "mig_profile": "3g.40gb",
        "parent_uuid": FULL.upper(),
        "utilization": None,
    }
    bare = FULL.replace("0c1d", "ffff")
    later = at + 5 * MINUTE
    one.ingest(
        [
            sample(20 + n, later + timedelta(seconds=n), gpu_uuid=uuid, **slices)
            for n, uuid in enumerate((bare, f"MIG-{bare}"))
        ]
    )
    one.close()
    assert {cell["gpu"] for cell in one.cells(minute=later).values()} == {
        f"GPU-{FULL.lower()}",
        f"MIG-{bare.lower()}",
    }
    report = one.audit()
    assert report.holds, report.findings
