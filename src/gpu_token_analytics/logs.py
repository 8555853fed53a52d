"""Logging of every process: one line per entry on stderr, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from gpu_token_analytics.settings import Settings


class JsonFormatter(logging.Formatter):
    """One JSON object per entry: ts, level, logger, message, and error where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The entry as one line."""
        entry = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000+00:00 INFO gpu_token_analytics.agent.run: message`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002 - logging's name
        """UTC, with its zone: logs of several machines are read side by side."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def configure(settings: Settings) -> None:
    """Set up the root logger from LOG_LEVEL and LOG_FORMAT; calling it again replaces the set-up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
