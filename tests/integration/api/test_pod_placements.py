"""A pod that the kubelet tells of is placed by the API, and its spans run on its GPUs; what the
operator said stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.integration.api.conftest import Api
from tests.integration.api.test_traces import BINARY, export, ingest, llm, sent
from tests.serving import serving
from tests.unit.agent.test_pods import OTHER, UUID, VLLM, Node, devices, nobody, pod

from gpu_token_analytics.agent.metrics import PodMetrics
from gpu_token_analytics.agent.pods.kubelet import Kubelet
from gpu_token_analytics.agent.pods.run import NotTold, PlacementsDoor, PodPlacements
from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.keys import KeyScope
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.wire.sinks import MemorySink


@pytest.fixture
def door(make_store: Callable[[], tuple[Store, Settings]]) -> Iterator[Api]:
    store, settings = make_store()
    sink = MemorySink()
    services = Services.of(store, settings, sink=sink)
    app = create_app(services)
    with serving(app) as url:
        served = Api(url, app, store, services, settings, [], sink)
        yield served
        served.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "kubelet.sock")
    yield made
    made.stop()


def watching(door: Api, node: Node, key: str, clock: ManualClock) -> PodPlacements:
    """An agent that has just started."""
    tell = PlacementsDoor(door.url, key)
    return PodPlacements(
        Kubelet(node.socket), tell, clock, "node1", nobody, PodMetrics(CollectorRegistry())
    )


def test_a_pod_is_placed_and_its_spans_run_on_its_gpus(door: Api, node: Node) -> None:
    key = door.key(KeyScope.PLACEMENTS)
    clock = ManualClock(door.store.now() - timedelta(minutes=5))
    rows = door.store[Collection.PLACEMENTS]
    row = {"instance": "chat/vllm-0", "gpus": [], "model": "llama", "counted_by": "engine"}
    said = [{**row, "valid_from": "2026-01-01T00:00:00Z"}]
    assert door.client(KeyScope.ADMIN).post("/v1/placements", json=said).status_code == 201
    node.answer = VLLM
    watching(door, node, key, clock).look()
    for _ in range(3):  # the agent starts again and again: nothing is added
        clock.advance(20)
        watching(door, node, key, clock).look()
    assert rows.count_documents({}) == 2
    spans = export(llm(), resource={"k8s.namespace.name": "chat", "k8s.pod.name": "vllm-0"})
    assert (
        ingest(door).post("/v1/traces", content=spans.SerializeToString(), headers=BINARY).content
        == b""
    )
    (usage,) = sent(door)
    assert (usage.gpus, usage.host, usage.model) == ([UUID], "node1", "llama")
    clock.advance(10)
    node.answer = pod("chat", "vllm-0", devices("nvidia.com/gpu", f"{OTHER}::1"))
    watching(door, node, key, clock).look()
    held = door.services.desk.instances.book().at(["chat/vllm-0"], 2**60)
    assert held is not None
    assert (held.gpus, held.model, held.counted_by) == ((OTHER,), "llama", "engine")


def test_a_pod_that_moved_is_not_lost_to_the_node_it_left(
    door: Api, node: Node, tmp_path: Path
) -> None:
    """The node that it left looks last, and says that it is gone: no later than it came to the
    other one."""
    key = door.key(KeyScope.PLACEMENTS)
    clock = ManualClock(door.store.now() - timedelta(minutes=5))
    there = Node(tmp_path / "there.sock")
    try:
        left, came = watching(door, node, key, clock), watching(door, there, key, clock)
        node.answer = VLLM
        left.look()
        came.look()
        clock.advance(10)
        node.answer, there.answer = b"", pod("chat", "vllm-0", devices("nvidia.com/gpu", OTHER))
        clock.advance(1)
        came.look()
        clock.advance(8)
        left.look()
    finally:
        there.stop()
    held = door.services.desk.instances.book().at(["chat/vllm-0"], 2**60)
    assert held is not None
    assert held.gpus == (OTHER,)


@pytest.mark.parametrize("scope", [KeyScope.READ, KeyScope.INGEST])
def test_a_key_for_something_else_places_nothing(door: Api, scope: KeyScope) -> None:
    with pytest.raises(NotTold, match="scope `placements`"):
        PlacementsDoor(door.url, door.key(scope))(
            [{"instance": "a/b", "gpus": [], "valid_from": "2026-01-01T00:00:00Z"}]
        )


def test_a_key_for_placements_does_nothing_else(door: Api) -> None:
    client = door.client(KeyScope.PLACEMENTS)
    assert client.get("/v1/placements").status_code == 403
    assert client.post("/v1/prices", json={}).status_code == 403
    assert client.post("/v1/traces", content=b"", headers=BINARY).status_code == 403
