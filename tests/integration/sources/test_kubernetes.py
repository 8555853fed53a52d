"""The parts of docs/sources about gRPC and Kubernetes, done as written: an agent asks a kubelet and
tells the API, whose port of OTLP/gRPC takes the spans that vLLM sends by default; they run on the
GPUs of their pod."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.conftest import ROOT
from tests.integration.sources.conftest import World, wait_for
from tests.integration.sources.pages import ADDRESS, KEY, Page
from tests.integration.sources.test_pages import requests
from tests.unit.agent.test_pods import Node, devices, pod

from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.child import free_port
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.wire.usage import USAGE


def block(page: str, heading: str) -> tuple[dict[str, str], list[str]]:
    """(exports, commands of gpu-tokens) of the first shell block under a heading."""
    text = (ROOT / "docs" / "sources" / f"{page}.md").read_text().split(f"# {heading}\n", 1)[1]
    found = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert found is not None
    lines = found[1].splitlines()
    exports = dict(
        line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export ")
    )
    return exports, [
        line.removeprefix("gpu-tokens ") for line in lines if line.startswith("gpu-tokens ")
    ]


@pytest.fixture
def grpc_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Before the API starts."""
    exports, commands = block("opentelemetry", "gRPC")
    assert (exports, commands) == ({"OTLP_GRPC_PORT": "4317"}, ["api"])
    port = free_port()
    monkeypatch.setenv("OTLP_GRPC_PORT", str(port))
    return port


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "kubelet.sock")
    yield made
    made.stop()


def test_a_pods_spans_run_on_the_gpus_that_its_kubelet_tells(
    grpc_port: int, world: World, store: Store, node: Node, tmp_path: Path
) -> None:
    exports, (key, look, watch) = block("placements", "From Kubernetes")
    assert (look, watch) == ("agent --pods", "agent")
    secret = world.run(key).split()[0]
    told = {
        name: value.replace(KEY, secret).replace(ADDRESS, world.environment["TEST_API"])
        for name, value in exports.items()
    } | {"KUBELET_PODS_SOCKET": node.socket, "HOST_NAME": "node1", "GPU_METRICS_SOURCE": "seed"}
    (tmp_path / "gpu_seed.json").write_text((ROOT / "gpu_seed.json").read_text())
    told["GPU_SEED_FILE"] = str(tmp_path / "gpu_seed.json")
    node.answer = pod(
        "chat",
        "vllm-0",
        devices("nvidia.com/gpu", "nvidia0"),
        devices("nvidia.com/gpu", "nvidia1/vgpu0"),
    )
    assert world.run(look, **told).splitlines() == ["chat/vllm-0  node1/0 node1/1"]
    log = (tmp_path / "agent.log").open("wb")
    agent = subprocess.Popen(
        [sys.executable, "-m", "gpu_token_analytics", *watch.split()],
        env=world.environment | told,
        stdout=log,
        stderr=log,
    )
    try:
        placements = store[Collection.PLACEMENTS]
        wait_for(
            lambda: agent.poll() is not None or placements.count_documents({}) == 1,
            "the pod is not placed",
        )
        assert agent.poll() is None, (tmp_path / "agent.log").read_text()[-2000:]
        page = Page("vllm")
        sender = world.run(page.commands[0]).split()[0]
        sent = requests(datetime.now(UTC))
        subprocess.run(
            [
                sys.executable,
                "-m",
                "tests.integration.sources.engines",
                "vllm",
                f"http://127.0.0.1:{grpc_port}",
            ],
            env=world.environment
            | {
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"x-api-key={sender}",
                "OTEL_TRACES_SAMPLER": "always_on",
                "OTEL_RESOURCE_ATTRIBUTES": (
                    "k8s.namespace.name=chat,k8s.pod.name=vllm-0,gpu_tokens.model=llama-3.3-70b"
                ),
            },
            input="\n".join(map(json.dumps, sent)),
            text=True,
            cwd=ROOT,
            check=True,
        )

        def closed() -> bool:
            counted = json.loads(world.run("report --last 1h --by model --json"))["totals"]
            return bool(counted["requests"] == len(sent) and counted["money"]["attributed_nusd"])

        world.wait_until(closed)
        stored = list(store[USAGE.collection].find())
        assert {tuple(document["gpus"]) for document in stored} == {("node1/0", "node1/1")}
        assert {document["host"] for document in stored} == {"node1"}
        assert json.loads(world.run("audit --wait 60 --json"))["holds"]
    finally:
        agent.terminate()
        assert agent.wait(30) == 0
        log.close()
