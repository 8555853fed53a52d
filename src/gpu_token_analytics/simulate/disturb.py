"""What real producers do to a clean stream, on request: late events, repeated events, broken
records.

Late and repeated events are valid and must end in the ledger once; broken records are extra (no
valid event is lost to them) and must end in the dead letters. The same seed disturbs the same
stream in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np

from gpu_token_analytics.errors import Reason, SettingsError
from gpu_token_analytics.simulate.run import Delivery
from gpu_token_analytics.wire.events import MAX_RECORD_BYTES
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.times import to_us

_LATE_SECONDS = (60.0, 900.0)
_REPEAT_SECONDS = (0.0, 120.0)
_BLOCK = 4096


class Hostile(NamedTuple):
    """A broken record and the reason it must be refused for."""

    name: str
    reason: Reason
    value: bytes


@dataclass(frozen=True, slots=True)
class Disturbances:
    """Shares of the stream, 0..1: events sent 1-15 minutes late, sent twice, and broken records
    added per event."""

    late: float = 0.0
    duplicates: float = 0.0
    broken: float = 0.0

    def check(self) -> Disturbances:
        """Raises SettingsError for a share outside 0..1; returns self."""
        for name, share in (
            ("late", self.late),
            ("duplicates", self.duplicates),
            ("broken", self.broken),
        ):
            if not 0 <= share <= 1:
                raise SettingsError(
                    f"--{name} {share} is not a share; give 0..1 (0.01 is one in a hundred)"
                )
        return self


def disturb(events: Iterable[Event], shares: Disturbances, seed: int) -> Iterator[Delivery]:
    """`events` with the asked disturbances; what is still on hold when they end is sent at once.

    Memory is bounded by the events on hold (15 minutes of event time).
    """
    if shares.check() == Disturbances():
        return (Delivery(to_us(event.ts), event, b"", event.host) for event in events)
    return _disturb(events, shares, np.random.default_rng([seed & (2**64 - 1), 0x64697374]))


def _disturb(
    events: Iterable[Event], shares: Disturbances, rng: np.random.Generator
) -> Iterator[Delivery]:
    held: list[tuple[int, int, Event]] = []
    draws: list[list[float]] = []
    broken = at_us = 0
    for number, event in enumerate(events):
        if number % _BLOCK == 0:
            draws = rng.random((_BLOCK, 5)).tolist()
        late, repeat, bad, how_late, how_repeated = draws[number % _BLOCK]
        at_us = to_us(event.ts)
        while held and held[0][0] <= at_us:
            yield _release(held)
        if late < shares.late:
            heappush(held, (at_us + _between_us(_LATE_SECONDS, how_late), number, event))
        else:
            yield Delivery(at_us, event, b"", event.host)
        if repeat < shares.duplicates:
            heappush(held, (at_us + _between_us(_REPEAT_SECONDS, how_repeated), number, event))
        if bad < shares.broken:
            kinds = hostile_records(event)
            yield Delivery(at_us, None, kinds[broken % len(kinds)].value, event.host)
            broken += 1
    while held:
        yield _release(held)._replace(at_us=at_us)


def _release(held: list[tuple[int, int, Event]]) -> Delivery:
    at_us, _, event = heappop(held)
    return Delivery(at_us, event, b"", event.host)


def _between_us(bounds_seconds: tuple[float, float], share: float) -> int:
    low, high = bounds_seconds
    return round((low + (high - low) * share) * 1e6)


def hostile_records(event: Event) -> list[Hostile]:
    """One record of every kind of damage, made from a good event. Each must be refused for its
    `reason`.

    Not here, because they need more than the record itself: a null value, a time ahead of the
    broker's clock, the same id with another payload.
    """
    good = encode(event)
    fields: dict[str, Any] = json.loads(good)

    def changed(**fields_changed: Any) -> bytes:
        return json.dumps({**fields, **fields_changed}).encode()

    def spliced(name: str, token: str) -> bytes:
        return good[:-1] + f',"{name}":{token}}}'.encode()

    without_zone = str(fields["ts"]).removesuffix("Z")
    nested = b'{"schema":"token.usage.v1","extra":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    return [
        Hostile("empty", Reason.EMPTY, b""),
        Hostile("too_large", Reason.TOO_LARGE, changed(padding="x" * (MAX_RECORD_BYTES + 1))),
        Hostile("utf16", Reason.NOT_UTF8, good.decode().encode("utf-16")),
        Hostile("byte_order_mark", Reason.NOT_UTF8, b"\xef\xbb\xbf" + good),
        Hostile(
            "gzip_bytes",
            Reason.NOT_UTF8,
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56\x2a\x4e",
        ),
        Hostile("nul_character", Reason.NUL_CHARACTER, changed(host="a\0b")),
        Hostile("cut_off", Reason.NOT_JSON, good[: len(good) // 2]),
        Hostile("nan", Reason.NOT_JSON, spliced("extra", "NaN")),
        Hostile("lone_surrogate", Reason.NOT_JSON, changed(host="\ud800")),
        Hostile("infinite", Reason.OUT_OF_RANGE, spliced("extra", "1e999")),
        Hostile("integer_2_63", Reason.OUT_OF_RANGE, spliced("extra", str(2**63))),
        Hostile("integer_5000_digits", Reason.OUT_OF_RANGE, spliced("extra", "9" * 5000)),
        Hostile("too_deep", Reason.TOO_DEEP, nested),
        Hostile(
            "too_many_keys",
            Reason.TOO_MANY_KEYS,
            changed(**{f"k{number}": 0 for number in range(200)}),
        ),
        Hostile("duplicate_key", Reason.DUPLICATE_KEY, spliced("host", '"other"')),
        Hostile("unknown_schema", Reason.UNKNOWN_SCHEMA, changed(schema="token.usage.v9")),
        Hostile("not_an_object", Reason.WRONG_TYPE, b"[1,2,3]"),
        Hostile("text_for_number", Reason.WRONG_TYPE, changed(gpu_index="zero")),
        Hostile("host_missing", Reason.WRONG_TYPE, json.dumps({**fields, "host": None}).encode()),
        Hostile("ts_without_zone", Reason.OUT_OF_RANGE, changed(ts=without_zone)),
        Hostile("ts_1970", Reason.OUT_OF_RANGE, changed(ts="1970-01-01T00:00:00Z")),
        Hostile("negative_index", Reason.OUT_OF_RANGE, changed(gpu_index=-1)),
        *_inconsistent(fields),
    ]


def _inconsistent(fields: dict[str, Any]) -> list[Hostile]:
    """Fields that contradict each other, for the kind of event `fields` is."""
    if fields["schema"] == "token.usage.v1":
        changes: dict[str, dict[str, Any]] = {
            "cached_over_prompt": {"cached_tokens": fields["prompt_tokens"] + 1},
            "reasoning_over_completion": {"reasoning_tokens": fields["completion_tokens"] + 1},
            "no_gpu": {"gpu_uuids": [], "gpu_index": None},
        }
    else:
        changes = {
            "used_over_total": {"mem_used_mb": 2000, "mem_total_mb": 1000},
            "slice_without_parent": {"mig_profile": "1g.10gb"},
        }
    return [
        Hostile(name, Reason.INCONSISTENT, json.dumps({**fields, **change}).encode())
        for name, change in changes.items()
    ]
