"""The dashboard in a real Chromium: pages, live figures, the address as state, keys, errors. Data:
tests/e2e/fake_api.py."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, expect
from tests.e2e.dashboard_support import PHONE, Watched, watched
from tests.e2e.fake_api import FakeApi
from tests.e2e.fake_fleet import CLASSES
from tests.e2e.fake_gpus import REQUEST_ID
from tests.serving import serving

pytestmark = pytest.mark.browser

PAGES = {
    "/": "Overview",
    "/models": "Models",
    "/tenants": "Tenants",
    "/gpus": "GPUs",
    "/request": "Request",
    "/idle": "Idle",
    "/budgets": "Budgets",
    "/break-even": "Break-even",
    "/prices": "Prices",
    "/quality": "Quality",
}


def query(dashboard: Watched) -> dict[str, list[str]]:
    return parse_qs(urlsplit(dashboard.page.url).query)


@pytest.mark.parametrize(("path", "title"), PAGES.items())
def test_every_page_loads_without_errors_or_foreign_requests(
    dashboard: Watched, path: str, title: str
) -> None:
    page = dashboard.open(path)
    assert dashboard.text("h1") == title
    assert page.locator("#content").inner_text().strip()
    assert page.locator(".panel.error").count() == 0
    assert page.locator(f"nav a[aria-current=page]:text-is('{title}')").count() == 1
    expect(page.locator("#live-text")).to_have_text("Live")


def test_pages_are_reached_without_loading_a_document(dashboard: Watched) -> None:
    page = dashboard.open("/")
    page.evaluate("window.sameDocument = true")
    for title in list(PAGES.values())[1:]:
        dashboard.follow(f"nav a:text-is('{title}')")
        expect(page.locator("h1")).to_have_text(title)
        expect(page.locator("h1")).to_be_focused()  # a screen reader hears where it is
        assert title in page.title()
    assert page.evaluate("window.sameDocument") is True


def test_live_figures_move_without_reloading(dashboard: Watched) -> None:
    page = dashboard.open("/")
    page.evaluate("window.sameDocument = true")
    expect(page.locator("#now-tokens .figure")).not_to_have_text(
        page.inner_text("#now-tokens .figure")
    )
    assert page.evaluate("window.sameDocument") is True


def test_pause_stops_the_stream_and_resume_starts_it(dashboard: Watched, fake: FakeApi) -> None:
    page = dashboard.open("/")
    expect(page.locator("#live-text")).to_have_text("Live")
    page.click("#live")
    expect(page.locator("#live-text")).to_have_text("Paused")
    held = dashboard.text("#now-tokens .figure")
    page.wait_for_timeout(1500)
    assert dashboard.text("#now-tokens .figure") == held
    assert fake.streams_open == 0
    page.click("#live")
    expect(page.locator("#live-text")).to_have_text("Live")


def test_a_hidden_tab_asks_for_nothing(dashboard: Watched, fake: FakeApi) -> None:
    page = dashboard.open("/")
    expect(page.locator("#live-text")).to_have_text("Live")
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    expect(page.locator("#live-text")).to_have_text("Paused")
    page.wait_for_timeout(300)
    asked = len(fake.asked)
    page.wait_for_timeout(1500)
    assert len(fake.asked) == asked
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#live-text")).to_have_text("Live")


def test_without_a_stream_the_page_polls_and_still_shows_figures(
    dashboard: Watched, fake: FakeApi
) -> None:
    fake.stream_works = False
    page = dashboard.open("/")
    expect(page.locator("#live-text")).to_have_text("Every 15 s")
    assert dashboard.text("#now-spend .figure").startswith("$")
    dashboard.expect("503")


def test_the_identity_fills_the_bar_and_adds_up(dashboard: Watched, fake: FakeApi) -> None:
    page = dashboard.open("/?range=6h")
    shares = [
        float(text.replace(",", ""))
        for text in re.findall(r"([\d.]+)\s%", page.locator(".identity-table tbody").inner_text())
    ]
    assert len(shares) == len(CLASSES)
    assert round(sum(shares), 1) == 100.0
    bar = page.evaluate(
        "() => { const bar = document.querySelector('.identity'); const box = "
        "bar.getBoundingClientRect();"
        "return {bar: box.width, end: bar.lastElementChild.getBoundingClientRect().right - "
        "box.left} }"
    )
    assert abs(bar["bar"] - bar["end"]) < 0.5
    page.click("#identity-exact summary")
    exact = [
        int(text.replace(",", "").replace(".", ""))
        for text in re.findall(r"\$([\d,]+\.\d{9})", page.inner_text("#identity-exact"))
    ]
    *classes, total, owned, difference = exact
    assert sum(classes) == total == owned
    assert difference == 0


def test_a_filter_shows_what_it_leaves_out_and_lives_in_the_address(dashboard: Watched) -> None:
    page = dashboard.open("/?range=6h")
    page.click("#filters-button")
    page.click("#filter-model > summary")
    page.locator("#filter-model input[type=checkbox]").first.check()
    page.wait_for_selector(".chip")
    dashboard.settled()
    assert query(dashboard)["model"]
    assert "Left out by the filter" in page.inner_text(".identity-table")
    before = page.inner_text(".identity-table")
    page.keyboard.press("Escape")
    page.reload()
    dashboard.settled()
    assert page.inner_text(".identity-table") == before
    dashboard.follow("nav a:text-is('Tenants')")
    assert query(dashboard)["model"], "a filter goes along to other pages"
    page.click(".chip")
    page.wait_for_selector(".chip", state="detached")
    assert "model" not in query(dashboard)


def test_range_view_and_order_survive_reload_and_back(dashboard: Watched) -> None:
    page = dashboard.open("/models")
    page.click("#range-button")
    page.click("#range-6h")
    page.wait_for_url("**range=6h**")
    dashboard.settled()
    page.click("#group-tenant")
    page.wait_for_url("**group=tenant**")
    dashboard.settled()
    page.click("#groups-sort-tokens")
    page.wait_for_url("**sort=tokens.desc**")
    page.reload()
    dashboard.settled()
    assert page.locator("#group-tenant").get_attribute("aria-pressed") == "true"
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("Tokens")
    assert "Last 6 hours" in dashboard.text("#range-button")
    page.go_back()
    dashboard.settled()
    expect(page.locator("#group-")).to_have_attribute("aria-pressed", "true")
    page.go_back()
    dashboard.settled()
    expect(page.locator("#range-button")).to_contain_text("Last 24 hours")


def test_a_custom_range_is_in_the_address_in_utc(dashboard: Watched) -> None:
    page = dashboard.open("/models")
    page.click("#range-button")
    start = page.input_value("#range-from")
    page.fill("#range-from", start[:11] + "10:00")
    page.fill("#range-to", start[:11] + "09:00")
    page.click("#range-apply")
    assert "later" in page.inner_text("#range-error")
    page.fill("#range-to", start[:11] + "11:30")
    page.click("#range-apply")
    page.wait_for_url("**from=**")
    dashboard.settled()
    asked = query(dashboard)
    assert asked["from"][0].endswith("Z")
    assert "10:00" in dashboard.text("#range-button")
    assert "11:30" in dashboard.text("#range-button")


def test_a_range_too_fine_is_refused_with_the_nearest_accepted_one(dashboard: Watched) -> None:
    page = dashboard.open("/?range=7d&bucket=1m")
    assert "at most 6 hours" in page.inner_text(".panel.error")
    page.click("#nearest")
    dashboard.settled()
    page.wait_for_selector("#where")
    dashboard.expect("400")


def test_a_gpu_opens_in_place_and_closes_again(dashboard: Watched, fake: FakeApi) -> None:
    gpu = fake.fleet.gpus[3].id
    page = dashboard.open("/gpus")
    dashboard.follow(f"[id='gpu-{gpu}']")
    page.wait_for_selector("#gpu-detail")
    assert query(dashboard)["show"] == [gpu]
    assert page.locator("#gpu-timeline svg.chart .part").count() > 24
    page.click("#gpu-close")
    page.wait_for_selector("#gpu-detail", state="detached")


def test_a_request_traces_to_cells_gpus_and_price_rows(dashboard: Watched) -> None:
    page = dashboard.open("/request")
    page.fill("#request-id", REQUEST_ID)
    page.click("#request-find")
    page.wait_for_selector("#cells-0")
    dashboard.settled()
    cells = [
        int(text.replace(".", ""))
        for text in re.findall(r"\$(\d\.\d{9})", page.inner_text("#cell-table-0-scroll tbody"))
    ]
    costs = cells[0::2]  # cost and its prefill part alternate
    total = page.locator("#cell-table-0-scroll tfoot").inner_text()
    assert f"{sum(costs) / 1e9:.9f}" in total
    assert f"{sum(costs) / 1e9:.9f}" in page.inner_text("#cost-0")
    page.locator("#cells-0 td a:has(code)").first.click()
    expect(page.locator("tr.asked")).to_have_count(1)


def test_gpus_of_requests_are_called_as_on_the_page_gpus(dashboard: Watched, fake: FakeApi) -> None:
    """A UUID says nothing to whoever sent `gpu-node-01/0`."""
    gpu = fake.fleet.gpus[0]
    page = dashboard.open("/request")
    options = page.locator("#recent-gpu option")
    assert options.all_inner_texts()[:2] == [f"{gpu.host} / 0", f"{gpu.host} / 1"]
    assert options.first.get_attribute("value") == gpu.id
    page = dashboard.open(f"/request?id={REQUEST_ID}")
    link = page.locator("#cell-table-0-scroll tbody td a").first
    assert link.inner_text() == f"{gpu.host} / 0"
    assert link.get_attribute("title") == gpu.id
    fake.broken = {"/v1/gpus": 503}
    page = dashboard.open(f"/request?id={REQUEST_ID}")
    assert page.locator("#cell-table-0-scroll tbody td a").first.inner_text() == gpu.id
    dashboard.expect("503")


def test_an_unknown_request_says_what_to_do(dashboard: Watched) -> None:
    page = dashboard.open("/request?id=nothing-like-it")
    assert "RAW_RETENTION_DAYS" in page.inner_text(".panel.empty")
    dashboard.expect("404")


def test_a_price_is_added_only_after_a_second_look(dashboard: Watched, fake: FakeApi) -> None:
    page = dashboard.open("/prices")
    rows = len(fake.prices)
    page.select_option("#price-scope", "host")
    page.fill("#price-key", "gpu-node-01")
    page.fill("#price-usd", "1.875")
    page.fill("#price-from", "2026-01-01T00:00")
    page.click("#price-submit")
    assert "begins in the past" in page.inner_text("#price-message")
    assert len(fake.prices) == rows
    page.click("#price-submit")
    page.wait_for_selector("#price-message .good")
    expect(page.locator("#prices-scroll tbody tr")).to_have_count(rows + 1)
    stored = next(row for row in fake.prices if row["usd_per_hour"] == "1.875")
    assert (stored["scope"], stored["key"], stored["valid_to"]) == ("host", "gpu-node-01", None)
    assert stored["valid_from"] == "2025-12-31T23:00:00Z"  # the form is in the chosen zone


def test_a_reader_without_admin_sees_no_form(dashboard: Watched, fake: FakeApi) -> None:
    fake.scopes = ["read"]
    page = dashboard.open("/prices")
    assert page.locator("#price-submit").count() == 0
    assert "admin" in page.inner_text("#add-price")


def test_unknown_is_a_dash_with_its_reason_never_zero(dashboard: Watched) -> None:
    page = dashboard.open("/models?range=6h")
    row = page.locator("tr.none-row")
    assert row.locator("td.number").nth(3).inner_text().startswith("–")
    assert "no tokens in this range" in page.inner_text("#groups-scroll + .reasons")


def test_no_data_says_what_to_do_next(dashboard: Watched, fake: FakeApi) -> None:
    fake.empty = True
    page = dashboard.open("/")
    assert "gpu-tokens agent" in page.inner_text(".panel.empty")
    assert page.inner_text("#now-spend .figure").startswith("–")
    for path in ("/models", "/gpus", "/prices", "/quality"):
        dashboard.open(path)
        assert page.locator(".panel.empty").count() == 1, path


def test_an_outage_shows_the_reason_and_keeps_older_figures(
    dashboard: Watched, fake: FakeApi
) -> None:
    fake.broken = {"/v1/costs": 503}
    page = dashboard.open("/models")
    assert "MONGODB_URI" in page.inner_text(".panel.error")
    fake.broken = {}
    page.click("#retry")
    page.wait_for_selector("#groups-scroll")
    fake.broken = {"/v1/costs": 503}
    page.click("#range-button")
    page.click("#range-6h")
    page.wait_for_selector("#stale")
    assert page.locator("#groups-scroll").count() == 1
    dashboard.expect("503")


def test_a_key_is_asked_for_kept_in_the_tab_and_can_be_forgotten(browser: Browser) -> None:
    fake = FakeApi(keys={"gta_good": None})
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.page
        page.goto(url)
        page.wait_for_selector("#key-dialog")
        expect(page.locator("#key-input")).to_be_focused()
        page.fill("#key-input", "gta_wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-error")).to_contain_text("not accepted")
        page.fill("#key-input", "gta_good")
        page.keyboard.press("Enter")
        page.wait_for_selector("#where")
        assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
        expect(page.locator("#live-text")).to_have_text("Live")  # the stream has the key too
        page.reload()
        page.wait_for_selector("#where")
        page.click("#key")
        page.click("#key-forget")
        page.wait_for_selector("#key-dialog")
        assert page.evaluate("sessionStorage.length") == 0
        assert page.locator("#where").count() == 0
        dashboard.expect("401")


def test_a_tenants_key_sees_its_own_pages_only(browser: Browser) -> None:
    fake = FakeApi(keys={"gta_t": "search"})
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        dashboard.page.add_init_script("sessionStorage.setItem('gpu-tokens-key', 'gta_t')")
        page = dashboard.open("/")
        assert page.locator("nav a").all_inner_texts() == [
            "Overview",
            "Models",
            "Tenants",
            "Request",
            "Budgets",
        ]
        assert "Tenant search" in page.inner_text("#where")
        assert page.locator(".identity").count() == 0
        for path in ("/models", "/tenants", "/budgets", "/request", f"/request?id={REQUEST_ID}"):
            dashboard.open(path)
            assert page.locator(".panel.error").count() == 0, path
        assert page.locator("#cells-0 td a").count() == 0, (
            "no link to GPUs or prices it may not see"
        )


def test_engines_are_listed_with_their_coverage(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/quality")
        rows = page.locator("#engines-table-scroll tbody tr").all_inner_texts()
        assert [row.split("\t")[0] for row in rows] == ["node2:30000 sglang", "node1:8000 vllm"]
        assert "placements add node2:30000" in rows[0]
        assert "1,234,567" in rows[1]
        assert "100" in rows[1]


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url, color_scheme="dark") as dashboard:
        page = dashboard.open("/quality")
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.click("#theme")
        light = page.evaluate(background)
        assert light != dark
        page.reload()
        dashboard.settled()
        assert page.evaluate(background) == light


@pytest.mark.parametrize(
    "path", [*PAGES, f"/request?id={REQUEST_ID}", "/gpus?view=timelines", "/gpus?view=table"]
)
def test_nothing_sticks_out_on_a_phone(browser: Browser, fake: FakeApi, path: str) -> None:
    with serving(fake.app) as url, watched(browser, url, PHONE) as dashboard:
        page = dashboard.open(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        cut = page.evaluate(
            """() => [...document.querySelectorAll('.data th[scope=row]')]
                .filter((cell) => cell.scrollWidth > cell.clientWidth)
                .map((cell) => cell.innerText)"""
        )
        assert cut == [], "a row's name is whole"
        squeezed = page.evaluate(
            """() => [...document.querySelectorAll('.data tbody th[scope=row]')].filter((cell) => {
                const text = document.createRange();
                text.selectNodeContents(cell);
                const lines = new Set([...text.getClientRects()].map(({ top }) => Math.round(top)));
                return lines.size > 3 && cell.clientWidth < 0.4 * innerWidth;
            }).map((cell) => cell.innerText)"""
        )
        assert squeezed == [], "and has the room of a name"


def test_eight_hundred_gpus(browser: Browser) -> None:
    fake = FakeApi(gpus=800)
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open("/gpus")
        assert page.locator(".gpu-tile").count() == 800
        boxes = page.evaluate(
            "[...document.querySelectorAll('.gpu-tile')].map(e => [e.offsetWidth, e.offsetHeight])"
        )
        assert min(min(box) for box in boxes) >= 24, "a target is 24 px at least (WCAG 2.5.8)"
        assert page.evaluate("document.documentElement.scrollHeight") < 3 * 900
        assert page.locator(".gpu-tile[tabindex='0']").count() == 1, "one stop for the Tab key"
        dashboard.open("/gpus?host=gpu-node-07")
        assert page.locator(".gpu-tile").count() == 8


class Prefixed:
    """A reverse proxy that serves the application under a path."""

    def __init__(self, app: Any, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            assert path.startswith(self._prefix), f"{path} left the prefix"
            scope = {**scope, "path": path.removeprefix(self._prefix), "raw_path": b""}
        await self._app(scope, receive, send)


def test_it_works_behind_a_path_prefix(browser: Browser, fake: FakeApi) -> None:
    with (
        serving(Prefixed(fake.app, "/tools/gpu")) as url,
        watched(browser, f"{url}/tools/gpu") as dashboard,
    ):
        page = dashboard.open("/")
        expect(page.locator("#live-text")).to_have_text("Live")
        dashboard.follow("#nav-gpus")
        assert urlsplit(page.url).path == "/tools/gpu/gpus"
        page.reload()
        dashboard.settled()
        assert page.locator(".gpu-tile").count() == 8


def test_csv_comes_with_the_key(browser: Browser) -> None:
    fake = FakeApi(keys={"gta_good": None})
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        dashboard.page.add_init_script("sessionStorage.setItem('gpu-tokens-key', 'gta_good')")
        page = dashboard.open("/models")
        with page.expect_download() as download:
            page.click("#export")
        assert download.value.suggested_filename == "model-costs.csv"
