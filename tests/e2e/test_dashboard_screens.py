"""Screenshots to look at: every page on a desktop and a phone, light and dark, in
test-logs/dashboard/.

A machine only checks that each is drawn (not one flat colour) and that nothing went wrong
meanwhile; the looking is for people.
"""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from tests.conftest import ROOT
from tests.e2e.dashboard_support import DESKTOP, PHONE, saved, watched
from tests.e2e.fake_api import FakeApi
from tests.e2e.fake_gpus import REQUEST_ID
from tests.serving import serving

pytestmark = pytest.mark.browser

SIZES = {"desktop": DESKTOP, "phone": PHONE}


def _shown(fake: FakeApi) -> dict[str, str]:
    return {
        "overview": "/",
        "overview-all-7d": "/?money=all&range=7d",
        "models": "/models",
        "tenants-by-model": "/tenants?group=model",
        "gpus": "/gpus",
        "gpu": f"/gpus?show={fake.fleet.gpus[0].id}",
        "gpus-timelines": "/gpus?view=timelines",
        "gpus-table": "/gpus?view=table",
        "request": f"/request?id={REQUEST_ID}",
        "idle": "/idle?share=by_use",
        "overview-compared": "/?compare=1&range=yesterday",
        "budgets": "/budgets",
        "break-even": "/break-even?price=*%3D0.5/0.25/1.5",
        "prices": "/prices",
        "quality": "/quality",
    }


def _distinct_bytes(png: Path) -> int:
    """How varied the picture is: different values in its decompressed data."""
    data, at, body = png.read_bytes(), 8, b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            body += data[at + 8 : at + 8 + length]
        at += 12 + length
    return len(set(zlib.decompress(body)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_as_people_see_them(browser: Browser, fake: FakeApi, size: str, scheme: str) -> None:
    with (
        serving(fake.app) as url,
        watched(
            browser, url, SIZES[size], color_scheme=scheme, reduced_motion="reduce"
        ) as dashboard,
    ):
        for name, path in _shown(fake).items():
            page = dashboard.open(path)
            page.click("#live")
            assert _distinct_bytes(saved(page, f"{name}-{size}-{scheme}")) > 100, name


def test_the_pictures_of_the_documentation(browser: Browser) -> None:
    """`make pictures` takes them; here, that each page of the navigation has one, that it can be
    taken, and that the documentation shows it."""
    page_of_docs = (ROOT / "docs/dashboard.md").read_text()
    fake = FakeApi(now=datetime(2026, 1, 31, 14, 5, tzinfo=UTC))
    shown = {
        "overview": "/",
        "models": "/models",
        "tenants": "/tenants?group=model",
        "gpus": "/gpus",
        "gpu": f"/gpus?show={fake.fleet.gpus[0].id}",
        "request": f"/request?id={REQUEST_ID}",
        "idle": "/idle?share=by_use",
        "budgets": "/budgets",
        "break-even": "/break-even?price=*%3D0.5/0.25/1.5",
        "prices": "/prices",
        "quality": "/quality",
    }
    with (
        serving(fake.app) as url,
        watched(browser, url, reduced_motion="reduce", color_scheme="light") as dashboard,
    ):
        dashboard.page.clock.set_fixed_time(fake.fleet.now)
        links = dashboard.open().locator("#nav a").all()
        pages = {(link.get_attribute("id") or "").removeprefix("nav-") for link in links}
        assert len(pages) > 5
        assert pages <= shown.keys(), "pages without a picture"
        for name, path in shown.items():
            page = dashboard.open(path)
            page.click("#live")
            taken = saved(page, f"docs-{name}", full_page=False)
            kept = ROOT / "docs/images/dashboard" / f"{name}.png"
            if os.environ.get("PICTURES"):
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(taken, kept)
            assert _distinct_bytes(kept) > 100, name
            assert f"(images/dashboard/{name}.png)" in page_of_docs


@pytest.mark.parametrize("size", SIZES)
def test_eight_hundred_gpus_as_people_see_them(browser: Browser, size: str) -> None:
    fake = FakeApi(gpus=800)
    with (
        serving(fake.app) as url,
        watched(browser, url, SIZES[size], reduced_motion="reduce") as dashboard,
    ):
        page = dashboard.open("/gpus")
        page.click("#live")
        assert _distinct_bytes(saved(page, f"gpus-800-{size}")) > 100


def test_menus_and_dialogs_as_people_see_them(browser: Browser) -> None:
    fake = FakeApi(keys={"gta_good": None})
    with serving(fake.app) as url, watched(browser, url, reduced_motion="reduce") as dashboard:
        page = dashboard.page
        page.goto(url)
        page.wait_for_selector("#key-dialog")
        saved(page, "key-dialog")
        page.fill("#key-input", "gta_good")
        page.keyboard.press("Enter")
        page.wait_for_selector("#where")
        page.click("#live")
        page.click("#range-button")
        saved(page, "menu-range")
        page.keyboard.press("Escape")
        page.click("#filters-button")
        page.click("#filter-model > summary")
        saved(page, "menu-filter")
        fake.broken = {"/v1/quality": 503}
        dashboard.open("/quality")
        saved(page, "error")
        fake.broken, fake.empty = {}, True
        dashboard.open("/")
        saved(page, "empty")
        dashboard.expect("401", "503")
