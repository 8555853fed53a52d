"""The verdict: what is in the store and in the dead letters, against what was sent. Every problem
is one line."""

from __future__ import annotations

import json
from calendar import timegm
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.integration.killloop.oracle_judge import ledger_against_oracle
from tests.integration.killloop.variants import INC_SUMS_COLLECTION
from tests.integration.killloop.world import World
from xxhash import xxh3_64_digest

from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.store import LedgerStore
from gpu_token_analytics.kafka.dead_letters import read_dead_letters
from gpu_token_analytics.kafka.topics import describe_group
from gpu_token_analytics.ledger.params import params_of
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.identity import event_id_of
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.usage import USAGE

MAX_LISTED = 5
_MINUTE_US = 60_000_000

# Judges of the ledger. Each gets the store, the settings and the world, and returns problems.
LedgerJudge = Callable[[Store, Settings, World], list[str]]


def judge(store: Store, settings: Settings, world: World) -> list[str]:
    """All problems: of raw (L1), of dead letters (L2), of the ledger (L3), of offsets (L5)."""
    found = (
        raw_problems(store, world)
        + dead_letter_problems(settings, world)
        + offset_problems(settings)
    )
    for ledger_judge in LEDGER_JUDGES:
        found += ledger_judge(store, settings, world)
    return found


def raw_problems(store: Store, world: World) -> list[str]:
    """L1: the stored ids are exactly the valid ids sent, each with the hash and the fields of what
    was sent."""
    stored: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for name in (USAGE.collection, SAMPLE.collection):
        for document in store[name].find():
            event_id = event_id_of(document)
            if event_id in stored:
                problems.append(f"L1 {event_id} is stored twice")
            stored[event_id] = document
    problems += _differences("L1 lost", world.valid.keys() - stored.keys(), len(world.valid))
    problems += _differences("L1 never sent", stored.keys() - world.valid.keys(), len(world.valid))
    wrong = [
        name
        for name in world.valid.keys() & stored.keys()
        if not _is_what_was_sent(stored[name], world.valid[name])
    ]
    return problems + _differences("L1 stored differently", wrong, len(world.valid))


def _is_what_was_sent(document: dict[str, Any], value: bytes) -> bool:
    sent = json.loads(value)
    at = datetime.fromisoformat(sent["ts"])
    expected = {
        "h": xxh3_64_digest(value),
        "host": sent["host"],
        "ts_us": timegm(at.utctimetuple()) * 1_000_000 + at.microsecond,
    }
    if sent["schema"] == "token.usage.v1":
        expected |= {
            name: sent[name]
            for name in ("model", "tenant", "request_id", "prompt_tokens", "completion_tokens")
        }
        expected["gpus"] = sorted(sent.get("gpu_uuids") or [f"{sent['host']}/{sent['gpu_index']}"])
    else:
        expected |= {
            "gpu": sent["gpu_uuid"],
            "utilization": sent["utilization"],
            "power_w": sent["power_w"],
        }
    return all(document[name] == value for name, value in expected.items())


def dead_letter_problems(settings: Settings, world: World) -> list[str]:
    """L2: the dead letters, once per place they were read at, are exactly the bad records sent,
    with their reasons."""
    found: Counter[tuple[str, bytes]] = Counter()
    for letter in read_dead_letters(settings):
        found[letter.reason, letter.value or b""] += 1
    return _listed("missing", world.bad - found) + _listed("not sent", found - world.bad)


def _listed(what: str, letters: Counter[tuple[str, bytes]]) -> list[str]:
    first = list(letters.items())[:MAX_LISTED]
    return [f"L2 {count} x {reason} {what}: {value[:100]!r}" for (reason, value), count in first]


def offset_problems(settings: Settings) -> list[str]:
    """L5, L6: everything was read and committed, and the log lost nothing on the way."""
    states = describe_group(settings)
    return [
        f"L5 partition {state.partition} has lag {state.lag}" for state in states if state.lag
    ] + [
        f"L6 partition {state.partition} lost its first {state.low} records (the broker is too "
        "small for this test)"
        for state in states
        if state.low
    ]


def ledger_totals(store: Store, settings: Settings, world: World) -> list[str]:
    """L3: the ledger's lines add up to the requests and tokens sent, and the audit holds to the
    nano-dollar."""
    sent = Counter[str]()
    for event in world.events():
        if event["schema"] == "token.usage.v1":
            sent["requests"] += 1
            for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
                sent[name] += event.get(name, 0)  # 0 is left out of our byte form
    report = audit(LedgerStore(store, settings.close_debounce_seconds), params_of(settings))
    problems = [f"L3 {item.cell}: {item.problem}" for item in report.findings[:MAX_LISTED]]
    if report.cells_pending:
        problems.append(f"L7 {report.cells_pending} cells are not computed")
    for name, count in sent.items():
        if report.ledger_counts[name] != count:
            problems.append(f"L3 {name}: sent {count}, in the ledger {report.ledger_counts[name]}")
    return problems


LEDGER_JUDGES: list[LedgerJudge] = [ledger_totals, ledger_against_oracle]


def inc_sums_problems(store: Store, world: World) -> list[str]:
    """Of the `$inc` variant: its sums per minute against what was sent."""
    expected: dict[int, list[int]] = {}
    for event in world.events():
        if event["schema"] == "token.usage.v1":
            at = datetime.fromisoformat(event["ts"])
            minute_us = int(at.timestamp()) // 60 * _MINUTE_US
            total = expected.setdefault(minute_us, [0, 0])
            total[0] += 1
            total[1] += event["prompt_tokens"] + event["completion_tokens"]
    found = {
        sums["_id"]: [sums["requests"], sums["tokens"]]
        for sums in store.database[INC_SUMS_COLLECTION].find()
    }
    wrong = [str(minute) for minute in expected if found.get(minute) != expected[minute]]
    return _differences("$inc sums wrong in minute", wrong, len(expected))


def _differences(what: str, names: Any, of: int) -> list[str]:
    names = sorted(names)
    if not names:
        return []
    return [f"{what}: {len(names)} of {of}, such as {', '.join(names[:MAX_LISTED])}"]
