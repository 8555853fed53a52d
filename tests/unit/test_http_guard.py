"""Sockets that say nothing keep nobody from being answered, and go."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gpu_token_analytics.http_server import serving
from gpu_token_analytics.settings import load

SOCKETS = 1_005


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body."""
    if scope["type"] != "http":
        return
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


@contextlib.contextmanager
def served(caplog: pytest.LogCaptureFixture, **settings: Any) -> Iterator[int]:
    caplog.set_level("INFO")
    with serving(app, load(http_port=0, **settings)):
        (port,) = re.findall(r"listening on http://127.0.0.1:(\d+)", caplog.text)
        yield int(port)


@contextlib.contextmanager
def silent_sockets(port: int, count: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.settimeout(30)
            one.connect(("127.0.0.1", port))
            if said:
                one.sendall(said)
            sockets.append(one)
        yield sockets


def is_closed(one: socket.socket) -> bool:
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["silent", "half-a-head"]
)
def test_a_thousand_silent_sockets_keep_nobody_from_being_answered(
    caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    with served(caplog) as port, silent_sockets(port, SOCKETS, said):
        for _ in range(3):
            assert httpx.get(f"http://127.0.0.1:{port}/health", timeout=30).status_code == 200


@pytest.mark.parametrize(
    "said",
    [b"", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"],
    ids=["silent", "half-a-head", "half-a-body"],
)
def test_a_connection_that_says_nothing_for_too_long_is_closed(
    caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    with served(caplog, http_silence_seconds=0.4) as port, silent_sockets(port, 3, said) as sockets:
        assert all(is_closed(one) for one in sockets)


def test_a_head_that_drips_does_not_hold_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    with (
        served(caplog, http_silence_seconds=0.5) as port,
        silent_sockets(port, 1, b"GET / HTTP/1.1\r\nX: ") as (one,),
    ):
        until = time.monotonic() + 20
        with pytest.raises(ConnectionError):  # noqa: PT012  # whichever send meets the closed connection
            while time.monotonic() < until:
                one.sendall(b"x")
                time.sleep(0.05)


def test_a_slow_body_that_goes_on_is_read(caplog: pytest.LogCaptureFixture) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(8):
            time.sleep(0.2)
            yield b"x"

    with served(caplog, http_silence_seconds=1) as port:
        answer = httpx.post(f"http://127.0.0.1:{port}/", content=pieces(), timeout=30)
    assert (answer.status_code, answer.text) == (200, "8")


def test_one_more_than_an_address_may_have_takes_the_place_of_an_idle_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        served(caplog, http_max_connections_per_address=5) as port,
        silent_sockets(port, 5) as sockets,
    ):
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=30).status_code == 200
        assert is_closed(sockets[0])
        sockets[4].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sockets[4].recv(8) == b"HTTP/1.1"
