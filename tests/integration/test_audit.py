"""The audit on a real MongoDB: it finds what is wrong, and takes nothing for wrong that is only on
its way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.ledger_support import MINUTE, Pipeline, minutes_ago, sample, usage

from gpu_token_analytics.closing.audit import audit
from gpu_token_analytics.closing.audit_report import describe
from gpu_token_analytics.documents import Collection
from gpu_token_analytics.rollups.step import Rollups
from gpu_token_analytics.wire.usage import USAGE


def test_a_cell_that_is_due_again_still_counts_in_the_audit(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.declare()
    one.ingest([usage(n, at + n * MINUTE + timedelta(seconds=50)) for n in range(3)])
    one.close()
    before = one.audit()
    one.ingest(
        [usage(9, at + timedelta(seconds=55)), usage(10, at + 5 * MINUTE + timedelta(seconds=55))]
    )
    during = one.audit()
    assert during.holds
    assert during.cells_pending == 4, (
        "two to be computed again, two for the first time: the one each is in, and beside it"
    )
    assert (during.cost_nusd, during.compared) == (before.cost_nusd, 2)
    one.close()
    assert one.audit().cost_nusd > before.cost_nusd


def test_the_audit_finds_what_is_wrong(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.declare()
    one.ingest([usage(n, at + n * MINUTE + timedelta(seconds=50)) for n in range(4)])
    one.close()
    assert one.audit().holds
    cells = one.store[Collection.LEDGER_CELLS]
    cells.update_one({"minute": at}, {"$inc": {"classes.attributed": 1}})
    cells.update_one({"minute": at + MINUTE}, {"$inc": {"lines.0.prompt_tokens": 1}})
    cells.delete_one({"minute": at + 2 * MINUTE})
    report = one.audit()
    assert not report.holds
    problems = [(finding.cell, finding.problem) for finding in report.findings]
    for cell, text in (
        (f"{at:%H:%MZ}", "classes sum to"),
        (f"{at + MINUTE:%H:%MZ}", "fresh computation in lines"),
        (f"{at + 2 * MINUTE:%H:%MZ}", "missing"),
        ("total", "prompt_tokens"),
    ):
        assert any(name.endswith(cell) and text in problem for name, problem in problems), (
            cell,
            text,
        )


def test_cells_of_the_version_before_are_judged_by_their_identity_and_told_apart(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.declare()
    one.ingest([usage(n, at + n * MINUTE + timedelta(seconds=50)) for n in range(4)])
    one.close()
    before = one.audit()
    cells = one.store[Collection.LEDGER_CELLS]
    moved = {"classes.attributed": -5, "lines.0.cost_nusd": -5, "classes.unmetered_work": 5}
    cells.update_one({"minute": at}, {"$inc": moved, "$set": {"params": "0" * 8}})
    report = one.audit()
    assert report.holds, report.findings
    assert (report.cells_of_other_rules, report.compared) == (1, before.compared - 1)
    assert report.raw_counts == before.raw_counts is not None, (
        "its requests and tokens are in the totals"
    )
    assert "1 computed by other rules" in describe(report)[0]
    cells.update_one({"minute": at}, {"$inc": {"classes.unmetered_work": 1}})
    assert "classes sum to" in one.audit().findings[0].problem
    cells.update_one(
        {"minute": at}, {"$inc": {"classes.unmetered_work": -1, "lines.0.requests": 1}}
    )
    assert "requests" in one.audit().findings[0].problem


def test_events_that_are_stored_and_not_yet_marked_are_changes_if_the_marks_come(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.declare()
    one.ingest([usage(n, at + n * MINUTE + timedelta(seconds=50)) for n in range(3)])
    one.close()
    before = one.audit()
    late = [
        usage(9, at + timedelta(seconds=55)),
        usage(10, at + 5 * MINUTE + timedelta(seconds=55)),
    ]
    one.store_only(late)
    asked: list[int] = []
    nothing_came = one.audit(asked.append)
    assert asked == [2], "the cell of the one differs, the other's is missing"
    assert {
        finding.problem.split(" ")[0]
        for finding in nothing_came.findings
        if finding.cell != "total"
    } == {"differs", "the"}
    assert (nothing_came.cells_changing, nothing_came.compared) == (0, 4)

    def marks_come(_: int) -> None:
        one.restart()
        one.ingest(late)

    meanwhile = one.audit(marks_come)
    assert meanwhile.holds, meanwhile.findings
    assert (meanwhile.cells_changing, meanwhile.compared, meanwhile.raw_counts) == (2, 3, None)
    assert meanwhile.compared_nusd == meanwhile.price_time_nusd < before.compared_nusd, (
        "what changes is in neither sum"
    )
    one.close()
    assert one.audit().holds


def test_requests_that_come_after_their_cells_were_looked_at_are_no_difference_of_totals(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    one.ingest([usage(1, minutes_ago(30))])
    one.close()
    more = [usage(2, minutes_ago(20))]
    count = one.ledger.raw.usage_totals

    def count_one_more() -> dict[str, int]:
        one.store_only(more)
        return count()

    monkeypatch.setattr(one.ledger.raw, "usage_totals", count_one_more)
    assert {finding.cell for finding in one.audit().findings} == {"total"}, (
        "no mark and no cell came of it"
    )

    def closed_meanwhile(_: int) -> None:
        one.restart()
        one.ingest(more)
        one.close()

    one.store[USAGE.collection].delete_one({"event_id": "usage-2"})
    report = one.audit(closed_meanwhile)
    assert report.holds, report.findings
    assert report.raw_counts is None, "they were not compared"


def test_a_silence_between_two_samples_is_opened_when_the_second_one_is_closed(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline()
    first = minutes_ago(12) + timedelta(seconds=30)
    one.ingest([sample(1, first)])
    one.close()
    one.store[Collection.LEDGER_CELLS].delete_many(
        {"silent": True, "minute": {"$lt": first + 9 * MINUTE}}
    )
    one.ingest([sample(2, first + 9 * MINUTE)])
    report = one.audit(lambda _: one.close())
    assert report.holds, report.findings
    assert report.cells_changing == 8, "the minutes between"
    assert one.audit().holds


def test_a_minute_of_silence_may_be_missing_until_housekeeping_had_time_to_open_it(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pipeline()
    at = minutes_ago(2)
    one.ingest([sample(1, at)])
    # its fourth minute has begun
    monkeypatch.setattr(one.store, "now", lambda: at + timedelta(seconds=210))
    one.close()
    assert max(cell["minute"] for cell in one.cells().values()) == at + 2 * MINUTE
    for seconds, findings in ((241, 0), (299, 0), (301, 1), (361, 2)):
        monkeypatch.setattr(one.ledger, "now", lambda after=seconds: at + timedelta(seconds=after))
        assert [finding.problem.split(":")[0] for finding in one.audit().findings] == [
            "the cell is missing"
        ] * findings


def test_a_cell_that_was_computed_before_its_minute_was_over_is_due_when_it_is(
    pipeline: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pipeline()
    at = minutes_ago(1)
    one.ingest([sample(n, at + timedelta(seconds=10 * n)) for n in range(6)])
    clock = at + timedelta(seconds=59.5)
    monkeypatch.setattr(one.store, "now", lambda: clock)
    monkeypatch.setattr(one.ledger, "now", lambda: clock)
    one.store[Collection.LEDGER_CELLS].update_many({}, {"$set": {"due_at": at}})
    one.close()
    assert one.cells(minute=at)[f"GPU-a|{at:%Y-%m-%dT%H:%MZ}"]["owned_us"] == 59_500_000
    assert one.audit().cells_not_over == 2, "and the next one, which the last sample speaks of"
    clock = at + timedelta(seconds=60.5)  # it is computed again a second after its end
    report = one.audit()
    assert report.holds, report.findings
    assert (report.cells_not_over, report.cells_pending) == (1, 1)


def test_a_cell_that_was_computed_again_untouched_is_changing(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(30)
    one.ingest([usage(1, at + timedelta(seconds=50))])
    one.close()
    cells = one.store[Collection.LEDGER_CELLS]
    cells.update_one({"minute": at}, {"$set": {"owned_us": 1}})
    assert not one.audit().holds

    def compute_again(_: int) -> None:
        cells.update_one({"minute": at}, {"$set": {"due_at": at, "content": b""}})
        one.close()

    report = one.audit(compute_again)
    assert report.cells_changing == 1
    assert {finding.problem.split(" ")[0] for finding in report.findings} == {"class"}, (
        "its identity did not hold before"
    )
    assert one.audit().holds


def rolled(one: Pipeline) -> None:
    rollups = Rollups(one.ledger.rollups)
    while rollups.step_now():
        pass


SUMS: dict[str, tuple[Collection, dict[str, Any], dict[str, Any]]] = {
    "an hour of a GPU": (
        Collection.ROLLUPS_HOURLY,
        {"scope": "gpu"},
        {"$inc": {"places.0.space.cost_nusd": 1}},
    ),
    "its second half": (
        Collection.ROLLUPS_HOURLY,
        {"scope": "gpu"},
        {"$inc": {"places.0.second_half.total.cost_nusd": 1}},
    ),
    "its lines": (
        Collection.ROLLUPS_HOURLY,
        {"scope": "gpu"},
        {"$set": {"places.0.lines.tenant.0": "somebody else"}},
    ),
    "an hour of the fleet": (
        Collection.ROLLUPS_HOURLY,
        {"scope": "fleet"},
        {"$inc": {"total.requests": 1}},
    ),
    "its models": (
        Collection.ROLLUPS_HOURLY,
        {"scope": "fleet"},
        {"$set": {"by_model.model.0": "another"}},
    ),
    "a day of a GPU": (
        Collection.ROLLUPS_DAILY,
        {"scope": "gpu"},
        {"$inc": {"places.0.total.requests": -1}},
    ),
    "a day of the fleet": (
        Collection.ROLLUPS_DAILY,
        {"scope": "fleet"},
        {"$inc": {"space.warm_idle_nusd": 1}},
    ),
}


@pytest.mark.parametrize("what", SUMS)
def test_a_sum_that_is_not_what_its_parts_are_is_found(
    pipeline: Callable[..., Pipeline], what: str
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(120).replace(minute=40)
    one.ingest([usage(n, at + n * MINUTE + timedelta(seconds=50)) for n in range(3)])
    one.close()
    rolled(one)
    before = one.audit()
    assert before.holds
    assert (before.sums_compared, before.sums_behind) == (4, 0)
    collection, where, update = SUMS[what]
    document = one.store[collection].find_one_and_update(where, update)
    assert document is not None
    report = one.audit()
    # What is made of the wrong sum is not the sum of its parts either.
    assert document["_id"] in [finding.cell for finding in report.findings]
    assert not report.holds
    assert one.audit().as_json()["sums_compared"] == 4


def test_sums_that_are_missing_are_found_and_those_that_wait_are_behind(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(120).replace(minute=40)
    one.ingest([usage(n, at + n * MINUTE + timedelta(seconds=50)) for n in range(3)])
    one.close()
    before = one.audit()
    assert before.holds, "nothing is rolled up yet, and all of it waits"
    assert before.sums_behind == 1, "of an hour that is not stored nothing else is a sum yet"
    rolled(one)
    one.ingest([usage(9, at + timedelta(seconds=55))])
    one.close()
    during = one.audit()
    assert (during.holds, during.sums_behind) == (True, 1)
    assert any("1 of them behind" in line for line in describe(during))
    rolled(one)
    assert one.audit().sums_behind == 0
    one.store[Collection.ROLLUPS_HOURLY].delete_many({"scope": "gpu"})
    assert not one.audit().holds


def test_an_audit_of_a_part_of_the_time_compares_the_sums_within_it(
    pipeline: Callable[..., Pipeline],
) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    at = minutes_ago(180).replace(minute=0)
    one.ingest([usage(n, at + n * MINUTE + timedelta(seconds=50)) for n in (5, 50, 70)])
    one.close()
    rolled(one)

    def compared(start: int, end: int) -> int:
        return audit(one.ledger, one.params, at + start * MINUTE, at + end * MINUTE).sums_compared

    assert compared(0, 120) == 4, "two hours, of the GPU and of the fleet"
    assert compared(0, 60) == 2
    assert compared(1, 119) == 0


def test_what_is_set_aside_is_found(pipeline: Callable[..., Pipeline]) -> None:
    one = pipeline(silent_gpu_owned_minutes=0)
    one.ledger.rollups.aside.put(Collection.ROLLUPS_HOURLY, "fleet|2026-01-31T12", "too large")
    report = one.audit()
    assert not report.holds
    assert report.set_aside == 1
    assert "too large" in report.findings[0].problem
