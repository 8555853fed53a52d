"""The commands print what /v1 answers, from the same database."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from gpu_token_analytics.api.keys import KeyStore
from gpu_token_analytics.cli import app
from gpu_token_analytics.costs import report as costs_report
from gpu_token_analytics.costs.answers import CostsResponse
from gpu_token_analytics.costs.rates import NewRate, append_rate
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.mongo.client import Store
from gpu_token_analytics.settings import Settings
from gpu_token_analytics.terminal import commands, report, top
from gpu_token_analytics.terminal.support import dollars

from .conftest import NOW, START, Api, commands_at

FROM = START.isoformat()
TO = (START + timedelta(hours=5)).isoformat()
Run = Callable[..., Result]


def runner(store: Store, settings: Settings) -> Run:
    environment = {
        "MONGODB_URI": settings.mongodb_uri.get_secret_value(),
        "MONGODB_DATABASE": store.database.name,
        "COLUMNS": "220",
    }

    def run(*arguments: str, fails: bool = False) -> Result:
        found = CliRunner().invoke(app, list(arguments), env=environment)
        if not fails:
            assert found.exit_code == 0, (found.output, found.exception)
        return found

    return run


@pytest.fixture
def run(api: Api) -> Run:
    return runner(api.store, api.settings)


@pytest.fixture
def empty(make_store: Callable[[], tuple[Store, Settings]]) -> tuple[Store, Run]:
    store, settings = make_store()
    return store, runner(store, settings)


def test_report_json_is_the_answer_of_costs(api: Api, run: Run) -> None:
    printed = json.loads(
        run(
            "report", "--by", "model,tenant", "--from", FROM, "--to", TO, "--bucket", "1h", "--json"
        ).stdout
    )
    params: dict[str, Any] = {
        "from": FROM,
        "to": TO,
        "bucket": "1h",
        "group_by": ["model", "tenant"],
        "limit": 10_000,
    }
    answer = api.reader.get("/v1/costs", params=params).json()
    # the commands' clock is the server's, the fixture's stands still
    for body in (printed, answer):
        del body["as_of"]
        for row in [*body["rows"], body["totals"]]:
            del row["quality"]["provisional"]
    assert printed == answer


def test_the_report_shows_every_dollar(api: Api, run: Run) -> None:
    text = run("report", "--by", "gpu", "--from", FROM, "--to", TO).stdout
    cost = sum(
        cell["cost_nusd"] for cell in api.cells if cell["minute"] < START + timedelta(hours=5)
    )
    assert f"= {cost / 1e9:,.9f} USD = price x owned time" in text
    assert "GPU-0003" in text
    filtered = run(
        "report", "--by", "tenant", "--model", "model-1", "--from", FROM, "--to", TO
    ).stdout
    assert f"of {cost / 1e9:,.9f} USD" in filtered


@pytest.mark.parametrize(("bucket", "most"), [("none", 4), ("1h", 4), ("1h", 10_000)])
def test_of_more_groups_than_a_page_the_dearest_are_shown_and_the_others_are_one_row(
    api: Api, run: Run, monkeypatch: pytest.MonkeyPatch, bucket: str, most: int
) -> None:
    monkeypatch.setattr(commands, "LONGEST_PAGE", 4)
    monkeypatch.setattr(costs_report, "MAX_GROUPS", most)
    words = ("report", "--by", "tenant,model", "--from", FROM, "--to", TO, "--bucket", bucket)
    asked: dict[str, Any] = {"from": FROM, "to": TO, "group_by": ["tenant", "model"]}
    body = api.reader.get("/v1/costs", params={**asked, "bucket": bucket}).json()
    rows = sorted(body["rows"], key=lambda row: (row["bucket"], -row["money"]["total_nusd"]))
    assert rows[:3] != body["rows"][:3], "the dearest are not the first by name"
    lines = run(*words, "--limit", "3", "--wide").stdout.splitlines()
    shown = [re.split(r" {2,}", line.strip()) for line in lines[2:7]]
    for line, row in zip(lines[2:5], rows, strict=False):
        name, model = row["group"].values()
        assert f" {name or '(no known request)'} " in f" {line}"
        assert f" {model or '(no known request)'} " in line
        assert f" {dollars(row['money']['total_nusd'])} " in line
    total = body["totals"]["money"]["total_nusd"]
    hidden = total - sum(row["money"]["total_nusd"] for row in rows[:3])
    counted = bucket == "none" or most == 10_000
    more = f"{len(rows) - 3:,} more" if counted else "more"
    assert shown[3][:2] == [more, dollars(hidden)]
    assert shown[4][:2] == ["total", dollars(total)]
    assert "raise --limit" in lines[7]
    assert "more" not in run(*words, "--limit", str(len(rows))).stdout
    page = run(*words, "--json")
    assert len(json.loads(page.stdout)["rows"]) == 4
    assert "first 4 rows by name" in page.stderr
    monkeypatch.undo()
    assert run(*words, "--json").stderr == ""


@pytest.mark.parametrize("more", [("--compare",), ("--currency", "EUR")], ids=" ".join)
def test_rows_that_are_not_shown_are_one_row_in_every_kind_of_report(
    api: Api, run: Run, more: tuple[str, ...]
) -> None:
    append_rate(
        api.services.desk,
        NewRate(currency="EUR", units_per_usd=Decimal("0.5"), valid_from=START),
        "cli",
    )
    words = ("report", "--by", "tenant,model", "--from", FROM, "--to", TO, *more)
    body = json.loads(run(*words, "--json").stdout)
    key = "total_nusd" if "--compare" in more else "total_nano"
    amounts = sorted((row["money"][key] for row in body["rows"] if row["money"]), reverse=True)
    total = (body["totals"].get("money") or body["totals"])[key]
    assert sum(amounts) == total
    lines = run(*words, "--limit", "2").stdout.splitlines()
    shown = [re.split(r" {2,}", line.strip()) for line in lines[4:6]]
    assert [line[:2] for line in shown] == [
        [f"{len(amounts) - 2} more", dollars(sum(amounts[2:]))],
        ["total", dollars(total)],
    ]
    api.store[Collection.EXCHANGE_RATES].delete_many({})


def test_csv_is_the_export_and_lists_are_tables_of_their_json(api: Api, run: Run) -> None:
    """A pipe gets every column; figures of CSV are exact."""
    span = ("--by", "model", "--from", FROM, "--to", TO)
    assert run("report", *span, "--csv").stdout == run("export", *span, "--bucket", "none").stdout
    text = run("report", *span).stdout
    for heading in ("warm idle", "$/M in", "J/token"):
        assert heading in text
    assert "…" not in text
    for command, name in ((("prices", "list"), "prices"), (("keys", "list"), "keys")):
        rows = json.loads(run(*command, "--json").stdout)[name]
        assert len(run(*command, "--csv").stdout.splitlines()) == (len(rows) + 1 if rows else 1)
    gpus = json.loads(run("top", "--json").stdout)["gpus"]
    assert len(run("top", "--csv").stdout.splitlines()) == len(gpus) + 1


def test_a_taken_port_is_one_sentence_with_the_remedy(api: Api) -> None:
    environment = {
        **os.environ,
        "MONGODB_URI": api.settings.mongodb_uri.get_secret_value(),
        "MONGODB_DATABASE": api.store.database.name,
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "gpu_token_analytics", "api", "--port", str(port)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert f"HTTP_PORT={port}" in last
    assert "choose another port" in last


def test_an_empty_report_says_why(api: Api, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    commands_at(NOW, monkeypatch)
    text = run("report", "--from", FROM, "--to", TO, "--model", "nobody").stdout
    assert "leave a filter out" in text
    assert "processor" not in text
    later = run("report", "--period", "2026-03").stdout
    assert "has not begun: it is 2026-02-01T01:30:00Z" in later
    assert "processor" not in later


def test_an_empty_report_says_what_to_do(empty: tuple[Store, Run]) -> None:
    _, run = empty
    assert "is the processor running?" in run("report").stdout
    assert json.loads(run("top", "--json").stdout)["gpus"] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("report", "--by", "colour"), "--by colour"),
        (("report", "--last", "soon"), "--last='soon'"),
        (("report", "--from", "yesterday"), "--from='yesterday'"),
        (("report", "--from", TO, "--to", FROM), "is not after"),
        (("report", "--tz", "Mars/Base"), "time_zone='Mars/Base'"),
        (("export", "--layout", "focus", "--by", "model"), "leave group_by out"),
        (("prices", "add", "cheap"), "USD_PER_HOUR='cheap' is no decimal number"),
        (("prices", "add", "1", "--scope", "host"), "key=None is needed"),
        (("keys", "create", "x", "--scope", "root"), "read, ingest, placements, admin"),
        (("keys", "create", "x", "--scope", "admin", "--tenant", "a"), "leave out the tenant"),
        (("keys", "revoke", "00000000"), "no key of that id"),
        (("keys", "rotate", "00000000"), "no usable key"),
    ],
)
def test_mistakes_are_named(
    empty: tuple[Store, Run], arguments: tuple[str, ...], named: str
) -> None:
    found = empty[1](*arguments, fails=True)
    assert isinstance(found.exception, SettingsError)
    assert named in str(found.exception)


def test_files_hold_the_same_sums(api: Api, run: Run, tmp_path: Path) -> None:
    cost = sum(
        cell["cost_nusd"] for cell in api.cells if cell["minute"] < START + timedelta(hours=5)
    )
    table = tmp_path / "rows.parquet"
    run("export", str(table), "--from", FROM, "--to", TO, "--by", "model,gpu")
    assert sum(pq.read_table(table).column("total_nusd").to_pylist()) == cost
    focus = tmp_path / "focus.csv"
    run("export", str(focus), "--from", FROM, "--to", TO, "--layout", "focus", "--json")
    assert (
        sum(int(row["x_CostNanoUsd"]) for row in csv.DictReader(io.StringIO(focus.read_text())))
        == cost
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["focus.csv", "rows.parquet"]
    piped = run("export", "--from", FROM, "--to", TO).stdout
    assert sum(int(row["total_nusd"]) for row in csv.DictReader(io.StringIO(piped))) == cost


def test_a_file_has_the_format_of_its_ending_and_the_command_says_which(
    api: Api, run: Run, tmp_path: Path
) -> None:
    for name, kind in (("COSTS.PARQUET", "parquet"), ("costs.csv", "csv"), ("costs.xlsx", "csv")):
        said = run("export", str(tmp_path / name), "--from", FROM, "--to", TO).stdout
        assert re.search(rf": [\d,]+ bytes of {kind}, ", said), name
    assert pq.read_table(tmp_path / "COSTS.PARQUET").num_rows > 0


def test_break_even_prints_the_answer_of_the_route(api: Api, run: Run) -> None:
    printed = json.loads(run("break-even", "0.6", "--from", FROM, "--to", TO, "--json").stdout)
    answer = api.reader.get(
        "/v1/break-even", params={"from": FROM, "to": TO, "api_usd_per_million": 0.6}
    ).json()
    assert printed == answer
    assert "everything" in run("break-even", "0.6", "--from", FROM, "--to", TO).stdout


def test_the_price_book_from_the_command_line(empty: tuple[Store, Run]) -> None:
    store, run = empty
    run("prices", "add", "2.490000001", "--scope", "name", "--key", "H100", "--from", "2026-01-01")
    (row,) = json.loads(run("prices", "list", "--json").stdout)["prices"]
    assert (row["usd_per_hour"], row["key"], row["source"], row["pending"]) == (
        "2.490000001",
        "H100",
        "cli",
        True,
    )
    assert row["valid_from"] == "2026-01-01T00:00:00Z"
    assert "being applied" in run("prices", "list").stdout
    assert store[Collection.PRICES].count_documents({}) == 1


def test_keys_from_the_command_line(empty: tuple[Store, Run]) -> None:
    store, run = empty
    keys = KeyStore(store.database)
    made = run("keys", "create", "grafana", "--expires-in-days", "30")
    text = made.stdout.strip()
    key = keys.find(text)
    assert key is not None
    assert (key.name, sorted(key.scopes), key.tenant) == ("grafana", ["read"], None)
    rotated = json.loads(run("keys", "rotate", key.id, "--overlap-hours", "0", "--json").stdout)
    successor = keys.find(rotated["secret"])
    assert successor is not None
    assert successor.expires_at == key.expires_at
    old = keys.get(key.id)
    assert old is not None
    assert not old.usable(store.now() + timedelta(seconds=1))
    run("keys", "revoke", successor.id)
    listed = json.loads(run("keys", "list", "--json").stdout)["keys"]
    assert len(listed) == 2
    assert all(item["revoked_at"] for item in listed)
    assert "secret" not in listed[0]
    assert text not in run("keys", "list").stdout


def test_top_draws_gpus_and_the_identity(api: Api) -> None:
    figures, gpus = top.snapshot(api.services.desk)
    console = Console(width=200, height=40, record=True, file=io.StringIO())
    for sort in top.SORTS:
        console.print(top.screen(figures, gpus, sort, console, 0)[0])
    text = console.export_text()
    assert "host-00/0" in text
    assert f"{figures.gpus} GPUs" in text
    bar = text.split("[", 1)[1].split("]", 1)[0]
    assert len(bar) == 60
    assert set(bar) <= set(top.LETTERS.values())
    assert sum((figures.classes or {}).values()) == figures.cost_nusd > 0


def test_a_report_of_a_full_page_says_there_is_more(api: Api) -> None:
    text = api.reader.get(
        "/v1/costs", params={"from": FROM, "to": TO, "group_by": "gpu", "limit": 2}
    ).text
    body = msgspec.json.decode(text, type=CostsResponse)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.render(body, 50))
    assert "More rows" in console.export_text()
