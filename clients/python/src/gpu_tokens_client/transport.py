"""How a batch reaches the server, and the closed set of what can come of it."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import msgspec
import urllib3

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0  # the server answers after Kafka acknowledged, which it waits for up to 15 s
_MISCONFIGURED_RETRY_SECONDS = 30.0
_MAX_RETRY_AFTER_SECONDS = 300.0


@dataclass(frozen=True)
class Delivered:
    """The server has the batch. `rejected`: index in the batch -> why that record will never be
    accepted."""

    rejected: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """The server will not take this batch as it is: send it in smaller pieces; a single record is
    given up."""

    reason: str


@dataclass(frozen=True)
class Unavailable:
    """Nothing is known to be stored: send the same batch again, not before `retry_after_seconds`
    where that is known."""

    reason: str
    retry_after_seconds: float | None = None


Outcome: TypeAlias = Delivered | Refused | Unavailable


class Transport(Protocol):
    """Sends batches. Called by one thread at a time."""

    def send(self, records: Sequence[bytes]) -> Outcome:
        """Send these records and wait for the server's acknowledgment. Raises nothing for what a
        network can do."""
        ...

    def close(self) -> None:
        """Give up connections."""
        ...

    def after_fork(self) -> None:
        """In a forked child: leave the parent's connections alone and make new ones."""
        ...


class HttpTransport:
    """`POST {url}/v1/events` with NDJSON."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """Send to `url`, the server's base address. Raises ValueError where it is no http(s)
        address."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(
                f"url={url!r}: give the server's base address, such as https://analytics.example"
            )
        self._url = url.rstrip("/") + "/v1/events"
        self._headers = {"Content-Type": "application/x-ndjson", "User-Agent": "gpu-tokens-client"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._pool = _new_pool()

    def send(self, records: Sequence[bytes]) -> Outcome:
        """Send these records; see `Transport.send`."""
        body = b"\n".join(records)
        try:
            answer = self._pool.request(
                "POST", self._url, body=body, headers=self._headers, redirect=False
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Unavailable(f"{self._url} cannot be reached: {type(error).__name__}")
        return read_answer(
            answer.status, answer.data, answer.headers.get("Retry-After"), len(records)
        )

    def close(self) -> None:
        """Give up connections."""
        self._pool.clear()

    def after_fork(self) -> None:
        """See `Transport.after_fork`. The old pool is not touched: a lock in it may be held by a
        thread that is not here."""
        self._pool = _new_pool()


def _new_pool() -> urllib3.PoolManager:
    timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
    return urllib3.PoolManager(num_pools=1, maxsize=1, retries=False, timeout=timeout)


class _Rejection(msgspec.Struct):
    index: int
    message: str = "refused"


class _Answer(msgspec.Struct):
    """What is read of an answer: the events API's own, or a problem document (RFC 9457)."""

    accepted: int = -1
    rejected: int = 0
    errors: list[Any] = []
    code: str = ""
    detail: str = ""


def read_answer(status: int, body: bytes, retry_after: str | None, count: int) -> Outcome:
    """Return what an answer of `POST /v1/events` to `count` records means.

    Only an answer that says so ends a record's life; whatever is unknown is sent again.
    """
    answer = _decoded(body)
    detail = (answer.detail or f"HTTP {status}")[:300]
    if status == 200:
        if answer.accepted + answer.rejected != count:
            # A portal or a proxy that says 200 to everything: taken for an acknowledgment, it would
            # lose the batch.
            return Unavailable(
                "HTTP 200, but not from the events API: check url", _MISCONFIGURED_RETRY_SECONDS
            )
        rejections = msgspec.convert(answer.errors, list[_Rejection])
        return Delivered(
            {one.index: one.message[:300] for one in rejections if 0 <= one.index < count}
        )
    if answer.code == "all_records_invalid" and count == 1:
        return Delivered({0: detail})
    if status in (400, 413, 422):
        return Refused(detail)
    if status in (408, 429, 500, 502, 503, 504):
        return Unavailable(detail, _seconds(retry_after))
    # 401, 403, 404, redirects: these heal only when somebody repairs them.
    return Unavailable(
        f"HTTP {status}, {detail}: check url and api_key", _MISCONFIGURED_RETRY_SECONDS
    )


def _decoded(body: bytes) -> _Answer:
    try:
        return msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Answer()


def _seconds(retry_after: str | None) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3): a number, or a date."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return min(max(0.0, seconds), _MAX_RETRY_AFTER_SECONDS)
