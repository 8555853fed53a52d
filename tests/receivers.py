"""Receivers of alerts on loopback: a web server and a mail server that remember what came, and fail
as they are told to."""

from __future__ import annotations

import json
import shutil
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Webhook:
    """What was POSTed. `answers`: statuses for the next requests; then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    posts: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)  # those that were answered 200
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A web server on a free port."""
    kept = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with kept.lock:
                kept.posts.append(
                    ({name.lower(): value for name, value in self.headers.items()}, body)
                )
                status = kept.answers.pop(0) if kept.answers else 200
                if status == 200:
                    kept.taken.append(body)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{kept.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass
class MailBox:
    """Mails that were taken, with sender and recipients. `refuse`: answers to the next commands of
    that name."""

    port: int = 0
    mails: list[tuple[str, list[str], Message]] = field(default_factory=list)
    refuse: dict[str, list[str]] = field(default_factory=dict)
    logins: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None, *, at_once: bool = False) -> Iterator[MailBox]:
    """An SMTP server (RFC 5321, AUTH PLAIN) on a free port. tls: STARTTLS is offered, or spoken at
    once."""
    box = MailBox()

    class Handler(socketserver.StreamRequestHandler):
        timeout = 10

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def setup(self) -> None:
            if tls is not None and at_once:
                plain = self.request
                try:
                    self.request = tls.wrap_socket(plain, server_side=True)
                except OSError:
                    plain.close()
                    raise
            super().setup()

        def finish(self) -> None:
            with suppress(OSError):
                super().finish()
            for held in {self.connection, self.request}:  # wrapped, it is another one
                held.close()

        def handle(self) -> None:
            secure = at_once
            sender, recipients = "", list[str]()
            self.say("220 test ESMTP")
            while line := self.rfile.readline(2000):
                verb = line.decode().split()[0].upper()
                if box.refuse.get(verb):
                    self.say(box.refuse[verb].pop(0))
                elif verb == "EHLO":
                    offers = [
                        "250-test",
                        *(["250-STARTTLS"] if tls and not secure else []),
                        "250 AUTH PLAIN",
                    ]
                    for offer in offers:
                        self.say(offer)
                elif verb == "STARTTLS" and tls is not None:
                    self.say("220 go on")
                    plain = self.connection
                    try:
                        self.connection = tls.wrap_socket(plain, server_side=True)
                    except OSError:
                        plain.close()
                        return
                    self.rfile.close()
                    self.rfile, self.wfile = (
                        self.connection.makefile("rb"),
                        self.connection.makefile("wb", 0),
                    )
                    secure = True
                elif verb == "AUTH":
                    box.logins.append(line.decode().split()[2])
                    self.say("235 welcome")
                elif verb == "MAIL":
                    sender, recipients = line.decode().split(":", 1)[1].strip(), []
                    self.say("250 fine")
                elif verb == "RCPT":
                    recipients.append(line.decode().split(":", 1)[1].strip())
                    self.say("250 fine")
                elif verb == "DATA":
                    self.say("354 go on")
                    content = b""
                    while (text := self.rfile.readline(2000)) not in (b".\r\n", b""):
                        content += text
                    box.mails.append(
                        (sender, recipients, message_from_bytes(content, policy=default))
                    )
                    box.encrypted.append(secure)
                    self.say("250 taken")
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 fine")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, allow_reuse_address = True, True

        def handle_error(self, *_args: Any) -> None:
            pass  # a client that leaves in the middle

    server = Server(("127.0.0.1", 0), Handler)
    box.port = int(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield box
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(of a server at 127.0.0.1, of a client that trusts it)."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl: it makes the mail server's certificate")
    key, made = folder / "key.pem", folder / "certificate.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
    ]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made, key)
    return server, ssl.create_default_context(cafile=str(made))
