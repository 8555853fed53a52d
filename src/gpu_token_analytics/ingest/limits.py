"""What one record, and one batch, may reach where an installation allows less than the contract
does."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_token_analytics.errors import InvalidRecord
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.fields import MAX_GPUS, MAX_LATENCY_MS
from gpu_token_analytics.wire.kind import Event
from gpu_token_analytics.wire.usage import refused_reach

MAX_MINUTES = MAX_LATENCY_MS // 60_000


@dataclass(frozen=True)
class Limits:
    """What one record, and one batch, may reach."""

    batch_cells: int = 30_000
    request_minutes: int = MAX_MINUTES
    request_gpus: int = MAX_GPUS

    @staticmethod
    def of(settings: Settings) -> Limits:
        """The limits these settings make."""
        return Limits(
            settings.batch_max_cells, settings.request_max_minutes, settings.request_max_gpus
        )

    @property
    def narrow(self) -> bool:
        """Whether any record that the contract allows is refused."""
        return self.request_minutes < MAX_MINUTES or self.request_gpus < MAX_GPUS

    def judge(self, event: Event | InvalidRecord) -> Event | InvalidRecord:
        """The event, or why it is a bad record here."""
        if isinstance(event, InvalidRecord):
            return event
        return refused_reach(event, self.request_minutes, self.request_gpus) or event
