"""Who cannot use a mouse, or does not see the colours, gets the same answers.

What ran: axe-core (the WCAG 2.0, 2.1 and 2.2 rules of levels A and AA and its best practices,
contrast included) on every page, light and dark, on a desktop and a phone; keyboard tests; a
simulation of colour blindness over the colours of the classes (Machado et al. 2009, severity 1.0,
differences as CIE76 in CIELAB); reduced motion. What a machine cannot judge, such as whether a text
is clear, did not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from tests.e2e.dashboard_support import DESKTOP, PHONE, SHOTS, Watched, watched
from tests.e2e.fake_api import FakeApi
from tests.e2e.fake_fleet import CLASSES
from tests.e2e.fake_gpus import REQUEST_ID
from tests.serving import serving

from gpu_token_analytics import web

pytestmark = pytest.mark.browser

SHOWN = (
    "/",
    "/models",
    "/tenants",
    "/gpus",
    "/gpus?view=timelines",
    "/gpus?view=table",
    "/request",
    f"/request?id={REQUEST_ID}",
    "/idle?share=by_use",
    "/?compare=1&range=yesterday",
    "/budgets",
    "/break-even?price=*%3D0.6/0.3/2.4",
    "/prices",
    "/quality",
)
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
Color = tuple[float, float, float]


def violations(page: Page) -> list[str]:
    """What axe finds, one line for each element."""
    options = {"runOnly": {"type": "tag", "values": list(RULES)}, "resultTypes": ["violations"]}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{rule['id']}: {node['target']} {node.get('failureSummary', '')[:200]}"
        for rule in found
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_on_any_page(
    browser: Browser, fake: FakeApi, scheme: str, size: tuple[int, int]
) -> None:
    found: dict[str, list[str]] = {}
    with (
        serving(fake.app) as url,
        watched(browser, url, size, color_scheme=scheme, reduced_motion="reduce") as dashboard,
    ):
        for path in SHOWN:
            page = dashboard.open(path)
            page.click("#live")  # paused: axe reads a page that stands still
            found[path] = violations(page)
        dashboard.page.click("#range-button")
        found["range menu"] = violations(dashboard.page)
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_axe_finds_nothing_in_menus_errors_and_the_key_dialog(browser: Browser) -> None:
    fake = FakeApi(keys={"gta_good": None})
    found: dict[str, list[str]] = {}
    with serving(fake.app) as url, watched(browser, url) as dashboard:
        page = dashboard.page
        page.goto(url)
        page.wait_for_selector("#key-dialog")
        found["dialog"] = violations(page)
        page.fill("#key-input", "gta_good")
        page.keyboard.press("Enter")
        page.wait_for_selector("#where")
        page.click("#filters-button")
        page.click("#filter-model > summary")
        found["filters"] = violations(page)
        fake.broken = {"/v1/quality": 503}
        dashboard.open("/quality")
        found["error"] = violations(page)
        fake.broken, fake.empty = {}, True
        dashboard.open("/models")
        found["empty"] = violations(page)
        dashboard.expect("401", "503")
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_axe_check_can_fail(dashboard: Watched) -> None:
    page = dashboard.open("/quality")
    page.click("#live")  # paused: an update would take the button away again
    page.evaluate("document.querySelector('#content').append(document.createElement('button'))")
    assert any(line.startswith("button-name") for line in violations(page))


def test_the_first_tab_stop_skips_to_the_content(dashboard: Watched) -> None:
    page = dashboard.open("/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_everything_is_reached_by_tab_and_shows_its_focus(dashboard: Watched) -> None:
    page = dashboard.open("/models")
    page.focus(".skip")
    reached: set[str] = set()
    for _ in range(90):
        page.keyboard.press("Tab")
        at = page.evaluate(
            "() => { const e = document.activeElement; const s = getComputedStyle(e);"
            "return {id: e.id || e.tagName, ring: s.outlineStyle !== 'none' && "
            "parseFloat(s.outlineWidth) >= 2} }"
        )
        if at["id"] == "BODY":
            break
        assert at["ring"] or at["id"] == "main", f"{at['id']} has the focus and does not show it"
        reached.add(at["id"])
    wanted = {
        "nav-gpus",
        "live",
        "theme",
        "range-button",
        "filters-button",
        "group-tenant",
        "groups-sort-tokens",
        "export",
        "metric-tokens",
    }
    assert wanted <= reached


def test_menus_open_and_close_from_the_keyboard_and_give_the_focus_back(dashboard: Watched) -> None:
    page = dashboard.open("/")
    page.focus("#range-button")
    page.keyboard.press("Enter")
    expect(page.locator("#range-7d")).to_be_visible()
    page.focus("#range-7d")
    page.keyboard.press("Enter")
    page.wait_for_url("**range=7d**")
    expect(page.locator("#range-button")).to_be_focused()
    expect(page.locator("#range-7d")).to_be_hidden()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator("#range-7d")).to_be_hidden()


def test_a_chart_is_read_with_the_arrow_keys_and_zoomed_with_enter(dashboard: Watched) -> None:
    page = dashboard.open("/")
    page.click("#live")
    page.focus("#idle-chart svg.chart")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    last = dashboard.text("#idle-chart-readout")
    assert "Warm idle $" in last
    assert page.locator("#idle-chart-readout").get_attribute("aria-live") == "polite"
    page.keyboard.press("ArrowLeft")
    assert dashboard.text("#idle-chart-readout") != last
    page.keyboard.press("Enter")
    page.wait_for_url("**from=**")


def test_a_refresh_keeps_the_focus_and_what_is_being_typed(dashboard: Watched) -> None:
    page = dashboard.open("/request")
    page.fill("#request-id", "half a requ")
    # Asked in the same breath: this page has nothing to fetch, so it may be over before anybody
    # else could look.
    busy = page.evaluate(
        "dispatchEvent(new Event('statechange')), document.getElementById('main').ariaBusy"
    )
    assert busy == "true", "it was drawn again"
    dashboard.settled()
    assert page.input_value("#request-id") == "half a requ"
    dashboard.open("/")
    page.focus("#idle-chart svg.chart")
    page.wait_for_timeout(1500)  # several live figures
    assert page.evaluate("document.activeElement.classList.contains('chart')")


def test_arrows_move_in_the_grid_and_tab_leaves_it(dashboard: Watched, fake: FakeApi) -> None:
    page = dashboard.open("/gpus")
    page.click("#live")
    first, second, last = (fake.fleet.gpus[index].id for index in (0, 1, 7))
    page.focus(f"[id='gpu-{first}']")
    page.keyboard.press("ArrowRight")
    expect(page.locator(f"[id='gpu-{second}']")).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator(f"[id='gpu-{last}']")).to_be_focused()
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.id") not in (f"gpu-{last}", "")
    page.keyboard.press("Enter")
    page.wait_for_selector("#gpu-detail")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.gpu-grid')") is None


def test_every_chart_has_its_figures_as_a_table(dashboard: Watched) -> None:
    for path in ("/", "/models", "/quality"):
        page = dashboard.open(path)
        page.click("#live")
        charts = page.locator("figure.figure-chart")
        charts.first.wait_for()
        for chart in charts.all():
            chart.locator("summary").click()
            assert chart.locator("tbody tr").count() >= 24
            assert chart.locator("svg.chart").get_attribute("aria-label")


def test_only_one_region_speaks_and_it_does_not_repeat_live_figures(dashboard: Watched) -> None:
    page = dashboard.open("/")
    assert page.locator("[aria-live=polite], [aria-live=assertive], [role=status]").count() == 1
    said = page.inner_text("#status")
    page.wait_for_timeout(1500)
    assert page.inner_text("#status") == said


def test_reduced_motion_stops_the_animation(browser: Browser, fake: FakeApi) -> None:
    with serving(fake.app) as url, watched(browser, url, reduced_motion="reduce") as dashboard:
        page = dashboard.open("/quality")
        assert page.evaluate("document.getAnimations().length") == 0


# Colours

# https://www.inf.ufrgs.br/~oliveira/pubs_files/CVD_Simulation/CVD_Simulation.html, severity 1.0,
# linear RGB
_MACHADO = {
    "normal": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
    "grey": ((0.2126, 0.7152, 0.0722),) * 3,
}
LEAST_DIFFERENCE = 12.0  # about five just noticeable differences
LEAST_IN_GREY = 4.0  # there the patterns carry the meaning


def _linear(hex_color: str) -> Color:
    def channel(text: str) -> float:
        value = int(text, 16) / 255
        return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)

    return channel(hex_color[1:3]), channel(hex_color[3:5]), channel(hex_color[5:7])


def _lab(color: Color) -> Color:
    rows = (
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.0721750),
        (0.0193339, 0.1191920, 0.9503041),
    )
    white = (0.95047, 1.0, 1.08883)

    def f(value: float) -> float:
        return value ** (1 / 3) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116

    x, y, z = (f(_dot(row, color) / reference) for row, reference in zip(rows, white, strict=True))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _dot(row: Sequence[float], color: Color) -> float:
    return sum(a * b for a, b in zip(row, color, strict=True))


def _seen(color: Color, matrix: Sequence[Sequence[float]]) -> Color:
    red, green, blue = (min(1.0, max(0.0, _dot(row, color))) for row in matrix)
    return red, green, blue


def _palette(scheme: str) -> dict[str, str]:
    css = (Path(web.__file__).parent / "static/css/tokens.css").read_text()
    found = re.findall(r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", css)
    return {name: light if scheme == "light" else dark for name, light, dark in found}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("vision", _MACHADO)
def test_classes_are_told_apart_by_colour_whatever_the_eye(scheme: str, vision: str) -> None:
    palette = _palette(scheme)
    labs = {name: _lab(_seen(_linear(palette[name]), _MACHADO[vision])) for name in CLASSES}
    least = LEAST_IN_GREY if vision == "grey" else LEAST_DIFFERENCE
    close = {
        f"{one}/{other}": round(math.dist(labs[one], labs[other]), 1)
        for one, other in combinations(CLASSES, 2)
        if math.dist(labs[one], labs[other]) < least
    }
    assert close == {}


def test_classes_have_a_letter_a_height_and_a_pattern_besides(dashboard: Watched) -> None:
    page = dashboard.open("/?money=all")
    fills = page.evaluate(
        "[...new Set([...document.querySelectorAll('#idle-chart .part')].map(e => "
        "e.getAttribute('fill')))]"
    )
    assert sorted(fills) == sorted(f"url(#fill-{name})" for name in CLASSES)
    marked = page.evaluate(
        "[...document.querySelectorAll('.patterns pattern')].filter(e => "
        "e.querySelector('.mark')).map(e => e.id)"
    )
    assert sorted(marked) == ["fill-cold_idle", "fill-unmetered_work", "fill-unobserved"]


def test_what_axe_ran_is_written_down(dashboard: Watched) -> None:
    """The list of rules that were checked, for who asks; in test-logs/dashboard/axe-rules.json."""
    page = dashboard.open("/")
    options = {"runOnly": {"type": "tag", "values": list(RULES)}}
    answer = Axe().run(page, options=options).response
    passed = sorted({rule["id"] for rule in answer["passes"]})
    SHOTS.mkdir(parents=True, exist_ok=True)
    engine = answer["testEngine"]
    (SHOTS / "axe-rules.json").write_text(
        json.dumps(
            {
                "engine": engine,
                "passed": passed,
                "incomplete": [rule["id"] for rule in answer["incomplete"]],
            },
            indent=1,
        )
    )
    assert {
        "color-contrast",
        "landmark-one-main",
        "page-has-heading-one",
        "scrollable-region-focusable",
    } <= set(passed)
