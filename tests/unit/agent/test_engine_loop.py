"""The loop over engines: when it looks, what it sends, and what becomes of failures of engines and
of Kafka."""

from __future__ import annotations

import re
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from prometheus_client import CollectorRegistry
from tests.unit.agent import engine_pages
from tests.unit.agent.engine_pages import Told
from typer.testing import CliRunner

from gpu_token_analytics.agent.engines.run import MOST_PAGE_BYTES, fetch_page, run_engines
from gpu_token_analytics.agent.engines.target import Target, targets_of
from gpu_token_analytics.agent.metrics import EngineMetrics
from gpu_token_analytics.cli import app
from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.errors import DeliveryFailed, SourceUnavailable
from gpu_token_analytics.wire.counters import EngineCounters
from gpu_token_analytics.wire.events import decode
from gpu_token_analytics.wire.sinks import MemorySink

START = datetime(2026, 11, 30, 12, 0, 7, tzinfo=UTC)


class Kafka(MemorySink):
    """Takes records, but for as many flushes as it is told to fail."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.failures = failures

    def flush(self, timeout_seconds: float) -> None:
        super().flush(timeout_seconds)
        if self.failures:
            self.failures -= 1
            raise DeliveryFailed("1 record for tokens was not acknowledged")


class World:
    """An engine that answers, look after look; None: it does not. After the last one the loop is
    stopped."""

    def __init__(self, looks: list[str | None]) -> None:
        self.clock, self.stop, self.looks = ManualClock(START), threading.Event(), looks
        self.asked_at: list[datetime] = []

    def fetch(self, target: Target, _seconds: float) -> str:
        self.asked_at.append(self.clock.now())
        self.clock.advance(0.25)  # as long as the page takes
        at = min(len(self.asked_at), len(self.looks)) - 1
        if len(self.asked_at) >= len(self.looks) - 1:
            self.stop.set()
        text = self.looks[at]
        if text is None:
            raise SourceUnavailable(f"{target}: connection refused")
        return text

    def run(self, kafka: Kafka) -> tuple[list[EngineCounters], CollectorRegistry]:
        registry = CollectorRegistry()
        targets = targets_of(["vllm=http://node1:8000"], "node1")
        metrics = EngineMetrics(registry)
        run_engines(
            targets,
            kafka,
            self.clock,
            "node1",
            15,
            self.stop,
            metrics=metrics,
            fetch_one=self.fetch,
        )
        events = [decode(value) for _, value in kafka.records]
        assert {key for key, _ in kafka.records} <= {"node1"}
        return [event for event in events if isinstance(event, EngineCounters)], registry


def page(prompt: int, completion: int) -> str:
    return engine_pages.vllm([Told(prompt, 0, completion)])


def test_looks_end_with_the_minute() -> None:
    """So that what an engine counted in a minute is compared with the requests of that minute."""
    world = World([page(0, 0), page(10, 5), page(30, 9), page(31, 9), page(35, 9)])
    events, _ = world.run(Kafka())
    seconds = [(at - START).total_seconds() for at in world.asked_at]
    assert seconds[:4] == [0, 8, 23, 38], "12:00:07, :15, :30, :45"
    assert [
        (event.prompt_tokens, event.completion_tokens, event.interval_ms) for event in events[:3]
    ] == [
        (10, 5, 8_000),
        (20, 4, 15_000),
        (1, 0, 15_000),
    ]
    assert sum(event.prompt_tokens or 0 for event in events) == 35, (
        "and once more when it is stopped"
    )


def test_an_engine_that_is_away_is_a_gap() -> None:
    world = World([page(0, 0), None, None, page(90, 40), page(90, 40)])
    events, registry = world.run(Kafka())
    assert (events[0].prompt_tokens, events[0].gap, events[0].interval_ms) == (90, True, 38_000)
    assert (
        registry.get_sample_value(
            "gpu_tokens_agent_engine_scrape_failures_total", {"engine": "vllm"}
        )
        == 2
    )
    assert registry.get_sample_value("gpu_tokens_agent_engine_gaps_total", {"engine": "vllm"}) == 1
    assert registry.get_sample_value("gpu_tokens_agent_engines_up", {"engine": "vllm"}) == 1
    assert (
        registry.get_sample_value(
            "gpu_tokens_agent_engine_tokens_total", {"engine": "vllm", "kind": "prompt"}
        )
        == 90
    )


def test_what_kafka_did_not_take_is_sent_again_under_the_same_id() -> None:
    world = World([page(0, 0), page(10, 5), page(30, 9), page(30, 9)])
    kafka = Kafka(failures=1)
    events, registry = world.run(kafka)
    ids = [event.event_id for event in events]
    assert len(ids) == len(set(ids)) + 1, "the first one twice"
    assert (
        sum(
            event.prompt_tokens or 0
            for event in {event.event_id: event for event in events}.values()
        )
        == 30
    )
    assert registry.get_sample_value("gpu_tokens_agent_engine_events_waiting") == 0


def test_a_restart_is_counted() -> None:
    world = World([page(50, 50), page(10, 5), page(10, 5)])
    events, registry = world.run(Kafka())
    assert (events[0].prompt_tokens, events[0].reset) == (10, True)
    assert (
        registry.get_sample_value("gpu_tokens_agent_engine_resets_total", {"engine": "vllm"}) == 1
    )


# -- over HTTP -------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """`/metrics` of an engine, and pages that are none."""

    page: ClassVar[Callable[..., str]] = staticmethod(engine_pages.vllm)

    def do_GET(self) -> None:
        assert self.headers["Accept"] == "text/plain;version=0.0.4", (
            "OpenMetrics would rename counters"
        )
        if self.path in ("/metrics", "/prometheus/metrics"):
            self._send(self.page([Told(1_000, 400, 250)]).encode())
        elif self.path == "/huge":
            self._send(b"#" * (MOST_PAGE_BYTES + 1))
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            try:
                while not self.server.pause.wait(0.05):  # type: ignore[attr-defined]
                    self.wfile.write(b"# a line now and then\n")
                    self.wfile.flush()
            except OSError:
                pass
        else:
            self.send_error(503)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):  # whoever asked has had enough
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def engine() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pause = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.pause.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("path", "timeout_seconds", "said"),
    [
        (
            "/huge",
            60,
            (
                r"vllm: http://127.0.0.1:\d+/huge answers more than 8,388,608 bytes; give its "
                r"address: --engine vllm=URL"
            ),
        ),
        # long beside the pause between lines: a single line must not be what is waited for
        ("/slow", 2, r"vllm: .*/slow cannot be read \(it is not over after 2 s\)"),
        (
            "/none",
            60,
            (
                r"vllm: .*/none answers 503; give its address: --engine vllm=URL \(start vLLM "
                r"without --disable-log-stats"
            ),
        ),
    ],
)
def test_a_page_is_bounded_in_size_and_time(
    engine: str, path: str, timeout_seconds: float, said: str
) -> None:
    (target,) = targets_of([f"vllm={engine}{path}"], "node1")
    with pytest.raises(SourceUnavailable, match=said):
        fetch_page(target, timeout_seconds)


def test_an_engine_that_is_not_there_is_said() -> None:
    (target,) = targets_of(["sglang=http://127.0.0.1:1"], "node1")
    with pytest.raises(
        SourceUnavailable,
        match=r"sglang: http://127.0.0.1:1/metrics cannot be .*refused.*--enable-metrics",
    ):
        fetch_page(target, 1.0)


def test_once_prints_where_counters_stand(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPU_METRICS_SOURCE", raising=False)
    result = CliRunner().invoke(
        app, ["agent", "--engine", f"vllm={engine}", "--host", "node1", "--once"]
    )
    assert result.exit_code == 0, result.output
    port = engine.rpartition(":")[2]
    assert result.stdout.splitlines() == [
        f"node1:{port} vllm llama-3.3-70b: {count} tokens so far"
        for count in ("400 cached", "250 completion", "1000 prompt")
    ]


def test_engines_may_be_named_in_the_environment(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPU_METRICS_SOURCE", raising=False)
    monkeypatch.setenv("ENGINES", f"vllm={engine}/metrics")
    result = CliRunner().invoke(app, ["agent", "--once"])
    assert result.exit_code == 0, result.output
    assert "250 completion tokens so far" in result.stdout


def test_a_gap_is_longer_than_an_interval_and_a_half() -> None:
    """A look that is a little late is none."""
    world = World([page(0, 0), page(1, 1), page(2, 2), page(2, 2)])
    events, _ = world.run(Kafka())
    assert [event.gap for event in events] == [False] * len(events)
    assert events[-1].ts - events[0].ts < timedelta(minutes=2)


def test_the_commands_of_the_page_run_as_written(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each engine, against its own page."""
    monkeypatch.delenv("GPU_METRICS_SOURCE", raising=False)
    text = (Path(__file__).parents[3] / "docs" / "sources" / "engines.md").read_text()
    block = text.partition("## One command for each engine")[2].partition("| engine |")[0]
    commands = [
        line.removeprefix("gpu-tokens ")
        for line in block.splitlines()
        if line.startswith("gpu-tokens ")
    ]
    assert len(commands) == len(engine_pages.PAGES)
    for command in commands:
        name = command.partition("--engine ")[2].partition("=")[0]
        monkeypatch.setattr(Handler, "page", staticmethod(engine_pages.PAGES[name]))
        done = CliRunner().invoke(
            app, shlex.split(re.sub(r"http://localhost:\d+", engine, command))
        )
        assert done.exit_code == 0, done.output
        assert "1000 prompt tokens so far" in done.stdout, command
        assert "250 completion tokens so far" in done.stdout
