"""Every command that prints rows prints them for programs as well: `--json` and `--csv`. A command
that is in no list here and lacks one of them fails."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gpu_token_analytics import cli
from gpu_token_analytics.kafka.records import DeadLetter
from gpu_token_analytics.tools import kafka_commands, reference

# Why a command has not both. ENTRY and WHOLE have --json.
SERVICE = "runs until it is stopped"
ENTRY = "writes one entry, which --json tells"
WHOLE = "tells of one file or folder, which --json tells"
DOES = "does one thing and says in a sentence that it did"
IS_ROWS = "its standard output is the rows, or the record, itself"
EXCEPTIONS = {
    "demo": SERVICE,
    "processor": SERVICE,
    "api": SERVICE,
    "exporter": SERVICE,
    "agent": SERVICE,
    "simulate": SERVICE,
    "replay": SERVICE,
    "kafka": SERVICE,
    "prices add": ENTRY,
    "rates add": ENTRY,
    "gpus declare": ENTRY,
    "gpus retire": ENTRY,
    "gpus undeclare": ENTRY,
    "teams add": ENTRY,
    "owners add": ENTRY,
    "budgets set": ENTRY,
    "budgets remove": ENTRY,
    "keys create": ENTRY,
    "keys rotate": ENTRY,
    "keys revoke": ENTRY,
    "placements add": ENTRY,
    "placements remove": ENTRY,
    "placements import": ENTRY,
    "backup": WHOLE,
    "restore": WHOLE,
    "export": WHOLE,
    "backup-key": DOES,
    "topics create": DOES,
    "topics resend-ledger": DOES,
    "dead-letters resend": DOES,
    "schemas write": DOES,
    "schemas show": IS_ROWS,
    "dead-letters show": IS_ROWS,
}


def commands(command: Any, path: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """Names of all commands, those of groups with the group's before, and their options."""
    if not hasattr(command, "commands"):
        return {" ".join(path): {name for item in command.params for name in item.opts}}
    found: dict[str, set[str]] = {}
    for name, below in command.commands.items():
        found |= commands(below, (*path, name))
    return found


EVERY = commands(get_command(cli.app))


@pytest.mark.parametrize("name", EVERY)
def test_a_command_prints_rows_for_programs_or_says_why_not(name: str) -> None:
    reason = EXCEPTIONS.get(name)
    has = {"--json", "--csv"} & EVERY[name]
    if reason is None:
        assert has == {"--json", "--csv"}, f"{name}: add them, or a reason to EXCEPTIONS"
    else:
        assert has == ({"--json"} if reason in (ENTRY, WHOLE) else set()), f"{name}: {reason}"


def test_every_exception_is_a_command() -> None:
    assert set(EXCEPTIONS) <= set(EVERY)
    assert "report" in EVERY


def printed(*arguments: str) -> str:
    found = CliRunner().invoke(cli.app, list(arguments))
    assert found.exit_code == 0, (found.output, found.exception)
    return found.stdout


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_settings_are_the_same_rows_in_both() -> None:
    told = json.loads(printed("settings", "--json"))
    rows = rows_of(printed("settings", "--csv"))
    assert [row["name"] for row in rows] == [row["name"] for row in told]
    assert len(rows) == len(reference.settings_rows())
    assert "=" not in {row["value"][:1] for row in rows}, "no spreadsheet runs a value"


def test_a_size_is_one_row_of_the_same_numbers() -> None:
    asked = ("size", "--gpus", "200", "--requests", "100")
    told = json.loads(printed(*asked, "--json"))
    (row,) = rows_of(printed(*asked, "--csv"))
    assert {name.partition(".")[2]: float(value) for name, value in row.items()} == {
        name: float(value) for part in ("load", "size") for name, value in told[part].items()
    }


def test_dead_letters_are_rows_in_which_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = DeadLetter("tokens", 3, 17, "not_json", "no JSON", None, b"node1", b"=1+1,\x00")
    monkeypatch.setattr(kafka_commands, "read_dead_letters", lambda _: iter([letter] * 3))
    rows = rows_of(printed("dead-letters", "list", "--csv", "--limit", "2"))
    assert [(row["partition"], row["offset"], row["reason"]) for row in rows] == [
        ("3", "17", "not_json")
    ] * 2
    assert rows[0]["value"].startswith("'=1+1,")
    assert rows[0]["field"] == ""


def test_a_dead_letter_is_two_lines_whatever_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    letter = DeadLetter(
        "tokens",
        3,
        17,
        "not_json",
        "no\nJSON",
        None,
        b"node1",
        '{\n"模": \x1b[31m'.encode() + b"\xff",
    )
    monkeypatch.setattr(kafka_commands, "read_dead_letters", lambda _: iter([letter]))
    assert printed("dead-letters", "list").splitlines() == [
        r"        3/17  not_json         no\nJSON",
        r'              {\n"模": \x1b[31m\xff',
        "1 dead letters: not_json 1",
    ]


def test_no_rows_are_a_line_of_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_commands, "describe_group", lambda _: [])
    monkeypatch.setattr(kafka_commands, "read_dead_letters", lambda _: iter(()))
    assert printed("topics", "show", "--csv").split() == ["partition,low,high,committed,lag"]
    (line,) = printed("dead-letters", "list", "--csv").split()
    assert line == "topic,partition,offset,reason,field,message,key,value,cut_from_bytes"
