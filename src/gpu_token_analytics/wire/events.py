"""The wire: `token.usage.v1` and `gpu.metrics.v1`, one self-describing JSON record per Kafka message.

`decode()` turns bytes into an event or raises `InvalidRecord` with a reason, and never anything else:

    bytes -> limits (size, UTF-8, NUL) -> msgspec tagged union (types, ranges) -> rules between fields
          -> a record that is not byte for byte what we would have written is looked at again, slowly
             (duplicate keys, depth, key count, numbers in unknown fields)
          -> one that the types refuse, too: it may say the same in other words (values.py)

The JSON Schemas are generated from these types (`json_schemas()`), a test keeps the two equal.
Counts are inclusive (OpenTelemetry GenAI rule): `cached_tokens` is part of `prompt_tokens`, `reasoning_tokens` of
`completion_tokens`. Unknown is null (or absent), never 0. Unknown extra fields are kept out, not fatal.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import msgspec
import uuid_utils
from msgspec import Meta

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.units import (
    MAX_CELSIUS,
    MAX_GPU_INDEX,
    MAX_JOULES,
    MAX_MEGABYTES,
    MAX_USD_PER_HOUR,
    MAX_WATTS,
    MIG_SEVENTHS,
    MIN_CELSIUS,
)
from gpu_token_analytics.wire.names import canonical_gpu, canonical_host
from gpu_token_analytics.wire.strict_json import MAX_KEYS, MAX_STRING, nul_refused, read_strictly, shorten, utf8_text
from gpu_token_analytics.wire.values import NOISE_MS, TIMESTAMP_PATTERN, Forms, is_noise

MAX_RECORD_BYTES = 64 * 1024
MAX_TOKENS = 100_000_000
MAX_LATENCY_MS = 6 * 3600 * 1000
MAX_GPUS = 128
MAX_AHEAD_SECONDS = 300
MAX_CELLS = 8192  # minutes x GPUs one request may touch
EARLIEST_TS = datetime(2015, 1, 1, tzinfo=UTC)  # before the first LLM was served: an unset clock, not an event

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAX_AHEAD = timedelta(seconds=MAX_AHEAD_SECONDS)

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
# "/" is what tells a label (`host/index`) from a UUID.
GpuUuid: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128, pattern="^[^/]+$")]
EventId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Label: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
Timestamp: TypeAlias = Annotated[datetime, Meta(tz=True)]
TokenCount: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_LATENCY_MS)]
GpuIndex: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_GPU_INDEX)]
Ratio: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Megabytes: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_MEGABYTES)]
Watts: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_WATTS)]
Celsius: TypeAlias = Annotated[float, Meta(ge=MIN_CELSIUS, le=MAX_CELSIUS)]
Joules: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_JOULES)]
UsdPerHour: TypeAlias = Annotated[float, Meta(ge=0, le=MAX_USD_PER_HOUR)]
Source: TypeAlias = Literal["nvml", "nvidia-smi", "seed", "replay"]


class TokenUsage(
    msgspec.Struct, tag_field="schema", tag="token.usage.v1", kw_only=True, frozen=True, omit_defaults=True, gc=False
):
    """One finished request. `ts` is its end; it was active from `ts - latency_ms + queue_ms`.

    A request on several GPUs (tensor or pipeline parallel) is ONE event that names all of them.
    `latency_ms` null: only a point in time is known; the ledger then spreads it over its minute (method `window`).
    """

    event_id: EventId
    ts: Timestamp
    host: Id
    model: Label
    request_id: Label
    prompt_tokens: TokenCount
    completion_tokens: TokenCount
    gpu_uuids: Annotated[list[Id], Meta(max_length=MAX_GPUS)] = []
    gpu_index: GpuIndex | None = None
    tenant: Label = "default"
    cached_tokens: TokenCount = 0
    reasoning_tokens: TokenCount = 0
    latency_ms: Milliseconds | None = None
    queue_ms: Milliseconds | None = None
    ttft_ms: Milliseconds | None = None
    finish_reason: Label | None = None

    @property
    def gpus(self) -> list[str]:
        """GPU ids it ran on, sorted and distinct: UUIDs, or `host/index` when no UUID was named; in their one spelling."""
        if self.gpu_uuids:
            return sorted({canonical_gpu(name) for name in self.gpu_uuids})
        return [gpu_label(self.host, self.gpu_index or 0)]


class GpuSample(
    msgspec.Struct, tag_field="schema", tag="gpu.metrics.v1", kw_only=True, frozen=True, omit_defaults=True, gc=False
):
    """One sample of one GPU (or one MIG slice: `mig_profile` and `parent_uuid` set). Null is unknown.

    `energy_j` is a counter since driver load, not an amount. `gpu_index` is a label that can change at each boot;
    the identity is `gpu_uuid`, and `host/gpu_index` where a source knows no UUID.
    """

    event_id: EventId
    ts: Timestamp
    host: Id
    gpu_index: GpuIndex
    source: Source
    gpu_uuid: GpuUuid | None = None
    name: Label | None = None
    utilization: Ratio | None = None
    mem_used_mb: Megabytes | None = None
    mem_total_mb: Megabytes | None = None
    power_w: Watts | None = None
    temperature_c: Celsius | None = None
    energy_j: Joules | None = None
    price_per_hour_usd: UsdPerHour | None = None
    mig_profile: Annotated[str, Meta(pattern=rf"^[1-{MIG_SEVENTHS}]g\.", max_length=32)] | None = None
    parent_uuid: GpuUuid | None = None

    @property
    def gpu(self) -> str:
        """GPU id: the UUID, or `host/index` where the source knows none."""
        return canonical_gpu(self.gpu_uuid) if self.gpu_uuid else gpu_label(self.host, self.gpu_index)


Event: TypeAlias = TokenUsage | GpuSample
EVENT_TYPES: tuple[type[TokenUsage], type[GpuSample]] = (TokenUsage, GpuSample)

_KINDS: dict[object, type[TokenUsage] | type[GpuSample]] = {kind.__struct_config__.tag: kind for kind in EVENT_TYPES}
_FORMS = {kind: Forms.of(kind) for kind in EVENT_TYPES}

FIELDS: dict[type[Event], tuple[str, ...]] = {kind: ("schema", *kind.__struct_fields__) for kind in EVENT_TYPES}

_decoder = msgspec.json.Decoder(TokenUsage | GpuSample)
_encoder = msgspec.json.Encoder()


def gpu_label(host: str, index: int) -> str:
    """`host/index`: how people name a GPU, and its id as long as no UUID is known."""
    return f"{canonical_host(host)}/{index}"


def new_event_id() -> str:
    """A fresh UUIDv7 (RFC 9562): ordered by time, so MongoDB's _id index stays warm at its right edge."""
    return str(uuid_utils.uuid7())


def to_us(at: datetime) -> int:
    """Microseconds since 1970-01-01 UTC."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The UTC datetime of `us` microseconds since 1970-01-01."""
    return _EPOCH + timedelta(microseconds=us)


def encode(event: Event) -> bytes:
    """The one byte form of an event: field order of the type, defaults left out, UTC `Z` times."""
    return _encoder.encode(event)


def decode(value: bytes | None, broker_ts: datetime | None = None) -> Event:
    """The event in `value`. Raises InvalidRecord, and nothing else, for any bytes whatever.

    broker_ts: the broker's time of the record; an event more than MAX_AHEAD_SECONDS ahead of it is refused, so that
    one wrong clock cannot open cells in 2099. None leaves that check out.
    """
    if not value:
        raise InvalidRecord(Reason.EMPTY, "the record has no value; send one JSON object per message")
    if len(value) > MAX_RECORD_BYTES:
        raise InvalidRecord(Reason.TOO_LARGE, f"{len(value):,} bytes; a record has at most {MAX_RECORD_BYTES:,}")
    try:
        event: Event = _decoder.decode(value)
        _check_form(event, value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        event = _in_other_words(value, error)
    try:
        event = _without_noise(event)
        _check_rules(event, broker_ts)
    except OverflowError as error:  # a time that no calendar has, after its zone is taken off
        raise _explain(value, error) from None
    return event


def decode_or_error(value: bytes | None, broker_ms: int) -> Event | InvalidRecord:
    """decode(), with the error returned. broker_ms: the broker's time in milliseconds since 1970."""
    try:
        return decode(value, from_us(broker_ms * 1000))
    except InvalidRecord as error:
        return _bare(error)


def unknown_fields(event: Event, value: bytes) -> list[str]:
    """The fields of a good record that its contract does not know; they are kept out. A misspelt one is such a field."""
    if _encoder.encode(event) == value:
        return []
    return [name for name in json.loads(value) if name not in FIELDS[type(event)]]


class Lines(NamedTuple):
    """Events read from lines, and the same events as encode() writes them, on a line each."""

    events: list[Event]
    written: bytes


def read_lines(records: bytes) -> Lines | None:
    """The events of records that stand on a line each, read but not judged; None where one cannot be read."""
    try:
        events = _decoder.decode_lines(records)
        return Lines(events, _encoder.encode_lines(events))
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError):
        return None


def _bare(error: InvalidRecord) -> InvalidRecord:
    # Its traceback holds the frames that hold the list it goes into: a cycle, with the record in it, until the garbage
    # collector comes round - at a megabyte each that is too late.
    error.__context__ = None
    return error.with_traceback(None)


def _check_form(event: Event, value: bytes) -> None:
    """Raises InvalidRecord where `value`, which was read as `event`, is not a well-formed record."""
    if _encoder.encode(event) != value:
        # Not what encode() writes: another producer, extra fields, other spacing - or something hostile that msgspec
        # reads past (duplicate keys, 1e999 or deep nesting in unknown fields). The slow reader sees all of it.
        read_strictly(value)
    elif b"\\u0000" in value:
        raise nul_refused()


def _in_other_words(value: bytes, error: Exception) -> Event:
    """The event of a record that the fast reader refused with `error`. Raises InvalidRecord where it means none."""
    try:
        document = read_strictly(value)
        kind = _KINDS.get(document.get("schema")) if isinstance(document, dict) else None
        if kind is not None:
            return msgspec.convert(_FORMS[kind].plain(document), type=kind)
    except (msgspec.MsgspecError, RecursionError, OverflowError, TypeError):
        pass
    raise _explain(value, error) from None


def _without_noise(event: Event) -> Event:
    """Parts that are more than their whole by no more than a float loses on its way are all of it."""
    if isinstance(event, GpuSample):
        parts = {"mem_used_mb": (event.mem_used_mb, event.mem_total_mb)}
    else:
        parts = {"queue_ms": (event.queue_ms, event.latency_ms), "ttft_ms": (event.ttft_ms, event.latency_ms)}
    noisy = {
        name: whole
        for name, (part, whole) in parts.items()
        if part is not None and whole is not None and part > whole and is_noise(part, whole, NOISE_MS)
    }
    return msgspec.structs.replace(event, **noisy) if noisy else event


def _check_rules(event: Event, broker_ts: datetime | None) -> None:
    """Rules between fields; each error names field, value and rule."""
    ts = event.ts
    if ts.year < EARLIEST_TS.year:  # as it is written: the schema can say that, too
        raise InvalidRecord(Reason.OUT_OF_RANGE, f"ts={ts.isoformat()} is before {EARLIEST_TS.year}: is the clock set?", "ts")
    if broker_ts is not None and ts - broker_ts > _MAX_AHEAD:
        raise InvalidRecord(
            Reason.FUTURE_TS,
            f"ts={ts.isoformat()} is more than {MAX_AHEAD_SECONDS} s ahead of the broker's {broker_ts.isoformat()}; "
            "set the producer's clock (NTP)",
            "ts",
        )
    if ts.year > 2099:
        raise InvalidRecord(Reason.OUT_OF_RANGE, f"ts={ts.isoformat()} is after 2099: is the clock set?", "ts")
    if isinstance(event, GpuSample):
        _check_sample(event)
    else:
        _check_usage(event)


def _check_sample(event: GpuSample) -> None:
    if event.mem_used_mb is not None and event.mem_total_mb is not None and event.mem_used_mb > event.mem_total_mb:
        raise _inconsistent("mem_used_mb", event.mem_used_mb, f"mem_total_mb={event.mem_total_mb}")
    if (event.mig_profile is None) != (event.parent_uuid is None):
        raise InvalidRecord(
            Reason.INCONSISTENT, "mig_profile and parent_uuid belong together: send both or neither", "mig_profile"
        )
    if event.parent_uuid is not None and event.gpu_uuid is not None and canonical_gpu(event.parent_uuid) == event.gpu:
        # A card that is its own slice would cost only its own sevenths of itself: the rest of its money would be nobody's.
        raise InvalidRecord(
            Reason.INCONSISTENT,
            f"parent_uuid={event.parent_uuid!r} is gpu_uuid itself: a MIG slice has a UUID of its own and names its card as "
            "parent_uuid; a whole GPU sends neither mig_profile nor parent_uuid",
            "parent_uuid",
        )
    if event.mig_profile is not None and event.gpu_uuid is None:
        raise InvalidRecord(Reason.INCONSISTENT, "gpu_uuid is missing: a MIG slice has no other identity", "gpu_uuid")


def refused_reach(event: Event, most_minutes: int, most_gpus: int) -> InvalidRecord | None:
    """Why a request reaches too far for an installation that allows less than the contract does; None: it does not."""
    if not isinstance(event, TokenUsage):
        return None
    if len(event.gpu_uuids) > most_gpus:
        return InvalidRecord(
            Reason.OUT_OF_RANGE,
            f"gpu_uuids names {len(event.gpu_uuids)} GPUs; one request may name {most_gpus} here (REQUEST_MAX_GPUS)",
            "gpu_uuids",
        )
    if event.latency_ms is not None and event.latency_ms > most_minutes * 60_000:
        return InvalidRecord(
            Reason.OUT_OF_RANGE,
            f"latency_ms={event.latency_ms}: one request may take {most_minutes} minutes here (REQUEST_MAX_MINUTES)",
            "latency_ms",
        )
    return None


def _check_usage(event: TokenUsage) -> None:
    if event.cached_tokens > event.prompt_tokens:
        raise _inconsistent("cached_tokens", event.cached_tokens, f"prompt_tokens={event.prompt_tokens}")
    if event.reasoning_tokens > event.completion_tokens:
        raise _inconsistent("reasoning_tokens", event.reasoning_tokens, f"completion_tokens={event.completion_tokens}")
    if not event.gpu_uuids and event.gpu_index is None:
        raise InvalidRecord(Reason.INCONSISTENT, "no GPU is named: send gpu_uuids (at least one) or gpu_index", "gpu_uuids")
    if len(event.gpu_uuids) > 1 and 0 < sum("/" in gpu for gpu in event.gpu_uuids) < len(event.gpu_uuids):
        # One GPU named twice, by UUID and by host/index, would carry half of the request and lose the other half.
        raise InvalidRecord(
            Reason.INCONSISTENT,
            f"gpu_uuids={shorten(event.gpu_uuids)}: name all GPUs by UUID, or all as host/index",
            "gpu_uuids",
        )
    latency_ms = event.latency_ms
    for field, part_ms in (("queue_ms", event.queue_ms), ("ttft_ms", event.ttft_ms)):
        if part_ms is None:
            continue
        if latency_ms is None:
            raise InvalidRecord(Reason.INCONSISTENT, f"{field}={part_ms} without latency_ms; send latency_ms too", field)
        if part_ms > latency_ms:
            raise _inconsistent(field, part_ms, f"latency_ms={latency_ms}")
    if latency_ms is not None and (latency_ms // 60_000 + 2) * max(1, len(event.gpu_uuids)) > MAX_CELLS:
        raise InvalidRecord(
            Reason.OUT_OF_RANGE,
            f"latency_ms={latency_ms} on {len(event.gpu_uuids)} GPUs touches more than {MAX_CELLS} ledger cells",
            "latency_ms",
        )


def _inconsistent(field: str, value: float, limit: str) -> InvalidRecord:
    return InvalidRecord(
        Reason.INCONSISTENT, f"{field}={value} is more than {limit}; it is a part of it (counts are inclusive)", field
    )


def _explain(value: bytes, error: Exception) -> InvalidRecord:
    """Why msgspec refused `value`, in our reasons. Only bad records come here, so it may be slow."""
    try:
        text = utf8_text(value)
        read_strictly(value)
    except InvalidRecord as refused:
        return refused
    message = str(error)
    field = message.rsplit("`$.", 1)[1].split("`", maxsplit=1)[0] if "`$." in message else None
    document = json.loads(text)
    if not isinstance(document, dict):
        return InvalidRecord(Reason.WRONG_TYPE, f"a record is one JSON object, got {shorten(document)}")
    if field == "schema" or not isinstance(document.get("schema"), str):
        known = ", ".join(str(kind.__struct_config__.tag) for kind in EVENT_TYPES)
        return InvalidRecord(
            Reason.UNKNOWN_SCHEMA, f"schema={shorten(document.get('schema'))} is not known; use one of {known}", "schema"
        )
    shown = f"{field}={shorten(document.get(field))}: " if field and field in document else ""
    ranged = "Expected" not in message or any(
        part in message for part in (">=", "<=", "of length", "Number out of range", "Integer value out of range", "matching")
    )
    bad_time = field == "ts" and isinstance(document.get("ts"), str)
    hint = " (RFC 3339 with a zone, such as 2026-01-31T12:00:00Z)" if bad_time else ""
    if field in ("gpu_uuid", "parent_uuid") and "matching" in message:
        hint = " (a UUID holds no `/`: host/index is a label, so leave gpu_uuid out where no UUID is known)"
    missing = "missing required field" in message
    reason = Reason.OUT_OF_RANGE if (ranged or bad_time) and not missing else Reason.WRONG_TYPE
    return InvalidRecord(reason, shown + message + hint, field)


def _as_read(field: dict[str, Any], *, nullable: bool) -> dict[str, Any]:
    """A field's schema with what decode() does beyond the type: null is unknown, and no text has a NUL in it."""
    if field.get("type") == "array":
        field = field | {"items": _as_read(field["items"], nullable=False)}
    if field.get("type") == "string" and "format" not in field:
        field = field | {"not": {"pattern": "\\u0000"}}
    if "anyOf" in field:
        return field | {"anyOf": [_as_read(one, nullable=False) for one in field["anyOf"]]}
    if not nullable:
        return field
    rest = {name: value for name, value in field.items() if name != "default"}
    return {"anyOf": [rest, {"type": "null"}], "default": field.get("default")}


@cache
def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema (2020-12) of each contract, by schema tag; generated, never written by hand."""
    found: dict[str, dict[str, Any]] = {}
    for kind in EVENT_TYPES:
        schema = msgspec.json.schema(kind)
        definition = dict(schema["$defs"][kind.__name__])
        tag = str(kind.__struct_config__.tag)
        definition["description"] = (kind.__doc__ or "").strip()
        definition["maxProperties"] = MAX_KEYS
        optional = definition["properties"].keys() - set(definition["required"])
        for name, field in definition["properties"].items():
            definition["properties"][name] = _as_read(field, nullable=name in optional)
        definition["properties"]["ts"] |= {"format": "date-time", "pattern": TIMESTAMP_PATTERN, "maxLength": MAX_STRING}
        found[tag] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"urn:gpu-token-analytics:{tag}",
            **definition,
        }
    return found
