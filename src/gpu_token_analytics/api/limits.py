"""What one caller may use up: bytes of body, requests per second, open streams. And the headers
every answer carries."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpu_token_analytics.api.errors import ApiProblem, BodyTooLarge, answer
from gpu_token_analytics.logs import about
from gpu_token_analytics.wire.identity import new_event_id

# W3C Trace Context, `version-traceid-parentid-flags`; an id of zeros is none.
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
MAX_BUCKETS = 10_000
MAX_CALLERS = 1_000

# Of everything that does not set its own (the dashboard does): an answer of data runs, frames and
# loads nothing.
SECURITY_HEADERS: dict[bytes, bytes] = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
}


class Envelope:
    """Outermost ASGI layer: gives each request an id and each answer the security headers; /v1 is
    never cached."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = new_event_id()
        scope["request_id"] = identity

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
                given = {name.lower() for name, _ in headers}
                headers += [
                    (name, value) for name, value in SECURITY_HEADERS.items() if name not in given
                ]
                if scope["path"].startswith("/v1"):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        with about(request_id=identity, trace_id=_trace_id(scope)):
            await self._app(scope, receive, send_with_headers)


def _trace_id(scope: Scope) -> str | None:
    """The caller's trace, where it names a valid one."""
    sent = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
    match = _TRACEPARENT.fullmatch(sent)
    return None if match is None else match[1].decode()


class BodyLimit:
    """Counts the bytes of a body, chunked or not, and answers 413 before any of it is parsed.

    Pure ASGI: a body past the limit is never held in memory.
    """

    def __init__(self, app: ASGIApp, limit_bytes: Callable[[str], int]) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_bytes(scope["path"])
        declared = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b"0"
        )
        if declared.isdigit() and int(declared) > limit:
            await _refuse(scope, receive, send, limit)
            return
        seen = 0
        started = refused = False

        async def counted_receive() -> Message:
            nonlocal seen, refused
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit and not refused:
                    refused = True
                    if not started:
                        await _refuse(scope, receive, send, limit)
                    raise BodyTooLarge
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started
            if refused:
                return
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, counted_receive, watched_send)
        except BodyTooLarge:
            return


async def _refuse(scope: Scope, receive: Receive, send: Send, limit: int) -> None:
    # The rest of the body is not read: the connection cannot be used again.
    detail = f"{scope['path']} takes at most {limit:,} bytes; send smaller batches"
    problem = ApiProblem("body_too_large", detail, headers={"Connection": "close"})
    await answer(problem, scope)(scope, receive, send)


class RateLimit:
    """A token bucket per caller: `burst` at once, `per_second` after. At most MAX_BUCKETS callers
    are remembered."""

    def __init__(
        self,
        per_second: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        # caller -> (tokens, at)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, caller: str) -> float:
        """0 when the caller may go on, else seconds to wait."""
        with self._lock:
            now = self._clock()
            tokens, at = self._buckets.pop(caller, (self._burst, now))
            tokens = min(self._burst, tokens + (now - at) * self._per_second)
            allowed = tokens >= 1
            self._buckets[caller] = (tokens - 1 if allowed else tokens, now)
            if len(self._buckets) > MAX_BUCKETS:
                # The longest unused is full again or nearly so: forgetting it gives nothing away.
                self._buckets.popitem(last=False)
            return 0.0 if allowed else (1 - tokens) / self._per_second


class NewNames:
    """How many different names each caller sends in an hour: names become lines of the ledger,
    which are kept for good. At most MAX_CALLERS callers are remembered."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._hour = 0
        self._seen: OrderedDict[str, set[int]] = OrderedDict()  # hashes: a name may be long
        self._lock = threading.Lock()

    def take(self, caller: str, names: Collection[Hashable]) -> float:
        """0 when the caller may send these, else seconds to wait; then none of them counts."""
        with self._lock:
            hour, into = divmod(self._clock(), 3600)
            if int(hour) != self._hour:
                self._seen.clear()
                self._hour = int(hour)
            seen = self._seen.setdefault(caller, set())
            self._seen.move_to_end(caller)
            if len(self._seen) > MAX_CALLERS:
                self._seen.popitem(last=False)
            new = {code for code in map(hash, names) if code not in seen}
            if new and len(seen) + len(new) > self._most:
                return 3600 - into
            seen |= new
            return 0.0


class Slots:
    """A bounded number of things at once, such as open streams; and of them a bounded number for
    each caller."""

    def __init__(self, count: int, per_caller: int) -> None:
        self._count, self._per_caller = count, per_caller
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, caller: str, refusal: Callable[[str], Exception]) -> None:
        """Take one, or raise `refusal(why)`."""
        with self._lock:
            if self._taken[caller] >= self._per_caller:
                raise refusal(
                    f"{self._per_caller} are open with this key (API_MAX_STREAMS_PER_KEY)"
                )
            if self._taken.total() >= self._count:
                raise refusal(f"{self._count} are open (API_MAX_STREAMS)")
            self._taken[caller] += 1

    def give(self, caller: str) -> None:
        """Give it back."""
        with self._lock:
            self._taken[caller] -= 1
            if self._taken[caller] <= 0:
                del self._taken[caller]


class Seldom:
    """True at most once in a while: for a line in the log about what comes again and again."""

    def __init__(self, every_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_seconds, self._clock = every_seconds, clock
        self._due = float("-inf")
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether it is time."""
        with self._lock:
            if self._clock() < self._due:
                return False
            self._due = self._clock() + self._every_seconds
            return True
