"""What FinOps people look at: figures as the API tells them, rules stated, rows written by
forms."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.e2e.dashboard_support import watched
from tests.e2e.fake_api import FakeApi
from tests.serving import serving

pytestmark = pytest.mark.browser


def nanos(page: Page, selector: str) -> list[int]:
    """Exact money of the elements that say it: nano-USD."""
    titles = page.locator(selector).evaluate_all("nodes => nodes.map((node) => node.title)")
    return [int(Decimal(re.sub(r"[$,]", "", title)).scaleb(9)) for title in titles]


def test_idle_money_by_owner_and_shared_out_add_up(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
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
    with serving(fake.app) as url, watched(browser, url) as dashboard:
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
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/idle?share=by_use")
        assert "Nothing in this range" in page.inner_text("#content")
        assert page.locator("#idle-owners-scroll, #shared-rows-scroll, #owner-form").count() == 0


@pytest.mark.parametrize(("path", "groups"), [("/", 5), ("/models", 3), ("/tenants", 5)])
def test_a_period_stands_beside_the_one_before(
    browser: Browser, fake: FakeApi, path: str, groups: int
) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open(f"{path}?range=yesterday")
        assert page.locator("#compared").count() == 0
        page.click("#compare")
        page.wait_for_selector("#compared")
        assert "compare=1" in page.url, "a link opens the same view"
        columns = [
            nanos(page, f"#compared-rows-scroll tbody td:nth-child({n}) [title]") for n in (2, 3, 4)
        ]
        totals = [
            nanos(page, f"#compared-rows-scroll tfoot td:nth-child({n}) [title]")[0]
            for n in (2, 3, 4)
        ]
        assert len(columns[0]) >= groups
        assert [sum(column) for column in columns] == totals
        assert totals[0] - totals[1] == totals[2]
        assert min(totals[:2]) > 0
        total = page.inner_text("#compared-rows-scroll tfoot td:nth-child(6)")
        assert re.match(r"[\d.]+[KMB]?\s+[\d.]+[KMB]? before", total), total
        asked = [line for line in fake.asked if line.startswith("/v1/costs/compared")]
        assert asked
        assert "Before: " in page.inner_text("#compared > .hint")
        assert page.locator("#compared-chart svg.chart path.line").count() == 2
        said = page.inner_text("#where-since" if path == "/" else "#sum-attributed .sub")
        assert re.search(r"[+−][\d.]+\s%\son \$[\d,.]+ before", said.replace("\u00a0", " ")), said


def test_weeks_and_months_are_those_of_the_zone(browser: Browser) -> None:
    fake = FakeApi(now=datetime(2026, 3, 11, 14, 5, tzinfo=UTC))  # a Wednesday
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.page
        page.clock.set_fixed_time(fake.fleet.now)
        expected = {
            "lastmonth": ("2026-02-01T05:00:00Z", "2026-03-01T05:00:00Z"),
            "month": ("2026-03-01T05:00:00Z", "2026-03-11T14:05:00Z"),
            # the clock was set forward
            "lastweek": ("2026-03-02T05:00:00Z", "2026-03-09T04:00:00Z"),
            "week": ("2026-03-09T04:00:00Z", "2026-03-11T14:05:00Z"),
        }
        for preset, (start, end) in expected.items():
            fake.asked.clear()
            dashboard.open(f"/models?range={preset}&tz=America/New_York")
            asked = parse_qs(
                next(line for line in fake.asked if line.startswith("/v1/costs?")).partition("?")[2]
            )
            assert (asked["from"], asked["to"]) == ([start], [end]), preset
        page.click("#range-button")
        assert "America/New_York" in page.inner_text("#range .menu-panel > .hint")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/models",
        "/tenants",
        "/gpus",
        "/request",
        "/idle",
        "/budgets",
        "/break-even",
        "/prices",
        "/quality",
    ],
)
def test_every_page_hands_out_files(browser: Browser, fake: FakeApi, path: str) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open(f"{path}?range=yesterday")
        page.click("#downloads-button")
        assert page.locator("#downloads button").count() == 4
        with page.expect_download() as waiting:
            page.click("#download-focus")
        assert waiting.value.suggested_filename == "gpu-tokens-focus.csv"
        asked = parse_qs(
            [line for line in fake.asked if line.startswith("/v1/export")][-1].partition("?")[2]
        )
        assert (asked["layout"], asked["format"]) == (["focus"], ["csv"])


def test_hints_say_what_they_saw_and_lead_to_it(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/idle")
        assert nanos(page, "#hint-rows-scroll tbody td:nth-child(2) [title]")[0] == 139_440_000_001
        text = page.inner_text("#hints")
        assert "Coverage of node-2 fell to 62.0 %" in text
        assert "and 2 more" in text
        gpus = len(fake.fleet.gpus)
        assert f"is known of 1 of {gpus} GPUs" in page.inner_text("#hints-unknown")
        assert "a jump is of one day" in page.inner_text("#hints .reasons")
        page.click("#hint-thresholds > summary")
        assert "at most this share of a GPU's money of the week is used. 0.01" in page.inner_text(
            "#hint-thresholds"
        )
        gpu = fake.fleet.gpus[0].id
        dashboard.follow(f"#hint-rows-scroll tbody tr:first-child a:text-is('{gpu}')")
        assert parse_qs(page.url.partition("?")[2])["show"] == [gpu]
        fake.broken = {"/v1/hints": 503}
        page = dashboard.open("/idle")
        assert page.locator("#idle-by-owner").count() == 1, "the page stands without hints"
        dashboard.expect("503")


def test_a_rate_is_said_by_the_form(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/prices?tz=UTC")
        assert page.locator("#currency").count() == 0, "no rate, no switch"
        page.fill("#rate-currency", "EUR")
        page.fill("#rate-units", "0.92")
        page.fill("#rate-from", "2026-01-01T00:00")
        page.click("#rate-form-submit")
        expect(page.locator("#rate-form-message")).to_contain_text(
            "Said: a USD is worth 0.92 EUR from 1 Jan 2026, 00:00."
        )
        expect(page.locator("#rate-rows-scroll")).to_contain_text("0.92")
        page.click("#currency-button")
        dashboard.follow("#currency-EUR")
        assert "1 USD = 0.92 EUR, the rate since" in page.inner_text("#currency-note")


def test_own_gpus_stand_against_a_price_list_that_the_link_keeps(
    browser: Browser, fake: FakeApi
) -> None:
    fake.finops.low_volume_tokens = 10**12
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/break-even?range=yesterday&tz=UTC")
        assert page.locator("#answer").count() == 0
        page.fill("#api-input-0", "0.1")
        page.click("#api-price-submit")
        expect(page.locator("#api-price-message")).to_contain_text(
            "Give input, cached and output together"
        )
        page.fill("#api-cached-0", "0.05")
        page.fill("#api-output-0", "0.4")
        page.click("#api-price-submit")
        page.wait_for_selector("#answer")
        model = page.locator("#api-prices legend").first.inner_text()
        assert parse_qs(page.url.partition("?")[2])["price"] == [f"{model}=0.1/0.05/0.4"]
        sentences = page.inner_text("#sentences")
        assert f"win for {model}: " in sentences or f"wins for {model}: " in sentences
        assert "low volume" in page.inner_text("#break-even-rows-scroll")
        assert "no tokens, or no API price" in page.inner_text("#answer .reasons")
        again = dashboard.open(page.url.removeprefix(url))
        assert again.input_value("#api-output-0") == "0.4", "a link opens the same view"


def test_the_same_figure_has_the_same_value_on_every_page(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        selection = "range=yesterday&tz=UTC"
        page = dashboard.open(f"/?{selection}&compare=1")
        names = page.locator("#compared-rows-scroll tbody th").all_inner_texts()
        of_class = dict(
            zip(
                names,
                nanos(page, "#compared-rows-scroll tbody td:nth-child(2) [title]"),
                strict=True,
            )
        )
        attributed = page.locator("#where").get_by_role("row", name="Attributed").inner_text()
        figures = []
        for path in ("/models", "/tenants"):
            page = dashboard.open(f"{path}?{selection}&compare=1")
            figures.append(page.inner_text("#sum-attributed .figure"))
            assert nanos(page, "#compared-rows-scroll tfoot td:nth-child(2) [title]") == [
                sum(of_class.values())
            ]
        assert figures[0] == figures[1]
        assert figures[0] in attributed
        page = dashboard.open(f"/idle?{selection}&share=by_use")
        idle = sum(of_class[name] for name in ("Warm idle", "Cold idle", "Unobserved"))
        assert nanos(page, "#idle-owners-scroll tfoot td:nth-child(2) [title]") == [idle]
        causes = nanos(page, "#idle-owners-scroll tfoot td:nth-child(n+3):nth-child(-n+5) [title]")
        assert causes == [of_class[name] for name in ("Warm idle", "Cold idle", "Unobserved")]
        assert nanos(page, "#shared-rows-scroll tfoot td:nth-child(2) [title]") == [
            of_class["Attributed"]
        ]
        assert nanos(page, "#idle-owners-scroll tfoot td:nth-child(6) [title]") == [
            of_class["Unmetered work"]
        ]


@pytest.mark.parametrize("path", ["/", "/models", "/tenants", "/idle", "/break-even"])
def test_an_empty_range_shows_no_figure(browser: Browser, fake: FakeApi, path: str) -> None:
    fake.empty = True
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open(
            f"{path}?range=lastmonth&compare=1&currency=EUR&share=evenly&price=*%3D1/1/1"
        )
        text = page.inner_text("#content")
        assert "Nothing in this range" in text
        money = re.findall(
            r"\$[\d,.]+",
            page.inner_text("#content").replace(page.inner_text("#now"), "")
            if path == "/"
            else text,
        )
        assert money == [], f"{path}: an empty range is empty, not 0"


def test_what_waits_says_what_is_of_the_range_and_what_is_of_now(
    browser: Browser, fake: FakeApi
) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        dashboard.open("/quality?range=yesterday&tz=UTC")
        said = dashboard.text("#q-pending .sub")
        assert said.startswith("cells of the range to compute; in the whole ledger, now: ")
        assert "oldest due 0 s ago" not in said
