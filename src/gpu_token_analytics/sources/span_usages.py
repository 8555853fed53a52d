"""From spans to requests: which spans tell of one, under which names, and when two tell of the same.

Pure: spans and placements in, usages out. Read in the sources named at NAMES in November 2026.

    1 which spans tell     operation in COUNTED, or an engine's own span, or none named but tokens; and it has tokens
    2 which of them count  the innermost: with such a span below it, a span (of an agent, framework, gateway, client) tells of
                           that one's work; of one request told side by side the engine's word, else the shortest span's
    3 what they say        the first name of NAMES that is there; what the engine does not say (tenant, model) the others of the
                           same request do
    4 where it ran         `gpu_tokens.gpus`, else the placement of the instance, else nowhere: tokens without money

Rule 2 sees one export request. Across several the event id decides (`_identity`): it is made of the response's id and tokens,
on which engine and client agree, so one request has one event, and the first that is stored holds.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from uuid import UUID

from gpu_token_analytics.errors import GpuTokensError
from gpu_token_analytics.sources.instances import CountedBy, InstanceBook, InstancePlacement
from gpu_token_analytics.sources.spans import Attributes, Span, SpanKind, Value
from gpu_token_analytics.wire.fields import MAX_TOKENS
from gpu_token_analytics.wire.instances import canonical_instance, unplaced_gpu
from gpu_token_analytics.wire.times import from_us
from gpu_token_analytics.wire.usage import TokenUsage

# What a request's figures are called, best name first. In this order:
#   OpenTelemetry, now        github.com/open-telemetry/semantic-conventions-genai (32c328e8)
#   OpenTelemetry, earlier    deprecated names; vLLM 0.33, SGLang 0.5.23 and OpenLLMetry send them
#   OpenLLMetry               github.com/traceloop/openllmetry; Sentry's variants
#   OpenInference             github.com/Arize-ai/openinference
NAMES: Mapping[str, tuple[str, ...]] = {
    "prompt_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "completion_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "cached_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",  # OpenLLMetry
        "gen_ai.usage.cached_tokens",  # SGLang
        "gen_ai.usage.input_tokens.cached",  # Sentry
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",  # Sentry
        "llm.token_count.completion_details.reasoning",
    ),
    "model": (
        "gen_ai.response.model",
        "llm.response.model_name",
        "gen_ai.request.model",
        "llm.model_name",
        "langfuse.observation.model.name",
    ),
    "request_id": ("gen_ai.response.id", "gen_ai.request.id"),  # the second: vLLM, SGLang; it is the id of the response
    "finish_reason": ("gen_ai.response.finish_reasons", "error.type"),
    "ttft_seconds": ("gen_ai.response.time_to_first_chunk", "gen_ai.latency.time_to_first_token"),  # the second: vLLM, SGLang
    "queue_seconds": ("gen_ai.latency.time_in_queue",),  # vLLM
    "latency_seconds": ("gen_ai.latency.e2e",),  # vLLM, SGLang
    # Ours, for what no convention has; as attributes of the span, or of the resource (OTEL_RESOURCE_ATTRIBUTES).
    "tenant": ("gpu_tokens.tenant", "tenant.id", "tenant"),
    "gpus": ("gpu_tokens.gpus",),
    "configured_model": ("gpu_tokens.model",),
}
TENANT_IN_TRACE_STATE = "gpu-tokens"  # tracestate: gpu-tokens=acme; engines hand it on to their spans
LANGFUSE_USAGE = "langfuse.observation.usage_details"  # JSON; its counts exclude each other
LANGFUSE_FIRST_TOKEN = "langfuse.observation.completion_start_time"  # ISO 8601
DEFAULT_TENANT, UNKNOWN_MODEL, UNKNOWN_INSTANCE = "default", "unknown", "unknown"

# What says which work a span is of, and the values that are one request to a model: the first name that is there decides.
_GENERATES, _EMBEDS = "generates", "embeds"
COUNTED: Mapping[str, Mapping[str, str]] = {
    "gen_ai.operation.name": {
        "chat": _GENERATES,
        "text_completion": _GENERATES,
        "generate_content": _GENERATES,
        "embeddings": _EMBEDS,
    },
    "openinference.span.kind": {"LLM": _GENERATES, "EMBEDDING": _EMBEDS},
    "langfuse.observation.type": {"generation": _GENERATES, "embedding": _EMBEDS},
    "llm.request.type": {"chat": _GENERATES, "completion": _GENERATES, "embedding": _EMBEDS},
}
_ENGINE = ("gen_ai.latency.", "gen_ai.request.id")  # names that engines alone have: vLLM, SGLang

_LONG_ID = 24  # characters; a shorter response id (Ollama: chatcmpl-417) is only told apart within its trace
_FIRST_PROMPT = re.compile(r"(cmpl-.+)-0")  # vLLM numbers the prompts of a completion request; its response has no number
_GPUS = re.compile(r"[\s,;]+")
_MAX_LABEL, _MAX_ID = 256, 128
_NS_PER_US = 1000
_UUID_MASK, _UUID_8 = 0xF << 76 | 0x3 << 62, 0x8 << 76 | 0x2 << 62  # RFC 9562, section 5.8: a digest as a UUID


class LeftOut(StrEnum):
    """Why a span that tells of a request is not counted. A closed set: a metric label."""

    TOLD_BELOW = "told_below"  # a span below it tells of the same work
    TOLD_TWICE = "told_twice"  # another span of this export tells of the same request
    TOLD_BY_ENGINE = "told_by_engine"  # a client's word of an instance that tells of its requests itself (counted_by=engine)
    WITHOUT_TOKENS = "without_tokens"  # a request to a model, without any figure


class Refused(GpuTokensError):
    """A span tells of a request and cannot be counted; the message names attribute, value and what is wrong."""


@dataclass
class Counted:
    """What the spans of one export say."""

    usages: list[tuple[TokenUsage, Span]] = field(default_factory=list)  # with the span that tells of it
    refused: list[tuple[Span, str]] = field(default_factory=list)
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    sampled: int = 0  # spans that say that others like them were not sent
    unplaced: set[str] = field(default_factory=set)  # instances whose GPUs are not known


@dataclass(frozen=True)
class _Told:
    """What one span says of a request."""

    span: Span
    work: str
    is_engine: bool
    request_id: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int

    @property
    def same_request(self) -> tuple[str, ...]:
        """What spans of one request have in common."""
        if self.request_id is None:
            return self.span.address
        return (self.request_id,) if len(self.request_id) >= _LONG_ID else (self.span.trace_id, "", self.request_id)


def usages(spans: Sequence[Span], placements: InstanceBook, key_tenant: str | None = None) -> Counted:
    """The requests that these spans tell of. key_tenant: the only tenant that their sender may name; None: any."""
    found = Counted(sampled=sum(map(is_sampled, spans)))
    telling: dict[tuple[str, str], _Told] = {}
    for span in spans:
        try:
            told = _told(span)
        except Refused as error:
            found.refused.append((span, str(error)))
            continue
        if isinstance(told, _Told):
            telling[span.address] = told
        elif told is not None:
            found.left_out[told] += 1
    for chosen, others in _innermost(telling, {span.address: span for span in spans}, found):
        try:
            usage = _usage(chosen, others, placements, key_tenant, found)
        except Refused as error:
            found.refused.append((chosen[0].span, str(error)))
            continue
        if usage is not None:
            found.usages.append((usage, chosen[0].span))
    return found


def is_sampled(span: Span) -> bool:
    """Whether a span says that it stands for others, too, that were not sent.

    By OpenTelemetry's probability sampling (tracestate `ot=th:...`, earlier `p:`), or by the attributes of samplers of Jaeger
    and Honeycomb. A plain ratio sampler of an SDK leaves no mark.
    """
    for member in _trace_state(span).get("ot", "").split(";"):
        name, _, value = member.partition(":")
        if (name == "th" and value.strip("0")) or (name == "p" and value not in ("", "0")):
            return True
    rate = span.attributes.get("SampleRate")
    if isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 1:
        return True
    sampler, parameter = span.attributes.get("sampler.type"), span.attributes.get("sampler.param")
    return sampler in ("probabilistic", "ratelimiting") and parameter != 1


# -- 1: which spans tell of a request, and what they say -----------------------------------------------------------------------


def _told(span: Span) -> _Told | LeftOut | None:
    """What a span says of a request; why it says nothing of one; None: it is about something else. Raises Refused."""
    attributes = span.attributes
    is_engine = any(name.startswith(_ENGINE) for name in attributes)
    said = next(((name, attributes[name]) for name in COUNTED if attributes.get(name) is not None), None)
    work: str | None = _GENERATES
    if said is not None:
        name, value = said
        kinds = COUNTED[name]
        work = kinds.get(str(value)) or kinds.get(str(value).upper())
    if work is None:
        return None
    counts = {name: _count(span, name) for name in NAMES if name.endswith("_tokens")}
    if LANGFUSE_USAGE in attributes:
        counts = {**_langfuse_counts(span), **{name: value for name, value in counts.items() if value is not None}}
    prompt, completion = counts["prompt_tokens"], counts["completion_tokens"]
    if prompt is None and completion is None:
        return LeftOut.WITHOUT_TOKENS if said is not None else None
    if work == _EMBEDS or _text(attributes, "error.type") or span.is_error:
        prompt, completion = prompt or 0, completion or 0  # an embedding has no answer, and an error may have come before one
    for name, value in (("prompt_tokens", prompt), ("completion_tokens", completion)):
        if value is None:
            raise Refused(f"{NAMES[name][0]} is missing beside {_given(span)}: instrument the engine or client to send both")
    assert prompt is not None
    assert completion is not None
    cached, reasoning = counts["cached_tokens"] or 0, counts["reasoning_tokens"] or 0
    if cached > prompt:  # the sender counts like Anthropic's API, where input leaves out what the cache had a part in
        prompt += cached + (counts["cache_write_tokens"] or 0)
    if reasoning > completion:  # like Gemini's, where the answer leaves out the thoughts
        completion += reasoning
    return _Told(span, work, is_engine, _request_id(span), prompt, completion, cached, reasoning)


def _count(span: Span, name: str) -> int | None:
    for attribute in NAMES[name]:
        value = span.attributes.get(attribute)
        if value is not None:
            return _tokens(attribute, value)
    return None


def _tokens(attribute: str, value: Value) -> int:
    is_text = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 12
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    number = int(value) if is_text or is_number else -1  # type: ignore[arg-type]
    if not 0 <= number <= MAX_TOKENS:
        raise Refused(f"{attribute}={str(value)[:40]!r} is no number of tokens (0 to {MAX_TOKENS:,})")
    return number


def _langfuse_counts(span: Span) -> dict[str, int | None]:
    """Counts of Langfuse's JSON. Keys that begin with `input` are parts of the prompt, with `output` of the answer."""
    try:
        details = json.loads(str(span.attributes[LANGFUSE_USAGE]))
    except (ValueError, RecursionError):
        raise Refused(f"{LANGFUSE_USAGE} is no JSON object") from None
    if not isinstance(details, dict):
        raise Refused(f"{LANGFUSE_USAGE} is no JSON object")
    counts = {
        str(key): _tokens(f"{LANGFUSE_USAGE}.{str(key)[:40]}", value if isinstance(value, int | float | str) else None)
        for key, value in details.items()
        if value is not None
    }
    prompt = [count for key, count in counts.items() if key.startswith(("input", "prompt", "cache"))]
    completion = [count for key, count in counts.items() if key.startswith(("output", "completion"))]
    return {
        "prompt_tokens": sum(prompt) if prompt else None,
        "completion_tokens": sum(completion) if completion else None,
        "cached_tokens": sum(count for key, count in counts.items() if "cached" in key or ("cache" in key and "read" in key)),
        "reasoning_tokens": sum(count for key, count in counts.items() if "reasoning" in key),
        "cache_write_tokens": 0,
    }


def _request_id(span: Span) -> str | None:
    text = _text(span.attributes, *NAMES["request_id"])
    if text is None:
        return None
    first = _FIRST_PROMPT.fullmatch(text)
    return (first[1] if first else text)[:_MAX_LABEL]


# -- 2: which of them count ----------------------------------------------------------------------------------------------------

_Group = tuple[list[_Told], list[_Told]]  # of one request: the spans whose figures count, and the others that tell of it


def _innermost(
    telling: Mapping[tuple[str, str], _Told], spans: Mapping[tuple[str, str], Span], found: Counted
) -> Iterator[_Group]:
    above: dict[tuple[str, str], list[_Told]] = {}  # span -> those above it that tell of the same kind of work, nearest first
    told_below = set()
    for address, told in telling.items():
        parents = [
            telling[parent] for parent in _ancestors(address, spans) if parent in telling and telling[parent].work == told.work
        ]
        above[address] = parents
        told_below |= {parent.span.address for parent in parents}
    requests: dict[tuple[str, ...], list[_Told]] = {}
    for address, told in sorted(telling.items()):
        if address in told_below:
            found.left_out[LeftOut.TOLD_BELOW] += 1
        else:
            requests.setdefault(told.same_request, []).append(told)
    for group in requests.values():
        for chosen, beside in _requests_of(group):
            if beside:
                found.left_out[LeftOut.TOLD_TWICE] += len(beside)
            others = [other for told in (*chosen, *beside) for other in above[told.span.address]]
            yield chosen, [*beside, *others]


def _ancestors(address: tuple[str, str], spans: Mapping[tuple[str, str], Span]) -> Iterator[tuple[str, str]]:
    seen = {address}
    trace_id, _ = address
    parent = trace_id, spans[address].parent_id
    while parent in spans and parent not in seen:
        seen.add(parent)
        yield parent
        parent = trace_id, spans[parent].parent_id


def _requests_of(group: Sequence[_Told]) -> Iterator[_Group]:
    """Spans of one response id, which may have been given to several requests (vLLM takes it from X-Request-Id): their tokens
    tell those apart. An engine's spans of one arrival and prompt are the choices of one request (n > 1)."""
    engines: dict[tuple[int, int], list[_Told]] = {}
    clients: dict[tuple[int, int], list[_Told]] = {}
    for told in group:
        if told.is_engine:
            engines.setdefault((told.span.start_ns, told.prompt_tokens), []).append(told)
        else:
            clients.setdefault((told.prompt_tokens, told.completion_tokens), []).append(told)
    by_tokens: dict[tuple[int, int], list[_Told]] = {}
    again: list[_Told] = []
    for choices in engines.values():
        tokens = choices[0].prompt_tokens, sum(told.completion_tokens for told in choices)
        if tokens in by_tokens:
            again += choices
        else:
            by_tokens[tokens] = choices
    for number, (tokens, choices) in enumerate(by_tokens.items(), 1):
        beside = clients.pop(tokens, [])
        if number == len(by_tokens):  # clients with other tokens: of a request that the engine tells of in another export
            beside = [*beside, *again, *(told for same in clients.values() for told in same)]
        yield choices, beside
    for same in clients.values() if not engines else ():
        shortest = min(same, key=lambda told: (told.span.end_ns - told.span.start_ns, told.span.span_id))
        yield [shortest], [told for told in same if told is not shortest]


# -- 3 and 4: the usage --------------------------------------------------------------------------------------------------------


def _usage(
    chosen: Sequence[_Told], others: Sequence[_Told], placements: InstanceBook, key_tenant: str | None, found: Counted
) -> TokenUsage | None:
    first = chosen[0]
    start_ns, end_ns = min(told.span.start_ns for told in chosen), max(told.span.end_ns for told in chosen)
    if not end_ns:
        raise Refused("endTimeUnixNano is 0: a span is sent when it has ended")
    spans = [told.span for told in (*chosen, *others)]
    tenant = _tenant(spans, key_tenant)
    end_us = end_ns // _NS_PER_US
    placed = [_place(told, placements, end_us) for told in chosen]
    if all(place.is_unplaced for place in placed):  # the engine does not say who it is, but a client says whom it asked
        asked = (_place(told, placements, end_us) for told in others if not _describes_itself(told))
        placed = [next((place for place in asked if not place.is_unplaced), placed[0])]
    row = placed[0].row
    if not first.is_engine and row is not None and row.counted_by is CountedBy.ENGINE:
        found.left_out[LeftOut.TOLD_BY_ENGINE] += 1
        return None
    found.unplaced |= {place.instance for place in placed if place.is_unplaced}
    gpus = list(dict.fromkeys(gpu for place in placed for gpu in place.gpus))
    completion_tokens = sum(told.completion_tokens for told in chosen)
    prompt_tokens = max(told.prompt_tokens for told in chosen)
    latency_ms = _latency_ms(chosen, start_ns, end_ns)
    try:
        ts = from_us(end_us)
    except OverflowError:
        raise Refused(f"endTimeUnixNano={end_ns} is no time that a calendar has") from None
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
        queue_ms=_part_ms(first, "queue_seconds", latency_ms),
        ttft_ms=_ttft_ms(first, latency_ms),
        finish_reason=_finish_reason(first.span),
    )


def _identity(told: _Told, prompt_tokens: int, completion_tokens: int) -> str:
    """The event id: the same for every span that tells of the same request, and for a span that is sent again.

    A response id alone would not do: X-Request-Id, from which vLLM takes it, may be one for all calls of an agent.
    """
    parts: tuple[object, ...]
    if told.request_id is None:
        parts = ("span", *told.span.address)
    elif len(told.request_id) >= _LONG_ID:
        parts = ("response", told.request_id, prompt_tokens, completion_tokens)
    else:
        parts = ("response in trace", *told.same_request, prompt_tokens, completion_tokens)
    digest = int.from_bytes(blake2b(json.dumps(parts).encode(), digest_size=16).digest())
    return str(UUID(int=(digest & ~_UUID_MASK) | _UUID_8))


def _tenant(spans: Sequence[Span], key_tenant: str | None) -> str:
    """Of the spans first, the engine's before its clients'; then of their trace, then of the processes that made them."""
    told = next(
        (
            text
            for texts in (
                (_text(span.attributes, *NAMES["tenant"]) for span in spans),
                (_trace_state(span).get(TENANT_IN_TRACE_STATE) for span in spans),
                (_text(span.resource, *NAMES["tenant"]) for span in spans),
            )
            for text in texts
            if text
        ),
        None,
    )
    if key_tenant is not None and told not in (None, key_tenant):
        raise Refused(f"tenant={told!r}: this key is for tenant {key_tenant!r} only")
    return (key_tenant or told or DEFAULT_TENANT)[:_MAX_LABEL]


def _model(chosen: Sequence[_Told], others: Sequence[_Told], row: InstancePlacement | None) -> str:
    """As the engine names it, else as the operator does, else as clients do."""
    own = [told.span for told in chosen]
    configured = [_text(span.resource, *NAMES["configured_model"]) for span in own]
    candidates = [
        *(_text(span.attributes, *NAMES["model"]) for span in own),
        *configured,
        row.model if row is not None else None,
        *(_text(told.span.attributes, *NAMES["model"]) for told in others),
    ]
    return next((text for text in candidates if text), UNKNOWN_MODEL)[:_MAX_LABEL]


@dataclass(frozen=True)
class _Place:
    instance: str
    host: str
    gpus: tuple[str, ...]
    row: InstancePlacement | None
    is_unplaced: bool


def _place(told: _Told, placements: InstanceBook, at_us: int) -> _Place:
    span = told.span
    names, shown = _instance_names(told)
    instance = next(iter(_canonical([*shown, *names])), UNKNOWN_INSTANCE)
    row = placements.at(_canonical([*names, *shown]), at_us)
    own_host = _text(span.resource, "host.name", "k8s.node.name") if _describes_itself(told) else None
    named = _gpus(span)
    gpus = named or (row.gpus if row is not None else ()) or (unplaced_gpu(instance),)
    hosts = {gpu.rpartition("/")[0] for gpu in gpus if "/" in gpu}
    of_gpus = hosts.pop() if len(hosts) == 1 else None
    host = (None if named or row is None else row.host) or of_gpus or own_host or instance
    return _Place(instance, host[:_MAX_ID], gpus, row, gpus == (unplaced_gpu(instance),))


def _gpus(span: Span) -> tuple[str, ...]:
    """GPUs that the span itself names: a list, or a text of UUIDs or host/index, parted by spaces, commas or semicolons."""
    for attributes in (span.attributes, span.resource):
        value = attributes.get(NAMES["gpus"][0])
        texts = value if isinstance(value, list) else _GPUS.split(value) if isinstance(value, str) else []
        found = tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and text))
        if found:
            return found
    return ()


def _describes_itself(told: _Told) -> bool:
    """Whether the process that made the span is the one that served the request."""
    return told.is_engine or told.span.kind == SpanKind.SERVER


def _instance_names(told: _Told) -> tuple[list[str], list[str]]:
    """What placements may call the instance that served the request: (ids, which change with every start, names to show)."""
    attributes, resource = told.span.attributes, told.span.resource
    if not _describes_itself(told):
        url, address = _text(attributes, "url.full", "gen_ai.openai.api_base"), _text(attributes, "server.address")
        if url is not None:
            return [], [url, _host_of(url)]
        if address is not None:
            port = attributes.get("server.port")
            host = f"[{address}]" if ":" in address else address
            has_port = isinstance(port, int) and not isinstance(port, bool)
            return [], [f"{host}:{port}" if has_port else address, address]
    namespace, pod = _text(resource, "k8s.namespace.name"), _text(resource, "k8s.pod.name")
    service, host_name = _text(resource, "service.name"), _text(resource, "host.name")
    ids = [text for name in ("service.instance.id", "k8s.pod.uid") if (text := _text(resource, name))]
    shown = []
    if pod is not None:
        shown += [f"{namespace}/{pod}" if namespace else pod, pod]
    if service is not None and not service.startswith("unknown_service"):  # the SDK's own word for: not set
        shown += [f"{service}@{host_name}"] if host_name else []
        shown.append(service)
    return ids, [*shown, *([host_name] if host_name else [])]


def _host_of(url: str) -> str:
    return canonical_instance(url).rpartition(":")[0]


def _canonical(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(map(canonical_instance, names)) if name]


def _latency_ms(chosen: Sequence[_Told], start_ns: int, end_ns: int) -> float | None:
    if len(chosen) == 1:
        told = _seconds(chosen[0].span, "latency_seconds")
        if told is not None:
            return _rounded_ms(told * 1000)
    # A span without a length was recorded afterwards: when it began is not known.
    return _rounded_ms((end_ns - start_ns) / 1e6) if 0 < start_ns < end_ns else None


def _part_ms(told: _Told, name: str, latency_ms: float | None) -> float | None:
    seconds = _seconds(told.span, name)
    return None if seconds is None or latency_ms is None else min(_rounded_ms(seconds * 1000), latency_ms)


def _ttft_ms(told: _Told, latency_ms: float | None) -> float | None:
    ttft_ms = _part_ms(told, "ttft_seconds", latency_ms)
    if ttft_ms is not None or latency_ms is None:
        return ttft_ms
    text = _text(told.span.attributes, LANGFUSE_FIRST_TOKEN)
    try:
        at = datetime.fromisoformat((text or "").strip('"')) if text else None
    except ValueError:
        return None
    if at is None or at.tzinfo is None:
        return None
    after_ms = at.timestamp() * 1000 - told.span.start_ns / 1e6
    return min(_rounded_ms(after_ms), latency_ms) if after_ms >= 0 else None


def _rounded_ms(value: float) -> float:
    return round(value, 3)  # the ledger's resolution


def _seconds(span: Span, name: str) -> float | None:
    """A known time; what is no time is not known."""
    for attribute in NAMES[name]:
        value = span.attributes.get(attribute)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
            return float(value)
    return None


def _finish_reason(span: Span) -> str | None:
    for name in NAMES["finish_reason"]:
        value = span.attributes.get(name)
        if isinstance(value, str) and value.startswith("["):  # SGLang sends the list as JSON
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        if isinstance(value, list):
            value = next((one for one in value if isinstance(one, str)), None)
        if isinstance(value, str) and value:
            return value[:_MAX_LABEL]
    return None


# -- attributes ----------------------------------------------------------------------------------------------------------------


def _text(attributes: Attributes, *names: str) -> str | None:
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip().replace("\0", "")
    return None


def _trace_state(span: Span) -> dict[str, str]:
    members = (member.strip().partition("=") for member in span.trace_state.split(","))
    return {name: value.strip() for name, _, value in members if name}


def _given(span: Span) -> str:
    names = (name for field in ("prompt_tokens", "completion_tokens") for name in NAMES[field])
    return next((f"{name}={str(span.attributes[name])[:40]}" for name in names if name in span.attributes), LANGFUSE_USAGE)
