"""POST /v1/events: records in, Kafka's acknowledgment out.

The same decode() as the consumer's judges each record here, so that a producer hears at once what
would otherwise become a dead letter. Records are handed on as they came, byte for byte.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import islice
from typing import Annotated

import anyio.to_thread
import msgspec
from fastapi import Depends, Query, Request

from gpu_token_analytics.api.door import check_names, read_body, send
from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.names import meant
from gpu_token_analytics.api.params import EventsAsked
from gpu_token_analytics.api.problem import FieldProblem
from gpu_token_analytics.api.services import Ask, AskDep
from gpu_token_analytics.costs.answers.events import EventOutcome, EventsResponse, EventWarning
from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.sources.placed_events import instances_of, placed
from gpu_token_analytics.wire.events import decode, kind_of, unknown_fields
from gpu_token_analytics.wire.json_schemas import json_schemas
from gpu_token_analytics.wire.kind import Event, encode
from gpu_token_analytics.wire.strict_json import shorten
from gpu_token_analytics.wire.usage import TokenUsage, refused_reach

MAX_RECORDS = 10_000
MAX_ERRORS = 1_000
JSON_TYPE = "application/json"
NDJSON_TYPES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
TOLD_BY_ENGINE = (
    "left out: the placement of its instance says that the engine tells of every request "
    "(counted_by=engine)"
)
_BLANK = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE = re.compile(rb"[^ \t\r\n][^\n]*")
_MAX_ARRAY_DEPTH = 64
_MAX_ARRAY_TOKENS = 50 * MAX_RECORDS
# A text, or a flat object or array as a whole, else one character of structure. Possessive: nothing
# is looked at twice.
_TEXT = rb'"(?:[^"\\]|\\.)*+"'
_TOKEN = re.compile(
    rb"\{(?:[^{}\"]|"
    + _TEXT
    + rb")*+\}|\[(?:[^\[\]{}\"]|"
    + _TEXT
    + rb')*+\]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{},]',
    re.DOTALL,
)


_EVENT = {"oneOf": list(json_schemas().values())}
# What OpenAPI says of the body.
BODY = {
    "application/json": {
        "schema": {"oneOf": [_EVENT, {"type": "array", "minItems": 1, "items": _EVENT}]}
    },
    "application/x-ndjson": {"schema": {"type": "string", "description": "One event per line."}},
}


async def events(
    ask: AskDep,
    request: Request,
    body: Annotated[bytes, Depends(read_body)],
    asked: Annotated[EventsAsked, Query()],
) -> EventsResponse:
    """Store one event, a JSON array, or NDJSON (`application/x-ndjson`), at most 10,000 records.

    Answered after Kafka acknowledged. Sending the same records again is harmless: an event counts
    once by its event_id. A field that the contract does not know is left out and told as a warning;
    `strict=true` refuses its record. A request that names an instance in `gpu_uuids`
    (`instance:node1:8000`) runs on the GPUs of its placement, and is left out with a warning where
    that says `counted_by=engine`.
    """
    outlet = ask.services.outlet
    if ask.services.sink is not None:
        outlet.check()
    return await anyio.to_thread.run_sync(
        _take,
        ask,
        body,
        request.headers.get("content-type", ""),
        asked.strict,
        limiter=outlet.limiter,
    )


def _take(ask: Ask, body: bytes, content_type: str, strict: bool) -> EventsResponse:
    services = ask.services
    records = split_records(body, content_type)
    good: list[tuple[Event, bytes]] = []
    errors: list[EventOutcome] = []
    warnings: list[EventWarning] = []
    now = services.desk.now()
    taken = 0  # and left out: an engine tells of it
    for index, record in enumerate(records):
        try:
            event = decode(record, now)
            sent = _placed(ask, event, record, now)
            if too_far := refused_reach(
                sent[0] if sent else event,
                services.desk.settings.request_max_minutes,
                services.desk.settings.request_max_gpus,
            ):
                raise too_far
        except InvalidRecord as error:
            errors.append(
                EventOutcome(index, "invalid", None, error.reason.value, error.field, str(error))
            )
            continue
        unknown = unknown_fields(event, record)
        services.metrics.unknown_fields.inc(len(unknown))
        refusal = _foreign(event, ask.tenant)
        if unknown and strict:
            name = shorten(unknown[0])
            errors.append(
                EventOutcome(
                    index,
                    "invalid",
                    event.event_id,
                    "unknown_field",
                    name,
                    _unknown(event, unknown[0]),
                )
            )
        elif refusal is not None:
            errors.append(
                EventOutcome(index, "forbidden", event.event_id, "tenant", "tenant", refusal)
            )
        elif sent is None:
            taken += 1
            if len(warnings) < MAX_ERRORS:
                warnings.append(EventWarning(index, "gpu_uuids", TOLD_BY_ENGINE))
        else:
            good.append(sent)
            warnings += [
                EventWarning(index, shorten(name), _unknown(event, name))
                for name in unknown[: MAX_ERRORS - len(warnings)]
            ]
    services.metrics.events.labels("rejected").inc(len(errors))
    if errors and not good and not taken:
        problems = [
            FieldProblem(field=f"[{e.index}].{e.field or ''}".rstrip("."), message=e.message)
            for e in errors[:50]
        ]
        raise ApiProblem(
            "all_records_invalid",
            f"0 of {len(records)} records accepted; first: {errors[0].message}",
            errors=problems,
        )
    if good:
        most = ask.desk.settings.api_max_new_names_per_hour
        check_names(services.new_names, most, ask.principal.key, [event for event, _ in good])
        send(services.sink, services.outlet, good)
    services.metrics.events.labels("accepted").inc(len(good))
    return EventsResponse(len(good) + taken, len(errors), errors[:MAX_ERRORS], warnings)


def _placed(ask: Ask, event: Event, record: bytes, now: datetime) -> tuple[Event, bytes] | None:
    """The event as it is sent on: where it names an instance, with the GPUs that run it, judged
    again. None: it is left out.

    Raises InvalidRecord.
    """
    if not isinstance(event, TokenUsage) or not instances_of(event):
        return event, record
    usage = placed(event, ask.desk.placements())
    if usage is None:
        return None
    sent = encode(usage)
    return decode(sent, now), sent


def split_records(body: bytes, content_type: str) -> list[bytes]:
    """The records of a body, each as its own bytes. Raises ApiProblem."""
    kind = content_type.partition(";")[0].strip().lower()
    # of a file that is sent as it is; within a body it is refused
    body = body.removeprefix(_BYTE_ORDER_MARK)
    if kind in NDJSON_TYPES:
        # One by one, and no further than they are too many: a body of nothing but line feeds is not
        # held as lines.
        records = [line[0].rstrip(_BLANK) for line in islice(_LINE.finditer(body), MAX_RECORDS + 1)]
    elif kind == JSON_TYPE:
        records = _json_records(body)
    else:
        raise ApiProblem(
            "unsupported_media_type",
            f"Content-Type {kind or '(none)'}: send {JSON_TYPE} or {NDJSON_TYPES[0]}",
        )
    if not records:
        raise ApiProblem(
            "invalid_body", "the body has no record; send one JSON object, an array, or NDJSON"
        )
    if len(records) > MAX_RECORDS:
        raise _too_many()
    return records


def _too_many() -> ApiProblem:
    return ApiProblem(
        "too_many_records",
        f"more than {MAX_RECORDS:,} records; send at most as many in one request",
    )


def _has_too_many(array: bytes) -> bool:
    """Whether a JSON array has more than MAX_RECORDS values, counted before any of them is held: 8
    MB of `1,1,1` would be 4 million values, half a gigabyte. Linear in the length, whatever the
    bytes are; what is no JSON is refused afterwards."""
    if array.count(b",") < MAX_RECORDS:
        return False
    depth = values = 1
    for count, token in enumerate(_TOKEN.finditer(array, 1)):
        if depth > _MAX_ARRAY_DEPTH or count > _MAX_ARRAY_TOKENS:
            raise ApiProblem(
                "invalid_body", "the array is nested too deep, or too often; no event is"
            )
        first = token[0][:1]
        if first == b"," and depth == 1:
            values += 1
            if values > MAX_RECORDS:
                return True
        elif token.end() - token.start() == 1:
            depth += (first in b"[{") - (first in b"]}")
    return False


def _json_records(body: bytes) -> list[bytes]:
    text = body.strip(_BLANK)
    if not text.startswith(b"["):
        return [text] if text else []
    if _has_too_many(text):
        raise _too_many()
    try:
        return [bytes(raw) for raw in msgspec.json.decode(text, type=list[msgspec.Raw])]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        where = re.sub(r"[^\x20-\x7e]", "?", str(error))[:200]
        raise ApiProblem("invalid_body", f"the array cannot be read as JSON: {where}") from None


def _unknown(event: Event, name: str) -> str:
    return (
        f"{shorten(name)} is no field of {kind_of(event).tag}: {meant(name, kind_of(event).fields)}"
    )


def _foreign(event: Event, tenant: str | None) -> str | None:
    """Why a tenant's key may not send this event; None: it may."""
    if tenant is None:
        return None
    if not isinstance(event, TokenUsage):
        return f"{kind_of(event).tag} is the operator's; this key is for usage of tenant {tenant!r}"
    if event.tenant != tenant:
        # Escaped: `caf\xe9` and `cafe\u0301` look alike, and are two tenants.
        return f"tenant={shorten(event.tenant)}: this key is for tenant {shorten(tenant)} only"
    return None
