"""The command line: what is there, and how it fails."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gpu_token_analytics import __version__, cli
from gpu_token_analytics.errors import GpuTokensError, SettingsError, StoreRefused
from gpu_token_analytics.tools.schemas_command import contracts


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("X=1 is wrong; use 2"), 2),
        (StoreRefused("no"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_our_errors_are_one_line(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    shown = capsys.readouterr().err
    assert shown == (f"gpu-tokens: {error}\n" if isinstance(error, GpuTokensError) else "")


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_version_and_help() -> None:
    assert __version__ in CliRunner().invoke(cli.app, ["--version"]).output
    shown = CliRunner().invoke(cli.app, ["--help"]).output
    for command in (
        "processor",
        "topics",
        "dead-letters",
        "schemas",
        "agent",
        "simulate",
        "replay",
    ):
        assert command in shown
    assert "--install-completion" in shown


def test_help_does_not_load_the_drivers() -> None:
    """Shell completion runs the whole command line for each press of the tab key."""
    code = (
        "import sys; from gpu_token_analytics import cli; "
        "print([name for name in ('pymongo', 'fastapi', 'uvicorn') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


def test_schemas_are_shown_and_written(tmp_path: object) -> None:
    runner = CliRunner()
    assert "token.usage.v1" in runner.invoke(cli.app, ["schemas", "show"]).output
    assert (
        '"$id": "urn:gpu-token-analytics:gpu.metrics.v1"'
        in runner.invoke(cli.app, ["schemas", "show", "gpu.metrics.v1"]).output
    )
    result = runner.invoke(cli.app, ["schemas", "write", f"{tmp_path}/made"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) == len(contracts())
