"""The consumer of the tutorials: poll, json.loads, insert, commit. One by one, or up to 500
together.

Arguments: `one` or `many`, bootstrap, topic, group, MongoDB address, database, session (ms).
"""

import json
import sys
from typing import Any

from confluent_kafka import Consumer
from pymongo import MongoClient

BATCH = 500

mode, bootstrap, topic, group, uri, database, session_ms = sys.argv[1:]
consumer = Consumer(
    {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": int(session_ms),
    }
)
consumer.subscribe([topic])
client: MongoClient[dict[str, Any]] = MongoClient(uri)
collection = client[database]["events"]
while True:
    if mode == "one":
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            sys.exit(str(message.error()))
        collection.insert_one(json.loads(message.value() or b""))
        consumer.commit(message=message, asynchronous=False)
    else:
        messages = [message for message in consumer.consume(BATCH, 0.2) if not message.error()]
        if messages:
            collection.insert_many(
                [json.loads(message.value() or b"") for message in messages], ordered=False
            )
            consumer.commit(asynchronous=False)
