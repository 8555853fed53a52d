"""The page in another currency: the same nano-USD, each figure converted at one rate that is told
once, on every page and in every link."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.e2e.dashboard_support import DESKTOP, PHONE, saved, watched
from tests.e2e.fake_api import FakeApi
from tests.e2e.fake_gpus import REQUEST_ID
from tests.e2e.test_dashboard_accessibility import violations
from tests.serving import serving

pytestmark = pytest.mark.browser

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
PRICES = "price=*%3D0.6/0.3/2.4"
PAGES = (
    "/?range=yesterday",
    "/models?range=yesterday",
    "/tenants?range=yesterday",
    "/gpus?range=yesterday",
    "/gpus?range=yesterday&view=table",
    f"/request?id={REQUEST_ID}",
    "/idle?range=yesterday&share=by_use",
    "/budgets?range=yesterday",
    f"/break-even?range=yesterday&{PRICES}",
    "/quality?range=yesterday",
    "/?range=yesterday&compare=1",
)
# Where money is told in the ledger's own unit, or typed in: the note says so.
IN_USD = "svg, #identity-exact, form, #hint-thresholds"


def told(fake: FakeApi, currency: str, units: str, since: datetime) -> None:
    """A rate, as if somebody had said it."""
    row = {"id": f"rate-{len(fake.finops.rates)}", "currency": currency, "units_per_usd": units}
    fake.finops.rates.insert(
        0, {**row, "valid_from": since, "created_at": fake.fleet.now, "source": "api"}
    )


def shown(page: Page) -> str:
    """The content without what stays in USD, and without drawings, whose ticks differ."""
    return str(
        page.evaluate(
            """(left) => {
              const copy = document.querySelector('#content').cloneNode(true);
              copy.querySelectorAll(left).forEach((node) => node.remove());
              return copy.textContent;
            }""",
            IN_USD,
        )
    )


def exact(page: Page, sign: str) -> list[Decimal]:
    """Exact money of the page, from titles."""
    titles = page.locator("#content [title]").evaluate_all("nodes => nodes.map((n) => n.title)")
    pattern = re.compile(rf"\u2212?{re.escape(sign)}([\d,]+\.\d{{9}})")
    return [
        Decimal(found[1].replace(",", "")) for title in titles if (found := pattern.match(title))
    ]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_shows_its_money_in_the_currency_of_the_address(
    browser: Browser, fake: FakeApi, path: str
) -> None:
    told(fake, "EUR", "0.915", NEW_YEAR)
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open(f"{path}&tz=UTC")
        page.click("#live")
        in_usd, dollars = exact(page, "$"), shown(page).count("$")
        assert dollars > 0
        assert page.locator("#currency-note").count() == 0
        page = dashboard.open(f"{path}&tz=UTC&currency=EUR")
        page.click("#live")
        text = shown(page)
        assert "$" not in text, re.findall(r".{30}\$.{20}", text)
        assert text.count("€") == dollars
        nano = Decimal("1e-9")
        assert exact(page, "€") == [
            (value * Decimal("0.915")).quantize(nano, ROUND_HALF_EVEN) for value in in_usd
        ]
        assert dashboard.text("#currency-note") == (
            "Money is in EUR: 1 USD = 0.915 EUR, the rate since 1 Jan 2026, 00:00. Forms stay in "
            "USD."
        )
        assert page.inner_text("main").count("0.915") == 1, "the rate is told once"
        spend = page.locator(".live-spend")
        assert spend.count() == 0 or spend.inner_text().startswith("€")


def test_the_switch_is_kept_by_links_navigation_and_the_way_back(
    browser: Browser, fake: FakeApi
) -> None:
    told(fake, "EUR", "0.5", NEW_YEAR)
    told(fake, "CHF", "0.8", NEW_YEAR)
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/?range=yesterday&tz=UTC")
        dollars = page.inner_text("#where tfoot td")
        page.keyboard.press("Tab")
        page.focus("#currency-button")
        page.keyboard.press("Enter")
        assert page.locator("#currency .options button").all_inner_texts() == ["USD", "CHF", "EUR"]
        page.focus("#currency-CHF")
        page.keyboard.press("Enter")
        expect(page.locator("#where tfoot td").first).to_contain_text("CHF")
        dashboard.follow("#nav-models")
        assert parse_qs(urlsplit(page.url).query)["currency"] == ["CHF"]
        expect(page.locator("#sum-attributed .figure")).to_contain_text("CHF")
        dashboard.follow("#nav-prices")
        assert "CHF\u00a0" in page.inner_text("#book"), "prices are money, too"
        assert "given" in page.inner_text("#book")
        again = dashboard.open(page.url.removeprefix(url))
        assert "CHF" in again.inner_text("#currency-note"), "a saved link opens the same view"
        dashboard.follow("#nav-overview")
        page.click("#currency-button")
        dashboard.follow("#currency-USD")
        expect(page.locator("#where tfoot td").first).to_have_text(dollars)
        assert "currency" not in page.url
        page.go_back()
        expect(page.locator("#where tfoot td").first).to_contain_text("CHF")


def test_a_rate_that_changed_within_the_range_is_said_and_each_hour_has_its_own_in_a_table(
    browser: Browser, fake: FakeApi
) -> None:
    midnight = fake.fleet.now.replace(hour=0, minute=0)
    told(fake, "EUR", "0.5", NEW_YEAR)
    told(fake, "EUR", "0.9", midnight - timedelta(hours=12))
    told(fake, "EUR", "2", midnight)
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        for path in ("/", "/models", "/tenants"):
            page = dashboard.open(f"{path}?range=yesterday&tz=UTC&currency=EUR")
            note = dashboard.text("#currency-note")
            assert "1 USD = 0.9 EUR" in note, "that of the end of the range, not today's"
            assert "The rate changed within this range" in note
            assert "In EUR, each hour at its own rate" in page.inner_text("#converted")
            assert "half to even" in page.inner_text("#converted > .hint")
            money = [
                Decimal(title.removesuffix(" EUR").replace(",", ""))
                for title in page.locator(
                    "#converted-rows-scroll td:nth-child(2) [title]"
                ).evaluate_all("nodes => nodes.map((node) => node.title)")
            ]
            assert sum(money[:-1]) == money[-1] > 0, "rows and their sum"
            page.click("#compare")
            expect(page.locator("#compared > .hint")).to_contain_text("Both at the rate above.")
        with dashboard.page.expect_request("**/v1/export?*") as asked:
            dashboard.page.click("#export")
        query = parse_qs(urlsplit(asked.value.url).query)
        assert (query["currency"], query["group_by"]) == (["EUR"], ["tenant"])
        span = "&".join(
            f"{name}={midnight - timedelta(hours=hours):%Y-%m-%dT%H:%M:00Z}"
            for name, hours in (("from", 2), ("to", 1))
        )
        page = dashboard.open(f"/?{span}&tz=UTC&currency=EUR")
        assert "1 USD = 0.9 EUR" in dashboard.text("#currency-note")
        assert page.locator("#converted").count() == 0, "one rate needs no second table"


def test_a_currency_without_a_rate_is_said_and_money_stays_in_usd(
    browser: Browser, fake: FakeApi
) -> None:
    told(fake, "EUR", "0.5", fake.fleet.now + timedelta(days=1))
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        for code in ("EUR", "XAU", "nonsense"):
            page = dashboard.open(f"/?range=yesterday&tz=UTC&currency={code}")
            assert f"There is no rate of {code} at the end" in dashboard.text("#currency-note")
            assert page.inner_text("#where tfoot td").startswith("$")
        fake.finops.rates.clear()
        page = dashboard.open("/?range=yesterday&tz=UTC")
        assert page.locator("#currency").count() == 0, "no rate, no switch"


def test_axis_labels_are_round_in_the_shown_currency(browser: Browser, fake: FakeApi) -> None:
    told(fake, "EUR", "0.37", NEW_YEAR)
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/?range=yesterday&tz=UTC&money=all&currency=EUR")
        labels = page.locator("#idle-chart .tick[text-anchor=end]").all_text_contents()
        amounts = [Decimal(label.removeprefix("€")) for label in labels]
        assert amounts[0] == 0
        step = amounts[1]
        assert step.normalize().as_tuple().digits in ((1,), (2,), (5,), (2, 5))
        assert amounts == [step * index for index in range(len(amounts))]


def test_money_in_another_currency_is_rounded_as_the_api_rounds(
    browser: Browser, fake: FakeApi
) -> None:
    script = """async ([url, units, texts]) => {
      const found = await import(url);
      found.showIn({ currency: 'EUR', units_per_usd: units });
      return texts.map((text) => String(found.inShown(BigInt(text))));
    }"""
    values = [0, 1, -1, 3, 5, -5, 7, 10**9, 123_456_789_012_345, -(2**70)]
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/prices")
        root = page.locator("script[type=module]").first.get_attribute("src")
        assert root is not None
        module = "/" + root.replace("main.js", "core/currency.js")
        for units in ("0.5", "0.915", "1", "151.123456789", "0.000000001"):
            found = page.evaluate(script, [module, units, [str(value) for value in values]])
            assert json.loads(f"[{','.join(found)}]") == [
                int((value * Decimal(units)).to_integral_value(ROUND_HALF_EVEN)) for value in values
            ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_in_another_currency(
    browser: Browser, fake: FakeApi, size: tuple[int, int], scheme: str
) -> None:
    told(fake, "CHF", "0.8", NEW_YEAR)
    told(fake, "EUR", "0.9", NEW_YEAR)
    found = {}
    with (
        serving(fake.app) as url,
        watched(browser, url, size, color_scheme=scheme, reduced_motion="reduce") as dashboard,
    ):
        page = dashboard.page
        for path in ("/?range=yesterday&", "/prices?", "/models?range=yesterday&"):
            dashboard.open(f"{path}currency=EUR")
            page.click("#live")
            found[path] = violations(page)
            name = re.sub(r"\W", "", path.partition("?")[0]) or "overview"
            saved(page, f"{name}-eur-{size[0]}-{scheme}")
        page.click("#currency-button")
        found["menu"] = violations(page)
        saved(page, f"currency-menu-{size[0]}-{scheme}", full_page=False)
    assert {path: lines for path, lines in found.items() if lines} == {}
