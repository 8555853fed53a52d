"""`engine.counters.v1`: by how much the token counters of one serving engine grew between two looks
at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.wire.engines import Engine
from gpu_token_analytics.wire.fields import MAX_GPUS, Id, Label, TokenCount
from gpu_token_analytics.wire.instances import canonical_instance, unplaced_gpu
from gpu_token_analytics.wire.kind import Event, Kind, OfLabels, PartOf, Rule, Touches, mixed_names
from gpu_token_analytics.wire.names import canonical_gpu, canonical_host
from gpu_token_analytics.wire.strict_json import shorten

MAX_INTERVAL_MS = 3600 * 1000  # a longer one is sent in parts
NO_MODEL = "unknown"  # of engines that do not say which model they serve, and nobody else does

_COUNTS = ("prompt_tokens", "completion_tokens")


class EngineCounters(
    Event,
    tag_field="schema",
    tag="engine.counters.v1",
    kw_only=True,
    frozen=True,
    omit_defaults=True,
    gc=False,
):
    """What one engine counted for one model in [ts - interval_ms, ts), all its ranks together.
    Null: it does not count that.

    Deltas, never totals: whoever scrapes takes the difference of each series first, then sums.
    `prompt_tokens` is inclusive: `cached_tokens` is a part of it. `reset`: the engine began anew in
    the interval, and what it counted between the look before and its end is not in here. `gap`:
    looks were missed, so that the interval is longer than usual. `gpu_uuids` empty: the GPUs of the
    instance's placement.
    """

    instance: Annotated[str, Meta(min_length=1, max_length=256)]
    engine: Engine
    interval_ms: Annotated[float, Meta(ge=1, le=MAX_INTERVAL_MS)]
    model: Label | None = None
    prompt_tokens: TokenCount | None = None
    cached_tokens: TokenCount | None = None
    completion_tokens: TokenCount | None = None
    reset: bool = False
    gap: bool = False
    gpu_uuids: Annotated[list[Id], Meta(max_length=MAX_GPUS)] = []  # noqa: RUF012  # msgspec makes one for each event

    @property
    def gpus(self) -> list[str]:
        """GPU ids it runs on, sorted and distinct, in their one spelling; `instance:<name>` where
        they are not known."""
        named = self.gpu_uuids or [unplaced_gpu(canonical_instance(self.instance))]
        return sorted({canonical_gpu(name) for name in named})


def _document(event: EngineCounters) -> dict[str, Any]:
    return {
        "host": canonical_host(event.host),
        "instance": canonical_instance(event.instance),
        "engine": event.engine,
        "model": event.model or NO_MODEL,
        "gpus": event.gpus,
        "reset": event.reset,
        "gap": event.gap,
    }


def _nameless(event: EngineCounters) -> InvalidRecord | None:
    if canonical_instance(event.instance):
        return None
    message = (
        f"instance={shorten(event.instance)} names nothing: send the engine's address "
        "(node1:8000), pod or service"
    )
    return InvalidRecord(Reason.INCONSISTENT, message, "instance")


@dataclass(frozen=True)
class _CountsSomething(Rule[EngineCounters]):
    """One of the counts is known."""

    def broken(self, number: Callable[[str], Any], of_labels: Any) -> Any:  # noqa: ARG002
        """As in Rule."""
        prompt, completion = (number(name) for name in _COUNTS)
        return (prompt != prompt) & (completion != completion)  # noqa: PLR0124  # nan is not itself

    def error(self, event: EngineCounters) -> InvalidRecord:  # noqa: ARG002
        """As in Rule."""
        message = (
            "neither prompt_tokens nor completion_tokens is known: send the one that the engine "
            "counts (0 is a count)"
        )
        return InvalidRecord(Reason.INCONSISTENT, message, "prompt_tokens")


COUNTERS = Kind(
    EngineCounters,
    collection="engine_counters",
    labels=("host", "instance", "engine", "model", "reset", "gap", "gpu_uuids"),
    document=_document,
    bounded=("host", "instance", "model"),
    touches=Touches("gpus", names=True, since="start_us", evidence=False),
    rules=(
        OfLabels(_nameless),
        OfLabels(mixed_names),
        _CountsSomething(),
        PartOf("cached_tokens", "prompt_tokens", known=True),
    ),
)
