"""A server for tests: speaks HTTP on a loopback port, remembers what it acknowledged, fails as
told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any], dict[str, str]]
Script = Callable[[list[dict[str, Any]]], Answer | None]  # None: accept all


class Door:
    """What the server saw. `script` decides each answer; `ids` are of acknowledged records, in
    order, repeats included."""

    def __init__(self) -> None:
        self.script: Script = lambda records: None
        self.ids: list[str] = []
        self.records: list[dict[str, Any]] = []
        self.requests = 0
        self.headers: dict[str, str] = {}
        self.url = ""

    def answer(self, body: bytes) -> Answer:
        """The answer to one request."""
        records = [json.loads(line) for line in body.split(b"\n")]
        self.requests += 1
        scripted = self.script(records)
        if scripted is not None and scripted[0] != 200:
            return scripted
        errors: list[dict[str, Any]] = [] if scripted is None else scripted[1]["errors"]
        document = {
            "accepted": len(records) - len(errors),
            "rejected": len(errors),
            "errors": errors,
        }
        refused = {error["index"] for error in errors}
        accepted = [record for index, record in enumerate(records) if index not in refused]
        self.records += accepted
        self.ids += [record["event_id"] for record in accepted]
        return 200, document, {}


@contextmanager
def serve(door: Door, port: int = 0) -> Iterator[Door]:
    """Serve `door` for the time of the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            door.headers = dict(self.headers)
            status, document, headers = door.answer(
                self.rfile.read(int(self.headers["Content-Length"]))
            )
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    door.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield door
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
