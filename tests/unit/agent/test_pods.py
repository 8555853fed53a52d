"""Which pod has which GPUs: a real gRPC server on a unix socket answers what a kubelet does,
written by hand from the numbers in api.proto; the API and the API server of Kubernetes are real
HTTP servers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from gpu_token_analytics.agent.metrics import PodMetrics
from gpu_token_analytics.agent.pods.devices import PodGpus, gpus_of
from gpu_token_analytics.agent.pods.kubelet import ClaimedDevice, Device, Kubelet, Pod, read_pods
from gpu_token_analytics.agent.pods.run import (
    NotTold,
    PlacementsDoor,
    PodPlacements,
    Refused,
    pods_on_gpus,
)
from gpu_token_analytics.agent.pods.slices import ResourceSlices, read_slices
from gpu_token_analytics.cli import app
from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.errors import SourceUnavailable

UUID = "GPU-8f4c2a1b-77aa-4f1e-9d52-0c1d2e3f4a5b"
OTHER = "GPU-1a2b3c4d-77aa-4f1e-9d52-0c1d2e3f4a5b"
SLICE = "MIG-2b3c4d5e-77aa-5f1e-9d52-0c1d2e3f4a5b"
START = datetime(2026, 11, 1, tzinfo=UTC)


def field(number: int, value: bytes | str) -> bytes:
    """A length-delimited field of protobuf's wire format
    (https://protobuf.dev/programming-guides/encoding/)."""
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def devices(resource: str, *ids: str) -> bytes:
    topology = field(3, field(1, b"\x08\x01"))  # TopologyInfo, NUMANode: not read
    return field(2, field(1, resource) + b"".join(field(2, one) for one in ids) + topology)


def claim(*claimed: tuple[str, str, str]) -> bytes:
    one = b"".join(
        field(
            4,
            field(1, field(1, "nvidia.com/gpu=x"))
            + field(2, driver)
            + field(3, pool)
            + field(4, device),
        )
        for driver, pool, device in claimed
    )
    return field(5, field(2, "claim") + field(3, "chat") + one)


def pod(namespace: str, name: str, *containers: bytes) -> bytes:
    cpus = b"\x1a\x02\x00\x01"  # cpu_ids, packed: not read
    whole = b"".join(field(3, field(1, "main") + content + cpus) for content in containers)
    return field(1, field(1, name) + field(2, namespace) + whole)


class Node:
    """A kubelet's socket. `answer` may be changed while it runs."""

    def __init__(self, socket: Path) -> None:
        self.socket, self.answer = str(socket), b""
        self.failure: grpc.StatusCode | None = None
        handler = grpc.unary_unary_rpc_method_handler(self._list)
        self._server: Any = grpc.server(ThreadPoolExecutor(1))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": handler}),)
        )
        self._server.add_insecure_port(f"unix:{socket}")
        self._server.start()

    def _list(self, request: bytes, context: Any) -> bytes:
        assert request == b""
        if self.failure is not None:
            context.abort(self.failure, "no")
        return self.answer

    def stop(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "kubelet.sock")
    yield made
    made.stop()


@contextmanager
def http(answer: Callable[[str, bytes, Any], tuple[int, Any]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, document = answer(self.path, body, self.headers)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def nobody(_device: ClaimedDevice) -> str | None:
    return None


# -- what a kubelet answers ------------------------------------------------------------------------


def test_pods_are_read_from_the_socket(node: Node) -> None:
    node.answer = (
        pod("chat", "vllm-0", devices("nvidia.com/gpu", UUID, OTHER), devices("rdma/hca", "mlx5_0"))
        + pod("chat", "sidecars", devices("cpu-plugin/x", "0"), b"")
        + pod("kube-system", "nothing")
        + pod(
            "dra",
            "sglang-0",
            claim(("gpu.nvidia.com", "node1", "gpu-0"), ("nic.example", "node1", "nic-0")),
        )
    )
    kubelet = Kubelet(node.socket)
    try:
        assert kubelet.pods() == [
            Pod(
                "chat",
                "vllm-0",
                (
                    Device("nvidia.com/gpu", UUID),
                    Device("nvidia.com/gpu", OTHER),
                    Device("rdma/hca", "mlx5_0"),
                ),
                (),
            ),
            Pod("chat", "sidecars", (Device("cpu-plugin/x", "0"),), ()),
            Pod(
                "dra",
                "sglang-0",
                (),
                (
                    ClaimedDevice("gpu.nvidia.com", "node1", "gpu-0"),
                    ClaimedDevice("nic.example", "node1", "nic-0"),
                ),
            ),
        ]
        placed = pods_on_gpus(
            kubelet, "node1", lambda device: f"{UUID}" if device.name == "gpu-0" else None
        )
        assert [(one.instance, one.gpus) for one in placed] == [
            ("chat/vllm-0", (OTHER, UUID)),
            ("dra/sglang-0", (UUID,)),
        ]
    finally:
        kubelet.close()


def test_nobody_and_nothing(node: Node, tmp_path: Path) -> None:
    assert read_pods(b"") == []
    kubelet = Kubelet(node.socket)
    node.failure = grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(SourceUnavailable, match=r"UNIMPLEMENTED.*mount its folder"):
        kubelet.pods()
    kubelet.close()
    absent = Kubelet(str(tmp_path / "absent.sock"))
    with pytest.raises(SourceUnavailable, match=r"absent\.sock"):
        absent.pods()
    absent.close()
    with pytest.raises(SourceUnavailable, match="no ListPodResourcesResponse"):
        read_pods(b"nonsense")


@pytest.mark.parametrize(
    ("resource", "ids", "gpus", "unknown"),
    [
        ("nvidia.com/gpu", [UUID], (UUID,), ()),
        ("nvidia.com/gpu", [UUID.upper().replace("GPU", "gpu")], (UUID,), ()),
        ("nvidia.com/gpu.shared", [f"{UUID}::0"], (UUID,), ()),
        # two shares in time of one card
        ("nvidia.com/gpu", [f"{UUID}::0", f"{UUID}::3"], (UUID,), ()),
        ("nvidia.com/mig-1g.10gb", [SLICE], (SLICE,), ()),
        ("nvidia.com/mig-1g.10gb", [f"{SLICE}::2"], (SLICE,), ()),
        ("nvidia.com/gpu", ["nvidia0", "nvidia3"], ("node1/0", "node1/3"), ()),
        ("nvidia.com/gpu", ["nvidia0/vgpu1"], ("node1/0",), ()),
        ("nvidia.com/gpu", ["nvidia0/gi1"], (), ("nvidia0/gi1",)),
        ("nvidia.com/gpu", [UUID, "nvidia0"], (UUID,), ("node1/0",)),
    ],
)
def test_device_ids(
    resource: str, ids: list[str], gpus: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    found = gpus_of(
        Pod("chat", "vllm-0", tuple(Device(resource, one) for one in ids), ()), "node1", nobody
    )
    assert found == PodGpus("chat/vllm-0", gpus, unknown)


def test_other_devices_are_no_gpus() -> None:
    others = (Device("rdma/hca", "GPU-x"), Device("smarter-devices/fuse", "nvidia0"))
    assert (
        gpus_of(
            Pod("a", "b", others, (ClaimedDevice("nic.example", "node1", "nic-0"),)),
            "node1",
            nobody,
        )
        is None
    )


def test_a_claimed_device_that_nobody_knows_is_named() -> None:
    found = gpus_of(
        Pod("a", "b", (), (ClaimedDevice("gpu.nvidia.com", "node1", "gpu-7"),)), "node1", nobody
    )
    assert found == PodGpus("a/b", (), ("node1/gpu-7",))


# -- ResourceSlices --------------------------------------------------------------------------------


def slices(beta: bool) -> dict[str, Any]:
    def device(name: str, uuid: str) -> dict[str, Any]:
        attributes = {"type": {"string": "gpu"}, "uuid": {"string": uuid}, "index": {"int": 0}}
        return (
            {"name": name, "basic": {"attributes": attributes}}
            if beta
            else {"name": name, "attributes": attributes}
        )

    spec = {
        "driver": "gpu.nvidia.com",
        "nodeName": "node1",
        "pool": {"name": "node1", "generation": 1},
    }
    more = [
        device("gpu-0", UUID),
        device("gpu-0-mig-9-0-1", SLICE),
        {"name": "no-uuid", "attributes": {}},
    ]
    return {
        "kind": "ResourceSliceList",
        "items": [{"spec": {**spec, "devices": more}}, {"spec": spec}],
    }


@pytest.mark.parametrize("beta", [False, True], ids=["v1", "v1beta1"])
def test_claimed_devices_are_looked_up_in_the_slices_of_the_node(
    tmp_path: Path, beta: bool
) -> None:
    asked: list[str] = []

    def answer(path: str, _body: bytes, headers: Any) -> tuple[int, Any]:
        asked.append(path)
        assert headers["Authorization"] == "Bearer secret"
        return (404, {}) if beta and "/v1/" in path else (200, slices(beta))

    (tmp_path / "token").write_text("secret\n")
    clock = ManualClock(START)
    with http(answer) as url:
        known = ResourceSlices("node1", clock, url, tmp_path)
        assert known.look_up(ClaimedDevice("gpu.nvidia.com", "node1", "gpu-0")) == UUID
        assert known.look_up(ClaimedDevice("gpu.nvidia.com", "node1", "gpu-0-mig-9-0-1")) == SLICE
        assert len(asked) == (2 if beta else 1), "asked once for all"
        assert asked[-1].endswith("resourceslices?fieldSelector=spec.nodeName%3Dnode1")
        for _ in range(3):
            assert known.look_up(ClaimedDevice("gpu.nvidia.com", "node1", "new")) is None
        assert len(asked) == (2 if beta else 1), "not for every look"
        clock.advance(31)
        assert known.look_up(ClaimedDevice("gpu.nvidia.com", "node1", "new")) is None
        assert len(asked) == (4 if beta else 2)


@pytest.mark.parametrize(
    ("status", "said"), [(403, "let its account list resourceslices"), (500, "answers 500")]
)
def test_why_slices_are_not_known_is_said(tmp_path: Path, status: int, said: str) -> None:
    (tmp_path / "token").write_text("secret")
    with http(lambda *_: (status, {})) as url:
        known = ResourceSlices("node1", ManualClock(START), url, tmp_path)
        assert known.look_up(ClaimedDevice("gpu.nvidia.com", "node1", "gpu-0")) is None
        assert said in (known.problem or "")


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"items": [{}]}', b'{"items": [{"spec": {"devices": [1]}}]}']
)
def test_what_is_no_list_of_slices_is_said(answer: bytes) -> None:
    with pytest.raises(SourceUnavailable, match="no ResourceSliceList"):
        read_slices(answer)


# -- what is told ----------------------------------------------------------------------------------


class World:
    """A node, a clock and an API that may be away."""

    def __init__(self, node: Node) -> None:
        self.node, self.clock = node, ManualClock(START)
        self.told: list[tuple[str, list[str], float]] = []
        self.problem: Exception | None = None
        self.never = ""
        self.metrics = PodMetrics(CollectorRegistry())
        self.kubelet = Kubelet(node.socket)
        self.placements = PodPlacements(
            self.kubelet, self._tell, self.clock, "node1", nobody, self.metrics
        )

    def _tell(self, rows: list[dict[str, Any]]) -> None:
        if self.problem is not None:
            raise self.problem
        if any(row["instance"] == self.never for row in rows):
            raise Refused("never")
        assert {row["host"] for row in rows} == {"node1"}
        for row in rows:
            since = datetime.fromisoformat(row["valid_from"]) - START
            self.told.append((row["instance"], row["gpus"], since.total_seconds()))

    def look(self, after: float, *pods: bytes) -> None:
        self.clock.advance(after)
        self.node.answer = b"".join(pods)
        self.placements.look()


@pytest.fixture
def world(node: Node) -> Iterator[World]:
    made = World(node)
    yield made
    made.kubelet.close()


VLLM = pod("chat", "vllm-0", devices("nvidia.com/gpu", UUID))


def test_what_changes_is_told_with_when_it_did(world: World) -> None:
    world.look(0, VLLM)
    assert world.told == [("chat/vllm-0", [UUID], 0)]
    world.look(10, VLLM)
    assert len(world.told) == 1, "what stays is not told again"
    world.look(10, VLLM, pod("chat", "sglang-0", devices("nvidia.com/gpu", OTHER)))
    assert world.told[1:] == [("chat/sglang-0", [OTHER], 20)], "since it was seen"
    world.look(10, VLLM)
    assert world.told[2:] == [("chat/sglang-0", [], 20)], (
        "it went after the last look in which it was there"
    )
    world.look(10, pod("chat", "vllm-0", devices("nvidia.com/gpu", OTHER)))
    assert world.told[3:] == [("chat/vllm-0", [OTHER], 40)]


def test_what_cannot_be_told_is_told_later_under_its_times(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.problem = NotTold("away")
    for _ in range(3):
        world.look(10, VLLM)
    world.look(10)
    assert world.told == []
    assert len([record for record in caplog.records if "away" in record.getMessage()]) == 1
    world.problem = None
    world.look(10)
    assert world.told == [("chat/vllm-0", [UUID], 10), ("chat/vllm-0", [], 30)]


def test_one_that_is_refused_for_good_holds_up_no_other(world: World) -> None:
    world.never = "chat/bad"
    world.look(0, VLLM, pod("chat", "bad", devices("nvidia.com/gpu", OTHER)))
    assert world.told == [("chat/vllm-0", [UUID], 0)]
    world.look(10, VLLM, pod("chat", "bad", devices("nvidia.com/gpu", OTHER)))
    assert len(world.told) == 1


def test_a_kubelet_that_does_not_answer_changes_nothing(world: World) -> None:
    world.look(0, VLLM)
    world.node.failure = grpc.StatusCode.UNAVAILABLE
    world.look(10)
    world.node.failure = None
    world.look(10, VLLM)
    assert world.told == [("chat/vllm-0", [UUID], 0)], "silence is no pod that is gone"


def test_the_door_says_what_the_api_says() -> None:
    got: list[tuple[str, Any, str]] = []
    status = 201

    def answer(path: str, body: bytes, headers: Any) -> tuple[int, Any]:
        got.append((path, json.loads(body), headers["Authorization"]))
        return status, {"detail": "why"}

    with http(answer) as url:
        door = PlacementsDoor(f"{url}/", "gta_key")
        door([{"instance": "a/b"}])
        assert got == [
            ("/v1/placements?changes_only=true", [{"instance": "a/b"}], "Bearer gta_key")
        ]
        for code, kind, said in (
            (403, NotTold, "scope `placements`"),
            (422, Refused, "why"),
            (503, NotTold, "503"),
        ):
            status = code
            with pytest.raises(kind, match=said):
                door([])
    with pytest.raises(NotTold, match="cannot be reached"):
        door([])


def test_the_command_prints_pods_and_gpus(node: Node) -> None:
    node.answer = VLLM + pod("chat", "gke", devices("nvidia.com/gpu", "nvidia0/gi1"))
    result = CliRunner().invoke(
        app, ["agent", "--pods", "--host", "node1"], env={"KUBELET_PODS_SOCKET": node.socket}
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "chat/gke  -  not known: nvidia0/gi1",
        f"chat/vllm-0  {UUID}",
    ]
