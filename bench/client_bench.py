"""What `emit` of the Python client costs its caller: the same events with the server there, and
with a server that hangs.

    python -m bench.client_bench [--events 20000]

The peer in the same run is one write() of a record's size into a file, which is what a durable
hand-over costs at least. Prints microseconds per call (median, p99) and their ratio to that write;
nothing here is a limit that a test enforces.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gpu_tokens_client import UsageClient

_RECORD = b"x" * 330 + b"\n"


class _Accepting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        count = self.rfile.read(int(self.headers["Content-Length"])).count(b"\n") + 1
        body = b'{"accepted": %d, "rejected": 0, "errors": []}' % count
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def call_us(
    call: Callable[[], object], events: int, per_second: float = 4_000
) -> tuple[float, float]:
    """Median and p99 of one call in microseconds, at a steady rate as a busy service has."""
    durations = []
    due = time.perf_counter()
    for _ in range(events):
        due += 1 / per_second
        time.sleep(max(0.0, due - time.perf_counter()))
        begin = time.perf_counter_ns()
        call()
        durations.append((time.perf_counter_ns() - begin) / 1_000)
    return statistics.median(durations), statistics.quantiles(durations, n=100)[98]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    events = parser.parse_args().events
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Accepting)
    server.daemon_threads = True
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    # not a thread: it would take its turns at the interpreter from the calls that are measured
    process.start()
    there = f"http://127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (Path(folder) / "peer").open("ab", buffering=0) as file:
            peer = call_us(lambda: os.write(file.fileno(), _RECORD), events)
        print(f"{'':34}{'median us':>10}{'p99 us':>10}{'p99 / write p99':>18}")
        print(f"{'one write() of a record':34}{peer[0]:10.1f}{peer[1]:10.1f}{1:18.1f}")
        for name, url in (("server there", there), ("server hangs", hanging)):
            for kind, spool in (("memory", None), ("spool", Path(folder) / name.replace(" ", "-"))):
                client = UsageClient(url, spool_dir=spool, host="h", gpu_uuids=["GPU-1"], model="m")
                emit = partial(
                    client.emit, prompt_tokens=900, completion_tokens=200, latency_ms=812.5
                )
                median, p99 = call_us(emit, events)
                client.close(0.1)
                print(f"{f'emit, {kind}, {name}':34}{median:10.1f}{p99:10.1f}{p99 / peer[1]:18.1f}")
    process.terminate()


if __name__ == "__main__":
    main()
