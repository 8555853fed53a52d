"""A folder of one Parquet file a day, as DuckDB reads it: equal to the ledger, only changed days
written, whatever dies."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from tests.integration.delivery_support import command, run_with
from tests.integration.ledger_support import MINUTE, Pipeline, minutes_ago, sample, usage

from gpu_token_analytics.costs.choices import ExportLayout
from gpu_token_analytics.costs.desk import Desk
from gpu_token_analytics.costs.query import CostQuery
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.rollups.spans import DAY, Step, floor
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.warehouse.days import FILE, DayFile, export_days

MakePipeline = Callable[..., Pipeline]
DAYS = [floor(minutes_ago(0), DAY) - number * DAY for number in (3, 2, 1)]


@pytest.fixture
def one(pipeline: MakePipeline) -> Pipeline:
    """Three whole days with ten minutes of two GPUs each."""
    made = pipeline(silent_gpu_owned_minutes=0)
    for number, day in enumerate(DAYS):
        at = day + timedelta(hours=12)
        for gpu in ("GPU-a", "GPU-b"):
            made.ingest(
                [
                    sample(1000 * number + n, at + n * MINUTE, gpu_uuid=gpu, host=gpu)
                    for n in range(10)
                ]
            )
        made.ingest(
            [
                usage(100 * number + n, at + n * MINUTE + timedelta(seconds=40), tenant=f"t{n % 3}")
                for n in range(9)
            ]
        )
    return rolled(made)


def rolled(one: Pipeline) -> Pipeline:
    one.close()
    rollups = Rollups(one.ledger.rollups)
    while rollups.step_now():
        pass
    return one


def question() -> CostQuery:
    return CostQuery(DAYS[0], DAYS[-1] + DAY, step=Step.HOUR, group_by=("gpu", "model", "tenant"))


def export(one: Pipeline, folder: Path, start: datetime | None = None) -> list[DayFile]:
    desk = Desk.over(one.store, one.settings)
    return list(
        export_days(desk, question(), ExportLayout.COSTS, "self-hosted", folder, start, None)
    )


def days_in(folder: Path) -> dict[str, tuple[int, int]]:
    """Money and prompt tokens of each day, as a warehouse sums them."""
    asked = (
        "SELECT day, sum(total_nusd), sum(prompt_tokens) FROM read_parquet(?, hive_partitioning = "
        "true) GROUP BY day"
    )
    with duckdb.connect() as warehouse:
        rows = warehouse.execute(asked, [str(folder / "*" / "*.parquet")]).fetchall()
    return {str(day): (int(money), int(tokens)) for day, money, tokens in rows}


def days_of_ledger(one: Pipeline) -> dict[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = {}
    for cell in one.cells().values():
        day = f"{cell['minute']:%Y-%m-%d}"
        money, tokens = sums.get(day, (0, 0))
        sums[day] = (
            money + cell["cost_nusd"],
            tokens + sum(line["prompt_tokens"] for line in cell["lines"]),
        )
    return sums


def names(files: list[DayFile]) -> list[datetime]:
    return [file.day for file in files if file.written]


def test_a_warehouse_reads_the_ledger_to_the_nano_dollar(one: Pipeline, tmp_path: Path) -> None:
    assert names(export(one, tmp_path)) == DAYS
    assert days_in(tmp_path) == days_of_ledger(one)
    assert sum(money for money, _ in days_in(tmp_path).values()) > 0


def test_only_days_that_changed_are_written(one: Pipeline, tmp_path: Path) -> None:
    export(one, tmp_path)
    assert names(export(one, tmp_path)) == []
    before = {path: path.read_bytes() for path in tmp_path.rglob(FILE)}
    # a correction of the second day
    one.ingest([usage(900, DAYS[1] + timedelta(hours=12, seconds=50), tenant="late")])
    rolled(one)
    assert names(export(one, tmp_path)) == [DAYS[1]]
    changed = [path.parent.name for path, content in before.items() if path.read_bytes() != content]
    assert changed == [f"day={DAYS[1]:%Y-%m-%d}"]
    assert days_in(tmp_path) == days_of_ledger(one)


def test_days_that_turn_final_and_other_questions_are_written_again(
    one: Pipeline, tmp_path: Path
) -> None:
    export(one, tmp_path)
    days = one.store["rollups_daily"]
    days.update_one(
        {"scope": "fleet", "start": DAYS[0]}, {"$set": {"final_at": one.store.now() - MINUTE}}
    )
    assert names(export(one, tmp_path)) == [DAYS[0]], "its rows say whether they are provisional"
    desk = Desk.over(one.store, one.settings)
    focus = export_days(
        desk, CostQuery(DAYS[0], DAYS[1]), ExportLayout.FOCUS, "me", tmp_path, DAYS[2], None
    )
    assert names(list(focus)) == [DAYS[2]], (
        "the range names its days; what was asked before is not in the file"
    )


_DYING = """
import os, signal, sys
from pathlib import Path
from gpu_token_analytics.costs import files
from gpu_token_analytics.terminal import commands
from gpu_token_analytics.warehouse import days

export_file, begun = days.export_file, []

def dying(*arguments):
    begun.append(arguments)
    made = export_file(*arguments)
    def chunks():
        for chunk in made.chunks:
            yield chunk
            if len(begun) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
    return type(made)(made.name, chunks())

days.export_file = dying
from gpu_token_analytics.cli import main
main()
"""


def test_a_killed_run_leaves_whole_files_and_the_next_goes_on(
    one: Pipeline, tmp_path: Path
) -> None:
    folder = tmp_path / "ledger"
    words = ["export", "--days", str(folder), "--by", "gpu,model,tenant", "--json"]
    dead = run_with(one.settings, [sys.executable, "-c", _DYING, *words])
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert days_in(folder) == {
        day: sums for day, sums in days_of_ledger(one).items() if day == f"{DAYS[0]:%Y-%m-%d}"
    }
    assert list(folder.rglob("*.partial")), "it died within a file"

    done = command(one.settings, *words)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["written"] for line in done.stdout.splitlines()] == [False, True, True]
    assert days_in(folder) == days_of_ledger(one)
    assert not list(folder.rglob("*.partial"))


def test_the_command_writes_the_days_of_a_named_period(one: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    words = ["export", "--days", str(folder), "--period", "yesterday", "--json"]
    done = command(one.settings, *words)
    assert done.returncode == 0, done.stderr
    written = [json.loads(line)["day"] for line in done.stdout.splitlines()]
    assert written == [f"{DAYS[-1]:%Y-%m-%d}"]


def test_two_runs_at_once_are_one(one: Pipeline, tmp_path: Path) -> None:
    desk = Desk.over(one.store, one.settings)
    first = export_days(desk, question(), ExportLayout.COSTS, "self-hosted", tmp_path, None, None)
    next(first)
    with pytest.raises(SettingsError, match="another export writes to"):
        export(one, tmp_path)
    first.close()  # type: ignore[attr-defined]
    export(one, tmp_path)
