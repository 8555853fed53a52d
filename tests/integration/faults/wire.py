"""A wire between a client and its server that can be cut, in one direction or in both.

What is cut is held back, not refused: connections stay open, new ones are made, and nothing comes
through, as where a packet filter drops what one side sends and its system sends it again. Mended,
what was held arrives.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

_CHUNK = 65_536
_LISTEN = 64


class Wire:
    """Listens on `port` of loopback (0: one that is free) and passes all on to `server_port`."""

    def __init__(self, server_port: int = 0) -> None:
        self.server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_LISTEN)
        self.port: int = self._listener.getsockname()[1]
        self.requests_pass, self.answers_pass = threading.Event(), threading.Event()
        self.mend()
        self.lost = 0  # answers that came and were not passed on
        self._to_lose = 0
        self._loses: Callable[[bytes], bool] = lambda _answer: False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, requests: bool, answers: bool) -> None:
        """Hold back what the client says, or what the server says."""
        (self.requests_pass.clear if requests else self.requests_pass.set)()
        (self.answers_pass.clear if answers else self.answers_pass.set)()

    def mend(self) -> None:
        """All passes again."""
        self.cut(requests=False, answers=False)

    def lose_answers(self, count: int, to: Callable[[bytes], bool]) -> None:
        """The next `count` requests that `to` holds for are carried out; in place of their answers
        the connection ends."""
        self._loses, self._to_lose = to, count

    def close(self) -> None:
        """End all connections, and listen no longer."""
        self.mend()
        self._listener.close()
        for each in list(self._sockets):
            _end(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port), 10)
                server.settimeout(None)
            except OSError:
                _end(client)
                continue
            self._sockets |= {client, server}
            losing = threading.Event()
            for source, sink, passes, asks in (
                (client, server, self.requests_pass, True),
                (server, client, self.answers_pass, False),
            ):
                arguments = (source, sink, passes, asks, losing)
                threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(
        self,
        source: socket.socket,
        sink: socket.socket,
        passes: threading.Event,
        asks: bool,
        losing: threading.Event,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if asks and self._is_to_be_lost(data):
                    losing.set()
                if not asks and losing.is_set():
                    break
                passes.wait()
                sink.sendall(data)
        _end(source)
        _end(sink)
        self._sockets -= {source, sink}

    def _is_to_be_lost(self, request: bytes) -> bool:
        with self._lock:
            if self._to_lose == 0 or not self._loses(request):
                return False
            self._to_lose -= 1
            self.lost += 1
            return True


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
