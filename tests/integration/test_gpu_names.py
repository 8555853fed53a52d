"""One card is paid once, however requests and samples spell it; labels and hosts are one spelling,
too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.ledger_support import Pipeline, contents, minutes_ago, sample, usage

from gpu_token_analytics.wire.kind import Event

SPELLINGS: list[dict[str, Any]] = [
    {"gpu_uuids": ["GPU-a::0"]},
    {"gpu_uuids": ["gpu-A"]},
    {"gpu_uuids": ["GPU-A::7"]},
    {"gpu_uuids": ["h1/00"]},
    {"gpu_uuids": ["H1/0"]},
    {"gpu_uuids": [], "gpu_index": 0, "host": "H1"},
    {"gpu_uuids": [], "gpu_index": 0, "host": "h1."},
    {"gpu_uuids": ["GPU-a", "gpu-a", "GPU-a::1"]},
    {"gpu_uuids": ["h1/0", "h1/00"]},
]


@pytest.mark.parametrize("first", ["samples", "requests"])
def test_one_card_is_paid_once_however_it_is_spelt(
    pipeline: Callable[..., Pipeline], first: str
) -> None:
    start = minutes_ago(30)
    end = start + timedelta(seconds=30)
    samples: list[Event] = [
        sample(n, start + timedelta(seconds=10 * n), gpu_uuid=uuid, host=host)
        for n, (uuid, host) in enumerate(
            [
                ("GPU-a", "h1"),
                ("gpu-a", "H1"),
                ("GPU-A::0", "h1"),
                ("GPU-a", "h1."),
                ("GPU-a", "h1"),
            ]
        )
    ]
    spelt: list[Event] = [usage(n, end, **names) for n, names in enumerate(SPELLINGS)]
    plain: list[Event] = [usage(n, end) for n in range(len(SPELLINGS))]
    one, other = pipeline("spelt"), pipeline("plain")
    for part in (samples, spelt) if first == "samples" else (spelt, samples):
        one.ingest(part)
        one.close()
    other.ingest([*(sample(n, start + timedelta(seconds=10 * n)) for n in range(5)), *plain])
    other.close()
    found, expected = contents(one.cells(minute=start)), contents(other.cells(minute=start))
    assert found.keys() == expected.keys() == {f"GPU-a|{start:%Y-%m-%dT%H:%MZ}"}
    for name, cell in expected.items():
        assert found[name]["classes"] == cell["classes"]
        assert [line["requests"] for line in found[name]["lines"]] == [len(SPELLINGS)]
        assert found[name]["host"] == "h1"
    report = one.audit()
    assert report.holds, report.findings
