"""Runs inside a site: a producer that writes down what Kafka acknowledged.

    python load.py RATE FOLDER NAME     until killed; ids go to FOLDER/NAME.sent, .usages (requests
                                        alone), .acknowledged

The events are `gpu-tokens simulate`'s own, in real time; KAFKA_BOOTSTRAP, KAFKA_TOPIC and SITE come
from the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

# As the product's producers: acknowledged means by all replicas in sync, and a repeated send is one
# record.
_CONFIG = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 5,
    "message.timeout.ms": 120_000,
    "log_level": 2,
}


def main(rate: str, folder: Path, name: str) -> None:
    """Sends until killed."""
    producer = Producer({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP"], **_CONFIG})
    command = [
        sys.executable,
        "-m",
        "gpu_token_analytics",
        "simulate",
        "--dry-run",
        "--flat",
        "--rate",
        rate,
    ]
    command += ["--hosts", "2", "--gpus-per-host", "2"]
    with (
        (folder / f"{name}.acknowledged").open("a", buffering=1) as acknowledged,
        (folder / f"{name}.sent").open("a", buffering=1) as sent,
        (folder / f"{name}.usages").open("a", buffering=1) as usages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as events,
    ):
        assert events.stdout is not None

        def note(error: KafkaError | None, message: Message) -> None:
            if error is None:
                acknowledged.write(f"{json.loads(message.value() or b'{}')['event_id']}\n")

        print("producing", flush=True)
        for line in events.stdout:
            event = json.loads(line)
            sent.write(f"{event['event_id']}\n")
            if event["schema"].startswith("token.usage"):
                usages.write(f"{event['event_id']}\n")
            while True:
                with contextlib.suppress(BufferError):
                    producer.produce(
                        os.environ["KAFKA_TOPIC"],
                        line.rstrip(b"\n"),
                        event["host"].encode(),
                        on_delivery=note,
                    )
                    break
                producer.poll(0.1)
            producer.poll(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
