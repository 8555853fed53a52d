"""Tables on a narrow terminal, in a pipe and without escape codes: names are whole, columns go
whole."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from tests.answers import answer

from gpu_token_analytics.costs.answers import CostsResponse, GpuState, Live
from gpu_token_analytics.terminal import support
from gpu_token_analytics.terminal.console import Column, FittedTable, plain_console
from gpu_token_analytics.terminal.report import flags, notes, render
from gpu_token_analytics.terminal.top import screen

NAMES = [
    "llama-3.3-70b-instruct",
    "qwen2.5-coder-32b",
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
]


def body(names: list[str]) -> CostsResponse:
    """An answer of /v1/costs by model."""

    def row(name: str | None) -> dict[str, Any]:
        money = dict.fromkeys(
            (
                "attributed_nusd",
                "unmetered_work_nusd",
                "warm_idle_nusd",
                "cold_idle_nusd",
                "unobserved_nusd",
            ),
            123_456_789_012,
        )
        rates = dict.fromkeys(
            (
                *(f"{kind}_usd_per_million" for kind in ("active", "loaded", "input", "output")),
                "tokens_per_second",
                "joules_per_token",
            ),
            1234.567,
        )
        return {
            "bucket": None,
            "group": {"model": name},
            "money": {**money, "total_nusd": 617_283_945_060},
            "tokens": {"total": 107_000_000},
            "requests": 64_000,
            "rates": rates,
            "quality": {
                "provisional": True,
                "corrected_cells": 0,
                "low_volume": False,
                "coverage": 0.995,
                "memory_unknown_share": None,
                "default_price_nusd": 1,
                "unknown_gpu_requests": 2,
                "unknown_gpu_tokens": 3000,
            },
        }

    said = {
        "from": "2026-11-28T16:56:00Z",
        "to": "2026-11-29T16:56:00Z",
        "bucket": "none",
        "group_by": ["model"],
        "rows": [row(name) for name in names],
        "totals": row(None),
        "scope": {"left_out_nusd": 0, "cost_nusd": 617_283_945_060, "cells_not_rolled": 0},
    }
    return answer(CostsResponse, said)


def printed(part: Any, width: int, **options: Any) -> list[str]:
    out = io.StringIO()
    plain_console(file=out, width=width, **options).print(part, crop=False)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_report_fits_and_no_name_is_squeezed(width: int) -> None:
    names = NAMES[:2]
    lines = printed(render(body(names), 50), width)
    table = [line.rstrip() for line in lines[: len(names) + 3]]
    for name in names:
        assert any(line.startswith(f"{name} ") for line in table)
    assert all(len(line) <= width for line in table), table
    assert "…" not in "".join(lines)
    assert "$/M active" in table[1]


def test_a_name_that_is_longer_than_the_terminal_is_still_whole() -> None:
    lines = printed(render(body(NAMES), 50), 50)
    assert any(line.startswith(f"{NAMES[2]} ") for line in lines)
    assert "…" not in "".join(lines)


def test_wide_shows_every_column_whatever_the_room() -> None:
    headings = printed(render(body(NAMES), 50, wide=True), 80)[1]
    for heading in (
        "warm idle",
        "cold idle",
        "unobserved",
        "unmetered",
        "tok/s",
        "$/M in",
        "$/M out",
        "J/token",
    ):
        assert heading in headings
        assert heading not in printed(render(body(NAMES), 50), 80)[1] or heading == "unmetered"


def test_the_least_needed_column_goes_first_and_an_empty_one_takes_no_room() -> None:
    made = FittedTable(
        "t",
        (
            Column("name", right=False),
            Column("kept", 1),
            Column("goes", 2),
            Column("", 1, right=False),
        ),
    )
    made.add_row("x" * 10, "1", "2", "")
    assert printed(made, 80)[1].split() == ["name", "kept", "goes"]
    assert printed(made, 16)[1].split() == ["name", "kept"]
    assert printed(made, 3)[1].split() == ["name"]


def test_a_table_without_a_row_says_that_there_is_none() -> None:
    columns = (Column("name", right=False), Column("USD"))
    assert printed(FittedTable("owners", columns), 80) == ["owners", "none"]
    assert printed(FittedTable("alerts", columns, empty="none yet"), 80) == ["alerts", "none yet"]


def test_every_mark_of_a_report_is_explained_below_it() -> None:
    """`l` and `c` stood in the last column, and nothing said what they are."""
    said = body(NAMES[:2])
    quality = msgspec.structs.replace(said.totals.quality, corrected_cells=1, low_volume=True)
    totals = msgspec.structs.replace(said.totals, quality=quality)
    said = msgspec.structs.replace(said, totals=totals)
    marks = flags(said.totals)
    assert marks == "pcldu"
    below = notes(said)
    for mark in marks:
        assert sum(line.startswith(f"{mark}: ") for line in below) == 1, mark
    assert "1 cell:" in "\n".join(below)


def test_few_tokens_are_no_mark_of_money_without_any() -> None:
    """Idle money has no rate that few tokens could spoil."""
    row = body(NAMES[:1]).rows[0]
    quality = msgspec.structs.replace(row.quality, low_volume=True)
    row = msgspec.structs.replace(row, quality=quality)
    assert "l" in flags(row)
    tokens = msgspec.structs.replace(row.tokens, total=0)
    assert "l" not in flags(msgspec.structs.replace(row, tokens=tokens))


def test_a_hostile_name_does_not_drive_the_terminal() -> None:
    made = FittedTable("t", (Column("name", right=False),))
    made.add_row("[red]\x1b[2Jx")
    assert "\x1b" not in "\n".join(printed(made, 80, force_terminal=True, color_system=None))
    assert any("[red]" in line for line in printed(made, 80))


GPU = {
    "name": "NVIDIA H100 80GB HBM3",
    "mig_profile": None,
    "state": "live",
    "utilization": 0.87,
    "mem_used_mb": 60_000.0,
    "mem_total_mb": 81_559.0,
    "power_w": 512.0,
    "usd_per_hour": 2.49,
    "idle_share_today": 0.4,
    "today": None,
    "newest_minutes": ["attributed"] * 60,
    "models": NAMES[:1],
}
FIGURES = answer(
    Live,
    {
        "gpus": 40,
        "usd_per_hour": 99.6,
        "tokens_per_second": 7393.0,
        "active_usd_per_million": 0.3,
        "loaded_usd_per_million": 0.5,
        "cells_due": 2,
        "at": "2026-11-29T16:56:00Z",
        "cost_nusd": 10,
        "classes": dict.fromkeys(
            ("attributed", "unmetered_work", "warm_idle", "cold_idle", "unobserved"), 2
        ),
        "models": [
            {
                "model": f"{NAMES[0]}-{index}",
                "tokens_per_second": 1.0,
                "attributed_nusd": index,
                "active_usd_per_million": 0.1,
                "loaded_usd_per_million": 0.1,
            }
            for index in range(20)
        ],
    },
)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 70), (200, 50)])
def test_top_shows_forty_gpus_one_line_each_and_says_how_many_more(width: int, height: int) -> None:
    gpus = [
        answer(
            GpuState,
            {
                **GPU,
                "gpu": f"GPU-{index}",
                "host": f"gpu-node-{index // 8}",
                "gpu_index": index % 8,
            },
        )
        for index in range(40)
    ]
    console = plain_console(file=io.StringIO(), width=width, height=height)
    seen: set[str] = set()
    first = 0
    while True:
        drawn, first, room = screen(FIGURES, gpus, "h", console, first)
        lines = [line.rstrip() for line in printed(drawn, width)]
        assert len(lines) <= height, "nothing falls off the screen"
        assert all(len(line) <= width for line in lines), lines
        shown = [line.split()[0] for line in lines if line.startswith("gpu-node-")]
        assert len(shown) == min(room, 40)
        seen |= set(shown)
        left = 40 - first - room
        if left <= 0:
            break
        assert f"{left} more below" in lines[-1]
        first += room
    assert len(seen) == 40
    assert screen(FIGURES, gpus, "h", console, -5)[1] == 0, "scrolling ends at the ends"


def test_csv_has_a_column_for_each_field_and_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    support.print_csv(
        [
            {
                "key": "=1+1",
                "scopes": ["read", "admin"],
                "money": {"total_nusd": 2**60},
                "none": None,
            },
            {"more": True},
        ]
    )
    head, one, two = capsys.readouterr().out.splitlines()
    assert head == "key,scopes,money.total_nusd,none,more"
    assert one == f"'=1+1,read admin,{2**60},,"
    assert two == ",,,,true"


def on_a_terminal(*command: str, **environment: str) -> str:
    """What `gpu-tokens COMMAND` writes where it sees a terminal."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "gpu_token_analytics", *command],
        stdout=follower,
        stderr=follower,
        stdin=follower,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
    ) as child:
        os.close(follower)
        out = b""
        while True:
            try:
                piece = os.read(leader, 65_536)
            except OSError:  # EIO: the other side is closed
                break
            if not piece:
                break
            out += piece
        child.wait()
    os.close(leader)
    return out.decode()


@pytest.mark.parametrize(
    "command", [("--help",), ("report", "--nonsense"), ("report", "--last", "3x"), ("top",)]
)
def test_no_color_means_no_escape_codes_at_all(command: tuple[str, ...]) -> None:
    assert "\x1b" not in on_a_terminal(*command, NO_COLOR="1")


def test_without_no_color_help_has_them() -> None:
    """The test above sees what it looks for."""
    assert "\x1b" in on_a_terminal("--help")
