"""Logs: text for people, or one JSON object per line; secrets never in either."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

from gpu_token_analytics.foreign_text import in_json_text, visible, visible_lines
from gpu_token_analytics.settings import Settings

_REDACTED = "***"
_MIN_SECRET_LENGTH = 4  # shorter ones would redact ordinary words

# What a line may say besides its message: from `extra=` of the call, or from `about()` around it. A
# closed list, because whoever searches logs has to know the names, and an index has to hold them.
FIELDS = (
    "request_id",
    "trace_id",
    "event_id",
    "reason",
    "records",
    "topic",
    "partition",
    "offset",
    "cell",
)
_about: ContextVar[dict[str, Any]] = ContextVar("log_fields")


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Every line of this block, also in threads it hands work to with its context, says these
    FIELDS."""
    token = _about.set({**_about.get({}), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up logging for this process, replacing what was set up before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(settings))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for noisy in ("pymongo", "httpx", "uvicorn"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))


def secrets_of(settings: Settings) -> list[str]:
    """What must not be seen: passwords of Kafka and MongoDB, as given and decoded, longest
    first."""
    uri = settings.mongodb_uri.get_secret_value()
    password = urlsplit(uri).password or ""
    secrets = {settings.kafka_sasl_password.get_secret_value(), password, unquote(password)}
    secrets |= {
        settings.smtp_password.get_secret_value(),
        settings.alert_webhook_url.get_secret_value(),
    }
    secrets |= {
        settings.alert_webhook_token.get_secret_value(),
        settings.alertmanager_token.get_secret_value(),
    }
    return sorted(
        (secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH), key=len, reverse=True
    )


def _formatter(settings: Settings) -> logging.Formatter:
    secrets = secrets_of(settings)
    return (
        _JsonFormatter(secrets, settings.site)
        if settings.log_format == "json"
        else _TextFormatter(secrets, settings.site)
    )


class _TextFormatter(logging.Formatter):
    def __init__(self, secrets: list[str], site: str) -> None:
        super().__init__(
            f"%(asctime)s %(levelname)s {f'site={site} ' if site else ''}%(name)s: %(message)s"
        )
        self._secrets = secrets

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002 - logging's name
        """UTC, with its zone: logs of several machines are read side by side."""
        return _time(record)

    def format(self, record: logging.LogRecord) -> str:
        return _redact(super().format(record), self._secrets)

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's name
        """On one line: what a message quotes must not look like a line of its own."""
        record.message = visible(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # logging's name
        """A traceback keeps its lines."""
        return visible_lines(super().formatException(ei))


class _JsonFormatter(logging.Formatter):
    """`ts` (RFC 3339, UTC), `level`, `site` where there are several, `logger`, `message`, those of
    FIELDS that are known, and `error` with the traceback where there is one."""

    def __init__(self, secrets: list[str], site: str) -> None:
        super().__init__()
        self._secrets = secrets
        self._site = {"site": site} if site else {}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": _time(record),
            "level": record.levelname,
            **self._site,
            "logger": record.name,
            "message": _redact(record.getMessage(), self._secrets),
        }
        known = {**_about.get({}), **vars(record)}
        for name in FIELDS:
            if (value := known.get(name)) is not None:
                line[name] = value if isinstance(value, int) else _redact(str(value), self._secrets)
        if record.exc_info:
            line["error"] = _redact(self.formatException(record.exc_info), self._secrets)
        return in_json_text(json.dumps(line, ensure_ascii=False))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _redact(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, _REDACTED)
    return text
