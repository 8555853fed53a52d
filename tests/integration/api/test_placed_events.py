"""POST /v1/events with requests that name an instance: the placement is looked up at the door."""

from __future__ import annotations

from typing import Any

from tests.integration.api.conftest import NOW, Api

from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.usage import TokenUsage


def event(number: int, instance: str, **more: Any) -> dict[str, Any]:
    return {
        "schema": "token.usage.v1", "event_id": f"placed-{number}", "ts": NOW.isoformat(),
        "host": "gateway", "model": "m",
        "request_id": "r", "prompt_tokens": 3, "completion_tokens": 2, "gpu_uuids": [instance],
        **more,
    }  # fmt: skip


def test_an_instance_is_placed_kept_or_left_out(api: Api) -> None:
    rows = [
        {
            "instance": "http://n1:8000",
            "gpus": ["n1/0", "n1/1"],
            "valid_from": "2026-01-01T00:00:00Z",
        },
        {
            "instance": "http://n2:8000",
            "gpus": ["n2/0"],
            "counted_by": "engine",
            "valid_from": "2026-01-01T00:00:00Z",
        },
    ]
    api.client(KeyScope.ADMIN).post("/v1/placements", json=rows).raise_for_status()
    api.sink.records.clear()
    told = [
        event(1, "instance:n1:8000"),
        event(2, "instance:n2:8000"),
        event(3, "instance:n3:8000"),
        event(4, "GPU-1"),
    ]
    answer = api.client(KeyScope.INGEST).post("/v1/events", json=told)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["accepted"], said["rejected"]) == (4, 0)
    assert [(one["index"], one["field"]) for one in said["warnings"]] == [(1, "gpu_uuids")]
    sent = {
        one.event_id: one
        for _, record in api.sink.records
        if isinstance(one := decode(record), TokenUsage)
    }
    assert {name: (one.gpu_uuids, one.host) for name, one in sent.items()} == {
        "placed-1": (["n1/0", "n1/1"], "n1"),
        "placed-3": (["instance:n3:8000"], "gateway"),
        "placed-4": (["GPU-1"], "gateway"),
    }


def test_a_record_that_is_left_out_is_no_refusal(api: Api) -> None:
    row = {
        "instance": "http://n4:8000",
        "gpus": ["n4/0"],
        "counted_by": "engine",
        "valid_from": "2026-01-01T00:00:00Z",
    }
    api.client(KeyScope.ADMIN).post("/v1/placements", json=[row]).raise_for_status()
    answer = api.client(KeyScope.INGEST).post(
        "/v1/events", json=[event(5, "instance:n4:8000"), event(6, "GPU-1", tenant="")]
    )
    assert (answer.status_code, answer.json()["accepted"], answer.json()["rejected"]) == (200, 1, 1)
