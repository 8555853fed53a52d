"""A fact that others depend on is written in one file: who needs it imports it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gpu_token_analytics.documents import MoneyClass

SOURCE = Path(__file__).parents[2] / "src" / "gpu_token_analytics"

# What it is, how it looks in code, where it stands.
FACTS = {
    "MongoDB's code of a duplicate key": (r"(?<![\w])11000\b", "mongo/commands.py"),
    "bounds of watts and dollars": (r"\b1e5\b|\b100_000\.0\b", "units.py"),
    "the bound of a counter of joules": (r"\b1e15\b", "units.py"),
    "the bound of an index": (r"\b4095\b", "units.py"),
    "what is counted of tokens": (r'"prompt_tokens",\s*"cached_tokens"', "documents.py"),
    "the collection of requests": (r'collection="token_usage"|= "token_usage"', "wire/usage.py"),
    "the collection of samples": (r'collection="gpu_metrics"|= "gpu_metrics"', "wire/sample.py"),
    "rules between a record's parts and wholes": (r'"queue_ms", "latency_ms"', "wire/usage.py"),
    "a server in a thread": (r"uvicorn\.Server\(", "http_server.py"),
    "the declaration of a metric": (r"\b(Gauge|Histogram)\(", "metrics.py"),
    "the first fields of a cell": (r'"opened_at": now', "ledger/document.py"),
    "seven slices of a card": (r"\[1-7\]|(SEVENTHS|SLICES) = ", "units.py"),
}

# They name columns of rows by class, which are read one by one; choices.py says the words of the
# API's contract.
OF_EACH_CLASS = {
    "costs/choices.py",
    "costs/query.py",
    "costs/rows.py",
    "demo/view.py",
}


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_is_written_once(fact: str) -> None:
    pattern, home = FACTS[fact]
    assert [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if re.search(pattern, path.read_text())
    ] == [home]


def test_classes_are_named_where_something_is_said_of_each() -> None:
    # whose money is called `cost` in a row
    names = {str(name) for name in MoneyClass} - {"attributed"}
    naming = set()
    for path in SOURCE.rglob("*.py"):
        texts = [
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant)
        ]
        if names <= {text.removesuffix("_nusd") for text in texts if isinstance(text, str)}:
            naming.add(str(path.relative_to(SOURCE)))
    assert naming == {"documents.py", *OF_EACH_CLASS}
