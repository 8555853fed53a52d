"""How far a replay came, so that one that was interrupted goes on where Kafka had acknowledged
everything.

    $XDG_STATE_HOME/gpu-tokens/replay/<identity>.json    (~/.local/state where that is not set)

The events of a replay and their order are a function of the file and the options, so a count of
them says which were sent. It is written after Kafka's acknowledgment: what was sent after it is
sent again, under the same ids, and counts once.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from gpu_token_analytics.foreign_text import visible


@dataclass(frozen=True)
class ReplayProgress:
    """Where one replay keeps how many of its records are acknowledged."""

    path: Path

    @staticmethod
    def of(*what: object) -> ReplayProgress:
        """Of the replay of this file, under these options, into this topic."""
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        digest = blake2b(repr(what).encode(), digest_size=16).hexdigest()
        return ReplayProgress(Path(state) / "gpu-tokens" / "replay" / f"{digest}.json")

    def acknowledged(self) -> int:
        """Records that need not be sent again; 0 where nothing is known."""
        try:
            count = json.loads(self.path.read_text())["acknowledged"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        return count if isinstance(count, int) and count > 0 else 0

    def write(self, acknowledged: int) -> str | None:
        """Keep the count, whole or not at all. Why it cannot be kept, or None: a replay without it
        is begun again."""
        part = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"acknowledged": acknowledged}))
            part.replace(self.path)
        except OSError as error:
            return visible(f"{self.path}: {error.strerror}")
        return None

    def forget(self) -> None:
        """The replay is done, or is begun again."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
