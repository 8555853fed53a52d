"""POST /v1/traces: spans in (OTLP/HTTP), requests out, Kafka's acknowledgment before the answer.

What an answer means is OpenTelemetry's word
(https://opentelemetry.io/docs/specs/otlp/#otlphttp-response): 200 is taken, with `partial_success`
what of it was refused for good; 400, 413 and 415 are for good, too; 429 and 503, with Retry-After,
are sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import anyio.to_thread
from fastapi import Depends, Request
from fastapi.responses import Response

from gpu_token_analytics.api.door import check_names, read_body, send
from gpu_token_analytics.api.errors import ApiProblem, otlp_media_type
from gpu_token_analytics.api.services import Ask, AskDep
from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.sources.otlp import (
    JSON,
    PROTOBUF,
    BadExport,
    TooLarge,
    export_answer,
    read_json,
    read_protobuf,
    unpacked,
)
from gpu_token_analytics.sources.span_usages import Counted, usages
from gpu_token_analytics.sources.spans import Span
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.kind import Event, encode

_log = logging.getLogger(__name__)

MAX_MESSAGES = 5
SAMPLED = (
    "these traces are sampled: requests whose spans were not sent are missing in every figure; let "
    "every span of a request "
    "to a model be sent (OTEL_TRACES_SAMPLER=always_on, and no sampling processor on the way)"
)


# What OpenAPI says of the body.
BODY = {
    media_type: {
        "schema": {
            "type": "string",
            "description": "An ExportTraceServiceRequest of OpenTelemetry.",
        }
    }
    for media_type in (PROTOBUF, JSON)
}


async def traces(
    ask: AskDep, request: Request, body: Annotated[bytes, Depends(read_body)]
) -> Response:
    """Send spans as OTLP/HTTP, in protobuf or JSON, plain or gzip: what an OpenTelemetry exporter
    or collector sends.

    Spans that tell of a request to a model become events; others are left out. Answered after Kafka
    acknowledged. Sent again they count once. docs/sources/opentelemetry.md says which spans, under
    which names, count for which tenant, model and GPUs.
    """
    outlet = ask.services.outlet
    if ask.services.sink is not None:
        outlet.check()
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (PROTOBUF, JSON):
        raise ApiProblem(
            "unsupported_media_type",
            f"Content-Type {media_type or '(none)'}: send {PROTOBUF} or {JSON}",
        )
    encoding = request.headers.get("content-encoding", "").strip().lower()
    answer = await anyio.to_thread.run_sync(
        _take, ask, body, media_type, encoding, limiter=outlet.limiter
    )
    return Response(answer, media_type=otlp_media_type(request.scope))


def _take(ask: Ask, body: bytes, media_type: str, encoding: str) -> bytes:
    with readable():
        plain = unpacked(body, encoding, ask.desk.settings.api_max_body_bytes)
        spans = read_protobuf(plain) if media_type == PROTOBUF else read_json(plain)
    return export_answer(media_type, *take(ask, spans))


@contextmanager
def readable() -> Iterator[None]:
    """What is no export request, or too much of one, as ApiProblem."""
    try:
        yield
    except BadExport as error:
        raise ApiProblem("bad_request", str(error)) from None
    except TooLarge as error:
        raise ApiProblem("body_too_large", str(error)) from None


def take(ask: Ask, spans: Sequence[Span]) -> tuple[int, str]:
    """Hand the requests that spans tell of to Kafka; spans that were refused for good, and what
    their sender should know.

    Raises ApiProblem, StoreError, KafkaError: nothing was taken then.
    """
    services = ask.services
    counted = usages(spans, services.desk.placements(), ask.tenant)
    good = _judged(ask, counted)
    if good:
        most = ask.desk.settings.api_max_new_names_per_hour
        check_names(services.new_names, most, ask.principal.key, [event for event, _ in good])
        send(services.sink, services.outlet, good)
    for outcome, count in (
        ("counted", len(good)),
        ("refused", len(counted.refused)),
        *counted.left_out.items(),
    ):
        services.metrics.spans.labels(outcome).inc(count)
    services.metrics.sampled_spans.inc(counted.sampled)
    _say(ask, counted)
    return len(counted.refused), _message(counted)


def _judged(ask: Ask, counted: Counted) -> list[tuple[Event, bytes]]:
    """Usages as records, by the judgment that the consumer has of them; those that are none are
    refused."""
    now = ask.desk.now()
    good: list[tuple[Event, bytes]] = []
    for usage, span in counted.usages:
        record = encode(usage)
        try:
            good.append((decode(record, now), record))
        except InvalidRecord as error:
            counted.refused.append((span, str(error)))
    return good


def _message(counted: Counted) -> str:
    """What the sender should know; '' where all is well."""
    parts = [_named(counted.refused)] if counted.refused else []
    if counted.sampled:
        parts.append(f"{counted.sampled} spans say that others were left out: {SAMPLED}")
    if counted.unplaced:
        names = ", ".join(sorted(counted.unplaced)[:MAX_MESSAGES])
        parts.append(
            f"it is not known on which GPUs {names} runs, so tokens are kept and money is not: "
            "`gpu-tokens placements add`, or "
            "the resource attribute gpu_tokens.gpus"
        )
    return "; ".join(parts)


def _named(refused: Sequence[tuple[Span, str]]) -> str:
    shown = "; ".join(f"span {span.span_id}: {why}" for span, why in refused[:MAX_MESSAGES])
    return f"{len(refused)} spans were refused: {shown}"


def _say(ask: Ask, counted: Counted) -> None:
    """Exporters do not show what they are told; the log does, once a minute."""
    key = ask.principal.key or "anonymous"
    if counted.refused and ask.services.say_refused.take():
        _log.warning("key %s: %s", key, _named(counted.refused))
    if counted.sampled and ask.services.say_sampled.take():
        _log.warning("key %s: %s", key, SAMPLED)
