"""external.metrics.k8s.io with one metric, the group's lag as KEDA's kafka scaler counts it, in a
pod of our image.

Stands where KEDA's own metrics server stands in a cluster that has KEDA; the autoscaler asks either
in the same way. Environment: BOOTSTRAP, USERNAME, PASSWORD, GROUP, TOPIC, THRESHOLD; METRIC is the
name under which the sum is served.
"""

from __future__ import annotations

import datetime
import http.server
import json
import os
import ssl
import sys
import time
from collections.abc import Mapping
from typing import Any

_GROUP_VERSION = "external.metrics.k8s.io/v1beta1"
_UNCOMMITTED = -1


def keda_lag(committed: Mapping[int, int], ends: Mapping[int, int], threshold: int) -> int:
    """The number that KEDA hands to the autoscaler: the sum over the partitions, but never more
    than one consumer each can use.

    A partition without a committed offset counts whole (`offsetResetPolicy: earliest`). With
    `allowIdleConsumers: false` the sum is cut to threshold x partitions, so that ceil(sum /
    threshold) is at most the number of partitions. Source: kedacore/keda,
    pkg/scalers/kafka_scaler.go, getLagForPartition and getTotalLag.
    """
    lags = [end - max(0, committed.get(partition, _UNCOMMITTED)) for partition, end in ends.items()]
    return min(sum(lags), threshold * len(lags))


def read_lag(consumer: Any, topic: str, threshold: int) -> int:
    """Asks Kafka for the group's committed offsets and the partitions' ends."""
    from confluent_kafka import TopicPartition

    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    wanted = [TopicPartition(topic, number) for number in partitions]
    committed = {item.partition: item.offset for item in consumer.committed(wanted, timeout=10)}
    ends = {item.partition: consumer.get_watermark_offsets(item, timeout=10)[1] for item in wanted}
    return keda_lag(committed, ends, threshold)


def answer(path: str, metric: str, value: int) -> dict[str, Any] | None:
    """The body for a path of the API; None for a path that it does not have."""
    if path == f"/apis/{_GROUP_VERSION}":
        resource = {
            "name": metric,
            "singularName": "",
            "namespaced": True,
            "kind": "ExternalMetricValueList",
            "verbs": ["get"],
        }
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": _GROUP_VERSION,
            "resources": [resource],
        }
    if path.startswith(f"/apis/{_GROUP_VERSION}/namespaces/") and path.endswith(f"/{metric}"):
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        item = {"metricName": metric, "metricLabels": {}, "timestamp": now, "value": str(value)}
        return {
            "kind": "ExternalMetricValueList",
            "apiVersion": _GROUP_VERSION,
            "metadata": {},
            "items": [item],
        }
    return None


class _Handler(http.server.BaseHTTPRequestHandler):
    consumer: Any

    def do_GET(self) -> None:
        """One answer. 503 when Kafka does not answer: the autoscaler then leaves the number as it
        is."""
        path = self.path.partition("?")[0].rstrip("/")
        try:
            lag = (
                read_lag(self.consumer, os.environ["TOPIC"], int(os.environ["THRESHOLD"]))
                if "/namespaces/" in path
                else 0
            )
        except Exception as error:  # noqa: BLE001 - whatever Kafka's client raises, the autoscaler is told that there is no number
            print(f"{time.time():.1f} {error}", file=sys.stderr, flush=True)
            self.send_error(503)
            return
        body = answer(path, os.environ["METRIC"], lag)
        if body is None:
            self.send_error(404)
            return
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serves until it is ended. Needs the certificate and key in /tls."""
    from confluent_kafka import Consumer

    environment = os.environ
    _Handler.consumer = Consumer({
        "bootstrap.servers": environment["BOOTSTRAP"], "group.id": environment["GROUP"],
        "enable.auto.commit": False,
        "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": environment["USERNAME"], "sasl.password": environment["PASSWORD"],
    })  # fmt: skip
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 6443), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
