"""An API over a real mongod that holds a few days of synthetic cells, rolled up."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from bench.synthetic_cells import Fleet, cells
from fastapi import FastAPI
from tests.serving import serving

from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.keys import KeyScope, KeyStore
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.wire.sinks import MemorySink

START = datetime(2026, 1, 30, tzinfo=UTC)
MINUTES = 2 * 1440 + 90
NOW = START + timedelta(minutes=MINUTES)
FLEET = Fleet(gpus=4, gpus_per_host=2, models=3, tenants=4)


def roll_all(store: Store) -> None:
    """Roll until nothing is dirty."""
    rollups = Rollups(RollupStore(store.database))
    while rollups.step_now():
        pass


@dataclass
class Api:
    """The application, its data, and clients with keys."""

    url: str
    app: FastAPI
    store: Store
    services: Services
    settings: Settings
    cells: list[dict[str, Any]]
    sink: MemorySink
    keys: dict[str, str] = field(default_factory=dict)

    def key(self, *scopes: KeyScope, tenant: str | None = None) -> str:
        """A key of these scopes, made once."""
        name = f"{'-'.join(sorted(scopes))}/{tenant}"
        if name not in self.keys:
            _, self.keys[name] = KeyStore(self.store.database).create(
                name, frozenset(scopes), tenant, self.store.now()
            )
        return self.keys[name]

    clients: dict[str, httpx.Client] = field(default_factory=dict)

    def client(self, *scopes: KeyScope, tenant: str | None = None) -> httpx.Client:
        """A client with a key; without scopes: without a key."""
        key = self.key(*scopes, tenant=tenant) if scopes else ""
        if key not in self.clients:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            self.clients[key] = httpx.Client(
                base_url=self.url, headers=headers, timeout=30, trust_env=False
            )
        return self.clients[key]

    @property
    def reader(self) -> httpx.Client:
        """Reads everything."""
        return self.client(KeyScope.READ)

    def close(self) -> None:
        """Close the clients."""
        for client in self.clients.values():
            client.close()


@pytest.fixture(scope="session")
def make_store(mongod: EmbeddedMongod) -> Iterator[Callable[[], tuple[Store, Settings]]]:
    opened: list[Store] = []

    def make() -> tuple[Store, Settings]:
        settings = load(
            mongodb_uri=mongod.uri,
            mongodb_database=f"test_{uuid.uuid4().hex[:16]}",
            api_requests_per_second=100_000,
            api_request_burst=100_000,
        )
        store = open_store(settings)
        opened.append(store)
        ensure_indexes(store, settings)
        return store, settings

    yield make
    for store in opened:
        store.client.drop_database(store.database.name)
        store.close()


def commands_at(now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, which open a desk of their own, take it to be `now`."""
    opened = Desk.over

    def over(store: Store, settings: Settings) -> Desk:
        desk = opened(store, settings)
        desk.now = lambda: now
        return desk

    monkeypatch.setattr(Desk, "over", staticmethod(over))


@pytest.fixture(scope="session")
def api(make_store: Callable[[], tuple[Store, Settings]]) -> Iterator[Api]:
    """Read-only for tests: its cells stay as they are."""
    store, settings = make_store()
    with served(store, settings, FLEET, START, MINUTES, _inventory()) as api:
        yield api


@contextmanager
def served(
    store: Store,
    settings: Settings,
    fleet: Fleet,
    start: datetime,
    minutes: int,
    inventory: Sequence[dict[str, Any]] = (),
    reshaped: Callable[[dict[str, Any]], dict[str, Any]] = lambda cell: cell,
) -> Iterator[Api]:
    """The API over a fleet's cells of so many minutes, each `reshaped`, at whose end it is now."""
    now = start + timedelta(minutes=minutes)
    stored = [reshaped(cell) for cell in cells(fleet, start, minutes, now=now)]
    store[Collection.LEDGER_CELLS].insert_many(stored)
    if inventory:
        store[Collection.INVENTORY].insert_many(inventory)
    roll_all(store)
    sink = MemorySink()
    services = Services.of(store, settings, sink=sink)
    services.desk.now = lambda: now
    app = create_app(services)
    with serving(app) as url:
        api = Api(url, app, store, services, settings, stored, sink)
        yield api
        api.close()


def _inventory() -> list[dict[str, Any]]:
    rows = []
    for index in range(FLEET.gpus):
        gpu, host, name = FLEET.gpu(index)
        rows.append(
            {
                "_id": gpu,
                "kind": "gpu",
                "gpu": gpu,
                "host": host,
                "gpu_index": index % 2,
                "name": name,
            }
        )
    return rows
