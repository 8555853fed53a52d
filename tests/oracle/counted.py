"""What engines counted beyond requests, a second time, from its specification (docs/cost-model.md):
token by token where a moment decides, in rational numbers where time does. Nothing is imported from
the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

MINUTE_US = 60_000_000
# When engines count: prompt tokens, completion tokens.
COUNTS_AT = {
    "vllm": ("first", "live"),
    "triton": ("first", "live"),
    "ray": ("first", "live"),
    "lmdeploy": ("first", "live"),
    "dynamo": ("end", "live"),
    "sglang": ("end", "end"),
    "trtllm": ("end", "end"),
    "llamacpp": ("end", "end"),
    "tgi": ("start", "end"),
}

Doc = Mapping[str, Any]


def engine_tokens(counters: Iterable[Doc], field: str, minute_us: int) -> int:
    """What the counters say of one minute."""
    total = 0
    for doc in counters:
        length = doc["ts_us"] - doc["start_us"]
        spread = [
            _half_up(Fraction(doc[field] * _inside(at, doc["start_us"], length), length))
            for at in _edges(minute_us)
        ]
        total += spread[1] - spread[0]
    return total


def request_tokens(
    usages: Iterable[Doc], engine: str, field: str, counters: Sequence[Doc], minute_us: int
) -> int:
    """Tokens of requests that the engine counted in the part of one minute for which its counters
    are known."""
    when = COUNTS_AT[engine][field == "completion_tokens"]
    return sum(_of_request(doc, when, doc[field], counters, minute_us) for doc in usages)


def _of_request(doc: Doc, when: str, count: int, counters: Sequence[Doc], minute_us: int) -> int:
    start, end = doc["start_us"], doc["ts_us"]
    if doc.get("latency_ms") is None:
        start = end // MINUTE_US * MINUTE_US
    begun = None
    if doc.get("latency_ms") is not None and doc.get("ttft_ms") is not None:
        begun = end - round((doc["latency_ms"] - doc["ttft_ms"]) * 1000)
    if begun is None or not start < begun < end:
        begun = start
    known = _known(counters, minute_us)
    if when == "live":
        length = max(end - begun, 1)
        upto = [
            [_half_up(Fraction(count * _inside(at, begun, length), length)) for at in span]
            for span in known
        ]
        return sum(high - low for low, high in upto)
    moment = {"first": begun, "start": start, "end": max(end - 1, start)}[when]
    return count if any(low <= moment < high for low, high in known) else 0


def _known(counters: Sequence[Doc], minute_us: int) -> list[tuple[int, int]]:
    """The time of a minute for which counters are known, in spans that do not touch."""
    low, high = _edges(minute_us)
    cuts = sorted(
        {
            low,
            high,
            *(at for doc in counters for at in (doc["start_us"], doc["ts_us"]) if low < at < high),
        }
    )
    spans: list[tuple[int, int]] = []
    for begin, end in pairwise(cuts):
        if any(doc["start_us"] <= begin and end <= doc["ts_us"] for doc in counters):
            if spans and spans[-1][1] == begin:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((begin, end))
    return spans


def _edges(minute_us: int) -> tuple[int, int]:
    return minute_us, minute_us + MINUTE_US


def _inside(at_us: int, start_us: int, length_us: int) -> int:
    return min(max(at_us - start_us, 0), length_us)


def _half_up(value: Fraction) -> int:
    return (value + Fraction(1, 2)).__floor__()
