"""Where the request of a span ran: GPUs and host, by what the span says itself, else by the
placement of its instance.

The process that made a span names itself in its resource; a client names whom it asked in its
attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gpu_token_analytics.sources.instances import InstanceBook, InstancePlacement
from gpu_token_analytics.sources.span_figures import (
    NAMES,
    Told,
    text_of,
)
from gpu_token_analytics.sources.spans import Span, SpanKind
from gpu_token_analytics.wire.instances import canonical_instance, unplaced_gpu

UNKNOWN_INSTANCE = "unknown"
_MAX_HOST = 128
_SEPARATORS = re.compile(r"[\s,;]+")


@dataclass(frozen=True)
class Whereabouts:
    """Where a request ran. `row`: the placement of its instance. `is_unplaced`: nobody says on
    which GPUs it was."""

    instance: str
    host: str
    gpus: tuple[str, ...]
    row: InstancePlacement | None
    is_unplaced: bool


def whereabouts_of(told: Told, placements: InstanceBook, at_us: int) -> Whereabouts:
    """Of one span; at_us: the end of its request."""
    span = told.span
    names, shown = _instance_names(told)
    instance = next(iter(_canonical([*shown, *names])), UNKNOWN_INSTANCE)
    row = placements.at(_canonical([*names, *shown]), at_us)
    self_host = (
        text_of(span.resource, "host.name", "k8s.node.name") if describes_itself(told) else None
    )
    named = _gpus_of(span)
    gpus = named or (row.gpus if row is not None else ()) or (unplaced_gpu(instance),)
    hosts = {gpu.rpartition("/")[0] for gpu in gpus if "/" in gpu}
    of_gpus = hosts.pop() if len(hosts) == 1 else None
    host = (None if named or row is None else row.host) or of_gpus or self_host or instance
    return Whereabouts(instance, host[:_MAX_HOST], gpus, row, gpus == (unplaced_gpu(instance),))


def _gpus_of(span: Span) -> tuple[str, ...]:
    """GPUs that the span itself names: a list, or a text of UUIDs or host/index, parted by spaces,
    commas or semicolons."""
    for attributes in (span.attributes, span.resource):
        value = attributes.get(NAMES["gpus"][0])
        texts = (
            value
            if isinstance(value, list)
            else _SEPARATORS.split(value)
            if isinstance(value, str)
            else []
        )
        gpus = tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and text))
        if gpus:
            return gpus
    return ()


def describes_itself(told: Told) -> bool:
    """Whether the process that made the span is the one that served the request."""
    return told.is_engine or told.span.kind == SpanKind.SERVER


def _instance_names(told: Told) -> tuple[list[str], list[str]]:
    """What placements may call the instance that served the request: (ids, which change with every
    start, names to show)."""
    attributes, resource = told.span.attributes, told.span.resource
    if not describes_itself(told):
        url, address = (
            text_of(attributes, "url.full", "gen_ai.openai.api_base"),
            text_of(attributes, "server.address"),
        )
        if url is not None:
            return [], [url, _host_of(url)]
        if address is not None:
            port = attributes.get("server.port")
            host = f"[{address}]" if ":" in address else address
            has_port = isinstance(port, int) and not isinstance(port, bool)
            return [], [f"{host}:{port}" if has_port else address, address]
    namespace, pod = text_of(resource, "k8s.namespace.name"), text_of(resource, "k8s.pod.name")
    service, host_name = text_of(resource, "service.name"), text_of(resource, "host.name")
    ids = [
        text for name in ("service.instance.id", "k8s.pod.uid") if (text := text_of(resource, name))
    ]
    shown = []
    if pod is not None:
        shown += [f"{namespace}/{pod}" if namespace else pod, pod]
    # the SDK's own word for: not set
    if service is not None and not service.startswith("unknown_service"):
        shown += [f"{service}@{host_name}"] if host_name else []
        shown.append(service)
    return ids, [*shown, *([host_name] if host_name else [])]


def _host_of(url: str) -> str:
    return canonical_instance(url).rpartition(":")[0]


def _canonical(names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(map(canonical_instance, names)) if name]
