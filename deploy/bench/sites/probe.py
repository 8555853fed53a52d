"""Runs inside a site and answers questions, one JSON object per line: {"ask": NAME, ...} ->
{"answer": ...} or {"error": ...}.

Ids go into files and only their number comes back: what is compared are ids, and there are many.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

_DATABASE = "gpu_tokens"
_RAW = ("token_usage", "gpu_metrics")
_SCRATCH = "drill"  # a database of its own: what the drill writes is not the product's
_PATIENCE_SECONDS = 20.0

Document = dict[str, Any]


def main() -> None:
    """Answers until stdin ends."""
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer: Document = {"answer": QUESTIONS[question.pop("ask")](**question)}
        except (PyMongoError, KafkaException, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"[:1000]}
        print(json.dumps(answer), flush=True)


def initiate(port: int, document: Document) -> str:
    """Makes the replica set; done already is fine."""
    with _member(port) as client:
        try:
            client.admin.command("replSetInitiate", document)
        except OperationFailure as error:
            if error.code != 23:  # AlreadyInitialized
                raise
    return "initiated"


def states(port: int) -> dict[str, str]:
    """State of each member as one of them sees it, by its address."""
    with _member(port) as client:
        members = client.admin.command("replSetGetStatus")["members"]
    return {member["name"]: member["stateStr"] for member in members}


def majority_write(uri: str) -> float:
    """Tries until one write is acknowledged by the majority; the seconds that took."""
    began = time.monotonic()
    while True:
        try:
            with MongoClient[Document](
                uri, serverSelectionTimeoutMS=500, socketTimeoutMS=2000, connectTimeoutMS=1000
            ) as client:
                client[_SCRATCH]["writes"].insert_one({"at": time.time()})
            return time.monotonic() - began
        except PyMongoError:
            if time.monotonic() - began > 180:
                raise
            time.sleep(0.1)


def store_ids(uri: str, into: str) -> int:
    """Ids of all raw events, sorted, into a file."""
    with MongoClient[Document](uri, serverSelectionTimeoutMS=30_000) as client:
        database = client.get_database(_DATABASE)
        found = (
            document["event_id"]
            for name in _RAW
            for document in database[name].find({}, {"event_id": 1, "_id": 0})
        )
        ids = [
            event_id if isinstance(event_id, str) else str(UUID(bytes=bytes(event_id)))
            for event_id in found
        ]
    Path(into).write_text("".join(f"{event_id}\n" for event_id in sorted(ids)))
    return len(ids)


def count(uri: str) -> int:
    """Raw events stored."""
    with MongoClient[Document](uri, serverSelectionTimeoutMS=2000) as client:
        return sum(client[_DATABASE][name].estimated_document_count() for name in _RAW)


def due(uri: str) -> int:
    """Cells that should be computed by now. (A GPU that fell silent is owned on: it has a new one
    every minute.)"""
    with MongoClient[Document](uri, serverSelectionTimeoutMS=5000) as client:
        now = client.admin.command("hello")["localTime"]
        return client[_DATABASE]["ledger_cells"].count_documents({"due_at": {"$lt": now}})


def in_ledger(uri: str, host: str) -> int:
    """Requests that the ledger holds of GPUs of a host whose name ends so."""
    pipeline: list[Document] = [
        {"$match": {"host": {"$regex": f"{host}$"}}},
        {"$unwind": "$lines"},
        {"$group": {"_id": None, "requests": {"$sum": "$lines.requests"}}},
    ]
    with MongoClient[Document](uri, serverSelectionTimeoutMS=5000) as client:
        rows = list(client[_DATABASE]["ledger_cells"].aggregate(pipeline))
    return int(rows[0]["requests"]) if rows else 0


def hashes(ports: list[int]) -> list[str]:
    """dbHash of the product's database on each member."""
    answers = []
    for port in ports:
        with _member(port) as client:
            answers.append(str(client[_DATABASE].command("dbHash")["md5"]))
    return answers


def topic_ids(bootstrap: str, topic: str, into: str) -> list[int]:
    """[records, different ids] of a topic; the ids, one per record, into a file. Aborted
    transactions are not read."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "drill-reads",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 2,
        }
    )
    ids = []
    try:
        metadata = consumer.list_topics(topic, timeout=_PATIENCE_SECONDS).topics[topic]
        left = set(metadata.partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in left])
        end = time.monotonic() + 120
        while left and time.monotonic() < end:
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error():
                left.discard(message.partition() or 0)  # the end of a partition
            else:
                ids.append(json.loads(message.value() or b"{}")["event_id"])
    finally:
        consumer.close()
    if left:
        raise OSError(f"partitions {sorted(left)} of {topic} were not read to their end")
    Path(into).write_text("".join(f"{event_id}\n" for event_id in ids))
    return [len(ids), len(set(ids))]


def topics(bootstrap: str) -> list[str]:
    """Names of all topics."""
    return sorted(
        AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        .list_topics(timeout=_PATIENCE_SECONDS)
        .topics
    )


def delete_topics(bootstrap: str, names: list[str]) -> list[str]:
    """Deletes them; those that are not there are passed over."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    there = set(admin.list_topics(timeout=_PATIENCE_SECONDS).topics)
    names = [name for name in names if name in there]
    for future in (admin.delete_topics(names) if names else {}).values():
        future.result(_PATIENCE_SECONDS)
    return names


def page(url: str, key: str = "") -> str:
    """A page, with an API key where one is needed; an answer that is no success is its status."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return f"status {error.code}"


def _member(port: int) -> MongoClient[Document]:
    """One member itself, whatever its state."""
    return MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=30_000)


QUESTIONS: dict[str, Callable[..., Any]] = {
    question.__name__: question
    for question in (
        initiate, states, majority_write, store_ids, count, due, in_ledger, hashes, topic_ids,
        topics, delete_topics, page,
    )
}  # fmt: skip

if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, AutoReconnect):
        sys.exit(1)
