"""The drill's own judgement: what its readers call wrong, what its table says, and what a run
leaves for the next command."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from deploy.bench.shell import CommandFailed
from deploy.bench.sites import network
from deploy.bench.sites.drill import REMEDIES
from deploy.bench.sites.processes import Processes
from deploy.bench.sites.readers import Readers, Reading
from deploy.bench.sites.rows import HEADER, Row
from deploy.sites import table


def judged(*readings: Reading) -> list[str]:
    sites = cast("Any", SimpleNamespace(table=table.load(), folder=Path()))
    readers = Readers(sites, "key", datetime(2026, 1, 31, tzinfo=UTC))
    readers._readings["a"] = list(readings)
    count, wrong = readers.judged()
    assert count == len(readings)
    return wrong


def reading(requests: int, sent: int = 100, classes_nusd: int = 7, total_nusd: int = 7) -> Reading:
    return Reading(requests, sent, classes_nusd, total_nusd)


def test_totals_that_grow_to_what_was_sent_are_right() -> None:
    assert judged(reading(3), reading(3), reading(99), reading(100)) == []


@pytest.mark.parametrize(
    "wrong",
    [
        (reading(50), reading(49)),  # something was taken back
        (reading(50), reading(101)),  # something was counted twice
        (reading(50), reading(51, classes_nusd=8)),  # money without a class
    ],
)
def test_every_kind_of_wrong_total_is_noticed(wrong: tuple[Reading, Reading]) -> None:
    assert len(judged(*wrong)) == 1


def test_a_row_has_a_cell_for_every_column_and_says_what_was_not_measured() -> None:
    cells = Row("a row", acknowledged=1234, rpo="0").cells()
    assert len(cells) == len(HEADER)
    assert cells == ["a row", "1,234", "0", "-", "0", "0", "-", "-", ""]


def test_the_readme_names_every_remedy_that_can_be_taken_out() -> None:
    text = (table.ROOT / "CA4/README.md").read_text()
    for remedy in REMEDIES:
        assert f"--without {remedy}" in text


def test_what_runs_is_written_down_for_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "inside", lambda _site, *command: list(command))
    first = Processes(tmp_path)
    first.start("sleeper", "a", ["sleep", "60"])
    second = Processes(tmp_path)
    assert second.running("sleeper")
    first.kill("sleeper")
    assert not second.running("sleeper")


def test_a_process_that_ends_at_once_is_an_error_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "inside", lambda _site, *command: list(command))
    with pytest.raises(CommandFailed, match="no such luck"):
        Processes(tmp_path).start(
            "short",
            "a",
            ["sh", "-c", "echo no such luck; exit 3"],
            ready=lambda log: "ready" in log,
        )
