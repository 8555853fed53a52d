"""Commands find the demo that runs, and only that."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from gpu_token_analytics import cli
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.kafka import producer
from gpu_token_analytics.running_demo import (
    RunningDemo,
    find,
    published,
    record_path,
    settings_beside_demo,
    shared_settings,
)
from gpu_token_analytics.settings import Settings, load
from gpu_token_analytics.tools import backup, kafka_commands

DEMO = RunningDemo(
    "/tmp/demo",
    "http://127.0.0.1:8765/",
    {"mongodb_uri": "mongodb://127.0.0.1:1", "close_debounce_seconds": 1},
)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("MONGODB_URI", "KAFKA_BOOTSTRAP", "CLOSE_DEBOUNCE_SECONDS"):
        monkeypatch.delenv(name, raising=False)


def test_a_demo_is_found_while_it_runs() -> None:
    assert find() is None
    with published(DEMO) as found_by_others:
        assert found_by_others
        assert find() == DEMO
        assert stat.S_IMODE(record_path().stat().st_mode) == 0o600
    assert find() is None


def test_what_a_killed_demo_left_is_not_believed() -> None:
    """The lock, not the file, says that it runs."""
    with published(DEMO):
        left = record_path().read_text()
    record_path().write_text(left)
    assert find() is None


def test_the_first_of_two_demos_is_found() -> None:
    with published(DEMO), published(RunningDemo("/tmp/second", "", {})) as found_by_others:
        assert not found_by_others
        assert find() == DEMO
    assert find() is None


def test_a_state_folder_that_is_a_file_hurts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with published(DEMO) as found_by_others:
        assert not found_by_others
        assert find() is None


def test_commands_beside_it_take_its_settings_and_say_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with published(DEMO):
        settings = settings_beside_demo()
    assert settings.mongodb_uri.get_secret_value() == "mongodb://127.0.0.1:1"
    assert settings.close_debounce_seconds == 1.0
    shown = capsys.readouterr()
    assert shown.out == "", "JSON on standard output stays JSON"
    assert "/tmp/demo" in shown.err


def test_the_users_own_settings_go_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with published(DEMO):
        monkeypatch.setenv("CLOSE_DEBOUNCE_SECONDS", "7")
        assert settings_beside_demo().close_debounce_seconds == 7.0
        capsys.readouterr()
        monkeypatch.setenv("MONGODB_URI", "mongodb://mine")
        assert settings_beside_demo().mongodb_uri.get_secret_value() == "mongodb://mine"
        assert capsys.readouterr().err == ""


def test_no_secret_is_written_down() -> None:
    settings = load(
        kafka_sasl_password="hunter2",
        mongodb_uri=SecretStr("mongodb://127.0.0.1:1"),
        kafka_topic="mine",
    )
    shared = shared_settings(settings)
    assert "hunter2" not in str(shared)
    assert (shared["mongodb_uri"], shared["kafka_topic"]) == ("mongodb://127.0.0.1:1", "mine")


@pytest.mark.parametrize(
    "line",
    [
        "simulate --duration 1",
        "replay trace.csv --start 2026-01-01T00:00:00Z",
        "topics create",
        "backup copy",
        "restore copy",
    ],
)
def test_what_a_person_runs_finds_the_demo(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """replay and backup asked localhost beside a demo that report and verify had found."""

    def refuse(settings: Settings, *_args: object, **_options: object) -> None:
        asked = f"{settings.kafka_bootstrap} {settings.mongodb_uri.get_secret_value()}"
        raise SettingsError(f"asked {asked}")

    doors: list[tuple[object, str, Callable[..., None]]] = [
        (producer, "EventProducer", refuse),
        (kafka_commands, "create_topics", refuse),
        (backup, "back_up", refuse),
        (backup, "restore", refuse),
    ]
    for module, name, door in doors:
        monkeypatch.setattr(module, name, door)
    (tmp_path / "trace.csv").write_text("Timestamp,Model,Request tokens,Response tokens\n5,a,9,3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["gpu-tokens", *shlex.split(line)])
    settings = {**DEMO.settings, "kafka_bootstrap": "127.0.0.1:2"}
    with published(RunningDemo("/tmp/demo", "", settings)), pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().err
    assert "asked 127.0.0.1:2 mongodb://127.0.0.1:1" in shown
    assert shown.count("talking to the demo in /tmp/demo") == 1


def test_a_dry_run_looks_for_no_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", shlex.split("gpu-tokens simulate --hours 0.01 --dry-run"))
    with published(DEMO), pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert "talking to the demo" not in shown.err
    assert '"gpu.metrics.v1"' in shown.out
