"""The dashboard over the real API and a real mongod: what the page shows is what the ledger
holds."""

from __future__ import annotations

import csv
import io
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from bench.synthetic_cells import Fleet, cells
from playwright.sync_api import Browser, expect
from tests.e2e.dashboard_support import watched
from tests.serving import serving

from gpu_token_analytics.api.app import create_app
from gpu_token_analytics.api.keys import KeyScope, KeyStore
from gpu_token_analytics.api.services import Services
from gpu_token_analytics.books.rates import RateStore
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.embedded.mongod import EmbeddedMongod
from gpu_token_analytics.mongo.client import Store, open_store
from gpu_token_analytics.mongo.indexes import ensure_indexes
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.rollups.store import RollupStore
from gpu_token_analytics.settings import load

pytestmark = pytest.mark.browser

FLEET = Fleet(gpus=6, gpus_per_host=3, models=3, tenants=4)
PAGES = (
    "/",
    "/models",
    "/tenants",
    "/gpus",
    "/gpus?view=timelines",
    "/gpus?view=table",
    "/request",
    "/idle?share=by_use",
    "/?compare=1",
    "/models?compare=1&currency=EUR",
    "/budgets",
    "/break-even?price=*%3D0.6/0.3/2.4",
    "/prices",
    "/quality",
)


@dataclass
class Real:
    """The running application and what it was given."""

    url: str
    store: Store
    cells: list[dict[str, Any]]
    keys: KeyStore


@pytest.fixture(scope="module")
def real(mongod: EmbeddedMongod) -> Iterator[Real]:
    end = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
    found = list(cells(FLEET, end - timedelta(minutes=300), 300, now=end))
    settings = load(
        mongodb_uri=mongod.uri,
        mongodb_database=f"test_{uuid.uuid4().hex[:16]}",
        api_allow_anonymous_loopback=True,
        api_requests_per_second=1000,
        api_request_burst=1000,
    )
    store = open_store(settings)
    try:
        ensure_indexes(store, settings)
        store[Collection.LEDGER_CELLS].insert_many(found)
        store[Collection.INVENTORY].insert_many(_inventory())
        rollups = Rollups(RollupStore(store.database))
        while rollups.step_now():
            pass
        with serving(create_app(Services.of(store, settings, loopback_only=True))) as url:
            yield Real(url, store, found, KeyStore(store.database))
    finally:
        store.client.drop_database(store.database.name)
        store.close()


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
                "gpu_index": index % 3,
                "name": name,
            }
        )
    return rows


def _nano(text: str) -> list[int]:
    return [
        int(found.replace(",", "").replace(".", ""))
        for found in re.findall(r"\$([\d,]+\.\d{9})", text)
    ]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_stands_on_the_real_api(browser: Browser, real: Real, path: str) -> None:
    with watched(browser, real.url) as dashboard:
        page = dashboard.open(path)
        assert page.locator(".panel.error").count() == 0, page.locator(
            ".panel.error"
        ).all_inner_texts()
        expect(page.locator("#live-text")).to_have_text("Live")


def test_the_money_shown_is_the_money_stored_to_the_nano_dollar(
    browser: Browser, real: Real
) -> None:
    start, end = real.cells[0]["minute"], real.cells[-1]["minute"] + timedelta(minutes=1)
    with watched(browser, real.url) as dashboard:
        page = dashboard.open(f"/?from={start:%Y-%m-%dT%H:%MZ}&to={end:%Y-%m-%dT%H:%MZ}")
        page.click("#identity-exact summary")
        *classes, total, owned, difference = _nano(page.inner_text("#identity-exact"))
        order = ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved")
        assert classes == [sum(cell["classes"][name] for cell in real.cells) for name in order]
        assert total == owned == sum(cell["cost_nusd"] for cell in real.cells)
        assert difference == 0
        assert "holds" in dashboard.text("#audit-badge")


def test_a_price_goes_into_the_book(browser: Browser, real: Real) -> None:
    with watched(browser, real.url) as dashboard:
        page = dashboard.open("/prices")
        page.select_option("#price-scope", "default")
        page.fill("#price-usd", "1.25")
        page.click("#price-submit")
        page.click("#price-submit")
        page.wait_for_selector("#price-message .good")
        assert real.store[Collection.PRICES].count_documents({"scope": "default"}) == 1
        expect(page.locator("#prices-scroll")).to_contain_text("$1.25")


def test_a_tenants_key_works_on_its_pages(browser: Browser, real: Real) -> None:
    tenant = next(line["tenant"] for cell in real.cells for line in cell["lines"])
    _, secret = real.keys.create("e2e", frozenset({KeyScope.READ}), tenant, real.store.now())
    with watched(browser, real.url) as dashboard:
        dashboard.page.add_init_script(f"sessionStorage.setItem('gpu-tokens-key', '{secret}')")
        for path in ("/", "/models", "/tenants", "/request"):
            dashboard.open(path)
            assert dashboard.page.locator(".panel.error").count() == 0, path
        page = dashboard.open("/tenants")
        assert page.locator("#groups-scroll tbody tr").count() == 1


def test_a_csv_of_what_is_shown(browser: Browser, real: Real) -> None:
    with watched(browser, real.url) as dashboard:
        page = dashboard.open("/models")
        with page.expect_download() as download:
            page.click("#export")
        text = download.value.path().read_text()
        assert text.splitlines()[0].startswith("bucket") or "model" in text.splitlines()[0]
        assert len(text.splitlines()) >= FLEET.models


@pytest.mark.parametrize(("currency", "units", "sign"), [("EUR", "2", "€"), ("GBP", "0.915", "£")])
def test_money_in_another_currency_is_that_of_the_api_and_of_files(
    browser: Browser, real: Real, currency: str, units: str, sign: str
) -> None:
    """To the last place at 2 to 1. Else the page rounds one sum, the others sum what was rounded:
    at most half a billionth for each part."""
    start, end = real.cells[0]["minute"], real.cells[-1]["minute"] + timedelta(minutes=1)
    RateStore(real.store.database).append(
        {"currency": currency, "units_per_usd": units},
        valid_from=datetime(2020, 1, 1, tzinfo=UTC),
        created_at=real.store.now(),
        source="test",
    )
    span = {"from": f"{start:%Y-%m-%dT%H:%MZ}", "to": f"{end:%Y-%m-%dT%H:%MZ}"}
    asked = {**span, "currency": currency}
    with httpx.Client(base_url=real.url, trust_env=False) as client:
        told = client.get("/v1/costs/converted", params={**asked, "group_by": "model"}).json()
        text = client.get("/v1/export", params={**asked, "group_by": "model"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    in_file = sum(int(Decimal(row["total_converted"]).scaleb(9)) for row in rows)
    with watched(browser, real.url) as dashboard:
        page = dashboard.open(f"/models?compare=1&{urlencode(asked)}")
        title = page.locator("#compared-rows-scroll tfoot td:nth-child(2) [title]")
        shown = str(title.get_attribute("title"))
        assert shown.startswith(sign)
        on_page = int(shown.removeprefix(sign).replace(",", "").replace(".", ""))
        assert f"1 USD = {units} {currency}" in dashboard.text("#currency-note")
    parts = 0 if units == "2" else 5 * len(rows)
    assert abs(on_page - told["totals"]["total_nano"]) <= parts / 2
    assert abs(on_page - in_file) <= parts / 2
    assert on_page > 10**9
