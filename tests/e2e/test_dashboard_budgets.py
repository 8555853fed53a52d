"""The page of budgets: figures as the API tells them, unknown as unknown, one is set and
removed."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect
from tests.e2e.dashboard_support import watched
from tests.e2e.fake_api import FakeApi
from tests.serving import serving

pytestmark = pytest.mark.browser


def test_budgets_are_shown_as_they_stand(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/budgets?sort=name.asc")
        rows = {
            row.split()[0]: row
            for row in page.locator("#budget-rows-scroll tbody tr").all_inner_texts()
        }
        assert list(rows) == ["chat-month", "everything", "llama-spend", "lost", "search-month"]
        assert "$8,244.12" in rows["everything"]
        assert "$17,900.00" in rows["everything"]
        assert "$17,200.00 to $18,650.00, 28 days seen" in rows["everything"]
        assert "82.4\u00a0%" in rows["search-month"]
        assert "80 % spent" in rows["search-month"]
        assert "forecast over limit" in rows["search-month"]
        assert "$0" not in rows["lost"], "unknown money is not 0"
        assert "101.0\u00a0%" in rows["chat-month"]
        reasons = page.inner_text("#budgets .reasons")
        assert "fewer than three days" in reasons
        assert "nobody sampled or declared" in reasons
        told = page.inner_text("#told")
        assert "webhook: failed" in told
        assert "answered 503 Service Unavailable; 3 attempts" in told
        assert "webhook, mail" in told


def test_a_budget_is_set_and_removed(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/budgets")
        page.fill("#budget-name", "new one")
        page.select_option("#budget-scope", "tenant")
        page.fill("#budget-key", "search")
        page.fill("#budget-usd", "12.5")
        page.select_option("#budget-period", "week")
        page.fill("#budget-at", "90, 100")
        page.uncheck("#budget-forecast")
        page.click("#budget-submit")
        expect(page.locator("#budget-message")).to_contain_text("Set: new one, $12.50 each week.")
        row = fake.budgets.rows[-1]
        assert (row["limit_nusd"], row["thresholds"], row["forecast_alert"]) == (
            12_500_000_000,
            [90, 100],
            False,
        )
        page.once("dialog", lambda dialog: dialog.accept())
        page.click("[id='remove-new one']")
        expect(page.locator("#budget-rows-scroll")).not_to_contain_text("new one")
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.click("#remove-everything")
        assert "everything" in {row["name"] for row in fake.budgets.rows}


def test_who_may_only_read_sets_and_removes_nothing(browser: Browser, fake: FakeApi) -> None:
    fake.scopes = ["read"]
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/budgets")
        assert page.locator("#budget-submit, [id^='remove-']").count() == 0
        assert page.locator("#budget-rows-scroll tbody tr").count() == 5


def test_teams_stand_below_their_tenants(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/tenants")
        text = page.inner_text("#teams")
        assert "shop\t$40.00\t90.0K\t120\tchat-frontend-of-the-web-shop, search" in text
        assert "No team\t$0.000000002" in text
        assert "All teams\t$40.00\t90.0K\t120\t" in text, "whatever adds up has a total"
