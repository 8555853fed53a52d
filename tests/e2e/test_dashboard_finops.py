"""What FinOps people look at: figures as the API tells them, rules stated, rows written by forms."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.e2e.dashboard_support import watched
from tests.e2e.fake_api import FakeApi
from tests.serving import Serving

pytestmark = pytest.mark.browser


def nanos(page: Page, selector: str) -> list[int]:
    """Exact money of the elements that say it: nano-USD."""
    titles = page.locator(selector).evaluate_all("nodes => nodes.map((node) => node.title)")
    return [int(Decimal(re.sub(r"[$,]", "", title)).scaleb(9)) for title in titles]


def test_idle_money_by_owner_and_shared_out_add_up(browser: Browser, fake: FakeApi) -> None:
    with Serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/idle")
        assert page.locator("#shared-rows-scroll").count() == 0
        rows = nanos(page, "#idle-owners-scroll tbody td:nth-child(2) [title]")
        (whole,) = nanos(page, "#idle-owners-scroll tfoot td:nth-child(2) [title]")
        assert len(rows) == 2
        assert sum(rows) == whole > 0
        classes = nanos(page, "#idle-owners-scroll tbody td:nth-child(n+3):nth-child(-n+5) [title]")
        assert sum(classes) == whole
        names = page.locator("#idle-owners-scroll tbody th").all_inner_texts()
        assert any("platform" in name and "CC-4711" in name for name in names)
        for rule in ("by_use", "evenly", "to_owner"):
            page.click(f"#share-{rule}")
            page.wait_for_selector(f"#share-{rule}[aria-pressed=true]")
            expect(page.locator("#shared-rows-scroll")).to_be_visible()
            assert nanos(page, "#shared-rows-scroll tfoot td:nth-child(3) [title]") == [whole]
            assert sum(nanos(page, "#shared-rows-scroll tbody td:nth-child(3) [title]")) == whole
            assert f"share={rule}" in page.url, "a link opens the same view"
            assert "never a part of attributed money" in page.inner_text("#shared")


def test_an_owner_is_named_by_the_form(browser: Browser, fake: FakeApi) -> None:
    with Serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/idle?tz=UTC")
        page.select_option("#owner-scope", "model")
        page.fill("#owner-key", "llama-3-8b")
        page.fill("#owner-team", "search")
        page.fill("#owner-from", "2026-01-31T12:30")
        page.click("#owner-form-submit")
        expect(page.locator("#owner-form-message")).to_contain_text(
            "Said: llama-3-8b belongs to search from 31 Jan 2026, 12:30."
        )
        expect(page.locator("#owner-rows-scroll")).to_contain_text("llama-3-8b")
        row = fake.finops.owners[0]
        assert (row["scope"], row["team"], row["cost_centre"], row["valid_from"]) == (
            "model",
            "search",
            None,
            "2026-01-31T12:30:00+00:00",
        )
        page.select_option("#owner-scope", "default")
        expect(page.locator("#owner-key")).to_be_hidden()


def test_nothing_idle_says_so_and_readers_write_nothing(browser: Browser, fake: FakeApi) -> None:
    fake.empty, fake.scopes = True, ["read"]
    with Serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/idle?share=by_use")
        assert "Nothing in this range" in page.inner_text("#content")
        assert page.locator("#idle-owners-scroll, #shared-rows-scroll, #owner-form").count() == 0
