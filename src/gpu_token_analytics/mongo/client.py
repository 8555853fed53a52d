"""The connection to MongoDB: how durable a write is, what the server's clock says, and drivers'
errors in our words.

Standalone, replica set and sharded cluster are the same to the callers. Writes wait for the
majority and its journal; on a standalone that is its own journal.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Timer
from urllib.parse import parse_qs, urlsplit

from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database
from pymongo.errors import (
    ConfigurationError,
    InvalidName,
    InvalidURI,
)
from pymongo.read_concern import ReadConcern

from gpu_token_analytics.errors import SettingsError, StoreError, StoreRefused
from gpu_token_analytics.mongo.errors import Document, store_errors
from gpu_token_analytics.settings import Settings

_log = logging.getLogger(__name__)

# 5.0 is the first with $dateTrunc, which buckets by time zone; all before it are past their end of
# life.
OLDEST_VERSION = (5, 0)
SAID_CLOCK_SKEW, MAX_CLOCK_SKEW = timedelta(seconds=5), timedelta(seconds=300)
CLOCK_SAID_SECONDS = 600.0
COMMAND_CONNECT_MS = 3_000  # a person waits for it
SAID_AFTER_SECONDS = 4.0  # services wait longer, and say so
_CLOCK_GOOD_FOR_SECONDS = 30.0
_CLOCK_ASK_AGAIN_SECONDS = 5.0


class Store:
    """One database. Safe for all threads. Use open_store() to get one that answers."""

    def __init__(self, client: MongoClient[Document], settings: Settings, server: str) -> None:
        self.client = client
        self.server = server  # such as "7.0.2, replica set rs0"
        self.timeout_ms = settings.mongodb_timeout_ms
        try:
            self.database: Database[Document] = client.get_database(
                settings.mongodb_database,
                write_concern=WriteConcern(
                    "majority", j=True, wtimeout=settings.mongodb_timeout_ms
                ),
                read_concern=ReadConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
            )
        except InvalidName as error:
            raise SettingsError(
                f"MONGODB_DATABASE={settings.mongodb_database!r} is no database name: {error}"
            ) from None
        self._clock = _ServerClock(client)
        self._skew_said = float("-inf")

    def __getitem__(self, name: str) -> MongoCollection[Document]:
        """A collection, by its name in documents.Collection or that of a kind of events: majority
        writes and reads, on the primary."""
        return self.database[str(name)]

    def now(self) -> datetime:
        """The MongoDB server's clock, in UTC: what `due_at` and leases are measured on, by every
        process alike.

        Raises StoreError when it was never read and the server does not answer.
        """
        return self._clock.now()

    @property
    def clock_ahead(self) -> timedelta:
        """MongoDB's clock less this machine's, by the last look at MongoDB's: every 30 s while
        somebody asks for now(). 0 before the first. Asks nobody."""
        return self._clock.ahead

    def check_clock(self) -> None:
        """As check_skew() at the start, while running: a clock may be set at any time. Warns at
        most once in CLOCK_SAID_SECONDS. Raises StoreRefused over MAX_CLOCK_SKEW."""
        if abs(self.clock_ahead) > MAX_CLOCK_SKEW:
            self._clock.look()  # a machine that slept has a monotonic clock that slept, too
        at = time.monotonic()
        warn = at - self._skew_said >= CLOCK_SAID_SECONDS
        if check_skew(self.clock_ahead, warn=warn) and warn:
            self._skew_said = at

    def ping(self) -> None:
        """Raises StoreUnreachable unless a server that takes writes answers."""
        with store_errors("ping"):
            self.client.admin.command("ping")

    def close(self) -> None:
        """Release the connections."""
        self.client.close()


class _ServerClock:
    """The server's clock as ours plus an offset, measured now and then: one round trip in 30 s, not
    one per question."""

    def __init__(self, client: MongoClient[Document]) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._at_zero: datetime | None = None  # the server's time when our monotonic clock was 0
        self._measured = float("-inf")

    def now(self) -> datetime:
        with self._lock:
            at = time.monotonic()
            if at - self._measured > _CLOCK_GOOD_FOR_SECONDS:
                try:
                    self._measure()
                except StoreError:
                    if self._at_zero is None:
                        raise
                    self._measured = (
                        at - _CLOCK_GOOD_FOR_SECONDS + _CLOCK_ASK_AGAIN_SECONDS
                    )  # in an outage not at every question
                    _log.debug(
                        "the server's clock was not read; going on with the offset of before"
                    )
            assert self._at_zero is not None
            return self._at_zero + timedelta(seconds=time.monotonic())

    @property
    def ahead(self) -> timedelta:
        """The server's clock less ours; without the lock, which is held while the server is
        asked."""
        at_zero = self._at_zero
        return (
            timedelta()
            if at_zero is None
            else at_zero + timedelta(seconds=time.monotonic()) - datetime.now(UTC)
        )

    def look(self) -> None:
        """Ask the server now. Raises StoreError."""
        with self._lock:
            self._measure()

    def _measure(self) -> None:
        with store_errors("read the server's clock"):
            begun = time.monotonic()
            # command() does not heed tz_aware
            local_time: datetime = self._client.admin.command("hello")["localTime"].replace(
                tzinfo=UTC
            )
            ended = time.monotonic()
        # It was read somewhere between question and answer; the middle is off by half of that at
        # most.
        self._at_zero = local_time - timedelta(seconds=(begun + ended) / 2)
        self._measured = ended


def open_store(
    settings: Settings, app: str = "gpu-tokens", *, connect_ms: int | None = None
) -> Store:
    """Connect and check. `app` shows in the server's logs. connect_ms: the longest wait for a
    server, where that is shorter than MONGODB_TIMEOUT_MS: a person waits, a service may be started
    before its database.

    Raises StoreUnreachable, StoreRefused (credentials, rights, a server before 5.0) or
    SettingsError, each saying the fix.
    """
    client = make_client(settings, app, connect_ms=connect_ms)
    try:
        with _said_if_slow(settings, connect_ms), store_errors("connect", where=_shown(settings)):
            hello = client.admin.command("hello")
            version: list[int] = client.server_info()["versionArray"]
            client[settings.mongodb_database].command(
                "listCollections", nameOnly=True, authorizedCollections=True
            )
        if tuple(version[:2]) < OLDEST_VERSION:
            raise StoreRefused(
                f"MongoDB at {_shown(settings)} is {'.'.join(map(str, version[:3]))}; "
                f"{'.'.join(map(str, OLDEST_VERSION))} or newer is needed"
            )
        name = ".".join(str(part) for part in version[:3])
        kind = f"replica set {hello['setName']}" if "setName" in hello else "standalone"
        store = Store(
            client, settings, f"{name}, {'sharded' if hello.get('msg') == 'isdbgrid' else kind}"
        )
        # its clock is known from here on, whatever happens to it
        check_skew(store.now() - datetime.now(UTC))
        return store
    except BaseException:
        client.close()
        raise


@contextmanager
def _said_if_slow(settings: Settings, connect_ms: int | None) -> Iterator[None]:
    """A service waits for its database: whoever looks at it is told why nothing happens."""
    seconds = (connect_ms or settings.mongodb_timeout_ms) / 1000
    if seconds <= SAID_AFTER_SECONDS:
        yield
        return
    waiting = (
        "MongoDB at %s has not answered for %g s; trying for %g s in all. Check MONGODB_URI and "
        "that mongod runs"
    )
    timer = Timer(
        SAID_AFTER_SECONDS, _log.warning, (waiting, _shown(settings), SAID_AFTER_SECONDS, seconds)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def check_skew(ahead: timedelta, *, warn: bool = True) -> bool:
    """ahead: MongoDB's clock less this machine's. Raises StoreRefused over MAX_CLOCK_SKEW: minutes
    would be taken for over, or for still to come, that are not, and raw events for expired. From
    SAID_CLOCK_SKEW on it warns, and returns True."""
    message = skew_message(ahead)
    if message is None:
        return False
    if abs(ahead) > MAX_CLOCK_SKEW:
        raise StoreRefused(
            f"{message}; over {MAX_CLOCK_SKEW.total_seconds():.0f} s nothing is started, stored or "
            "computed. Nothing is lost: "
            "what was read is not committed, and is read again"
        )
    if warn:
        _log.warning("%s", message)
    return True


def skew_message(ahead: timedelta) -> str | None:
    """What to say of clocks that differ by SAID_CLOCK_SKEW or more; None: they differ by less."""
    if abs(ahead) < SAID_CLOCK_SKEW:
        return None
    seconds = ahead.total_seconds()
    side = "behind" if seconds > 0 else "ahead of"
    return f"this machine's clock is {abs(seconds):,.0f} s {side} MongoDB's: set both by NTP"


def make_client(
    settings: Settings, app: str, *, patient: bool = False, connect_ms: int | None = None
) -> MongoClient[Document]:
    """A client with our time limits, where the URI does not set its own. `patient`: no limit on one
    operation."""
    connect_ms = min(settings.mongodb_timeout_ms, connect_ms or settings.mongodb_timeout_ms)
    uri = settings.mongodb_uri.get_secret_value()
    ours: Document = {
        "appname": app,
        "tz_aware": True,
        "retryWrites": True,
        "serverSelectionTimeoutMS": connect_ms,
        "connectTimeoutMS": connect_ms,
        "socketTimeoutMS": settings.mongodb_timeout_ms,
        "maxIdleTimeMS": 300_000,
    }
    if patient:
        ours["socketTimeoutMS"] = None
    try:
        given = {name.lower() for name in parse_qs(urlsplit(uri).query)}
        client: MongoClient[Document] = MongoClient(
            uri, **{name: value for name, value in ours.items() if name.lower() not in given}
        )
    except (InvalidURI, ConfigurationError, ValueError) as error:
        raise SettingsError(f"MONGODB_URI cannot be used: {error}") from None
    return client


def _shown(settings: Settings) -> str:
    """The address without the password."""
    parts = urlsplit(settings.mongodb_uri.get_secret_value())
    return parts.netloc.rsplit("@", 1)[-1] or "MONGODB_URI"
