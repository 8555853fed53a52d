"""The exporter: what is not known is not shown, names are bounded, sums stay whole, an audit shows
its result and age."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from gpu_token_analytics.clock import ManualClock
from gpu_token_analytics.closing.audit_report import AuditReport
from gpu_token_analytics.costs.lookups import Reads
from gpu_token_analytics.costs.query import ROW, ROW_COLUMNS, CostQuery, Row
from gpu_token_analytics.costs.read import CostReads
from gpu_token_analytics.errors import KafkaUnreachable, StoreUnreachable
from gpu_token_analytics.exporter.figures import OTHER, LedgerFigures, windows
from gpu_token_analytics.exporter.metrics import ExporterMetrics
from gpu_token_analytics.exporter.watch import KafkaLook, LedgerLook, Looks, RecurringAudit
from gpu_token_analytics.kafka.group_watch import GroupState, GroupWatch
from gpu_token_analytics.kafka.topics import PartitionState

NOW = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)


def value(metrics: ExporterMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"gpu_tokens_{name}", labels)


class FakeWatch:
    """A group as it is told to be."""

    def __init__(self, *states: PartitionState, oldest: datetime | None = None) -> None:
        self.state = GroupState(states, oldest, events_end=100, dead_letters_end=3)
        self.error: KafkaUnreachable | None = None

    def look(self) -> GroupState:
        if self.error is not None:
            raise self.error
        return self.state


def look_at(watch: FakeWatch, clock: ManualClock) -> tuple[KafkaLook, ExporterMetrics]:
    metrics = ExporterMetrics()
    return KafkaLook(lambda: cast(GroupWatch, watch), metrics, clock), metrics


def test_a_group_is_shown_with_its_lag_its_age_and_its_loss() -> None:
    clock = ManualClock(NOW)
    waits = PartitionState(0, low=0, high=50, committed=40)
    lost = PartitionState(1, low=30, high=50, committed=20)
    look, metrics = look_at(FakeWatch(waits, lost, oldest=NOW - timedelta(seconds=90)), clock)
    look.look()
    assert value(metrics, "group_lag_records", partition="0") == 10
    assert value(metrics, "group_lost_records", partition="0") == 0
    assert value(metrics, "group_lost_records", partition="1") == 10
    assert value(metrics, "backlog_age_seconds", stage="kafka") == 90
    assert value(metrics, "topic_partitions") == 2
    assert value(metrics, "log_records_total", kind="events") == 100
    assert value(metrics, "log_records_total", kind="dead_letters") == 3


def test_no_backlog_is_an_age_of_zero_and_one_without_a_time_is_unknown() -> None:
    clock = ManualClock(NOW)
    watch = FakeWatch(PartitionState(0, 0, 50, 50))
    look, metrics = look_at(watch, clock)
    look.look()
    assert value(metrics, "backlog_age_seconds", stage="kafka") == 0
    watch.state = FakeWatch(PartitionState(0, 0, 50, 40)).state
    look.look()
    assert math.isnan(value(metrics, "backlog_age_seconds", stage="kafka") or 0)


def test_a_kafka_that_does_not_answer_leaves_no_old_figures() -> None:
    clock = ManualClock(NOW)
    watch = FakeWatch(PartitionState(0, 0, 50, 40), oldest=NOW)
    look, metrics = look_at(watch, clock)
    looks = Looks([look], metrics, clock, 15)
    looks.look()
    assert value(metrics, "exporter_source_up", source="kafka") == 1
    watch.error = KafkaUnreachable("gone")
    looks.look()
    assert value(metrics, "exporter_source_up", source="kafka") == 0
    assert value(metrics, "group_lag_records", partition="0") is None
    assert value(metrics, "log_records_total", kind="events") is None
    assert math.isnan(value(metrics, "backlog_age_seconds", stage="kafka") or 0)
    assert value(metrics, "exporter_looks_total", source="kafka", result="failed") == 1


Money = dict[tuple[str | None, ...], dict[str, int]]  # columns of each group


class FakeCosts:
    """Money by grouping; every window has the same."""

    def __init__(self, by_group: dict[tuple[str, ...], Money]) -> None:
        self.by_group = by_group
        self.error: StoreUnreachable | None = None

    def rows(self, query: CostQuery, now: datetime) -> Iterator[Row]:
        if self.error is not None:
            raise self.error
        for key, columns in self.by_group[query.group_by].items():
            values = [0] * len(ROW_COLUMNS)
            for name, amount in columns.items():
                values[ROW[name]] = amount
            yield Row(None, query.start, query.end, key, values)


def tenants_of(*costs_nusd: int) -> Money:
    return {
        (f"t{number}",): {"cost_nusd": cost, "prompt_tokens": 1}
        for number, cost in enumerate(costs_nusd)
    }


def money(tenants: Money) -> FakeCosts:
    by_class: Money = {
        ("attributed",): {"cost_nusd": 2_000_000_000, "requests": 7},
        ("cold_idle",): {"cold_idle_nusd": 500_000_000},
    }
    models: Money = {
        ("m", "attributed"): {"cost_nusd": 2_000_000_000, "completion_tokens": 9},
        (None, "cold_idle"): {},
    }
    return FakeCosts(
        {("class",): by_class, ("model", "class"): models, ("tenant",): {**tenants, (None,): {}}}
    )


def test_money_is_shown_by_class_model_and_tenant() -> None:
    metrics = ExporterMetrics()
    LedgerFigures(cast(CostReads, money(tenants_of(2_000_000_000))), metrics, 50).update(NOW)
    assert value(metrics, "ledger_cost_usd", window="today", **{"class": "attributed"}) == 2
    assert value(metrics, "ledger_cost_usd", window="today", **{"class": "cold_idle"}) == 0.5
    assert value(metrics, "ledger_requests", window="this_hour") == 7
    assert (
        value(
            metrics,
            "ledger_model_cost_usd",
            window="last_hour",
            model="m",
            **{"class": "attributed"},
        )
        == 2
    )
    assert value(metrics, "ledger_model_tokens", window="last_hour", model="m") == 9
    assert value(metrics, "ledger_tenant_cost_usd", window="last_hour", tenant="t0") == 2


def test_tenants_past_the_limit_share_a_label_and_the_sum_stays_whole() -> None:
    metrics = ExporterMetrics()
    LedgerFigures(cast(CostReads, money(tenants_of(5, 40, 30, 1))), metrics, 2).update(NOW)
    shown = {
        sample.labels["tenant"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "gpu_tokens_ledger_tenant_cost_usd" and sample.labels["window"] == "today"
    }
    assert shown == pytest.approx({"t1": 40e-9, "t2": 30e-9, OTHER: 6e-9})


def test_windows_are_whole_hours_and_days() -> None:
    found = windows(NOW)
    assert found["last_hour"] == (NOW.replace(hour=9, minute=0), NOW.replace(minute=0))
    assert found["this_hour"][0] == NOW.replace(minute=0)
    assert found["today"][1] == datetime(2026, 3, 2, tzinfo=UTC)


class FakeReads:
    """What is due."""

    def __init__(self, count: int, first: datetime | None) -> None:
        self.answer = (count, first)

    def due(self) -> tuple[int, datetime | None]:
        return self.answer


@pytest.mark.parametrize(
    ("first_due_at", "age"),
    [(None, 0), (NOW + timedelta(seconds=5), 0), (NOW - timedelta(seconds=5), 15)],
)
def test_a_cell_is_late_from_when_it_was_touched_but_not_while_it_rests(
    first_due_at: datetime | None, age: float
) -> None:
    metrics = ExporterMetrics()
    figures = LedgerFigures(cast(CostReads, money({})), metrics, 50)
    LedgerLook(cast(Reads, FakeReads(3, first_due_at)), [figures], metrics, lambda: NOW, 10).look()
    assert value(metrics, "backlog_age_seconds", stage="ledger") == age
    assert value(metrics, "ledger_cells_due") == 3


def test_a_ledger_that_cannot_be_read_leaves_no_old_money() -> None:
    metrics, costs = ExporterMetrics(), money(tenants_of(1))
    look = LedgerLook(
        cast(Reads, FakeReads(0, None)),
        [LedgerFigures(cast(CostReads, costs), metrics, 50)],
        metrics,
        lambda: NOW,
        10,
    )
    look.look()
    costs.error = StoreUnreachable("gone")
    with pytest.raises(StoreUnreachable):
        look.look()
    assert value(metrics, "ledger_cost_usd", window="today", **{"class": "attributed"}) is None
    assert math.isnan(value(metrics, "ledger_cells_due") or 0)


def audits(
    report: AuditReport | StoreUnreachable,
) -> tuple[RecurringAudit, ExporterMetrics, list[tuple[datetime, datetime]]]:
    metrics, asked = ExporterMetrics(), []

    def audit(start: datetime, end: datetime, _look: Callable[[int], Any]) -> AuditReport:
        asked.append((start, end))
        if isinstance(report, StoreUnreachable):
            raise report
        return report

    return RecurringAudit(audit, metrics, ManualClock(NOW), 900, 3), metrics, asked


def test_an_audit_shows_its_result_and_when_it_was() -> None:
    report = AuditReport(None, None, fresh=True, compared=180)
    report.found("g|m", "classes sum to 1, C is 2")
    recurring, metrics, asked = audits(report)
    assert math.isnan(value(metrics, "audit_findings") or 0), (
        "not audited is not the same as nothing found"
    )
    recurring.audit(threading.Event())
    assert asked == [(NOW - timedelta(hours=3), NOW)]
    assert value(metrics, "audit_findings") == 1
    assert value(metrics, "audit_cells") == 180
    assert value(metrics, "audit_last_timestamp_seconds") == NOW.timestamp()
    assert value(metrics, "audits_total", result="broken") == 1
    assert value(metrics, "audit_interval_seconds") == 900


def test_an_audit_that_cannot_be_done_ages() -> None:
    recurring, metrics, _ = audits(StoreUnreachable("gone"))
    recurring.audit(threading.Event())
    assert value(metrics, "audits_total", result="failed") == 1
    assert math.isnan(value(metrics, "audit_last_timestamp_seconds") or 0)
