"""The service level objectives and the alerts: one table. Rules, dashboards and the runbook's
anchors come from it.

An objective's burn rate is alerted on in several windows (Google SRE workbook, chapter 5): a fast
burn wakes somebody, a slow one makes a ticket. What has no budget (a wrong nano-dollar, a lost
record) is an alert by itself, at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

PAGE, TICKET = "page", "ticket"
STALE_SECONDS = 120
SLOW_SECONDS = "1.0"  # a bucket's border of gpu_tokens_api_request_seconds
_CALLS = 'route!~"/health|/ready|/metrics"'


@dataclass(frozen=True)
class Burn:
    """Spending the budget `factor` times too fast, over a long and a short window (in seconds)."""

    severity: str
    factor: float
    long_seconds: int
    short_seconds: int


_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
BURNS = (
    Burn(PAGE, 14.4, _HOUR, 5 * _MINUTE),
    Burn(PAGE, 6, 6 * _HOUR, 30 * _MINUTE),
    Burn(TICKET, 3, _DAY, 2 * _HOUR),
    Burn(TICKET, 1, 3 * _DAY, 6 * _HOUR),
)
WINDOWS_SECONDS = tuple(
    sorted({length for burn in BURNS for length in (burn.long_seconds, burn.short_seconds)})
)


@dataclass(frozen=True)
class Slo:
    """One objective. `errors(window)` is the PromQL of the share that was bad; `records`, what it
    needs recorded first."""

    name: str
    alert: str  # its alerts are <alert>Page and <alert>Ticket
    objective: float
    promise: str
    errors: Callable[[str], str]
    records: Callable[[int], dict[str, str]] = lambda _stale_seconds: {}


@dataclass(frozen=True)
class Alert:
    """One alert that is no burn rate. `expression(seconds)` gets a function that writes a length of
    time."""

    name: str
    severity: str
    for_seconds: int
    summary: str
    expression: Callable[[Callable[[float], str]], str]


def _ratio(bad: str, every: str) -> str:
    """bad / every; 0 and not unknown where nothing bad was ever counted; unknown where there was
    nothing at all."""
    return f"({bad} or 0 * {every}) / {every}"


SLOS = (
    Slo(
        "freshness",
        "Freshness",
        0.995,
        f"An event is in the ledger within {STALE_SECONDS} s of its arrival in Kafka, 99.5 % of "
        "the time; time in which "
        "nobody can tell counts as late.",
        lambda window: f"avg_over_time(gpu_tokens:stale:bool[{window}])",
        # NaN (unknown) is not <= the limit: what cannot be seen counts as stale.
        lambda stale: {
            "gpu_tokens:stale:bool": f"1 - min(gpu_tokens_backlog_age_seconds <= bool {stale})"
        },
    ),
    Slo(
        "completeness",
        "Completeness",
        0.999,
        (
            "999 of 1,000 records that producers send are stored; what is refused is in the dead "
            "letters with its reason."
        ),
        lambda window: _ratio(
            f'sum(rate(gpu_tokens_log_records_total{{kind="dead_letters"}}[{window}]))',
            f'sum(rate(gpu_tokens_log_records_total{{kind="events"}}[{window}]))',
        ),
    ),
    Slo(
        "api_latency",
        "ApiLatency",
        0.99,
        "99 of 100 requests to the API get the first byte of their answer within a second.",
        lambda window: (
            f'1 - sum(rate(gpu_tokens_api_request_seconds_bucket{{le="{SLOW_SECONDS}",'
            f"{_CALLS}}}[{window}]))"
            f" / sum(rate(gpu_tokens_api_request_seconds_count{{{_CALLS}}}[{window}]))"
        ),
    ),
    Slo(
        "api_availability",
        "ApiAvailability",
        0.999,
        (
            "999 of 1,000 requests to the API are answered without a fault of the server (status "
            "below 500)."
        ),
        lambda window: _ratio(
            f'sum(rate(gpu_tokens_api_requests_total{{status=~"5..",{_CALLS}}}[{window}]))',
            f"sum(rate(gpu_tokens_api_requests_total{{{_CALLS}}}[{window}]))",
        ),
    ),
)

ALERTS = (
    Alert(
        "LedgerNotExact",
        PAGE,
        0,
        (
            "The audit found {{ $value }} places where the ledger is not what price x time and the "
            "raw events say."
        ),
        lambda _seconds: "max(gpu_tokens_audit_findings) > 0",
    ),
    Alert(
        "RecordsLost",
        PAGE,
        0,
        "{{ $value }} records were deleted from Kafka before they were read.",
        lambda _seconds: "sum(gpu_tokens_group_lost_records) > 0",
    ),
    Alert(
        "ExporterDown",
        PAGE,
        300,
        "No exporter answers: nobody watches lag, freshness and the audit.",
        lambda _seconds: 'absent(up{job="exporter"} == 1)',
    ),
    Alert(
        "SourceUnreachable",
        PAGE,
        300,
        "The exporter cannot read from: {{ $labels.source }}.",
        lambda _seconds: "min by (source) (gpu_tokens_exporter_source_up) == 0",
    ),
    Alert(
        "AuditStale",
        TICKET,
        1800,
        "The last audit of the ledger is older than three of its intervals, or there was none.",
        # `unless`, so that a result that is not known yet (NaN) counts as old.
        lambda _seconds: (
            "max(gpu_tokens_audit_interval_seconds) > 0 unless on () (time() - "
            "max(gpu_tokens_audit_last_timestamp_seconds)"
            " <= 3 * max(gpu_tokens_audit_interval_seconds))"
        ),
    ),
    Alert(
        "DeadLetters",
        TICKET,
        0,
        "{{ $value | humanize }} records were refused in the last 15 minutes.",
        lambda seconds: (
            f'sum(increase(gpu_tokens_log_records_total{{kind="dead_letters"}}[{seconds(900)}])) > '
            "0"
        ),
    ),
    Alert(
        "PartitionsUnread",
        TICKET,
        300,
        "Only {{ $value }} partitions are read by a processor.",
        lambda _seconds: (
            "(sum(gpu_tokens_assigned_partitions) or vector(0)) < max(gpu_tokens_topic_partitions)"
        ),
    ),
    Alert(
        "StoreRefusesWrites",
        TICKET,
        120,
        "Writes of {{ $labels.instance }} to MongoDB do not go through.",
        lambda _seconds: "gpu_tokens_store_up == 0",
    ),
    Alert(
        "DocumentsSetAside",
        TICKET,
        0,
        (
            "{{ $value }} cells or sums are set aside: MongoDB refuses them for good, they stay as "
            "they were."
        ),
        lambda _seconds: "max(gpu_tokens_documents_set_aside) > 0",
    ),
    Alert(
        "BudgetAlertsUndelivered",
        TICKET,
        900,
        (
            "Budget alerts do not reach who they are for: {{ $value }} wait, or were given up "
            "within the last day."
        ),
        lambda seconds: (
            'max(gpu_tokens_budget_alerts_undelivered{state="waiting"}) > 0 or '
            "max(max_over_time(gpu_tokens_budget_alerts_undelivered"
            f'{{state="failed"}}[{seconds(86_400)}]) - '
            "min_over_time(gpu_tokens_budget_alerts_undelivered"
            f'{{state="failed"}}[{seconds(86_400)}])) > 0'
        ),
    ),
    Alert(
        "LedgerTopicBehind",
        TICKET,
        900,
        (
            "The ledger's topic lacks a cell that was computed {{ $value | humanizeDuration }} "
            "ago: warehouses that read it are behind."
        ),
        # Only the process that writes the topic knows; the others say 0.
        lambda _seconds: "max(gpu_tokens_ledger_topic_lag_seconds) > 120",
    ),
    Alert(
        "GpusUnreadable",
        TICKET,
        600,
        "{{ $value }} GPUs cannot be read ({{ $labels.problem }}): their time is unobserved.",
        lambda _seconds: "sum by (problem) (gpu_tokens_agent_gpu_problems) > 0",
    ),
    Alert(
        "TargetDown",
        TICKET,
        600,
        "{{ $labels.job }} at {{ $labels.instance }} does not answer Prometheus.",
        lambda _seconds: "up == 0",
    ),
    Alert(
        "KafkaUnderReplicated",
        TICKET,
        600,
        "{{ $value }} partitions of Kafka have fewer replicas in sync than they should.",
        lambda _seconds: "sum(kafka_server_replicamanager_underreplicatedpartitions) > 0",
    ),
    Alert(
        "MongoMemberDown",
        TICKET,
        300,
        "Member {{ $labels.member_idx }} of the replica set does not answer the others.",
        lambda _seconds: "min by (member_idx) (mongodb_rs_members_health) == 0",
    ),
)


def alert_names() -> list[str]:
    """Every alert there is, burn rates first."""
    burns = [f"{slo.alert}{severity.title()}" for slo in SLOS for severity in (PAGE, TICKET)]
    return [*burns, *(alert.name for alert in ALERTS)]
