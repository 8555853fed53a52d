"""A cluster of real Kafka nodes on this machine: one controller, and brokers that come and go.

Its topics are on two of the brokers, those of `Cluster.brokers`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpu_token_analytics.embedded.child import LOOPBACK, free_port
from gpu_token_analytics.embedded.kafka_jvm import CURRENT_VERSION, KafkaBroker

CONTROLLER = 1
_CLUSTER_ID = "AQIDBAUGBwgJCgsMDQ4PEA"  # 16 bytes, as Kafka writes them


class Node(KafkaBroker):
    """One node of several. number: of the controller, or of a broker."""

    def __init__(self, number: int, folder: Path, controller_at: str, roles: str) -> None:
        """roles: broker, controller, or both."""
        super().__init__(CURRENT_VERSION, folder, heap_mb=256)
        self.number = number
        self._controller_at, self._roles = controller_at, roles

    def _write_properties(self) -> None:
        listeners = []
        properties = {
            "process.roles": self._roles,
            "node.id": str(self.number),
            "controller.quorum.voters": f"{CONTROLLER}@{self._controller_at}",
            "controller.listener.names": "C",
            "listener.security.protocol.map": "CLIENTS:PLAINTEXT,C:PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "2",
            "offsets.topic.num.partitions": "1",
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "500",
            "replica.lag.time.max.ms": "4000",
            "group.initial.rebalance.delay.ms": "100",
        }
        if "broker" in self._roles:
            listeners.append(f"CLIENTS://{self.bootstrap}")
            properties |= {
                "advertised.listeners": listeners[0],
                "inter.broker.listener.name": "CLIENTS",
            }
        if "controller" in self._roles:
            listeners.append(f"C://{self._controller_at}")
        properties["listeners"] = ",".join(listeners)
        lines = (f"{key}={value}\n" for key, value in properties.items())
        self._properties_file.write_text("".join(lines))

    def _format(self, java: str, jars: Path) -> None:
        if (self.folder / "data" / "meta.properties").exists():
            return
        tool = ("kafka.tools.StorageTool", "format", "--cluster-id", _CLUSTER_ID, "--config")
        subprocess.run(self._java(java, jars, *tool), check=True, capture_output=True, timeout=90)


@dataclass(frozen=True)
class Cluster:
    """brokers: two, which may come and go. third: the controller, where it is a broker, too."""

    brokers: Sequence[Node]
    third: Node | None

    @property
    def bootstrap(self) -> str:
        """Addresses of all brokers, for clients."""
        third = [] if self.third is None else [self.third]
        return ",".join(broker.bootstrap for broker in [*self.brokers, *third])


@contextmanager
def kafka_cluster(folder: Path, *, third: bool = False) -> Iterator[Cluster]:
    """A cluster for a block; whatever of it runs at the end is stopped, the controller last.
    third: the controller is a broker, too."""
    controller_at = f"{LOOPBACK}:{free_port()}"
    roles = ["broker,controller" if third else "controller", "broker", "broker"]
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(Node(number, folder / f"node-{number}", controller_at, role))
            for number, role in enumerate(roles, start=CONTROLLER)
        ]
        yield Cluster(nodes[1:], nodes[0] if third else None)
