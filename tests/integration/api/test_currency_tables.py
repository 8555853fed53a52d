"""Tables of the terminal in another currency: every amount at one rate, told once; JSON and CSV
stay in USD."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from bench.synthetic_cells import Fleet
from rich.console import Console

from gpu_token_analytics.budgets.desk import BudgetDesk
from gpu_token_analytics.budgets.watch import BudgetWatch
from gpu_token_analytics.costs.rates import NewRate, append_rate
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.sentences import in_usd, with_unit, worded
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.terminal import money, top
from gpu_token_analytics.terminal.support import dollars

from .conftest import Api, commands_at, served
from .test_api_commands import runner

START = datetime(2026, 1, 30, tzinfo=UTC)
NOON = START + timedelta(hours=12)
RANGE = ("--from", START.isoformat(), "--to", (START + timedelta(hours=20)).isoformat())
COMMANDS = (
    ("owners", "idle", *RANGE, "--share", "by_use"),
    ("teams", "costs", *RANGE),
    ("break-even", "0.6", *RANGE),
    ("budgets", "list"),
    ("prices", "list"),
    ("hints",),
    ("budgets", "status"),
    ("budgets", "alerts"),
)

WITHOUT_ROWS = {("hints",): "nothing stands out", ("budgets", "alerts"): "nothing was told yet"}


@pytest.fixture(scope="module")
def made(make_store: Callable[[], tuple[Store, Settings]]) -> Iterator[Api]:
    """A day of a small fleet, a budget, a price, and EUR at 0.5, from noon on at 0.9."""
    store, settings = make_store()
    with served(store, settings, Fleet(gpus=2, gpus_per_host=2), START, 1440) as api:
        desk = api.services.desk
        for units, since in (("0.5", datetime(2026, 1, 1, tzinfo=UTC)), ("0.9", NOON)):
            append_rate(
                desk, NewRate(currency="EUR", units_per_usd=Decimal(units), valid_from=since), "cli"
            )
        run = runner(store, settings)
        run("prices", "add", "2.50")
        run("budgets", "set", "all", "1000", "--period", "month")
        yield api


def numbers(text: str) -> list[Decimal]:
    return [
        Decimal(found.replace(",", "")) for found in re.findall(r"(?<![\w.:-])[\d,]+\.\d+", text)
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_tables_are_in_the_currency_and_files_are_not(
    made: Api, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    commands_at(START + timedelta(days=1), monkeypatch)
    run = runner(made.store, made.settings)
    for kind in ("--json", "--csv"):
        plain, asked = (run(*command, kind, *more).stdout for more in ((), ("--currency", "EUR")))
        assert plain == asked, "in USD"
    usd, eur = (run(*command, "--wide", *more).stdout for more in ((), ("--currency", "EUR")))
    note = "in EUR at 1 USD = 0.9 EUR, since 2026-01-30T12:00:00Z"
    assert eur.count(note) == 1
    assert ("the rate changed within this range" in eur) == (RANGE[0] in command)
    if command in WITHOUT_ROWS:
        assert usd.splitlines()[1].startswith(WITHOUT_ROWS[command])
        return
    assert re.search(r"USD|\$", usd.splitlines()[1])
    headings = eur.splitlines()[1]
    assert "EUR" in headings
    assert not {"USD", "$"} & set(re.findall(r"USD|\$", headings))


@pytest.mark.parametrize(
    "command",
    [
        ("break-even", "0.6", *RANGE),
        ("break-even", "60", *RANGE, "--usd-per-gpu-hour", "1.3"),
    ],
)
def test_sentences_have_their_amounts_in_the_currency_of_the_table(
    made: Api, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    commands_at(START + timedelta(days=1), monkeypatch)
    run = runner(made.store, made.settings)
    rows = json.loads(run(*command, "--json").stdout)["rows"]
    usd, eur = (run(*command, "--wide", *more).stdout for more in ((), ("--currency", "EUR")))
    amounts = 0
    for row in rows:
        pieces = row["sentence"]
        assert in_usd(pieces) == row["says"]
        assert row["says"] in usd
        converted = [
            piece
            if isinstance(piece, str)
            else int((piece * Decimal("0.9")).to_integral_value(ROUND_HALF_EVEN))
            for piece in pieces
        ]
        assert worded(converted, lambda nano: with_unit(nano, "EUR")) in eur
        amounts += sum(isinstance(piece, int) for piece in pieces)
    assert amounts > 0
    header = run(*command, "--csv").stdout.splitlines()[0].split(",")
    assert ("says" in header, "sentence" in header) == (True, False)


def test_what_was_told_of_a_budget_can_be_read_in_another_currency(made: Api) -> None:
    run = runner(made.store, made.settings)
    run("budgets", "set", "little", "1", "--at", "5,1,100,20", "--no-forecast")
    desk = made.services.desk
    budgets = BudgetDesk.over(desk)
    BudgetWatch(budgets.store, budgets.spending, (), desk.now).look()
    body = made.reader.get("/v1/budgets/alerts").json()["alerts"]
    of_it = [row for row in body if row["budget"] == "little"]
    assert [row["percent"] for row in of_it] == [100, 20, 5, 1], "of one look the highest first"
    told = of_it[0]
    amounts = [piece for piece in told["sentence"] if isinstance(piece, int)]
    assert amounts == [told["spent_nusd"], told["limit_nusd"]]
    assert told["text"].endswith(in_usd(told["sentence"]))
    lines = run("budgets", "alerts", "--currency", "EUR").stdout.splitlines()
    assert "limit EUR" in lines[1]
    assert " 0.900000 " in next(line for line in lines if " little " in line)
    assert lines[-1].startswith("in EUR at 1 USD = 0.9 EUR")
    run("budgets", "remove", "little")


def test_an_amount_is_converted_to_the_last_place(made: Api) -> None:
    shown = money.shown_in(made.services.desk, "EUR", START, NOON)
    assert (shown.code, shown.units_per_usd, shown.changed) == ("EUR", Decimal("0.5"), False)
    for nusd in (0, 1, 3, 7_000_001, 123_456_789_012_345):
        half = int((nusd * Decimal("0.5")).to_integral_value(ROUND_HALF_EVEN))
        assert shown.amount(nusd) == dollars(half)
    assert (shown.amount(None), shown.ratio(None)) == ("-", "-")
    assert (shown.ratio(4.0), shown.per("M")) == ("2.000", "EUR/M")
    assert money.shown_in(made.services.desk, "USD") is money.USD


def test_a_currency_without_a_rate_is_refused_with_the_way_to_say_one(made: Api) -> None:
    run = runner(made.store, made.settings)
    failed = run("hints", "--currency", "GBP", fails=True)
    said = str(failed.exception)
    assert said.startswith("currency=GBP: ")
    assert "`gpu-tokens rates add GBP UNITS_PER_USD" in said


def test_a_rate_for_all_the_history_is_called_so(made: Api) -> None:
    run = runner(made.store, made.settings)
    run("rates", "add", "CHF", "0.8")
    text = run("budgets", "list", "--currency", "CHF").stdout
    assert "in CHF at 1 USD = 0.8 CHF, for all the history" in text
    assert "1970" not in text


def test_usd_is_no_other_currency_and_small_letters_are_a_code(made: Api) -> None:
    run = runner(made.store, made.settings)
    for command in (("report", *RANGE), ("export", *RANGE), ("teams", "costs", *RANGE)):
        plain = run(*command).stdout
        assert run(*command, "--currency", "USD").stdout == plain
        assert run(*command, "--currency", "usd").stdout == plain
        euro = run(*command, "--currency", "EUR").stdout
        assert euro != plain
        assert run(*command, "--currency", "eur").stdout == euro
    span = {"from": RANGE[1], "to": RANGE[3], "group_by": "class"}
    costs = made.reader.get("/v1/costs", params=span).json()
    body = made.reader.get("/v1/costs/converted", params={**span, "currency": "USD"}).json()
    assert body["totals"]["total_nano"] == costs["totals"]["money"]["total_nusd"]
    assert [rate["units_per_usd"] for rate in body["rates"]] == ["1"]


def test_both_periods_of_a_comparison_are_at_one_rate(made: Api) -> None:
    run = runner(made.store, made.settings)
    after = ("--from", NOON.isoformat(), "--to", (NOON + timedelta(hours=6)).isoformat())
    words = ("report", "--by", "model", *after, "--compare")
    body = json.loads(run(*words, "--json").stdout)
    assert run(*words, "--json", "--currency", "EUR").stdout == run(*words, "--json").stdout
    lines = run(*words, "--currency", "EUR").stdout.splitlines()
    (total,) = [line for line in lines if line.startswith("total ")]
    for side in ("money", "before"):
        nusd = body["totals"][side]["total_nusd"]
        assert f" {dollars(nusd * 9 // 10)} " in total
    assert "in EUR at 1 USD = 0.9 EUR" in lines[-1]
    assert "the rate changed within this range" in lines[-1], "the period before had another"


def test_money_of_a_csv_says_of_which_currency_it_is(made: Api) -> None:
    run = runner(made.store, made.settings)
    text = run("report", "--by", "class", *RANGE, "--currency", "EUR", "--csv").stdout
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["currency"] for row in rows} == {"EUR"}
    body = json.loads(run("report", "--by", "class", *RANGE, "--currency", "EUR", "--json").stdout)
    assert [int(row["money.total_nano"]) for row in rows] == [
        row["money"]["total_nano"] for row in body["rows"]
    ]
    table = run("report", "--by", "class", *RANGE, "--currency", "EUR").stdout
    assert "each hour is at the rate that held then" in table
    morning = ("--from", START.isoformat(), "--to", NOON.isoformat())
    assert "each hour" not in run("report", *morning, "--currency", "EUR").stdout


def test_top_is_in_the_currency(made: Api) -> None:
    desk = made.services.desk
    console = Console(width=160, height=40, record=True)
    texts = []
    for currency in (None, "EUR"):
        shown = money.shown_in(desk, currency)
        console.print(top.screen(*top.snapshot(desk), "h", console, 0, shown)[0])
        texts.append(console.export_text())
    usd, eur = texts
    (spend,) = re.findall(r"([\d.,]+) \$/h", usd.splitlines()[0])
    assert f"{float(spend) * 0.9:,.2f} EUR/h" in eur
    assert "0.9 EUR, since" in eur
    assert "$" not in eur
    assert Collection.EXCHANGE_RATES.value in made.store.database.list_collection_names()
