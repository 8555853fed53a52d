"""`token.usage.v1`: one finished request."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.wire.fields import MAX_GPUS, GpuIndex, Id, Label, Milliseconds, TokenCount
from gpu_token_analytics.wire.kind import Below, Event, Kind, OfLabels, PartOf, Touches, mixed_names
from gpu_token_analytics.wire.names import canonical_gpu, canonical_host, gpu_label, is_nil

MAX_CELLS = 8192  # minutes x GPUs one request may touch


class TokenUsage(
    Event,
    tag_field="schema",
    tag="token.usage.v1",
    kw_only=True,
    frozen=True,
    omit_defaults=True,
    gc=False,
):
    """One finished request. `ts` is its end; it was active from `ts - latency_ms + queue_ms`.

    A request on several GPUs (tensor or pipeline parallel) is ONE event that names all of them.
    `latency_ms` null: only a point in time is known; the ledger then spreads it over its minute
    (method `window`).
    """

    model: Label
    request_id: Label
    prompt_tokens: TokenCount
    completion_tokens: TokenCount
    gpu_uuids: Annotated[list[Id], Meta(max_length=MAX_GPUS)] = []  # noqa: RUF012  # msgspec makes one for each event
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
        """GPU ids it ran on, sorted and distinct: UUIDs, or `host/index` when no UUID was named but
        of zeros; in their one spelling."""
        if self.gpu_uuids and (self.gpu_index is None or not all(map(is_nil, self.gpu_uuids))):
            return sorted({canonical_gpu(name) for name in self.gpu_uuids})
        return [gpu_label(self.host, self.gpu_index or 0)]


def _document(event: TokenUsage) -> dict[str, Any]:
    document = {
        "host": canonical_host(event.host),
        "gpus": event.gpus,
        "model": event.model,
        "tenant": event.tenant,
        "finish_reason": event.finish_reason,
    }
    return document if event.gpu_index is None else document | {"gpu_index": event.gpu_index}


def _unnamed(event: TokenUsage) -> InvalidRecord | None:
    if event.gpu_uuids or event.gpu_index is not None:
        return None
    message = "no GPU is named: send gpu_uuids (at least one) or gpu_index"
    return InvalidRecord(Reason.INCONSISTENT, message, "gpu_uuids")


def _longest_ms(event: TokenUsage) -> float:
    """From here on it touches more than MAX_CELLS cells: as many minutes as it lasts, and one at
    each end, on each GPU."""
    return (MAX_CELLS // max(1, len(event.gpu_uuids)) - 1) * 60_000


def _too_many_cells(event: TokenUsage) -> InvalidRecord:
    message = (
        f"latency_ms={event.latency_ms} on {len(event.gpu_uuids)} GPUs touches more than "
        f"{MAX_CELLS} ledger cells"
    )
    return InvalidRecord(Reason.OUT_OF_RANGE, message, "latency_ms")


USAGE = Kind(
    TokenUsage,
    collection="token_usage",
    labels=("host", "gpu_uuids", "gpu_index", "model", "tenant", "finish_reason"),
    document=_document,
    owner="tenant",
    bounded=("host", "model", "tenant"),
    texts=("request_id",),
    rules=(
        PartOf("cached_tokens", "prompt_tokens"),
        PartOf("reasoning_tokens", "completion_tokens"),
        OfLabels(_unnamed),
        OfLabels(mixed_names),
        PartOf("queue_ms", "latency_ms", measured=True, known=True),
        PartOf("ttft_ms", "latency_ms", measured=True, known=True),
        Below("latency_ms", _longest_ms, _too_many_cells),
    ),
    touches=Touches("gpus", names=True, since="start_us"),
)


def refused_reach(event: Event, most_minutes: int, most_gpus: int) -> InvalidRecord | None:
    """Why a request reaches too far for an installation that allows less than the contract does;
    None: it does not."""
    if not isinstance(event, TokenUsage):
        return None
    if len(event.gpu_uuids) > most_gpus:
        message = (
            f"gpu_uuids names {len(event.gpu_uuids)} GPUs; one request may name {most_gpus} here "
            "(REQUEST_MAX_GPUS)"
        )
        return InvalidRecord(Reason.OUT_OF_RANGE, message, "gpu_uuids")
    if event.latency_ms is not None and event.latency_ms > most_minutes * 60_000:
        message = (
            f"latency_ms={event.latency_ms}: one request may take {most_minutes} minutes here "
            "(REQUEST_MAX_MINUTES)"
        )
        return InvalidRecord(Reason.OUT_OF_RANGE, message, "latency_ms")
    return None
