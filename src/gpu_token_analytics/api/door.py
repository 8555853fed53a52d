"""The door that events come in by, as records or as spans: bodies, a bound on names, Kafka's
acknowledgment."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.limits import NewNames
from gpu_token_analytics.api.outlet import Outlet
from gpu_token_analytics.wire.events import kind_of
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.sinks import EventSink

ACKNOWLEDGE_SECONDS = 15.0


async def read_body(request: Request) -> bytes:
    """The body, bounded by the middleware."""
    return await request.body()


def check_names(bound: NewNames, most: int, key: str | None, events: Sequence[Event]) -> None:
    """Bounds the different names that a key sends within an hour: `most` of them. Raises
    ApiProblem."""
    names = {kind_of(event).bounded_names(event) for event in events}
    seconds = bound.take(key or "anonymous", names)
    if seconds:
        raise ApiProblem(
            "too_many_names",
            f"this key has sent {most:,} different (model, tenant, host) within this hour "
            "(API_MAX_NEW_NAMES_PER_HOUR), and this request has more; nothing of it was sent. Is "
            "an id, or a time, in a name?",
            headers={"Retry-After": str(round(seconds + 0.5))},
        )


def send(sink: EventSink | None, outlet: Outlet, records: Sequence[tuple[Event, bytes]]) -> None:
    """Hand records to Kafka and wait for its acknowledgment. Raises ApiProblem, KafkaError."""
    if sink is None:
        raise ApiProblem(
            "ingest_disabled", "this process was started without Kafka; send to another one"
        )
    with outlet.open():
        for event, record in records:
            sink.send_raw(record, event.host)
        sink.flush(ACKNOWLEDGE_SECONDS)
