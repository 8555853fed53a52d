"""The kubelet's pod-resources, v1 (GA in Kubernetes 1.28): List over the unix socket of the node.

Messages: kubernetes/kubernetes staging/src/k8s.io/kubelet/pkg/apis/podresources/v1/api.proto. Only
the fields that are read are declared here, under their numbers there; all others are passed over,
as protobuf passes over what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from gpu_token_analytics.errors import SettingsError, SourceUnavailable

TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024  # the kubelet's own bound
METHOD = "/v1.PodResourcesLister/List"
_TEXT, _MESSAGE = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_MESSAGE
# message -> field -> (number, repeated, message or None for a text)
_FIELDS: dict[str, dict[str, tuple[int, bool, str | None]]] = {
    "ListPodResourcesResponse": {"pod_resources": (1, True, "PodResources")},
    "PodResources": {
        "name": (1, False, None),
        "namespace": (2, False, None),
        "containers": (3, True, "ContainerResources"),
    },
    "ContainerResources": {
        "devices": (2, True, "ContainerDevices"),
        "dynamic_resources": (5, True, "DynamicResource"),
    },
    "ContainerDevices": {"resource_name": (1, False, None), "device_ids": (2, True, None)},
    "DynamicResource": {"claim_resources": (4, True, "ClaimResource")},
    "ClaimResource": {
        "driver_name": (2, False, None),
        "pool_name": (3, False, None),
        "device_name": (4, False, None),
    },
}


class Device(NamedTuple):
    """A device of a device plugin, as it calls it."""

    resource: str  # nvidia.com/gpu, nvidia.com/mig-1g.10gb, rdma/hca
    id: str


class ClaimedDevice(NamedTuple):
    """A device of dynamic resource allocation: its driver, pool and name in a ResourceSlice."""

    driver: str
    pool: str
    name: str


class Pod(NamedTuple):
    """A pod and the devices that all its containers have."""

    namespace: str
    name: str
    devices: tuple[Device, ...]
    claimed: tuple[ClaimedDevice, ...]


class PodSource(Protocol):
    """Who says which pods there are."""

    def pods(self) -> list[Pod]:
        """All pods of the node that have devices. Raises SourceUnavailable."""

    def close(self) -> None:
        """Release the connection."""


class Kubelet:
    """Asks the kubelet of this node."""

    def __init__(self, socket: str) -> None:
        """socket: path of the unix socket. Raises SettingsError where grpcio is not installed."""
        try:
            import grpc
        except ImportError:
            raise SettingsError(
                f"KUBELET_PODS_SOCKET={socket} needs grpcio; install it with `pip install "
                "'gpu-token-analytics[grpc]'`"
            ) from None
        self._failure = grpc.RpcError
        self._socket = socket
        options = [
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.enable_http_proxy", 0),
        ]
        self._channel = grpc.insecure_channel(f"unix:{socket}", options)
        self._list = self._channel.unary_unary(
            METHOD, request_serializer=bytes, response_deserializer=bytes
        )

    def pods(self) -> list[Pod]:
        """All pods of the node that have devices. Raises SourceUnavailable."""
        try:
            answer = self._list(b"", timeout=TIMEOUT_SECONDS)
        except self._failure as error:
            said = f"{error.code().name}: {error.details()}"
            raise SourceUnavailable(
                f"the kubelet does not answer on {self._socket} ({said}); mount its folder "
                "/var/lib/kubelet/pod-resources, and "
                "run as root, to whom the socket belongs"
            ) from None
        return read_pods(answer)

    def close(self) -> None:
        """Release the connection."""
        self._channel.close()


def read_pods(answer: bytes) -> list[Pod]:
    """The pods of a ListPodResourcesResponse. Raises SourceUnavailable."""
    message = _Response()
    try:
        message.ParseFromString(answer)
    except DecodeError as error:
        raise SourceUnavailable(
            f"the kubelet's answer is no ListPodResourcesResponse of v1: {error}"
        ) from None
    return [
        pod
        for told in message.pod_resources
        if (
            pod := Pod(told.namespace, told.name, tuple(_devices(told)), tuple(_claimed(told)))
        ).devices
        or pod.claimed
    ]


def _devices(pod: Any) -> Iterator[Device]:
    for container in pod.containers:
        for group in container.devices:
            yield from (Device(group.resource_name, name) for name in group.device_ids)


def _claimed(pod: Any) -> Iterable[ClaimedDevice]:
    for container in pod.containers:
        for claim in container.dynamic_resources:
            yield from (
                ClaimedDevice(one.driver_name, one.pool_name, one.device_name)
                for one in claim.claim_resources
            )


def _response() -> Any:
    file = FileDescriptorProto(name="podresources.proto", package="v1", syntax="proto3")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, repeated, of) in fields.items():
            described.field.add(
                name=name,
                number=number,
                label=FieldDescriptorProto.LABEL_REPEATED
                if repeated
                else FieldDescriptorProto.LABEL_OPTIONAL,
                type=_TEXT if of is None else _MESSAGE,
                type_name=None if of is None else f".v1.{of}",
            )
    pool = DescriptorPool()  # of its own: another library in this process may know the same names
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("v1.ListPodResourcesResponse"))


_Response = _response()
