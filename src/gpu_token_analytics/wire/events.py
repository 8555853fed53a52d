"""The wire: every kind of event, and how a record becomes one: one self-describing JSON record per
Kafka message.

`decode()` turns bytes into an event or raises `InvalidRecord` with a reason, and never anything
else:

    bytes -> limits (size, UTF-8, NUL) -> msgspec tagged union (types, ranges) -> rules between
          fields -> a record that is not byte for byte what we would have written is looked at
          again, slowly
             (duplicate keys, depth, key count, numbers in unknown fields)
          -> one that the types refuse, too: it may say the same in other words (values.py)

Counts are inclusive (OpenTelemetry GenAI rule): `cached_tokens` is part of `prompt_tokens`,
`reasoning_tokens` of `completion_tokens`. Unknown is null (or absent), never 0. Unknown extra
fields are kept out, not fatal.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Union

import msgspec

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.wire.counters import COUNTERS
from gpu_token_analytics.wire.kind import Event, Kind, Touches, encode, encode_lines
from gpu_token_analytics.wire.sample import SAMPLE
from gpu_token_analytics.wire.strict_json import read_strictly, shorten, utf8_text
from gpu_token_analytics.wire.times import EARLIEST_TS, from_us
from gpu_token_analytics.wire.usage import USAGE

MAX_RECORD_BYTES = 64 * 1024
MAX_AHEAD_SECONDS = 300

# Every kind. A new one is a file of this room, and a line here (CONTRIBUTING.md, "A new kind of
# event").
KINDS: tuple[Kind[Any], ...] = (
    USAGE,
    SAMPLE,
    COUNTERS,
)

_MAX_AHEAD = timedelta(seconds=MAX_AHEAD_SECONDS)

_BY_TAG: dict[object, Kind[Any]] = {kind.tag: kind for kind in KINDS}
_BY_STRUCT: dict[type[Event], Kind[Any]] = {kind.struct: kind for kind in KINDS}

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Union[tuple(_BY_STRUCT)])  # noqa: UP007  # made of a table


def touching_kinds() -> list[tuple[Kind[Any], Touches]]:
    """The kinds that cells depend on, and how."""
    return [(kind, kind.touches) for kind in KINDS if kind.touches is not None]


def kind_of(event: Event) -> Kind[Any]:
    """Its kind."""
    return _BY_STRUCT[type(event)]


def decode(value: bytes | None, broker_ts: datetime | None = None) -> Event:
    """The event in `value`. Raises InvalidRecord, and nothing else, for any bytes whatever.

    broker_ts: the broker's time of the record; an event more than MAX_AHEAD_SECONDS ahead of it is
    refused, so that one wrong clock cannot open cells in 2099. None leaves that check out.
    """
    if not value:
        raise InvalidRecord(
            Reason.EMPTY, "the record has no value; send one JSON object per message"
        )
    if len(value) > MAX_RECORD_BYTES:
        raise InvalidRecord(
            Reason.TOO_LARGE, f"{len(value):,} bytes; a record has at most {MAX_RECORD_BYTES:,}"
        )
    try:
        event: Event = _decoder.decode(value)
        _check_form(event, value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        event = _in_other_words(value, error)
    try:
        event = kind_of(event).without_noise(event)
        _check_rules(event, broker_ts)
    except OverflowError as error:  # a time that no calendar has, after its zone is taken off
        raise _explain(value, error) from None
    return event


def decode_or_error(value: bytes | None, broker_ms: int) -> Event | InvalidRecord:
    """decode(), with the error returned. broker_ms: the broker's time in milliseconds since
    1970."""
    try:
        return decode(value, from_us(broker_ms * 1000))
    except InvalidRecord as error:
        return _bare(error)


def unknown_fields(event: Event, value: bytes) -> list[str]:
    """The fields of a good record that its contract does not know; they are kept out. A misspelt
    one is such a field."""
    if encode(event) == value:
        return []
    return [name for name in json.loads(value) if name not in kind_of(event).fields]


class Lines(NamedTuple):
    """Events read from lines, and the same events as encode() writes them, on a line each."""

    events: list[Event]
    written: bytes


def read_lines(records: bytes) -> Lines | None:
    """The events of records that stand on a line each, read but not judged; None where one cannot
    be read."""
    try:
        events = _decoder.decode_lines(records)
        return Lines(events, encode_lines(events))
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        return None


def _bare(error: InvalidRecord) -> InvalidRecord:
    # Its traceback holds the frames that hold the list it goes into: a cycle, with the record in
    # it, until the garbage collector comes round - at a megabyte each that is too late.
    error.__context__ = None
    return error.with_traceback(None)


def _check_form(event: Event, value: bytes) -> None:
    """Raises InvalidRecord where `value`, which was read as `event`, is not a well-formed
    record."""
    if encode(event) != value or b"\\u0000" in value:
        # Not what encode() writes: another producer, extra fields, other spacing - or something
        # hostile that msgspec reads past (duplicate keys, 1e999 or deep nesting in unknown fields).
        # The slow reader sees all of it, and tells an escaped NUL from a name with a backslash in
        # it.
        read_strictly(value)


def _in_other_words(value: bytes, error: Exception) -> Event:
    """The event of a record that the fast reader refused with `error`. Raises InvalidRecord where
    it means none."""
    try:
        document = read_strictly(value)
        kind = _BY_TAG.get(document.get("schema")) if isinstance(document, dict) else None
        if kind is not None:
            event: Event = msgspec.convert(kind.forms.plain(document), type=kind.struct)
            return event
    except (msgspec.MsgspecError, RecursionError, OverflowError, TypeError):
        pass
    raise _explain(value, error) from None


def _check_rules(event: Event, broker_ts: datetime | None) -> None:
    """Rules between fields; each error names field, value and rule."""
    ts = event.ts
    if ts.year < EARLIEST_TS.year:  # as it is written: the schema can say that, too
        raise InvalidRecord(
            Reason.OUT_OF_RANGE,
            f"ts={ts.isoformat()} is before {EARLIEST_TS.year}: is the clock set?",
            "ts",
        )
    if broker_ts is not None and ts - broker_ts > _MAX_AHEAD:
        raise InvalidRecord(
            Reason.FUTURE_TS,
            f"ts={ts.isoformat()} is more than {MAX_AHEAD_SECONDS} s ahead of the broker's "
            f"{broker_ts.isoformat()}; "
            "set the producer's clock (NTP)",
            "ts",
        )
    if ts.year > 2099:
        raise InvalidRecord(
            Reason.OUT_OF_RANGE, f"ts={ts.isoformat()} is after 2099: is the clock set?", "ts"
        )
    kind_of(event).check(event)


def _explain(value: bytes, error: Exception) -> InvalidRecord:
    """Why msgspec refused `value`, in our reasons. Only bad records come here, so it may be
    slow."""
    try:
        text = utf8_text(value)
        read_strictly(value)
    except InvalidRecord as refused:
        return refused
    message = str(error)
    field = message.rsplit("`$.", 1)[1].split("`", maxsplit=1)[0] if "`$." in message else None
    document = json.loads(text)
    if not isinstance(document, dict):
        return InvalidRecord(
            Reason.WRONG_TYPE, f"a record is one JSON object, got {shorten(document)}"
        )
    if field == "schema" or not isinstance(document.get("schema"), str):
        known = ", ".join(kind.tag for kind in KINDS)
        return InvalidRecord(
            Reason.UNKNOWN_SCHEMA,
            f"schema={shorten(document.get('schema'))} is not known; use one of {known}",
            "schema",
        )
    shown = f"{field}={shorten(document.get(field))}: " if field and field in document else ""
    ranged = "Expected" not in message or any(
        part in message
        for part in (
            ">=",
            "<=",
            "of length",
            "Number out of range",
            "Integer value out of range",
            "matching",
        )
    )
    bad_time = field == "ts" and isinstance(document.get("ts"), str)
    hint = " (RFC 3339 with a zone, such as 2026-01-31T12:00:00Z)" if bad_time else ""
    if field in ("gpu_uuid", "parent_uuid") and "matching" in message:
        hint = (
            " (a UUID holds no `/`: host/index is a label, so leave gpu_uuid out where no UUID is "
            "known)"
        )
    missing = "missing required field" in message
    reason = Reason.OUT_OF_RANGE if (ranged or bad_time) and not missing else Reason.WRONG_TYPE
    return InvalidRecord(reason, shown + message + hint, field)
