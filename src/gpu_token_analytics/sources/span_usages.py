"""From spans to requests: which spans tell of one, under which names, and when two tell of the
same.

Pure: spans and placements in, usages out. What one span says: span_figures.py.

    1 which spans tell     operation in COUNTED, or an engine's own span, or none named but tokens;
      and it has tokens
    2 which of them count  the innermost: with such a span below it, a span (of an agent, framework,
                           gateway, client) tells of that one's work; of one request told side by
                           side the engine's word, else the shortest span's
    3 what they say        the first name of NAMES that is there; what the engine does not say
                           (tenant, model) the others of the same request do
    4 where it ran         `gpu_tokens.gpus`, else the placement of the instance, else nowhere:
      tokens without money

Rule 2 sees one export request. Across several the event id decides (`_identity`): it is made of the
response's id and tokens, on which engine and client agree, so one request has one event, and the
first that is stored holds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from uuid import UUID

from gpu_token_analytics.sources.instances import CountedBy, InstanceBook, InstancePlacement
from gpu_token_analytics.sources.span_figures import (
    LONG_ID,
    MAX_LABEL,
    NAMES,
    TENANT_IN_TRACE_STATE,
    LeftOut,
    RefusedSpan,
    Told,
    finish_reason_of,
    is_sampled,
    part_ms_of,
    read_span,
    rounded_ms,
    seconds_of,
    text_of,
    trace_state_of,
    ttft_ms_of,
)
from gpu_token_analytics.sources.span_places import describes_itself, whereabouts_of
from gpu_token_analytics.sources.spans import Span
from gpu_token_analytics.wire.times import from_us
from gpu_token_analytics.wire.usage import TokenUsage

DEFAULT_TENANT, UNKNOWN_MODEL = "default", "unknown"
_MAX_ID = 128
_NS_PER_US = 1000
# RFC 9562, section 5.8: a digest as a UUID
_UUID_MASK, _UUID_8 = 0xF << 76 | 0x3 << 62, 0x8 << 76 | 0x2 << 62


@dataclass
class Counted:
    """What the spans of one export say."""

    # with the span that tells of it
    usages: list[tuple[TokenUsage, Span]] = field(default_factory=list)
    refused: list[tuple[Span, str]] = field(default_factory=list)
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    sampled: int = 0  # spans that say that others like them were not sent
    unplaced: set[str] = field(default_factory=set)  # instances whose GPUs are not known


def usages(
    spans: Sequence[Span], placements: InstanceBook, key_tenant: str | None = None
) -> Counted:
    """The requests that these spans tell of. key_tenant: the only tenant that their sender may
    name; None: any."""
    counted = Counted(sampled=sum(map(is_sampled, spans)))
    telling: dict[tuple[str, str], Told] = {}
    for span in spans:
        try:
            told = read_span(span)
        except RefusedSpan as error:
            counted.refused.append((span, str(error)))
            continue
        if isinstance(told, Told):
            telling[span.address] = told
        elif told is not None:
            counted.left_out[told] += 1
    for chosen, others in _innermost(telling, {span.address: span for span in spans}, counted):
        try:
            usage = _usage(chosen, others, placements, key_tenant, counted)
        except RefusedSpan as error:
            counted.refused.append((chosen[0].span, str(error)))
            continue
        if usage is not None:
            counted.usages.append((usage, chosen[0].span))
    return counted


# of one request: the spans whose figures count, and the others that tell of it
_Group = tuple[list[Told], list[Told]]


def _innermost(
    telling: Mapping[tuple[str, str], Told], spans: Mapping[tuple[str, str], Span], counted: Counted
) -> Iterator[_Group]:
    # span -> those above it that tell of the same kind of work, nearest first
    above: dict[tuple[str, str], list[Told]] = {}
    told_below = set()
    for address, told in telling.items():
        parents = [
            telling[parent]
            for parent in _ancestors(address, spans)
            if parent in telling and telling[parent].work == told.work
        ]
        above[address] = parents
        told_below |= {parent.span.address for parent in parents}
    requests: dict[tuple[str, ...], list[Told]] = {}
    for address, told in sorted(telling.items()):
        if address in told_below:
            counted.left_out[LeftOut.TOLD_BELOW] += 1
        else:
            requests.setdefault(told.same_request, []).append(told)
    for group in requests.values():
        for chosen, twice_told in _requests_of(group):
            if twice_told:
                counted.left_out[LeftOut.TOLD_TWICE] += len(twice_told)
            others = [
                other for told in (*chosen, *twice_told) for other in above[told.span.address]
            ]
            yield chosen, [*twice_told, *others]


def _ancestors(
    address: tuple[str, str], spans: Mapping[tuple[str, str], Span]
) -> Iterator[tuple[str, str]]:
    seen = {address}
    trace_id, _ = address
    parent = trace_id, spans[address].parent_id
    while parent in spans and parent not in seen:
        seen.add(parent)
        yield parent
        parent = trace_id, spans[parent].parent_id


def _requests_of(group: Sequence[Told]) -> Iterator[_Group]:
    """Spans of one response id, which may have been given to several requests (vLLM takes it from
    X-Request-Id): their tokens tell those apart. An engine's spans of one arrival and prompt are
    the choices of one request (n > 1)."""
    engines: dict[tuple[int, int], list[Told]] = {}
    clients: dict[tuple[int, int], list[Told]] = {}
    for told in group:
        if told.is_engine:
            engines.setdefault((told.span.start_ns, told.prompt_tokens), []).append(told)
        else:
            clients.setdefault((told.prompt_tokens, told.completion_tokens), []).append(told)
    by_tokens: dict[tuple[int, int], list[Told]] = {}
    again: list[Told] = []
    for choices in engines.values():
        tokens = choices[0].prompt_tokens, sum(told.completion_tokens for told in choices)
        if tokens in by_tokens:
            again += choices
        else:
            by_tokens[tokens] = choices
    for number, (tokens, choices) in enumerate(by_tokens.items(), 1):
        twice_told = clients.pop(tokens, [])
        # clients with other tokens: of a request that the engine tells of in another export
        if number == len(by_tokens):
            twice_told = [
                *twice_told,
                *again,
                *(told for same in clients.values() for told in same),
            ]
        yield choices, twice_told
    for same in clients.values() if not engines else ():
        shortest = min(
            same, key=lambda told: (told.span.end_ns - told.span.start_ns, told.span.span_id)
        )
        yield [shortest], [told for told in same if told is not shortest]


def _usage(
    chosen: Sequence[Told],
    others: Sequence[Told],
    placements: InstanceBook,
    key_tenant: str | None,
    counted: Counted,
) -> TokenUsage | None:
    first = chosen[0]
    start_ns, end_ns = (
        min(told.span.start_ns for told in chosen),
        max(told.span.end_ns for told in chosen),
    )
    if not end_ns:
        raise RefusedSpan("endTimeUnixNano is 0: a span is sent when it has ended")
    spans = [told.span for told in (*chosen, *others)]
    tenant = _tenant(spans, key_tenant)
    end_us = end_ns // _NS_PER_US
    placed = [whereabouts_of(told, placements, end_us) for told in chosen]
    # the engine does not say who it is, but a client says whom it asked
    if all(where.is_unplaced for where in placed):
        asked = (
            whereabouts_of(told, placements, end_us)
            for told in others
            if not describes_itself(told)
        )
        placed = [next((where for where in asked if not where.is_unplaced), placed[0])]
    row = placed[0].row
    if not first.is_engine and row is not None and row.counted_by is CountedBy.ENGINE:
        counted.left_out[LeftOut.TOLD_BY_ENGINE] += 1
        return None
    counted.unplaced |= {where.instance for where in placed if where.is_unplaced}
    gpus = list(dict.fromkeys(gpu for where in placed for gpu in where.gpus))
    completion_tokens = sum(told.completion_tokens for told in chosen)
    prompt_tokens = max(told.prompt_tokens for told in chosen)
    latency_ms = _latency_ms(chosen, start_ns, end_ns)
    try:
        ts = from_us(end_us)
    except OverflowError:
        raise RefusedSpan(f"endTimeUnixNano={end_ns} is no time that a calendar has") from None
    return TokenUsage(
        event_id=_identity(first, prompt_tokens, completion_tokens),
        ts=ts,
        host=placed[0].host,
        model=_model(chosen, others, row),
        request_id=first.request_id or first.span.trace_id or first.span.span_id,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        gpu_uuids=gpus,
        tenant=tenant,
        cached_tokens=max(told.cached_tokens for told in chosen),
        reasoning_tokens=sum(told.reasoning_tokens for told in chosen),
        latency_ms=latency_ms,
        queue_ms=part_ms_of(first, "queue_seconds", latency_ms),
        ttft_ms=ttft_ms_of(first, latency_ms),
        finish_reason=finish_reason_of(first.span),
    )


def _identity(told: Told, prompt_tokens: int, completion_tokens: int) -> str:
    """The event id: the same for every span that tells of the same request, and for a span that is
    sent again.

    A response id alone would not do: X-Request-Id, from which vLLM takes it, may be one for all
    calls of an agent.
    """
    parts: tuple[object, ...]
    if told.request_id is None:
        parts = ("span", *told.span.address)
    elif len(told.request_id) >= LONG_ID:
        parts = ("response", told.request_id, prompt_tokens, completion_tokens)
    else:
        parts = ("response in trace", *told.same_request, prompt_tokens, completion_tokens)
    digest = int.from_bytes(blake2b(json.dumps(parts).encode(), digest_size=16).digest())
    return str(UUID(int=(digest & ~_UUID_MASK) | _UUID_8))


def _tenant(spans: Sequence[Span], key_tenant: str | None) -> str:
    """Of the spans first, the engine's before its clients'; then of their trace, then of the
    processes that made them."""
    told = next(
        (
            text
            for texts in (
                (text_of(span.attributes, *NAMES["tenant"]) for span in spans),
                (trace_state_of(span).get(TENANT_IN_TRACE_STATE) for span in spans),
                (text_of(span.resource, *NAMES["tenant"]) for span in spans),
            )
            for text in texts
            if text
        ),
        None,
    )
    if key_tenant is not None and told not in (None, key_tenant):
        raise RefusedSpan(f"tenant={told!r}: this key is for tenant {key_tenant!r} only")
    return (key_tenant or told or DEFAULT_TENANT)[:MAX_LABEL]


def _model(chosen: Sequence[Told], others: Sequence[Told], row: InstancePlacement | None) -> str:
    """As the engine names it, else as the operator does, else as clients do."""
    spans = [told.span for told in chosen]
    configured = [text_of(span.resource, *NAMES["configured_model"]) for span in spans]
    candidates = [
        *(text_of(span.attributes, *NAMES["model"]) for span in spans),
        *configured,
        row.model if row is not None else None,
        *(text_of(told.span.attributes, *NAMES["model"]) for told in others),
    ]
    return next((text for text in candidates if text), UNKNOWN_MODEL)[:MAX_LABEL]


def _latency_ms(chosen: Sequence[Told], start_ns: int, end_ns: int) -> float | None:
    if len(chosen) == 1:
        told = seconds_of(chosen[0].span, "latency_seconds")
        if told is not None:
            return rounded_ms(told * 1000)
    # A span without a length was recorded afterwards: when it began is not known.
    return rounded_ms((end_ns - start_ns) / 1e6) if 0 < start_ns < end_ns else None
