"""What samples say of a GPU, as the inventory learns it: its description, and when it was seen."""

from __future__ import annotations

from typing import NamedTuple

from gpu_token_analytics.documents import GpuId
from gpu_token_analytics.wire.names import gpu_label


def placement_id(label: str, gpu: GpuId) -> str:
    """`_id` of the inventory's row that says when a label meant a GPU."""
    return f"placement|{label}|{gpu}"


class GpuDescription(NamedTuple):
    """What a sample says about a GPU itself. `has_uuid`: `gpu` is a UUID, not the label it falls
    back to."""

    gpu: GpuId
    has_uuid: bool
    host: str
    gpu_index: int
    name: str | None
    mig_profile: str | None
    parent_uuid: GpuId | None
    source: str
    live: bool  # a real source, not a replay

    @property
    def placement(self) -> str | None:
        """The label this GPU carried; None for a MIG slice (the label means its card) and where no
        UUID is known."""
        if not self.has_uuid or self.mig_profile is not None:
            return None
        return gpu_label(self.host, self.gpu_index)

    @property
    def whereabouts(self) -> str | None:
        """`_id` of the row that says where this GPU was; None where its own name does."""
        label = self.placement
        if label is not None:
            return placement_id(label, self.gpu)
        return f"stay|{self.host}|{self.gpu}" if self.has_uuid else None


class Sighting(NamedTuple):
    """A GPU as samples showed it, from the minute that starts at `first_us` to the one that ends
    with `last_us`."""

    description: GpuDescription
    first_us: int
    last_us: int
