"""Arguments are judged before databases are asked; what a path or a disk refuses is one sentence
with its remedy."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient  # as the product makes it, but for its patience
from typer.main import get_command

from gpu_token_analytics import cli
from gpu_token_analytics.errors import GpuTokensError, SettingsError, StoreUnreachable
from gpu_token_analytics.http_server import serving
from gpu_token_analytics.mongo import client
from gpu_token_analytics.settings import load


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_args: object, **_options: object) -> None:
        raise AssertionError("a database was asked before the argument was judged")

    monkeypatch.setattr(client, "make_client", connect)


def run(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code and standard error of a command line."""
    monkeypatch.setattr("sys.argv", ["gpu-tokens", *shlex.split(line)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr().err


@pytest.mark.usefixtures("no_database")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("report --by nonsense", "--by nonsense"),
        ("report --by model,model", "model,model"),
        ("report --last 3x", "--last='3x'"),
        ("report --last 1M", "for calendar months --period"),
        ("report --from 2026-13-01", "--from='2026-13-01'"),
        ("report --from 2026-02-01 --to 2026-01-01", "is not after"),
        ("report --tz Mars/Olympus", "Mars/Olympus"),
        ("export --by nonsense", "--by nonsense"),
        ("export --last yesterday", "--last='yesterday'"),
        ("export --days here --currency EUR", "--currency EUR: files of days are in USD"),
        ("export --days here --period 2026-13", "2026-13"),
        ("export --days here --period 2026-01 --from 2026-01-01", "--period names a whole time"),
        ("dead-letters resend 0/1 --reason not_json", "--reason not_json: 0/1 is one letter"),
        ("break-even 0.6 --last 3x", "--last='3x'"),
        ("break-even inf", "api_usd_per_million=inf is not between 0 and"),
        ("break-even 1e300", "api_usd_per_million=1e+300"),
        ("break-even 1 --usd-per-gpu-hour inf", "usd_per_gpu_hour=inf"),
        ("export /", "/: that is no file"),
        ("export ''", "that is no file"),
        ("report --from 0001-01-01T00:00+14:00", "--from='0001-01-01T00:00+14:00'"),
        ("report --from 2026-01-01 --to 9999-12-31T23:59-14:00", "--to='9999-12-31T23:59-14:00'"),
        ("audit --from 0001-01-01T00:00+14:00", "--from='0001-01-01T00:00+14:00'"),
        ("prices add 1 --from 0001-01-01T00:00+14:00", "--from='0001-01-01T00:00+14:00'"),
        ("simulate --start 0001-01-01T00:00+14:00", "--start '0001-01-01T00:00+14:00'"),
        ("simulate --start 9999-12-31T23:59-14:00", "--start '9999-12-31T23:59-14:00'"),
        ("simulate --start 9999-12-31T23:59Z", "would end after now"),
        ("keys create somebody --scope everything", "--scope"),
        ("prices add abc", "USD_PER_HOUR='abc' is no decimal number"),
        ("prices add 2 --mode owned --usd-per-kwh cheap", "--usd-per-kwh='cheap' is no decimal"),
        ("prices add 1e400", "usd_per_hour=1E+400"),
        ("rates add EUR much", "UNITS_PER_USD='much' is no decimal number"),
        ("rates add eur 0.9", "currency='eur'"),
        ("gpus declare node1/0 --host node1 --price free", "--price='free' is no decimal number"),
        ("gpus retire ''", "gpu=''"),
        ("gpus undeclare ''", "gpu=''"),
        ("placements add '' --gpu node1/0", "instance=''"),
        ("budgets set x NaN", "limit_usd=NaN"),
        ("budgets set x 1 --at half", "--at='half'"),
        ("prices add 2.49 --from tomorrow", "--from='tomorrow'"),
        ("prices add 2.49 --scope gpu", "key"),
        ("audit --from noon", "--from='noon'"),
        ("audit --last 1x", "--last='1x'"),
        ("audit --period 2026-13", "2026-13"),
        ("audit --period 2026-01 --tz Mars/Olympus", "Mars/Olympus"),
        ("audit --last 1d --from 2026-01-31T00:00Z", "--from or --to and --last each say"),
        ("audit --last 1d --period 2026-01", "--last and --period each say"),
        ("break-even", "or --price MODEL=INPUT/CACHED/OUTPUT"),
        ("top", "not a terminal"),
    ],
)
def test_an_argument_is_judged_before_the_database_is_asked(
    line: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = run(line, monkeypatch, capsys)
    assert code == 2
    assert said in shown
    assert shown.startswith("gpu-tokens: ")
    assert shown.count("\n") == 1


@pytest.mark.usefixtures("no_database")
@pytest.mark.parametrize(
    "line",
    [
        "export {file}/x.csv",
        "export {missing}/x.csv",
        "export {missing}" + "x" * 300,
        "schemas write {file}/x",
    ],
)
def test_a_path_that_cannot_be_used_is_one_sentence(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    code, shown = run(
        line.format(file=tmp_path / "file", missing=tmp_path / "missing"), monkeypatch, capsys
    )
    assert code == 1
    assert str(tmp_path) in shown
    assert "give another path" in shown
    assert shown.count("\n") == 1


# Every command that asks MongoDB, as somebody gives it; and all the others. A new command has to
# stand in one of them.
ASKING = (
    "report",
    "top --json",
    "export",
    "export --days {folder}",
    "break-even 0.6",
    "audit",
    "verify",
    "backup {folder}",
    "prices list",
    "prices add 2.49",
    "gpus list",
    "gpus declare GPU-1 --host h1",
    "gpus retire GPU-1",
    "gpus undeclare GPU-1",
    "teams list",
    "teams add acme --team red",
    "teams costs",
    "owners list",
    "owners add node-1 --team red",
    "owners idle",
    "hints",
    "rates list",
    "rates add EUR 0.92",
    "budgets list",
    "budgets status",
    "budgets set all 20",
    "budgets remove all",
    "budgets alerts",
    "keys create somebody",
    "keys list",
    "keys rotate somebody",
    "keys revoke somebody",
    "placements list",
    "placements add i --gpu GPU-1",
    "placements remove i",
    "placements import {placements}",
    "topics resend-ledger",
    "restore {backup}",
)
SERVICES = {"processor", "api", "exporter"}  # wait longer, and say so
OTHERS = {
    *(
        "demo",
        "agent",
        "simulate",
        "replay",
        "settings",
        "backup-key",
        "size",
        "kafka",
        "schemas write",
        "schemas show",
    ),
    *(
        "topics create",
        "topics show",
        "dead-letters list",
        "dead-letters show",
        "dead-letters resend",
    ),
}


def every_command(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Names of all commands, those of groups with the group's before."""
    if not hasattr(command, "commands"):
        yield " ".join(path)
        return
    for name, below in command.commands.items():
        yield from every_command(below, (*path, name))


def test_every_command_is_known_to_ask_mongodb_or_not() -> None:
    every = set(every_command(get_command(cli.app)))
    asking = {name for name in every for line in ASKING if f"{line} ".startswith(f"{name} ")}
    assert every == asking | SERVICES | OTHERS
    assert not asking & (SERVICES | OTHERS)


@pytest.mark.parametrize("line", ASKING)
def test_a_person_does_not_wait_long_for_a_database_that_is_away(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The time limits of a service's operations are not those of a person's first question: what is
    asked for is 3 s, and what is said is one sentence with the remedy."""
    asked: list[int] = []

    def away(uri: str, **options: Any) -> Any:
        asked.append(options["serverSelectionTimeoutMS"])
        return MongoClient(uri, **{**options, "serverSelectionTimeoutMS": 1})

    manifest = {
        "format": 1,
        "product": "",
        "made_at": "",
        "database": "d",
        "consistency": "",
        "parts": {},
    }
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "placements.json").write_text(
        json.dumps([{"instance": "node1:8000", "gpus": ["node1/0"]}])
    )
    given = {
        "folder": tmp_path / "new",
        "backup": tmp_path / "backup",
        "placements": tmp_path / "placements.json",
    }
    monkeypatch.setattr(client, "MongoClient", away)
    monkeypatch.setenv("MONGODB_URI", "mongodb://127.0.0.1:1")
    monkeypatch.setenv("MONGODB_TIMEOUT_MS", "60000")
    monkeypatch.setenv("LEDGER_TOPIC", "ledger")
    code, shown = run(line.format(**given), monkeypatch, capsys)
    assert asked, shown
    assert max(asked) == client.COMMAND_CONNECT_MS <= 5000
    assert (code, shown.count("\n")) == (1, 1), shown
    assert re.match(
        r"gpu-tokens: MongoDB.* does not answer .*; check MONGODB_URI and that mongod runs$",
        shown.strip(),
    )


def test_a_service_that_waits_says_so_within_five_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.SAID_AFTER_SECONDS <= 5
    monkeypatch.setattr(client, "SAID_AFTER_SECONDS", 0.0)
    settings = load(mongodb_uri="mongodb://127.0.0.1:1", mongodb_timeout_ms=300)
    with pytest.raises(StoreUnreachable):
        client.open_store(settings)
    assert "MongoDB at 127.0.0.1:1 has not answered for 0 s; trying for 0.3 s in all" in caplog.text


# uvicorn's thread ends by SystemExit
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_taken_port_is_one_sentence_with_its_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = load(http_host="127.0.0.1", http_port=taken.getsockname()[1])
        with (
            pytest.raises(SettingsError, match=r"cannot be listened on.*choose another port, or 0"),
            serving(None, settings),
        ):
            pass


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_disk_that_refuses_is_one_sentence_with_its_remedy(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code), "/mnt/report.csv")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"gpu-tokens: /mnt/report.csv: {os.strerror(code)}; ")
    assert shown.count("\n") == 1


def test_an_error_of_the_system_that_is_ours_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ConnectionRefusedError):
        cli.main()
    assert not issubclass(ConnectionRefusedError, GpuTokensError)
