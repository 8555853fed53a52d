"""The demo's screen is a newcomer's first: names and amounts are whole at 80 columns, too."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from gpu_token_analytics.costs.query import ROW, ROW_COLUMNS, Row
from gpu_token_analytics.demo.view import Figures, render
from gpu_token_analytics.terminal.console import plain_console

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
END = START + timedelta(hours=1)
MODELS = ("llama-3.3-70b-instruct", "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8")
CLASSES = ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved")


def row(model: str | None) -> Row:
    values = [0] * len(ROW_COLUMNS)
    for name, value in {
        "cost_nusd": 8_803_392_047,
        "unmetered_work_nusd": 516_974_735,
        "warm_idle_nusd": 4_797_203_406,
        "cold_idle_nusd": 3_291_459_587,
        "unobserved_nusd": 86_995_336,
        "prompt_tokens": 8_819_212,
        "completion_tokens": 1_989_236,
        "requests": 8_582,
        "gpu_us": 60_000_000,
        "cells": 60,
    }.items():
        values[ROW[name]] = value
    return Row(None, START, END, (model,), values)


def shown(width: int, models: tuple[str, ...] = MODELS) -> list[str]:
    figures = Figures(START, END, row(None), [row(name) for name in models], row(None), 1000)
    console = plain_console(file=io.StringIO(), width=width)
    console.print(render(figures, ["21 s, 110 events sent"], "dashboard http://127.0.0.1:8765/"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_names_headings_and_the_bar_are_whole(width: int) -> None:
    lines = shown(width)
    text = "\n".join(lines)
    assert "…" not in text
    assert max(len(line.rstrip()) for line in lines) <= width
    for needed in (*MODELS, *CLASSES, "active $/M", "17.496025111 $", "8.8034"):
        assert needed in text
    (bar,) = (line.strip() for line in lines if line.startswith("██"))
    assert len(bar) == 60, "every class has its part of it"


def test_what_has_no_room_is_left_out_and_comes_with_it() -> None:
    assert "J/token" not in "\n".join(shown(80, MODELS[:1]))
    wide = "\n".join(shown(120, MODELS[:1]))
    for heading in ("requests", "prompt", "completion", "loaded $/M", "J/token"):
        assert heading in wide


def test_before_the_first_request_it_says_so() -> None:
    assert "(no request in the ledger yet)" in "\n".join(shown(80, ()))
