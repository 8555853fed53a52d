"""Connections that an HTTP server holds for nothing: closed when they say nothing for too long, and
when others need the room.

uvicorn starts its keep-alive clock after the first answer. A socket that never sends a request
would stay for ever, and a thousand of them make `limit_concurrency` answer 503 to everybody.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MAX_CONNECTIONS = 1_000  # of one server; more would meet the usual limit of 1,024 open files
_SPARE = 50  # uvicorn's own limit (limit_concurrency) answers 503 at that many
_LOOKS = 4  # within the time limit


def guarded(max_per_address: int, silence_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol for one server, with these limits.

    max_per_address: one more takes the place of the address's oldest connection that is answered
    nothing now; where all are, it is closed. silence_seconds: longest wait for the whole head of a
    request, and for the next piece of its body.
    """
    held: dict[str, dict[Guarded, None]] = defaultdict(dict)  # by address, oldest first

    def make_room(address: str) -> bool:
        full = len(held[address]) >= max_per_address
        if not full and sum(map(len, held.values())) < MAX_CONNECTIONS - _SPARE:
            return True
        crowd = held[address] if full else max(held.values(), key=len)
        silent = next((connection for connection in crowd if not connection.answering), None)
        if silent is not None:
            silent.drop()
        return silent is not None

    class Guarded(H11Protocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._address: str | None = None
            self._since = self._heard = 0.0
            self._look: asyncio.TimerHandle | None = None

        @property
        def answering(self) -> bool:
            """Whether a request is being read or answered."""
            # None until the first request, whatever uvicorn declares
            cycle: RequestResponseCycle | None = self.cycle
            return cycle is not None and not cycle.response_complete

        def drop(self) -> None:
            """Close it, and count it no more."""
            self._forget()
            self.transport.abort()

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            peer = transport.get_extra_info("peername")
            address = str(peer[0]) if isinstance(peer, tuple) else "local"
            if not make_room(address):
                transport.abort()
                return
            held[address][self] = None
            self._address = address
            super().connection_made(transport)
            self._since = self._heard = self.loop.time()
            self._look = self.loop.call_later(silence_seconds / _LOOKS, self._check)

        def data_received(self, data: bytes) -> None:
            if self._address is not None:
                self._heard = self.loop.time()
                super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            if self._address is not None:  # else it was refused: uvicorn never knew it
                super().connection_lost(exc)

        def _forget(self) -> None:
            if self._look is not None:
                self._look.cancel()
            if self._address is not None:
                held[self._address].pop(self, None)
                if not held[self._address]:
                    del held[self._address]

        def _check(self) -> None:
            now = self.loop.time()
            if self.answering:
                self._since = now
            silent_since = (
                self._since if not self.answering else self._heard if self.cycle.more_body else now
            )
            if now - silent_since >= silence_seconds:
                self.drop()
                return
            self._look = self.loop.call_later(silence_seconds / _LOOKS, self._check)

    return Guarded
