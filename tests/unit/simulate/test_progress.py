"""A replay that is interrupted goes on: nothing is lost, nothing counts twice, and what cannot be
kept is said."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner, Result

from gpu_token_analytics.cli import app
from gpu_token_analytics.errors import DeliveryFailed, SettingsError
from gpu_token_analytics.kafka import producer as producers
from gpu_token_analytics.simulate import run as runs
from gpu_token_analytics.wire.sinks import MemorySink

ROWS = 1_000
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
TEXT = HEADER + "".join(
    f"2023-11-16 18:{n // 60:02}:{n % 60:02},{n + 1},{n % 7 + 1}\n" for n in range(ROWS)
)


class Broker(MemorySink):
    """Acknowledges at a flush; takes `takes` records, then it is gone."""

    takes: int | None = None
    instances: ClassVar[list[Broker]] = []

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()
        self.acknowledged = 0
        Broker.instances.append(self)

    def check(self) -> int:
        return 1

    def flush(self, timeout_seconds: float) -> None:
        super().flush(timeout_seconds)
        if Broker.takes is not None and len(self.records) > Broker.takes:
            raise DeliveryFailed("gone")
        self.acknowledged = len(self.records)

    @property
    def ids(self) -> list[str]:
        return [json.loads(value)["event_id"] for _, value in self.records[: self.acknowledged]]


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(producers, "EventProducer", Broker)
    monkeypatch.setattr(runs, "_ACKNOWLEDGED_EVERY", 100)
    monkeypatch.setattr(Broker, "takes", None)
    Broker.instances.clear()
    path = tmp_path / "trace.csv"
    path.write_text(TEXT)
    return path


def replayed(*arguments: str) -> tuple[Result, Broker]:
    result = CliRunner().invoke(app, ["replay", *arguments])
    return result, Broker.instances[-1]


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state" / "gpu-tokens" / "replay").glob("*"))


def test_an_interrupted_replay_goes_on_where_it_was_acknowledged(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replayed(str(trace))[1].ids
    assert len(set(whole)) == ROWS
    assert not kept(tmp_path), "nothing is left of a replay that is done"
    monkeypatch.setattr(Broker, "takes", 350)
    failed, first = replayed(str(trace))
    assert isinstance(failed.exception, DeliveryFailed)
    assert first.ids == whole[:300]
    assert [json.loads(path.read_text()) for path in kept(tmp_path)] == [{"acknowledged": 300}]
    monkeypatch.setattr(Broker, "takes", None)
    resumed, second = replayed(str(trace), "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "going on after 300 records" in resumed.stderr
    assert second.ids == whole[300:], "what was acknowledged is not sent again, and all else is"
    assert not kept(tmp_path)


def test_a_second_interruption_counts_from_the_start(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    for takes in (350, 250, None):
        monkeypatch.setattr(Broker, "takes", takes)
        sent += replayed(str(trace), "--resume")[1].ids
    assert len(sent) == len(set(sent)) == ROWS


def test_without_resume_it_begins_again(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broker, "takes", 350)
    replayed(str(trace))
    monkeypatch.setattr(Broker, "takes", None)
    assert len(replayed(str(trace))[1].ids) == ROWS
    assert not kept(tmp_path)


@pytest.mark.parametrize(
    "other", [("--seed", "2"), ("--limit", "900"), ("--gpu", "node1/0"), ("--gpu-samples",)]
)
def test_other_options_are_another_replay(
    trace: Path, other: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broker, "takes", 350)
    replayed(str(trace))
    monkeypatch.setattr(Broker, "takes", None)
    result, broker = replayed(str(trace), "--resume", *other)
    if other == ("--gpu-samples",):
        assert len(broker.ids) > ROWS
    else:
        assert len(broker.ids) == (900 if "--limit" in other else ROWS)
    assert "it begins at the start" in result.stderr


def test_another_topic_is_another_replay(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Broker, "takes", 350)
    replayed(str(trace))
    monkeypatch.setattr(Broker, "takes", None)
    monkeypatch.setenv("KAFKA_TOPIC", "elsewhere")
    assert len(replayed(str(trace), "--resume")[1].ids) == ROWS


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"acknowledged": "300"}', '{"acknowledged": -3}', "null"]
)
def test_what_cannot_be_read_is_begun_again(
    trace: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broker, "takes", 350)
    replayed(str(trace))
    monkeypatch.setattr(Broker, "takes", None)
    kept(tmp_path)[0].write_text(damage)
    assert len(replayed(str(trace), "--resume")[1].ids) == ROWS


def test_where_nothing_can_be_kept_it_is_said_once(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    result, broker = replayed(str(trace))
    assert result.exit_code == 0
    assert len(broker.ids) == ROWS
    assert result.stderr.count("how far it came cannot be kept") == 1


@pytest.mark.parametrize("option", ["--dry-run", "--shift-to-now"])
def test_what_differs_each_time_cannot_be_resumed(trace: Path, option: str) -> None:
    result = CliRunner().invoke(app, ["replay", str(trace), "--resume", option])
    assert isinstance(result.exception, SettingsError)
    assert option in str(result.exception)


def test_all_bad_rows_are_written_where_asked(trace: Path, tmp_path: Path) -> None:
    trace.write_text(TEXT + "".join(f"day {n},1,1\n" for n in range(30)))
    result, broker = replayed(str(trace), "--bad-rows", str(tmp_path / "bad.csv"))
    assert len(broker.ids) == ROWS
    assert "20 more lines are left out" in result.stderr
    lines = (tmp_path / "bad.csv").read_text().splitlines()
    assert lines[0] == "line,problem"
    assert len(lines) == 31
    assert "TIMESTAMP='day 29'" in lines[-1]


def test_records_are_in_the_order_that_a_count_stands_for(trace: Path) -> None:
    times = [
        json.loads(value)["ts"] for _, value in replayed(str(trace), "--gpu-samples")[1].records
    ]
    assert all(before[:19] <= after[:19] for before, after in pairwise(times))
