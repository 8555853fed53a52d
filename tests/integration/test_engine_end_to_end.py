"""An engine's page -> `gpu-tokens agent` -> Kafka -> `gpu-tokens processor` -> MongoDB: each token
once, placed, by model."""

from __future__ import annotations

import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.integration.delivery_support import (
    ROOT,
    Processor,
    delivery_settings,
    environment_of,
    eventually,
)
from tests.programs import GPU_TOKENS
from tests.programs import start as start_program
from tests.unit.agent.engine_pages import MODEL, Told, vllm

from gpu_token_analytics.books.instances import InstanceStore
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.kafka_jvm import REFERENCE_VERSION, KafkaBroker
from gpu_token_analytics.kafka.topics import create_topics
from gpu_token_analytics.mongo.client import open_store
from gpu_token_analytics.wire.sinks import declared_gpu_uuid

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.parametrize("kafka", [REFERENCE_VERSION], indirect=True, scope="session"),
]


class Page(BaseHTTPRequestHandler):
    """Two ranks of vLLM, which count 10 and 7 tokens more at each look; the second one begins anew
    at the fourth."""

    looks = 0
    counted = 0  # tokens since the first look, as the agent can see them

    def do_GET(self) -> None:
        looks = Page.looks = Page.looks + 1
        since = looks if looks < 4 else looks - 3
        second = (
            Told(1_000_000 + 5 * since, 0, 2 * since)
            if looks < 4
            else Told(5 * since, 0, 2 * since)
        )
        body = vllm([Told(8 * looks, 3 * looks, 2 * looks), second]).encode()
        Page.counted = 17 * (looks - 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_counters_of_an_engine_reach_the_ledger(
    kafka: KafkaBroker,
    mongo_uri: str,
    mongo_database: str,
    page: str,
    start: Callable[..., Processor],
    tmp_path: Path,
    keep_log: Callable[[Path], None],
) -> None:
    topic = f"tokens-{uuid.uuid4().hex[:8]}"
    # the least that a broker takes
    session = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}
    names = {"kafka_topic": topic, "kafka_group": topic}
    settings = delivery_settings(
        kafka.bootstrap, mongo_uri, mongo_database, kafka_extra_config=session, **names
    )
    create_topics(settings)
    start(settings).wait_ready()
    store = open_store(settings)
    port = page.rpartition(":")[2]
    row = {
        "instance": f"vm4:{port}",
        "gpus": ["vm4/0", "vm4/1"],
        "host": "vm4",
        "model": None,
        "counted_by": "any",
    }
    times = {"valid_from": datetime(2020, 1, 1, tzinfo=UTC), "valid_to": None}
    InstanceStore(store.database).append([row | times], created_at=datetime.now(UTC), source="test")
    log = tmp_path / "agent.log"
    keep_log(log)
    arguments = [
        "--source",
        "seed",
        "--host",
        "vm4",
        "--interval",
        "1",
        "--engine",
        f"vllm={page}",
        "--engine-interval",
        "1",
    ]
    agent = start_program([*GPU_TOKENS, "agent", *arguments], log, environment_of(settings), ROOT)
    try:
        eventually(lambda: Page.looks > 8, 60, "looks at the engine")
    finally:
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0, log.read_text()

    def counted() -> int:
        found = 0
        for cell in store[Collection.LEDGER_CELLS].find({"lines.counted": {"$exists": True}}):
            lines = [line for line in cell["lines"] if "counted" in line]
            assert {line["model"] for line in lines} == {MODEL}
            assert cell["gpu"] in {declared_gpu_uuid("vm4", at) for at in (0, 1)}, (
                "the placement's labels mean the seed's GPUs"
            )
            found += sum(
                line["counted"]["prompt_tokens"] + line["counted"]["completion_tokens"]
                for line in lines
            )
            assert all(
                line["prompt_tokens"] == line["counted"]["prompt_tokens"] for line in lines
            ), "no request is told"
        return found

    eventually(lambda: counted() == Page.counted, 60, f"{Page.counted} tokens in the ledger")
    store.close()
