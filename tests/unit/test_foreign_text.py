"""Text of others on its way to people: shown as it is, doing nothing, in every kind of output."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest
from rich.console import Group
from tests.answers import answer
from tests.conftest import ROOT

from gpu_token_analytics import logs
from gpu_token_analytics.costs.answers import CostsResponse
from gpu_token_analytics.costs.files import Column, ColumnKind, csv_chunks
from gpu_token_analytics.documents import MoneyClass
from gpu_token_analytics.foreign_text import in_csv, in_json_text, visible, visible_lines
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.settings import load
from gpu_token_analytics.terminal import report
from gpu_token_analytics.terminal.console import PlainTable, plain_console, wide_console

MARKUP = [
    "[/INST]",
    "org/[exp]-model",
    "llama3:key:1",
    "[/b]",
    "[bold]x[/bold]",
    ":smile:",
    "[link=http://x]y[/link]",
    "a\\[b]",
]
ACTING = [
    ("x\x1b[2J\x1b]0;title\x07", "x\\x1b[2J\\x1b]0;title\\x07"),
    ("a\nb", "a\\nb"),
    ("a\r\tb", "a\\r\\tb"),
    ("\x9b31mred", "\\x9b31mred"),
    ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
    ("one\u2028two\x7f", "one\\u2028two\\x7f"),
    ("gpt\u200b-4\u2060\xad", "gpt\\u200b-4\\u2060\\xad"),
    ("\ufff9a\ufffb\u2069", "\\ufff9a\\ufffb\\u2069"),
    ("a\u3164\u115f\uffa0\u180e\u034f", "a\\u3164\\u115f\\uffa0\\u180e\\u034f"),
    ("gpt-4\U000e0041\U000e007f", "gpt-4\\U000e0041\\U000e007f"),
]


def shown(*cells: str, width: int = 200) -> str:
    out = io.StringIO()
    table = PlainTable(box=None)
    for number in range(len(cells)):
        table.add_column(str(number), no_wrap=True)
    table.add_row(*cells)
    plain_console(file=out, width=width, force_terminal=False).print(table)
    return out.getvalue()


@pytest.mark.parametrize("name", MARKUP)
def test_no_name_is_markup_on_a_terminal(name: str) -> None:
    assert name in shown(name, "after")


@pytest.mark.parametrize(("name", "seen"), ACTING)
def test_what_acts_is_seen_in_every_kind_of_output(name: str, seen: str) -> None:
    assert visible(name) == seen
    table = shown(name)
    assert seen in table
    assert all(character.isprintable() or character == "\n" for character in table)
    assert in_csv(name) in (seen, f"'{seen}")
    assert json.loads(in_json_text(json.dumps([name], ensure_ascii=False))) == [name]
    assert in_json_text(json.dumps([name], ensure_ascii=False)).isprintable()
    assert Metrics().model_label(name) == seen


def test_lines_of_a_message_stay_lines_and_nothing_else_acts() -> None:
    assert visible_lines("one\n\ttwo\x1b[2J") == "one\n\ttwo\\x1b[2J"


@pytest.mark.parametrize("name", ["café", "模型", "👩‍💻", "naïve x", "a\\nb"])
def test_letters_of_every_script_are_left_alone(name: str) -> None:
    assert visible(name) == visible_lines(name) == in_csv(name) == in_json_text(name) == name


def test_the_dashboard_shows_the_same_characters() -> None:
    script = (ROOT / "src/gpu_token_analytics/web/static/js/core/dom.js").read_text()
    acting = re.search(r"const ACTING = /(\[.*\])/gu;", script)
    assert acting is not None
    acts = re.compile(re.sub(r"\\u\{(\w+)\}", lambda code: f"\\U{code[1]:0>8}", acting[1]))
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    assert [one for one in characters if acts.match(one)] == [
        one for one in characters if visible(one) != one
    ]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", " =1", "\t=1", "＝1", "\n=1", "\r@x"])
def test_no_cell_of_a_csv_file_is_a_formula(name: str) -> None:
    (head, row) = (
        b"".join(csv_chunks([Column("model", ColumnKind.TEXT)], [[name]])).decode().splitlines()
    )
    assert head == "model"
    assert row.strip('"').startswith("'")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_of_a_log_is_one_line_and_moves_no_cursor(log_format: str) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        logs.configure(load(log_format=log_format), stream)
        logging.getLogger("x").warning("model %s", "a\n2026-01-01 ERROR forged\x1b[2J\x9b")
        try:
            raise ValueError("bad \x1b]0;title\x07")
        except ValueError:
            logging.getLogger("x").exception("failed")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    first, *rest = stream.getvalue().splitlines()
    assert "forged" in first
    assert first.isprintable()
    assert all(line.replace("\t", "").isprintable() for line in rest)
    if log_format == "json":
        assert len(rest) == 1
        assert json.loads(first)["message"].startswith("model a")


def test_a_report_shows_every_name_as_it_is() -> None:
    money = dict.fromkeys([f"{name}_nusd" for name in (*MoneyClass, "total")], 1)
    rates = dict.fromkeys(
        (
            "active_usd_per_million",
            "loaded_usd_per_million",
            "input_usd_per_million",
            "output_usd_per_million",
        ),
        1.0,
    ) | {"tokens_per_second": 1.0, "joules_per_token": 1.0}
    quality = {
        "provisional": False,
        "corrected_cells": 0,
        "low_volume": False,
        "coverage": 1.0,
        "memory_unknown_share": 0.0,
    }
    quality |= dict.fromkeys(
        ("default_price_nusd", "unknown_gpu_requests", "unknown_gpu_tokens"), 0
    )
    names = [*MARKUP, *(name for name, _ in ACTING)]
    rows = [
        {
            "bucket": None,
            "group": {"model": name},
            "money": money,
            "tokens": {"total": 1},
            "requests": 1,
        }
        | {"rates": rates, "quality": quality}
        for name in names
    ]
    totals = rows[0] | {"group": {}}
    body = {"group_by": ["model"], "bucket": "none", "rows": rows, "totals": totals, "next": None}
    body["scope"] = {"left_out_nusd": 0, "cost_nusd": 1, "cells_not_rolled": 0}
    out = io.StringIO()
    made: Group = report.render(answer(CostsResponse, body), 100)
    console = plain_console(file=out, width=400)
    console.print(made)
    for name in [*MARKUP, *(seen for _, seen in ACTING)]:
        assert name in out.getvalue()
    assert type(wide_console()) is type(console)
