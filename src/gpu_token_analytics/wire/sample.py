"""`gpu.metrics.v1`: one sample of one GPU."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from gpu_token_analytics.errors import InvalidRecord, Reason
from gpu_token_analytics.units import MIG_SEVENTHS
from gpu_token_analytics.wire.fields import (
    Celsius,
    GpuIndex,
    GpuUuid,
    Joules,
    Label,
    Megabytes,
    Ratio,
    Source,
    UsdPerHour,
    Watts,
)
from gpu_token_analytics.wire.kind import Event, Kind, OfLabels, PartOf, Touches
from gpu_token_analytics.wire.names import canonical_host, canonical_uuid, gpu_label, is_nil


class GpuSample(
    Event,
    tag_field="schema",
    tag="gpu.metrics.v1",
    kw_only=True,
    frozen=True,
    omit_defaults=True,
    gc=False,
):
    """One sample of one GPU (or one MIG slice: `mig_profile` and `parent_uuid` set). Null is
    unknown.

    `energy_j` is a counter since driver load, not an amount. `gpu_index` is a label that can change
    at each boot; the identity is `gpu_uuid`, and `host/gpu_index` where a source knows no UUID, or
    one of zeros.
    """

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
    mig_profile: Annotated[str, Meta(pattern=rf"^[1-{MIG_SEVENTHS}]g\.", max_length=32)] | None = (
        None
    )
    parent_uuid: GpuUuid | None = None

    @property
    def gpu(self) -> str:
        """GPU id: the UUID, or `host/index` where the source knows none."""
        if not self.gpu_uuid or is_nil(self.gpu_uuid):
            return gpu_label(self.host, self.gpu_index)
        return canonical_uuid(self.gpu_uuid, "GPU" if self.mig_profile is None else "MIG")

    @property
    def has_uuid(self) -> bool:
        """Whether `gpu` is its UUID, not the label that it falls back to."""
        return self.gpu_uuid is not None and not is_nil(self.gpu_uuid)

    @property
    def card(self) -> str | None:
        """GPU id of the card of a MIG slice."""
        if self.parent_uuid is None:
            return None
        return (
            gpu_label(self.host, self.gpu_index)
            if is_nil(self.parent_uuid)
            else canonical_uuid(self.parent_uuid, "GPU")
        )


def _document(event: GpuSample) -> dict[str, Any]:
    document = {
        "host": canonical_host(event.host),
        "gpu": event.gpu,
        "gpu_uuid": event.gpu_uuid,
        "gpu_index": event.gpu_index,
        "name": event.name,
        "source": event.source,
    }
    if event.parent_uuid is not None:
        document |= {"parent_uuid": event.card, "mig_profile": event.mig_profile}
    return document


def _half_a_slice(event: GpuSample) -> InvalidRecord | None:
    if (event.mig_profile is None) == (event.parent_uuid is None):
        return None
    message = "mig_profile and parent_uuid belong together: send both or neither"
    return InvalidRecord(Reason.INCONSISTENT, message, "mig_profile")


def _its_own_card(event: GpuSample) -> InvalidRecord | None:
    if event.parent_uuid is None or event.gpu_uuid is None:
        return None
    # sent bare, it is spelt as of another kind
    if event.card not in (event.gpu, canonical_uuid(event.gpu_uuid, "GPU")):
        return None
    # A card that is its own slice would cost only its own sevenths of itself: the rest of its money
    # would be nobody's.
    message = (
        f"parent_uuid={event.parent_uuid!r} is gpu_uuid itself: a MIG slice has a UUID of its own "
        "and names its card as "
        "parent_uuid; a whole GPU sends neither mig_profile nor parent_uuid"
    )
    return InvalidRecord(Reason.INCONSISTENT, message, "parent_uuid")


def _slice_without_uuid(event: GpuSample) -> InvalidRecord | None:
    if event.mig_profile is None or event.has_uuid:
        return None
    return InvalidRecord(
        Reason.INCONSISTENT, "gpu_uuid is missing: a MIG slice has no other identity", "gpu_uuid"
    )


SAMPLE = Kind(
    GpuSample,
    collection="gpu_metrics",
    labels=("host", "gpu_index", "source", "gpu_uuid", "name", "mig_profile", "parent_uuid"),
    document=_document,
    bounded=("gpu",),
    rules=(
        PartOf("mem_used_mb", "mem_total_mb", measured=True),
        OfLabels(_half_a_slice),
        OfLabels(_its_own_card),
        OfLabels(_slice_without_uuid),
    ),
    touches=Touches("gpu"),
)
