"""Words mean one thing on every page: what idle is, which time a figure speaks of, when there is
nothing."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser
from tests.e2e.dashboard_support import Watched, watched
from tests.e2e.fake_api import FakeApi
from tests.serving import serving

pytestmark = pytest.mark.browser


def dollars(text: str) -> float:
    return float(re.findall(r"\$([\d,]+(?:\.\d+)?)", text)[0].replace(",", ""))


def test_idle_is_warm_cold_and_unobserved_on_every_page(dashboard: Watched) -> None:
    """Unmetered work is its own word: the GPU worked."""
    page = dashboard.open("/")
    fills = page.evaluate(
        "[...new Set([...document.querySelectorAll('#idle-chart .part')].map(e => "
        "e.getAttribute('fill')))]"
    )
    assert sorted(fills) == [
        "url(#fill-cold_idle)",
        "url(#fill-unobserved)",
        "url(#fill-warm_idle)",
    ]
    rows = dict(
        page.eval_on_selector_all(
            ".identity-table tbody tr",
            (
                "rows => rows.map(r => [r.querySelector('.class-label').textContent, "
                "r.cells[1].textContent])"
            ),
        )
    )
    idle = sum(dollars(rows[name]) for name in ("Warm idle", "Cold idle", "Unobserved"))
    unmetered = dollars(rows["Unmetered work"])
    assert unmetered > 0.1

    page = dashboard.open("/models")
    foot = dict(
        page.evaluate(
            """() => {
              const cells = row => [...document.querySelector(row).cells].map(c => c.textContent);
              const names = cells('#groups-scroll thead tr');
              const values = cells('#groups-scroll tfoot tr');
              return names.map((name, index) => [name.replace(/[^A-Za-z]/g, ''), values[index]]);
            }"""
        )
    )
    foot = {
        word: value
        for name, value in foot.items()
        for word in ("Idle", "Unmetered")
        if name.startswith(word)
    }
    assert dollars(foot["Idle"]) == pytest.approx(idle, abs=0.03)
    assert dollars(foot["Unmetered"]) == pytest.approx(unmetered, abs=0.02)

    today, whole = re.findall(r"\$[\d,.]+", dashboard.open("/gpus").inner_text("#gpus-idle .sub"))
    assert dollars(today) < dollars(whole)
    share = float(dashboard.text("#gpus-idle .figure").removesuffix("%").strip())
    assert share == pytest.approx(100 * dollars(today) / dollars(whole), abs=0.2)


@pytest.mark.parametrize(
    ("path", "figures", "said"),
    [
        ("/", "#now-tiles", r"Now: \d\d:\d\d to \d\d:\d\d"),
        ("/models?range=7d", "#sums", "Last 7 days"),
        ("/tenants", "#sums", "Last 24 hours"),
        ("/gpus", "#gpus-now", r"Now, and today since midnight \(Europe/Berlin\)"),
        ("/quality?range=30d", "#quality-figures", "Last 30 days"),
    ],
)
def test_figures_say_which_time_they_speak_of(
    dashboard: Watched, path: str, figures: str, said: str
) -> None:
    page = dashboard.open(path)
    assert re.fullmatch(said, page.inner_text(f"{figures}-over"))
    assert re.fullmatch(said, page.get_attribute(figures, "aria-label") or "")


@pytest.mark.parametrize("path", ["/", "/models", "/tenants", "/quality"])
def test_an_empty_range_is_empty(browser: Browser, path: str) -> None:
    fake = FakeApi()
    fake.empty = True
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.open(path)
        assert "Nothing in this range" in page.inner_text(".panel.empty")
        assert page.locator("#where, #list, #idle").count() == 0
