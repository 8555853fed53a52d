"""What integration tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from tests.integration.delivery_support import Processor
from tests.integration.ledger_support import Commands, Pipeline

from gpu_token_analytics.mongo import client
from gpu_token_analytics.settings import Settings

_LONGEST = ("test_kill_loop.py", "test_observability.py")  # some ten minutes each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: begun last, one of two workers would wait for them alone."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture
def pipeline(mongo_uri: str, mongo_database: str) -> Iterator[Callable[..., Pipeline]]:
    """Makes pipelines over a database each, by a suffix of its name; none outlives the test."""
    made: list[Pipeline] = []

    def make(name: str = "", **overrides: Any) -> Pipeline:
        made.append(Pipeline(mongo_uri, mongo_database + name, **overrides))
        return made[-1]

    yield make
    for each in made:
        each.store.client.drop_database(each.settings.mongodb_database)
        each.store.close()


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Counts the commands of every store opened from now on."""
    listener = Commands()
    monkeypatch.setattr(client, "MongoClient", partial(MongoClient, event_listeners=[listener]))
    return listener


@pytest.fixture
def start(tmp_path: Path, keep_log: Callable[[Path], None]) -> Iterator[Callable[..., Processor]]:
    """Start processors with settings and more environment; whatever happens, none is left."""
    running: list[Processor] = []

    def run(settings: Settings, **extra: str) -> Processor:
        processor = Processor(settings, tmp_path / f"processor-{len(running)}.log", extra)
        keep_log(processor.log)
        running.append(processor)
        return processor

    yield run
    for processor in running:
        processor.__exit__(None, None, None)
