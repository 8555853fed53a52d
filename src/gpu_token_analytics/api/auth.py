"""Who is asking, and may they: API keys, and nothing but keys, except on a loopback address that
says so.

A key comes as `Authorization: Bearer gta_...` or `X-API-Key: gta_...`. Without a key a request
passes only when all of these hold: API_ALLOW_ANONYMOUS_LOOPBACK is set, the server listens on
loopback only, the caller is on loopback, no proxy header is present, the Host header is a loopback
name (or a page elsewhere could reach it through DNS rebinding), and a browser says that its page is
of this origin (or any site could post to localhost).
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from starlette.requests import Request

from gpu_token_analytics.api.errors import ApiProblem
from gpu_token_analytics.api.keys import ApiKey, KeyScope, KeyStore
from gpu_token_analytics.api.limits import RateLimit
from gpu_token_analytics.api.route import Access, Route

CACHE_SECONDS = 5.0  # a revoked key stops working within this time
MAX_CACHED = 1_000
FAILURES_PER_SECOND = 2.0
FAILURE_BURST = 50
_PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_SCOPE_OF = {
    access: KeyScope(access.value)
    for access in Access
    if access not in (Access.PUBLIC, Access.ANY_KEY)
}


@dataclass(frozen=True)
class Principal:
    """Who asks. `tenant`: the only tenant they see and send; None: all."""

    key: str | None
    scopes: frozenset[KeyScope]
    tenant: str | None

    @property
    def anonymous(self) -> bool:
        """No key was given."""
        return self.key is None

    def may(self, access: Access) -> bool:
        """Whether the scopes reach."""
        if access in (Access.PUBLIC, Access.ANY_KEY):
            return True
        return KeyScope.ADMIN in self.scopes or _SCOPE_OF[access] in self.scopes


ANONYMOUS = Principal(None, frozenset(KeyScope), None)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Authority:
    """Decides. One for the process."""

    def __init__(
        self,
        keys: KeyStore,
        now: Callable[[], datetime],
        *,
        anonymous_loopback: bool,
        requests_per_second: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """anonymous_loopback: the server listens on loopback only and its operator allowed requests
        without a key."""
        self._keys = keys
        self._now = now
        self._anonymous_loopback = anonymous_loopback
        self._clock = clock
        self._rate = RateLimit(requests_per_second, burst, clock)
        self._failures = RateLimit(FAILURES_PER_SECOND, FAILURE_BURST, clock)
        # by digest: no secret is kept
        self._cache: OrderedDict[bytes, tuple[float, ApiKey]] = OrderedDict()
        # asked for again and again, they cost one query
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, request: Request, route: Route) -> Principal:
        """The caller of `route`. Raises ApiProblem: 401, 403 or 429."""
        principal = self._identify(request)
        wait_seconds = self._rate.take(principal.key or "anonymous")
        if wait_seconds:
            raise _slow_down(wait_seconds)
        if not principal.may(route.access):
            detail = (
                f"{route.method} {route.path} needs a key with scope {route.access}; this one has "
                + (", ".join(sorted(principal.scopes)) or "none")
            )
            raise ApiProblem("forbidden", detail)
        if principal.tenant is not None and not route.tenant_keys:
            raise ApiProblem(
                "forbidden",
                (
                    f"{route.path} shows data of all tenants; this key is for tenant "
                    f"{principal.tenant!r} only"
                ),
            )
        return principal

    def _identify(self, request: Request) -> Principal:
        text = _presented(request)
        if text is None:
            if self._anonymous_loopback and _is_local(request):
                return ANONYMOUS
            raise _unauthenticated(
                "give an API key as `Authorization: Bearer gta_...`; `gpu-tokens keys create` "
                "makes one"
            )
        key = self._find(text, request)
        now = self._now()
        if not key.usable(now):
            raise _unauthenticated(
                "this key was revoked or has expired; `gpu-tokens keys list` shows which"
            )
        return Principal(key.id, key.scopes, key.tenant)

    def _find(self, text: str, request: Request) -> ApiKey:
        digest = hashlib.sha256(text.encode()).digest()
        with self._lock:
            held = self._cache.get(digest)
            if held is not None and held[0] > self._clock():
                return held[1]
            unknown = self._unknown.get(digest, 0.0) > self._clock()
        key = None if unknown else self._keys.find(text)
        if key is None:
            with self._lock:
                self._unknown[digest] = self._clock() + CACHE_SECONDS
                while len(self._unknown) > MAX_CACHED:
                    self._unknown.popitem(last=False)
            # Only what failed is counted: behind one address stand many, and a valid key is never
            # refused for its neighbours.
            wait_seconds = self._failures.take(request.client.host if request.client else "unknown")
            if wait_seconds:
                raise _slow_down(wait_seconds)
            raise _unauthenticated("this key is not known; was it cut off or revoked and removed?")
        self._keys.used(key.id, self._now())
        with self._lock:
            self._cache[digest] = (self._clock() + CACHE_SECONDS, key)
            self._cache.move_to_end(digest)
            while len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return key


def _presented(request: Request) -> str | None:
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise _unauthenticated("Authorization must be `Bearer gta_...`")
        return text.strip()
    return request.headers.get("x-api-key")


def _is_local(request: Request) -> bool:
    caller = request.client.host if request.client else ""
    if not is_loopback(caller) or any(name in request.headers for name in _PROXY_HEADERS):
        return False
    if not is_loopback(_host_of(f"//{request.headers.get('host', '')}")):
        return False
    site = request.headers.get("sec-fetch-site")
    if site not in (None, "same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _unauthenticated(detail: str) -> ApiProblem:
    return ApiProblem(
        "unauthenticated", detail, headers={"WWW-Authenticate": 'Bearer realm="gpu-tokens"'}
    )


def _slow_down(wait_seconds: float) -> ApiProblem:
    seconds = max(1, round(wait_seconds + 0.5))
    return ApiProblem(
        "rate_limited", f"try again in {seconds} s", headers={"Retry-After": str(seconds)}
    )
