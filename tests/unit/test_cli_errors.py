"""Arguments are judged before databases are asked; what a path or a disk refuses is one sentence with its remedy."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import InvalidURI

from gpu_token_analytics import cli
from gpu_token_analytics.errors import GpuTokensError
from gpu_token_analytics.mongo import client


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_args: object, **_options: object) -> None:
        raise AssertionError("a database was asked before the argument was judged")

    monkeypatch.setattr(client, "make_client", connect)


def run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
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
        ("report --from 2026-13-01", "--from='2026-13-01'"),
        ("report --from 2026-02-01 --to 2026-01-01", "is not after"),
        ("report --tz Mars/Olympus", "Mars/Olympus"),
        ("export --by nonsense", "--by nonsense"),
        ("export --last yesterday", "--last='yesterday'"),
        ("break-even 0.6 --last 3x", "--last='3x'"),
        ("keys create somebody --scope everything", "--scope"),
        ("prices add abc", "decimal numbers"),
        ("prices add 2.49 --from tomorrow", "--from='tomorrow'"),
        ("prices add 2.49 --scope gpu", "key"),
        ("audit --from noon", "--from='noon'"),
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
@pytest.mark.parametrize("line", ["export {file}/x.csv", "export {missing}/x.csv", "schemas write {file}/x"])
def test_a_path_that_cannot_be_used_is_one_sentence(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    code, shown = run(line.format(file=tmp_path / "file", missing=tmp_path / "missing"), monkeypatch, capsys)
    assert code == 1
    assert str(tmp_path) in shown
    assert "give another path" in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    "line",
    ["report", "top --json", "export", "break-even 0.6", "keys list", "prices list", "prices add 2.49", "audit", "verify"],
)
def test_a_person_does_not_wait_long_for_a_database_that_is_away(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The time limits of a service's operations are not those of a person's first question."""
    asked: list[Any] = []

    class Away:
        def __init__(self, uri: str, **options: Any) -> None:
            asked.append(options["serverSelectionTimeoutMS"])
            raise InvalidURI("away")

    monkeypatch.setattr(client, "MongoClient", Away)
    monkeypatch.setenv("MONGODB_TIMEOUT_MS", "60000")
    code, shown = run(line, monkeypatch, capsys)
    assert (code, shown.count("\n")) == (2, 1)
    assert asked
    assert max(asked) <= 4000


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


def test_an_error_of_the_system_that_is_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ConnectionRefusedError):
        cli.main()
    assert not issubclass(ConnectionRefusedError, GpuTokensError)
