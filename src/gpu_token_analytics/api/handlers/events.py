"""POST /v1/events: records in, Kafka's acknowledgment out.

The same decode() as the consumer's judges each record here, so that a producer hears at once what would otherwise become a
dead letter. Records are handed on as they came, byte for byte.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Request
from fastapi.responses import Response

from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.models.problem import FieldProblem
from gpu_token_analytics.api.render import json_response
from gpu_token_analytics.api.services import AskDep
from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.events import Event, TokenUsage, decode
from gpu_token_analytics.sinks import EventSink

Json = dict[str, Any]
MAX_RECORDS = 10_000
MAX_ERRORS = 1_000
ACKNOWLEDGE_SECONDS = 15.0
JSON_TYPE = "application/json"
NDJSON_TYPES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
_BLANK = b" \t\r\n"


async def read_body(request: Request) -> bytes:
    """The body, bounded by the middleware."""
    return await request.body()


def events(
    ask: AskDep,
    request: Request,
    body: Annotated[bytes, Depends(read_body)],
) -> Response:
    """Store one event, a JSON array, or NDJSON (`application/x-ndjson`), at most 10,000 records.

    Answered after Kafka acknowledged. Sending the same records again is harmless: an event counts once by its event_id.
    """
    services = ask.services
    records = split_records(body, request.headers.get("content-type", ""))
    good: list[tuple[Event, bytes]] = []
    errors: list[Json] = []
    now = services.now()
    for index, record in enumerate(records):
        try:
            event = decode(record, now)
        except InvalidRecord as error:
            errors.append(_outcome(index, "invalid", None, error.reason.value, error.field, str(error)))
            continue
        refusal = _foreign(event, ask.tenant)
        if refusal is not None:
            errors.append(_outcome(index, "forbidden", event.event_id, "tenant", "tenant", refusal))
        else:
            good.append((event, record))
    services.metrics.events.labels("rejected").inc(len(errors))
    if errors and not good:
        found = [FieldProblem(field=f"[{e['index']}].{e['field'] or ''}".rstrip("."), message=e["message"]) for e in errors]
        raise ApiProblem(
            "all_records_invalid", f"0 of {len(records)} records accepted; first: {errors[0]['message']}", errors=found[:50]
        )
    if good:
        _send(services.sink, services.sink_lock, good)
    services.metrics.events.labels("accepted").inc(len(good))
    return json_response({"accepted": len(good), "rejected": len(errors), "errors": errors[:MAX_ERRORS]})


def split_records(body: bytes, content_type: str) -> list[bytes]:
    """The records of a body, each as its own bytes. Raises ApiProblem."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in NDJSON_TYPES:
        records = [line.strip(_BLANK) for line in body.split(b"\n")]
        found = [line for line in records if line]
    elif kind == JSON_TYPE:
        found = _json_records(body)
    else:
        raise ApiProblem("unsupported_media_type", f"Content-Type {kind or '(none)'}: send {JSON_TYPE} or {NDJSON_TYPES[0]}")
    if not found:
        raise ApiProblem("invalid_body", "the body has no record; send one JSON object, an array, or NDJSON")
    if len(found) > MAX_RECORDS:
        raise ApiProblem("too_many_records", f"{len(found):,} records; send at most {MAX_RECORDS:,} in one request")
    return found


def _json_records(body: bytes) -> list[bytes]:
    text = body.strip(_BLANK)
    if not text.startswith(b"["):
        return [text] if text else []
    try:
        return [bytes(raw) for raw in msgspec.json.decode(text, type=list[msgspec.Raw])]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        where = re.sub(r"[^\x20-\x7e]", "?", str(error))[:200]
        raise ApiProblem("invalid_body", f"the array cannot be read as JSON: {where}") from None


def _foreign(event: Event, tenant: str | None) -> str | None:
    """Why a tenant's key may not send this event; None: it may."""
    if tenant is None:
        return None
    if not isinstance(event, TokenUsage):
        return f"GPU samples belong to the operator; this key is for usage of tenant {tenant!r}"
    if event.tenant != tenant:
        return f"tenant={event.tenant!r}: this key is for tenant {tenant!r} only"
    return None


def _send(sink: EventSink | None, lock: threading.Lock, records: Sequence[tuple[Event, bytes]]) -> None:
    if sink is None:
        raise ApiProblem("ingest_disabled", "this process was started without Kafka; send to another one")
    with lock:
        for event, record in records:
            sink.send_raw(record, event.host)
        sink.flush(ACKNOWLEDGE_SECONDS)


def _outcome(index: int, status: str, event_id: str | None, reason: str, field: str | None, message: str) -> Json:
    return {
        "index": index,
        "status": status,
        "event_id": event_id,
        "reason": reason,
        "field": field,
        "message": message,
    }
