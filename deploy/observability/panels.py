"""What the dashboards show: a table of panels. grafana.py makes Grafana's JSON of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.observability.rules import errors_metric
from deploy.observability.table import SLOS

MONEY = '(max by (window, class) (gpu_tokens_ledger_cost_usd{window="%s"}))'
IDLE = (
    "(max by (window, class) "
    '(gpu_tokens_ledger_cost_usd{window="%s",class=~"warm_idle|cold_idle|unobserved"}))'
)
MODEL_MONEY = (
    'sum by (model) (max by (model, class) (gpu_tokens_ledger_model_cost_usd{window="last_hour"}))'
)
MODEL_WORK = (
    "sum by (model) (max by (model, class) (gpu_tokens_ledger_model_cost_usd"
    '{window="last_hour",class=~"attributed|unmetered_work"}))'
)
MODEL_PRICED_TOKENS = (
    '(max by (model) (gpu_tokens_ledger_model_priced_tokens{window="last_hour"}) > 0)'
)
MODEL_TOKENS = 'max by (model) (gpu_tokens_ledger_model_tokens{window="last_hour"})'
RATE = "[$__rate_interval]"
JMX, PERCONA = "the JMX agent in the brokers", "mongodb_exporter beside the members"


@dataclass(frozen=True)
class Panel:
    """One panel. `queries` are (PromQL, legend). `kind`: timeseries, stat or bargauge.

    empty: why it may well show nothing; a panel without that must have data in the test. source:
    whose metrics it needs besides the product's own.
    """

    title: str
    unit: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"
    stacked: bool = False
    empty: str = ""
    source: str = ""


@dataclass(frozen=True)
class Dashboard:
    """One dashboard."""

    uid: str
    title: str
    panels: Sequence[Panel]


def _quantiles(metric: str, by: str = "") -> list[tuple[str, str]]:
    labels = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return [
        (
            f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{RATE})))",
            f"p{q * 100:g}{legend}",
        )
        for q in (0.5, 0.95, 0.99)
    ]


def _rate(metric: str, by: str) -> list[tuple[str, str]]:
    return [(f"sum by ({by}) (rate({metric}{RATE}))", f"{{{{{by}}}}}")]


MONEY_BOARD = Dashboard(
    "gpu-tokens-money",
    "GPU tokens: fleet money",
    (
        Panel("Money today", "currencyUSD", [(f"sum({MONEY % 'today'})", "")], "stat"),
        Panel(
            "Idle share of the last whole hour",
            "percentunit",
            [(f"sum({IDLE % 'last_hour'}) / sum({MONEY % 'last_hour'})", "")],
            "stat",
        ),
        Panel(
            "Requests in the last whole hour",
            "short",
            [('max(gpu_tokens_ledger_requests{window="last_hour"})', "")],
            "stat",
        ),
        Panel(
            "Money by class, of the last whole hour",
            "currencyUSD",
            [(MONEY % "last_hour", "{{class}}")],
            stacked=True,
        ),
        Panel(
            "Money by class, of the hour so far",
            "currencyUSD",
            [(MONEY % "this_hour", "{{class}}")],
            stacked=True,
        ),
        Panel(
            "GPU time by class, of the last whole hour",
            "s",
            [('max by (class) (gpu_tokens_ledger_gpu_seconds{window="last_hour"})', "{{class}}")],
            stacked=True,
        ),
        Panel(
            "$ per million tokens, active",
            "currencyUSD",
            [(f"1e6 * {MODEL_WORK} / {MODEL_PRICED_TOKENS}", "{{model}}")],
        ),
        Panel(
            "$ per million tokens, loaded (with the warm idle money)",
            "currencyUSD",
            [(f"1e6 * {MODEL_MONEY} / {MODEL_PRICED_TOKENS}", "{{model}}")],
        ),
        Panel(
            "Estimate of the moment, $ per million tokens",
            "currencyUSD",
            [("1e6 * max by (model) (gpu_tokens_live_cost_per_token_usd)", "{{model}}")],
        ),
        Panel(
            "Money by model, of the last whole hour",
            "currencyUSD",
            [(MODEL_MONEY, "{{model}}")],
            stacked=True,
        ),
        Panel(
            "Tokens by model, of the last whole hour",
            "short",
            [(MODEL_TOKENS, "{{model}}")],
            stacked=True,
        ),
        Panel(
            "Money by tenant, today",
            "currencyUSD",
            [
                (
                    'topk(20, max by (tenant) (gpu_tokens_ledger_tenant_cost_usd{window="today"}))',
                    "{{tenant}}",
                )
            ],
            "bargauge",
        ),
        Panel(
            "Tokens by tenant, today",
            "short",
            [
                (
                    'topk(20, max by (tenant) (gpu_tokens_ledger_tenant_tokens{window="today"}))',
                    "{{tenant}}",
                )
            ],
            "bargauge",
        ),
        Panel(
            "Money at the default price: nobody priced these GPUs",
            "currencyUSD",
            [("max by (window) (gpu_tokens_ledger_default_price_cost_usd)", "{{window}}")],
        ),
        Panel(
            "On GPUs that nobody sampled or declared, today",
            "short",
            [
                ('max(gpu_tokens_ledger_unknown_gpu_requests{window="today"})', "requests"),
                ('max(gpu_tokens_ledger_unknown_gpu_tokens{window="today"})', "tokens"),
            ],
        ),
        Panel(
            "Budgets: spent and forecast, of the limit",
            "percentunit",
            [
                (
                    "max by (budget) (gpu_tokens_budget_spent_usd / gpu_tokens_budget_limit_usd)",
                    "{{budget}}: spent",
                ),
                (
                    "max by (budget) "
                    "(gpu_tokens_budget_forecast_usd / gpu_tokens_budget_limit_usd)",
                    "{{budget}}: forecast",
                ),
            ],
            empty="nobody set a budget",
        ),
        Panel(
            "Budget alerts that reached nobody yet, and budgets not shown here",
            "short",
            [
                ("max by (state) (gpu_tokens_budget_alerts_undelivered)", "{{state}}"),
                ("max(gpu_tokens_budgets_not_shown)", "budgets not shown"),
            ],
        ),
        Panel(
            "Tokens per second, as they come in", "short", _rate("gpu_tokens_tokens_total", "model")
        ),
    ),
)

PIPELINE_BOARD = Dashboard(
    "gpu-tokens-pipeline",
    "GPU tokens: pipeline health",
    (
        Panel(
            "Records per second into Kafka", "short", _rate("gpu_tokens_log_records_total", "kind")
        ),
        Panel(
            "Records per second read",
            "short",
            [(f"sum(rate(gpu_tokens_consumed_total{RATE}))", "read")],
        ),
        Panel(
            "Events stored per second", "short", _rate("gpu_tokens_inserted_total", "collection")
        ),
        Panel(
            "Duplicates per second",
            "short",
            _rate("gpu_tokens_duplicates_total", "collection"),
            empty="nothing was sent twice",
        ),
        Panel(
            "Computed, but not in the sums yet, for",
            "s",
            [("max(gpu_tokens_sums_lag_seconds)", "longest")],
        ),
        Panel(
            "Fields that no contract knows, per second",
            "short",
            [
                (f"sum(rate(gpu_tokens_api_unknown_fields_total{RATE}))", "API"),
                (f"sum(rate(gpu_tokens_unknown_fields_total{RATE}))", "processors"),
            ],
            empty="all fields are known",
        ),
        Panel(
            "Names of GPUs: not kept, and UUIDs that hosts share",
            "short",
            [
                (
                    f"sum(rate(gpu_tokens_gpu_names_dropped_total{RATE}))",
                    "names not kept, per second",
                ),
                ("max(gpu_tokens_shared_uuids)", "shared UUIDs"),
            ],
        ),
        Panel(
            "Deliveries of budget alerts per second",
            "short",
            _rate("gpu_tokens_api_budget_deliveries_total", "result"),
            empty="no alert was due",
        ),
        Panel(
            "Records per second to the ledger's topic",
            "short",
            [(f"sum(rate(gpu_tokens_ledger_topic_records_total{RATE}))", "records")],
            empty="LEDGER_TOPIC is not set",
        ),
        Panel(
            "The ledger's topic is behind, by",
            "s",
            [("max(gpu_tokens_ledger_topic_lag_seconds)", "longest")],
        ),
        Panel(
            "Ledger cells still to be marked",
            "short",
            [("gpu_tokens_marks_pending", "{{instance}}")],
        ),
        Panel(
            "MongoDB's clock, less this machine's",
            "s",
            [("gpu_tokens_clock_skew_seconds", "{{instance}}")],
        ),
        Panel(
            "Documents that MongoDB refuses for good",
            "short",
            [("max(gpu_tokens_documents_set_aside)", "set aside")],
        ),
        Panel(
            "Share of the last 1,000 records that was bad",
            "percentunit",
            [("gpu_tokens_bad_record_ratio", "{{instance}}")],
        ),
        Panel(
            "Refused records per second, by reason",
            "short",
            _rate("gpu_tokens_dead_letters_total", "reason"),
            empty="nothing was refused",
        ),
        Panel(
            "Records not read, by partition",
            "short",
            [("max by (partition) (gpu_tokens_group_lag_records)", "{{partition}}")],
            stacked=True,
        ),
        Panel(
            "Records not read, as processors see it",
            "short",
            [("sum by (instance) (gpu_tokens_lag_records)", "{{instance}}")],
        ),
        Panel(
            "Age of the oldest that waits",
            "s",
            [("max by (stage) (gpu_tokens_backlog_age_seconds)", "{{stage}}")],
        ),
        Panel("Event to stored", "s", _quantiles("gpu_tokens_event_to_stored_seconds")),
        Panel("Event to ledger", "s", _quantiles("gpu_tokens_event_to_ledger_seconds")),
        Panel(
            "Cells that wait",
            "short",
            [
                ("max(gpu_tokens_ledger_cells_due)", "due"),
                ("max(gpu_tokens_cells_due)", "as closers see it"),
            ],
        ),
        Panel(
            "Cells per second",
            "short",
            [
                (f"sum(rate(gpu_tokens_marks_total{RATE}))", "marked"),
                (f"sum(rate(gpu_tokens_cells_computed_total{RATE}))", "computed"),
                (f"sum(rate(gpu_tokens_cells_changed_total{RATE}))", "changed"),
                (f"sum(rate(gpu_tokens_cells_kept_total{RATE}))", "kept as they are"),
            ],
        ),
        Panel(
            "Partitions read",
            "short",
            [
                ("sum by (instance) (gpu_tokens_assigned_partitions)", "{{instance}}"),
                ("max(gpu_tokens_topic_partitions)", "there are"),
            ],
        ),
        Panel("Writes go through", "bool", [("gpu_tokens_store_up", "{{instance}}")]),
        Panel("Closers run", "bool", [("gpu_tokens_closer_up", "{{instance}}")]),
        Panel(
            "Batches repeated per second",
            "short",
            [(f"sum by (instance) (rate(gpu_tokens_write_retries_total{RATE}))", "{{instance}}")],
        ),
        Panel("Commits per second", "short", _rate("gpu_tokens_commits_total", "result")),
        Panel(
            "Since the loop last went round",
            "s",
            [("time() - gpu_tokens_last_progress_timestamp_seconds", "{{instance}}")],
        ),
        Panel("Records in a batch", "short", _quantiles("gpu_tokens_batch_records")),
        Panel("Time of a write, by step", "s", _quantiles("gpu_tokens_write_seconds", "step")[1:2]),
        Panel(
            "CPU by step",
            "percentunit",
            _rate("gpu_tokens_step_cpu_seconds_total", "step"),
            stacked=True,
        ),
        Panel(
            "API: requests per second",
            "short",
            [
                (
                    f"sum by (route, status) (rate(gpu_tokens_api_requests_total{RATE}))",
                    "{{route}} {{status}}",
                )
            ],
        ),
        Panel(
            "API: time to the first byte, p95",
            "s",
            _quantiles("gpu_tokens_api_request_seconds", "route")[1:2],
        ),
        Panel(
            "API: events received per second",
            "short",
            _rate("gpu_tokens_api_events_total", "outcome"),
            empty="producers write to Kafka directly",
        ),
        Panel(
            "API: spans of requests by outcome, and those that say "
            "others were not sent, per second",
            "short",
            [
                *_rate("gpu_tokens_api_spans_total", "outcome"),
                (
                    f"sum(rate(gpu_tokens_api_sampled_spans_total{RATE}))",
                    "sampled: requests are missing",
                ),
            ],
            empty="no spans are sent",
        ),
        Panel("API: open live streams", "short", [("sum(gpu_tokens_api_streams)", "streams")]),
        Panel(
            "Agents: samples per second", "short", _rate("gpu_tokens_agent_samples_total", "source")
        ),
        Panel(
            "Agents: GPUs read",
            "short",
            [("sum by (source) (gpu_tokens_agent_gpus)", "{{source}}")],
        ),
        Panel(
            "Agents: the source answers",
            "bool",
            [("min by (source) (gpu_tokens_agent_source_up)", "{{source}}")],
        ),
        Panel(
            "Agents: GPUs that cannot be read",
            "short",
            [("sum by (problem) (gpu_tokens_agent_gpu_problems)", "{{problem}}")],
            empty="all GPUs can be read",
        ),
        Panel(
            "Agents: samples not taken or not delivered, per second",
            "short",
            [
                (f"sum(rate(gpu_tokens_agent_delivery_failures_total{RATE}))", "not delivered"),
                (f"sum(rate(gpu_tokens_agent_skipped_ticks_total{RATE}))", "left out"),
            ],
        ),
        Panel(
            "Agents: reads that failed, GPU problems that began, per second",
            "short",
            [
                (f"sum(rate(gpu_tokens_agent_source_failures_total{RATE}))", "reads"),
                (f"sum(rate(gpu_tokens_agent_gpu_problem_changes_total{RATE}))", "problems"),
            ],
            empty="nothing failed",
        ),
        Panel(
            "Engines: scraped, and read",
            "short",
            [
                ("sum(gpu_tokens_agent_engines)", "scraped"),
                ("sum(gpu_tokens_agent_engines_up)", "read"),
            ],
            empty="no agent scrapes engines",
        ),
        Panel(
            "Engines: tokens per second, as they count them",
            "short",
            _rate("gpu_tokens_agent_engine_tokens_total", "kind"),
            empty="no agent scrapes engines",
        ),
        Panel(
            "Engines: a scrape takes, on average",
            "s",
            [
                (
                    f"sum(rate(gpu_tokens_agent_engine_scrape_seconds_sum{RATE})) / "
                    f"sum(rate(gpu_tokens_agent_engine_scrape_seconds_count{RATE}))",
                    "scrape",
                )
            ],
            empty="no agent scrapes engines",
        ),
        Panel(
            "Engines: scrapes that failed, began anew, count for missed ones, per second",
            "short",
            [
                (f"sum(rate(gpu_tokens_agent_engine_scrape_failures_total{RATE}))", "failed"),
                (f"sum(rate(gpu_tokens_agent_engine_resets_total{RATE}))", "began anew"),
                (f"sum(rate(gpu_tokens_agent_engine_gaps_total{RATE}))", "gaps"),
            ],
            empty="no agent scrapes engines",
        ),
        Panel(
            "Engines: events taken and given up per second, and waiting",
            "short",
            [
                (f"sum(rate(gpu_tokens_agent_engine_events_total{RATE}))", "taken"),
                (f"sum(rate(gpu_tokens_agent_engine_events_dropped_total{RATE}))", "given up"),
                ("sum(gpu_tokens_agent_engine_events_waiting)", "waiting"),
            ],
            empty="no agent scrapes engines",
        ),
        Panel(
            "Agents: since the last sample",
            "s",
            [("time() - gpu_tokens_agent_last_sample_timestamp_seconds", "{{instance}}")],
        ),
    ),
)

SLO_BOARD = Dashboard(
    "gpu-tokens-slos",
    "GPU tokens: objectives",
    (
        *(
            Panel(
                f"{slo.name}: share of errors (objective {slo.objective:.1%})",
                "percentunit",
                [
                    (f'{errors_metric(window)}{{slo="{slo.name}"}}', label)
                    for window, label in ((300, "5 m"), (3600, "1 h"), (86400, "1 d"))
                ],
            )
            for slo in SLOS
        ),
        Panel(
            "Error budget left, of three days",
            "percentunit",
            [(f"1 - {errors_metric(3 * 86400)} / (1 - slo:objective:ratio)", "{{slo}}")],
        ),
        Panel("Audit: findings", "short", [("max(gpu_tokens_audit_findings)", "findings")], "stat"),
        Panel(
            "Audit: age of the last",
            "s",
            [("time() - max(gpu_tokens_audit_last_timestamp_seconds)", "age")],
            "stat",
        ),
        Panel("Audit: cells compared", "short", [("max(gpu_tokens_audit_cells)", "cells")], "stat"),
        Panel(
            "Audit: results",
            "short",
            [("sum by (result) (increase(gpu_tokens_audits_total[1d]))", "{{result}}")],
        ),
        Panel(
            "Audit: duration, p95",
            "s",
            [
                (
                    (
                        "histogram_quantile(0.95, sum by (le) "
                        "(rate(gpu_tokens_audit_seconds_bucket[1d])))"
                    ),
                    "p95",
                )
            ],
        ),
        Panel(
            "Audit: interval", "s", [("max(gpu_tokens_audit_interval_seconds)", "interval")], "stat"
        ),
        Panel("Records lost", "short", [("sum(gpu_tokens_group_lost_records)", "lost")], "stat"),
        Panel(
            "What the exporter can see",
            "bool",
            [("min by (source) (gpu_tokens_exporter_source_up)", "{{source}}")],
        ),
        Panel(
            "Looks of the exporter per second",
            "short",
            [
                (
                    f"sum by (source, result) (rate(gpu_tokens_exporter_looks_total{RATE}))",
                    "{{source}} {{result}}",
                )
            ],
        ),
        Panel(
            "Alerts that fire",
            "short",
            [('count by (alertname) (ALERTS{alertstate="firing"})', "{{alertname}}")],
            empty="nothing fires",
        ),
    ),
)

KAFKA_BOARD = Dashboard(
    "gpu-tokens-kafka",
    "GPU tokens: Kafka",
    (
        Panel(
            "Records per second, as the topics count them",
            "short",
            _rate("gpu_tokens_log_records_total", "kind"),
        ),
        Panel(
            "Records not read",
            "short",
            [("sum(max by (partition) (gpu_tokens_group_lag_records))", "lag")],
        ),
        Panel(
            "Messages in per second, by topic",
            "short",
            _rate("kafka_server_brokertopicmetrics_messagesin_total", "topic"),
            source=JMX,
        ),
        Panel(
            "Bytes in per second, by topic",
            "Bps",
            _rate("kafka_server_brokertopicmetrics_bytesin_total", "topic"),
            source=JMX,
        ),
        Panel(
            "Bytes out per second, by topic",
            "Bps",
            _rate("kafka_server_brokertopicmetrics_bytesout_total", "topic"),
            source=JMX,
        ),
        Panel(
            "Under-replicated partitions",
            "short",
            [("sum(kafka_server_replicamanager_underreplicatedpartitions)", "partitions")],
            source=JMX,
        ),
        Panel(
            "Partitions by broker",
            "short",
            [("kafka_server_replicamanager_partitioncount", "{{instance}}")],
            source=JMX,
        ),
        Panel(
            "Active controllers",
            "short",
            [("sum(kafka_controller_kafkacontroller_activecontrollercount)", "controllers")],
            source=JMX,
        ),
        Panel(
            "Produce and fetch time, p99",
            "ms",
            [
                (
                    (
                        'kafka_network_requestmetrics_totaltimems{quantile="0.99",'
                        'request=~"Produce|FetchConsumer"}'
                    ),
                    "{{request}} {{instance}}",
                )
            ],
            source=JMX,
        ),
        Panel(
            "Request handlers idle",
            "percentunit",
            [("kafka_server_requesthandleridle_ratio", "{{instance}}")],
            source=JMX,
        ),
        Panel(
            "Size of the logs, by topic",
            "bytes",
            [("sum by (topic) (kafka_log_log_size)", "{{topic}}")],
            source=JMX,
        ),
        Panel(
            "JVM heap",
            "bytes",
            [('jvm_memory_used_bytes{area="heap"}', "{{instance}}")],
            source=JMX,
        ),
    ),
)

MONGODB_BOARD = Dashboard(
    "gpu-tokens-mongodb",
    "GPU tokens: MongoDB",
    (
        Panel("Members up", "bool", [("mongodb_up", "{{instance}}")], source=PERCONA),
        Panel(
            "Members' health, as the set sees it",
            "bool",
            [("min by (member_idx) (mongodb_rs_members_health)", "{{member_idx}}")],
            source=PERCONA,
        ),
        Panel(
            "Operations per second",
            "ops",
            [
                (
                    f"sum by (legacy_op_type) (rate(mongodb_ss_opcounters{RATE}))",
                    "{{legacy_op_type}}",
                )
            ],
            source=PERCONA,
        ),
        Panel(
            "Connections",
            "short",
            [('mongodb_ss_connections{conn_type="current"}', "{{instance}}")],
            source=PERCONA,
        ),
        Panel(
            "Cache in use",
            "percentunit",
            [
                (
                    (
                        "mongodb_ss_wt_cache_bytes_currently_in_the_cache / "
                        "mongodb_ss_wt_cache_maximum_bytes_configured"
                    ),
                    "{{instance}}",
                )
            ],
            source=PERCONA,
        ),
        Panel(
            "Dirty cache",
            "percentunit",
            [
                (
                    (
                        "mongodb_ss_wt_cache_tracked_dirty_bytes_in_the_cache / "
                        "mongodb_ss_wt_cache_maximum_bytes_configured"
                    ),
                    "{{instance}}",
                )
            ],
            source=PERCONA,
        ),
        Panel(
            "Time of an operation",
            "µs",
            [
                (
                    (
                        f"rate(mongodb_ss_opLatencies_latency{RATE}) / "
                        f"rate(mongodb_ss_opLatencies_ops{RATE})"
                    ),
                    "{{op_type}} {{instance}}",
                )
            ],
            source=PERCONA,
        ),
        Panel("Memory", "decmbytes", [("mongodb_ss_mem_resident", "{{instance}}")], source=PERCONA),
        Panel("Time of our writes, p95", "s", _quantiles("gpu_tokens_write_seconds", "step")[1:2]),
    ),
)

DASHBOARDS = (MONEY_BOARD, PIPELINE_BOARD, SLO_BOARD, KAFKA_BOARD, MONGODB_BOARD)
