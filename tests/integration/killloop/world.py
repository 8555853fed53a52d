"""What is sent: valid events, duplicates, broken records, ids used twice; seeded and endless.

Records are written with the standard library's json, not with the package's encoder, so that the
two are not wrong together; half of them are then put into the package's own byte form, as its
producers send it (it is read by another path).
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import encode

HOSTS = 24
GPUS_PER_HOST = 4
MODELS = ("llama-3-70b", "qwen-2.5-32b", "mixtral-8x7b")
TENANTS = ("search", "chat", "batch")
DUPLICATE_SHARE = 0.05
BAD_SHARE = 0.01
SAMPLE_SHARE = 0.15
EVENTS_PER_SECOND = 40.0  # of event time


@dataclass(frozen=True)
class Record:
    """One record to send."""

    key: str
    value: bytes


@dataclass
class World:
    """The truth. `valid`: id -> the bytes that must be stored; `bad`: (reason, bytes) -> times
    sent."""

    seed: int
    start: datetime = field(
        default_factory=lambda: (datetime.now(UTC) - timedelta(hours=3)).replace(
            second=0, microsecond=0
        )
    )
    valid: dict[str, bytes] = field(default_factory=dict)
    bad: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    sent: int = 0
    duplicates: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._count = 0
        self._sent_events: list[Record] = []

    def records(self, count: int) -> Iterator[Record]:
        """The next records; each is part of the truth from here on."""
        for _ in range(count):
            dice = self._random.random()
            self.sent += 1
            if dice < DUPLICATE_SHARE and self._sent_events:
                yield self._again()
            elif dice < DUPLICATE_SHARE + BAD_SHARE and self._sent_events:
                yield self._bad()
            else:
                yield self._event()

    def events(self) -> Iterator[dict[str, Any]]:
        """The valid events as plain JSON objects."""
        return (json.loads(value) for value in self.valid.values())

    def _event(self) -> Record:
        self._count += 1
        event = self._sample() if self._random.random() < SAMPLE_SHARE else self._usage()
        value = _json(event)
        if self._random.random() < 0.5:
            value = encode(decode(value))
        record = Record(event["host"], value)
        self.valid[event["event_id"]] = record.value
        self._sent_events.append(record)
        return record

    def _again(self) -> Record:
        """A duplicate: mostly a recent event, sometimes an old one, sometimes into another
        partition."""
        self.duplicates += 1
        recent = self._random.random() < 0.7
        record = self._random.choice(self._sent_events[-50:] if recent else self._sent_events)
        key = (
            record.key
            if self._random.random() < 0.7
            else f"elsewhere-{self._random.randrange(100)}"
        )
        return Record(key, record.value)

    def _bad(self) -> Record:
        kind = self._random.choice(_BAD_KINDS)
        number = self._random.getrandbits(60)  # every bad record is one of its own
        if kind is _conflict:
            # A recent one, mostly: the second use of an id is read while the first is on its way.
            original = self._random.choice(
                self._sent_events[-400:] if self._random.random() < 0.8 else self._sent_events
            )
            event = json.loads(original.value) | {"host": original.key, "note": str(number)}
            if event["schema"] == "token.usage.v1":
                event["model"] = f"another-{number}"
            else:
                event["power_w"] = 1.0
            record, reason = Record(original.key, _json(event)), "id_conflict"
        else:
            value, reason = kind(self._usage(), number)
            record = Record(f"vm{number % HOSTS}", value)
        self.bad[reason, record.value] += 1
        return record

    def _head(self, schema: str, host: int) -> dict[str, Any]:
        late = timedelta(
            seconds=self._random.choice((0, 0, 0, 0, 5, 90, 400)) * self._random.random()
        )
        ts = self.start + timedelta(seconds=self._count / EVENTS_PER_SECOND) - late
        return {
            "schema": schema,
            "event_id": str(UUID(int=self._random.getrandbits(128), version=4)),
            "ts": ts.isoformat().replace("+00:00", "Z"),
            "host": f"vm{host}",
        }

    def _usage(self) -> dict[str, Any]:
        random = self._random
        host, index = random.randrange(HOSTS), random.randrange(GPUS_PER_HOST)
        prompt, completion = random.randrange(0, 4000), random.randrange(0, 800)
        event = self._head("token.usage.v1", host) | {
            "model": random.choice(MODELS),
            "tenant": random.choice(TENANTS),
            "request_id": f"req-{random.getrandbits(48):x}",
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "cached_tokens": random.randrange(prompt + 1),
        }
        naming = random.random()
        if naming < 0.75:
            event["gpu_uuids"] = [gpu_uuid(host, index)]
        elif naming < 0.85:  # tensor parallel: one event, two GPUs
            event["gpu_uuids"] = [
                gpu_uuid(host, index),
                gpu_uuid(host, (index + 1) % GPUS_PER_HOST),
            ]
        else:  # an engine that knows only the index
            event["gpu_index"] = index
        if random.random() < 0.9:
            event["latency_ms"] = random.choice((300, 2500, 40_000, 400_000)) * random.random()
            event["ttft_ms"] = event["latency_ms"] * random.random()
        return event

    def _sample(self) -> dict[str, Any]:
        host, index = self._random.randrange(HOSTS), self._random.randrange(GPUS_PER_HOST)
        return self._head("gpu.metrics.v1", host) | {
            "gpu_index": index,
            "gpu_uuid": gpu_uuid(host, index),
            "name": "NVIDIA A100-SXM4-80GB",
            "source": "nvml",
            "utilization": self._random.random(),
            "mem_used_mb": 40_000.0,
            "mem_total_mb": 81_920.0,
            "power_w": 100 + 300 * self._random.random(),
        }


def gpu_uuid(host: int, index: int) -> str:
    """The UUID of one GPU of this fleet."""
    return f"GPU-{UUID(int=1_000_000 + host * 1000 + index)}"


def _json(event: dict[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def _not_json(event: dict[str, Any], number: int) -> tuple[bytes, str]:
    return _json(event)[:-1] + f" {number}".encode(), "not_json"


def _wrong_type(event: dict[str, Any], number: int) -> tuple[bytes, str]:
    return _json(event | {"prompt_tokens": f"{number}"}), "wrong_type"


def _negative(event: dict[str, Any], number: int) -> tuple[bytes, str]:
    return _json(event | {"prompt_tokens": -1 - number % 10**9}), "out_of_range"


def _cached_over_prompt(event: dict[str, Any], number: int) -> tuple[bytes, str]:
    prompt = number % 1000
    return _json(event | {"prompt_tokens": prompt, "cached_tokens": prompt + 1}), "inconsistent"


def _future(event: dict[str, Any], number: int) -> tuple[bytes, str]:
    return _json(event | {"ts": "2099-01-01T00:00:00Z"}), "future_ts"


def _unknown_schema(event: dict[str, Any], number: int) -> tuple[bytes, str]:
    return _json(event | {"schema": f"token.usage.v{number}"}), "unknown_schema"


def _gzip(event: dict[str, Any], number: int) -> tuple[bytes, str]:
    return b"\x1f\x8b\x08" + str(number).encode() + bytes(range(128, 200)), "not_utf8"


def _conflict(event: dict[str, Any], number: int) -> tuple[bytes, str]:
    raise AssertionError("made in World._bad")


_BadKind = Callable[[dict[str, Any], int], tuple[bytes, str]]
_BAD_KINDS: tuple[_BadKind, ...] = (
    _not_json,
    _wrong_type,
    _negative,
    _cached_over_prompt,
    _future,
    _unknown_schema,
    _gzip,
    _conflict,
)
