"""The modules that make figures, run in the browser they are for: money without doubles, time
zones, ranges, the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page
from tests.e2e.dashboard_support import watched
from tests.e2e.fake_api import FakeApi
from tests.serving import serving

from gpu_token_analytics.web.assets import digest, load

pytestmark = pytest.mark.browser


class Modules:
    """`call('format', 'money', value)`: a function of js/core/. Integers go over as BigInt when
    they are long."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._root = f"/assets/{digest(load())}/js/core/"

    def call(self, module: str, function: str, *arguments: Any) -> Any:
        script = """async ([url, name, texts]) => {
          const { parseJson } = await import(new URL('json.js', new URL(url, location.href)).href);
          const found = await import(url);
          return found[name](...texts.map(parseJson));
        }"""
        return self._page.evaluate(
            script,
            [f"{self._root}{module}.js", function, [json.dumps(value) for value in arguments]],
        )


@pytest.fixture(scope="module")
def modules(browser: Browser) -> Iterator[Modules]:
    with serving(FakeApi(gpus=1).app) as url, watched(browser, url) as dashboard:
        yield Modules(dashboard.open("/prices"))


@pytest.mark.parametrize(
    ("function", "arguments", "shown"),
    [
        ("count", [0], "0"),
        ("count", [705], "705"),
        ("count", [1_200], "1.20K"),
        ("count", [14_996_000], "15.0M"),
        ("count", [24_812_000], "24.8M"),
        ("quantity", [0, "W"], "0 W"),
        ("quantity", [55, "W"], "55.0 W"),
        ("quantity", [7.5, "GiB"], "7.50 GiB"),
        ("quantity", [376.6, "W"], "377 W"),
        ("duration", [31.4], "31 ms"),
        ("duration", [4.6], "4.60 ms"),
        ("duration", [2_200], "2.20 s"),
        ("duration", [185_000], "3 min 5 s"),
    ],
)
def test_figures_below_one_another_have_the_same_digits(
    modules: Modules, function: str, arguments: list[Any], shown: str
) -> None:
    """`15M` below `24.8M` looked like a coarser measurement."""
    assert modules.call("format", function, *arguments).replace("\u00a0", " ") == shown


@pytest.mark.parametrize(
    ("nusd", "shown"),
    [
        (0, "$0"),
        (1, "$0.000000001"),
        (2_120, "$0.00000212"),
        (23_236_074, "$0.0232"),
        (600_000_000, "$0.60"),
        (999_999_999, "$1.00"),
        (1_234_560_000_000, "$1,234.56"),
        (-1_204_118, "\u2212$0.0012"),
        (123_456_789_000_000_000, "$123,456,789"),
        (2**63 + 1, "$9,223,372,037"),
    ],
)
def test_money(modules: Modules, nusd: int, shown: str) -> None:
    assert modules.call("format", "money", nusd) == shown


def test_crumbs_in_a_column_of_dollars_do_not_look_measured(modules: Modules) -> None:
    script = (
        "async ([url, column]) => { const f = (await import(url)).moneyLike(column); return "
        "column.map(f) }"
    )
    page, url = modules._page, f"{modules._root}format.js"
    assert page.evaluate(script, [url, [4_620_000_000, 16_700, 0, 48_000_000]]) == [
        "$4.62",
        "<$0.01",
        "$0",
        "$0.05",
    ]
    assert page.evaluate(script, [url, [16_700, 48_000_000]]) == ["$0.0000167", "$0.048"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(nusd=st.integers(-(2**70), 2**70))
def test_exact_money_has_every_nano_dollar_whatever_its_size(modules: Modules, nusd: int) -> None:
    shown = modules.call("format", "moneyExact", nusd)
    assert (
        int(shown.replace("\u2212", "-").replace("$", "").replace(",", "").replace(".", "")) == nusd
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(st.integers(0, 10**18), min_size=1, max_size=7).filter(any))
def test_shares_of_a_bar_always_sum_to_all(modules: Modules, parts: list[int]) -> None:
    script = "async ([url, texts]) => (await import(url)).permille(texts.map(BigInt))"
    page, root = modules._page, modules._root
    assert sum(page.evaluate(script, [f"{root}format.js", [str(part) for part in parts]])) == 1000


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        ("2020-01-01T00:00Z", "2020-01-02T06:30Z", "1 Jan 2020 00:00 – 2 Jan 2020 06:30"),
        ("2020-01-01T00:00Z", "2020-01-01T06:00Z", "1 Jan 2020 00:00 – 06:00"),
        ("{now}-03-01T00:00Z", "{now}-03-02T00:00Z", "1 Mar 00:00 – 2 Mar 00:00"),
        ("2019-12-31T00:00Z", "{now}-03-02T00:00Z", "31 Dec 2019 00:00 – 2 Mar {now} 00:00"),
        ("2019-03-01T00:00Z", "2020-03-01T02:00Z", "1 Mar 2019 00:00 – 1 Mar 2020 02:00"),
    ],
)
def test_a_range_names_its_year_where_it_is_not_this_one(
    modules: Modules, low: str, high: str, shown: str
) -> None:
    now = str(datetime.now(UTC).year)
    ends = (datetime.fromisoformat(text.format(now=now)).timestamp() * 1000 for text in (low, high))
    state = {"preset": None, "zone": "UTC", "range": dict(zip(("from", "to"), ends, strict=True))}
    assert modules.call("time", "rangeText", state) == shown.format(now=now)


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (0.11, "$0.110"),
        (0.0348, "$0.0348"),
        (12.44, "$12.4"),
        (1240.4, "$1,240"),
        (0, "$0"),
        (0.00000071, "$0.000000710"),
    ],
)
def test_rates_have_three_digits(modules: Modules, rate: float, shown: str) -> None:
    assert modules.call("format", "rate", rate) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0, "0\u00a0%"),
        (1, "100\u00a0%"),
        (0.0001, "<0.1\u00a0%"),
        (0.99999, ">99.9\u00a0%"),
        (0.523, "52.3\u00a0%"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(
    modules: Modules, share: float, shown: str
) -> None:
    assert modules.call("format", "percent", share) == shown


def test_long_integers_of_the_wire_stay_exact(modules: Modules) -> None:
    script = """async ([root, text]) => {
      const { parseJson } = await import(root + 'json.js');
      const found = parseJson(text);
      return [String(found.a), String(found.b), found.c, found.d, found.e];
    }"""
    text = (
        '{"a": 9007199254740993, "b": -12345678901234567890, "c": 0.1234567890123456789, "d": '
        '"1234567890123456789", "e": 1e21}'
    )
    got = modules._page.evaluate(script, [modules._root, text])
    assert got == [
        "9007199254740993",
        "-12345678901234567890",
        0.12345678901234568,
        "1234567890123456789",
        1e21,
    ]


@pytest.mark.parametrize(
    ("zone", "wall", "utc"),
    [
        ("Europe/Berlin", "2026-01-31T12:00", "2026-01-31T11:00:00Z"),
        ("Europe/Berlin", "2026-07-01T12:00", "2026-07-01T10:00:00Z"),
        # the hour before was skipped
        ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T01:00:00Z"),
        ("Asia/Kolkata", "2026-01-31T00:00", "2026-01-30T18:30:00Z"),
        ("America/St_Johns", "2026-01-31T00:00", "2026-01-31T03:30:00Z"),
    ],
)
def test_a_wall_clock_reading_becomes_the_right_instant(
    modules: Modules, zone: str, wall: str, utc: str
) -> None:
    instant = modules.call("time", "fromInput", wall, zone)
    assert modules.call("time", "iso", instant) == utc
    assert modules.call("time", "toInput", instant, zone) == wall


def test_days_have_23_to_25_hours_where_clocks_change(modules: Modules) -> None:
    span = {"from": 1_774_652_400_000, "to": 1_774_908_000_000}  # 28 to 31 March 2026, Berlin
    days = modules.call("time", "bucketStarts", span, "1d", "Europe/Berlin")
    assert [(b - a) / 3_600_000 for a, b in pairwise(days)] == [24, 23]


def test_presets_of_days_start_on_whole_hours(modules: Modules) -> None:
    now = 1_769_861_112_000  # 2026-01-31T12:05:12Z
    day = modules.call("time", "presetRange", "24h", "UTC", now)
    assert (modules.call("time", "iso", day["from"]), modules.call("time", "iso", day["to"])) == (
        "2026-01-30T12:00:00Z",
        "2026-01-31T12:05:00Z",
    )
    yesterday = modules.call("time", "presetRange", "yesterday", "Europe/Berlin", now)
    assert modules.call("time", "iso", yesterday["from"]) == "2026-01-29T23:00:00Z"


def test_events_of_a_stream_survive_any_cut(modules: Modules) -> None:
    script = """async ([url, size]) => {
      const { readEvents } = await import(url);
      const text = 'event: live\\ndata: {"a":\\ndata: "é"}\\n\\n: comment\\n\\n'
        + 'event: heartbeat\\r\\ndata: {}\\r\\n\\r\\n';
      const bytes = new TextEncoder().encode(text);
      const body = new ReadableStream({ start(c) {
        for (let i = 0; i < bytes.length; i += size) c.enqueue(bytes.slice(i, i + size));
        c.close();
      } });
      const found = [];
      for await (const event of readEvents(body)) found.push([event.type, event.data]);
      return found;
    }"""
    for size in (1, 2, 3, 7, 1000):
        found = modules._page.evaluate(script, [f"{modules._root}live.js", size])
        assert [event for event in found if event[1]] == [
            ["live", '{"a":\n"é"}'],
            ["heartbeat", "{}"],
        ]
