"""Sums straight from MongoDB, by this host's driver in a member's network: not by what the pipeline
says of itself."""

from __future__ import annotations

import json
import sys
from typing import Any

from deploy.bench.checks.replay import Sums
from deploy.bench.kubernetes.workload import Workload
from deploy.bench.shell import CommandFailed, run

# Members are named by names that only resolve in pods, so each is asked directly for who is
# primary.
_PROGRAM = """
import json, sys
from pymongo import MongoClient
hosts, password, database, command = json.loads(sys.stdin.read())
for host in hosts:
    try:
        client = MongoClient(host, 27017, username="root", password=password, directConnection=True,
                             serverSelectionTimeoutMS=3000, socketTimeoutMS=20000)
        if client.admin.command("hello")["isWritablePrimary"]:
            answer = client[database].command(command)
            print(json.dumps(answer.get("cursor", {}).get("firstBatch", []), default=str))
            break
    except Exception as error:
        print(f"{host}: {error}", file=sys.stderr)
else:
    sys.exit("no primary among " + ", ".join(hosts))
"""
_SUMS = ("requests", "prompt_tokens", "completion_tokens")


class Database:
    """The replica set of a workload."""

    def __init__(self, workload: Workload, name: str = "gpu_tokens") -> None:
        self.workload = workload
        self.name = name
        self._password = ""

    def aggregate(self, collection: str, pipeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """An aggregation on the primary, read with majority. Raises CommandFailed while there is no
        primary."""
        question = {"aggregate": collection, "pipeline": pipeline, "cursor": {"batchSize": 1000}}
        return self.command({**question, "readConcern": {"level": "majority"}})

    def command(self, command: dict[str, Any]) -> list[dict[str, Any]]:
        """A command as root on the primary, its first thousand documents. Raises CommandFailed
        while there is no primary."""
        self._password = self._password or self.workload.secret("mongo-servers", "ROOT_PASSWORD")
        pods = [pod for pod in self.workload.pods("mongo") if pod["status"].get("podIP")]
        question = json.dumps(
            [[pod["status"]["podIP"] for pod in pods], self._password, self.name, command]
        )
        error = CommandFailed("no MongoDB pod runs")
        for pod in pods:
            try:
                said = self._ask(pod, question)
                answer: list[dict[str, Any]] = json.loads(said.strip().splitlines()[-1])
                return answer
            except (CommandFailed, ValueError, IndexError) as failure:
                error = CommandFailed(str(failure))
        raise error

    def _ask(self, pod: dict[str, Any], question: str) -> str:
        enter = [
            "nsenter",
            "-t",
            str(self.workload.process_of(pod)),
            "-n",
            "--",
            sys.executable,
            "-c",
            _PROGRAM,
        ]
        return run(enter, stdin=question, timeout_seconds=60).stdout

    def stored(self, model: str) -> Sums:
        """The requests and tokens of models named `MODEL-...` among the raw usages."""
        match = {"$match": {"model": {"$regex": f"^{model}-"}}}
        return _one(self.aggregate("token_usage", [match, _sums({"$sum": 1}, "$")]))

    def in_ledger(self, model: str) -> Sums:
        """The same from the ledger's cells."""
        match = {"$match": {"lines.model": {"$regex": f"^{model}-"}}}
        stages: list[dict[str, Any]] = [
            match,
            {"$unwind": "$lines"},
            match,
            _sums({"$sum": "$lines.requests"}, "$lines."),
        ]
        return _one(self.aggregate("ledger_cells", stages))


def _sums(requests: dict[str, Any], prefix: str) -> dict[str, Any]:
    tokens = {name: {"$sum": f"{prefix}{name}"} for name in _SUMS[1:]}
    return {"$group": {"_id": None, "requests": requests, **tokens}}


def _one(rows: list[dict[str, Any]]) -> Sums:
    return Sums(*(int(rows[0][name]) for name in _SUMS)) if rows else Sums(0, 0, 0)
