"""Rules, dashboards, configurations: written from their tables, accepted by Prometheus' tools;
alerts fire, and stay silent."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.observability import __main__ as observability
from deploy.observability.grafana import names_in, registries, sentences
from deploy.observability.panels import DASHBOARDS
from deploy.observability.rules import RUNBOOKS, duration, errors_metric, rule_groups
from deploy.observability.table import ALERTS, SLOS, alert_names
from deploy.rendering import Manifest, NoKustomize, copy_with_secrets, kustomize, render

from gpu_token_analytics.logs import FIELDS

ROOT = observability.ROOT
ROOM = observability.ROOM

# A metric that no panel and no rule shows, and why.
NOT_SHOWN: dict[str, str] = {}


def tool(name: str, package: str) -> str:
    """A program of Debian's packages; a machine without it skips, CI fails."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not on PATH: apt-get install {package}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"needed in CI: {reason}", pytrace=False)
        pytest.skip(reason)
    return path


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def every_rule() -> list[dict[str, Any]]:
    return [rule for group in rule_groups()["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    panels = [
        query
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query, _ in panel.queries
    ]
    return panels + [rule["expr"] for rule in every_rule()]


def test_what_is_written_is_what_the_tables_say() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in observability.files().items()
        if path.read_text() != text
    ]
    assert stale == [], "run: make observability"


def test_no_dashboard_is_left_over() -> None:
    written = {path for path in observability.files() if path.suffix == ".json"}
    assert set((ROOM / "dashboards").iterdir()) == written
    packed = yaml.safe_load((ROOM / "kustomization.yaml").read_text())["configMapGenerator"][2][
        "files"
    ]
    assert sorted(packed) == sorted(str(path.relative_to(ROOM)) for path in written)


def test_every_metric_that_is_asked_for_exists() -> None:
    recorded = {rule["record"] for rule in every_rule() if "record" in rule}
    known = set(sentences()) | recorded
    for expression in expressions():
        asked = names_in(expression) | set(
            re.findall(r"\b(?:slo|gpu_tokens):[a-z0-9_:]+", expression)
        )
        assert asked - known == set(), expression


def test_every_metric_is_shown_somewhere() -> None:
    shown = {name for expression in expressions() for name in names_in(expression)}
    for registry in registries():
        for family in registry.collect():
            names = {name for name in sentences() if name.startswith(family.name)}
            assert shown & names or family.name in NOT_SHOWN, f"{family.name} is on no dashboard"


def test_every_label_that_is_asked_for_is_one_of_the_metric() -> None:
    labels = {"le", "job", "instance", "node", "quantile"}
    of_metric: dict[str, set[str]] = {}
    for registry in registries():
        for name, collector in registry._names_to_collectors.items():
            for suffix in ("", "_total", "_bucket", "_count", "_sum"):
                of_metric[name + suffix] = set(getattr(collector, "_labelnames", ())) | labels
    for expression in expressions():
        for metric, selector in re.findall(r"\b(gpu_tokens_[a-z0-9_]+)\{([^}]*)\}", expression):
            asked = set(re.findall(r"(\w+)\s*[=!]", selector))
            assert asked <= of_metric[metric], f"{metric} has no label {asked - of_metric[metric]}"


@pytest.mark.parametrize(
    "path", sorted(ROOM.rglob("rules.yaml")), ids=lambda path: path.parent.name
)
def test_promtool_takes_the_rules(path: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    plain = tmp_path / "rules.yaml"
    plain.write_text(yaml.safe_dump(document.get("spec", document)))
    run(tool("promtool", "prometheus"), "check", "rules", str(plain))


def test_promtool_takes_the_configurations(tmp_path: Path) -> None:
    promtool = tool("promtool", "prometheus")
    for name in ("prometheus.yaml", "prometheus-machines.yaml"):
        text = (ROOM / "config" / name).read_text()
        placed = tmp_path / name  # the paths in it are those of the pod
        placed.write_text(
            text.replace("/etc/prometheus/", f"{ROOM}/").replace(
                "../rules.yaml", f"{ROOM}/rules.yaml"
            )
        )
        assert "1 rule files found" in run(promtool, "check", "config", str(placed))


def test_promtool_takes_every_query_of_every_panel(tmp_path: Path) -> None:
    """The real Prometheus answers them in tests/integration/test_observability.py; this needs
    promtool only."""
    promtool = tool("promtool", "prometheus")
    queries = [
        query
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query, _ in panel.queries
    ]
    rules = [
        {"record": f"q:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": rules}]}))
    assert f"{len(queries)} rules found" in run(promtool, "check", "rules", str(path))


# -- alerts: each fires, each stays silent ---------------------------------------------------------

STEP_MINUTES = 5
TAIL = 60  # steps: what breaks, breaks five hours before the end


def steady(value: str) -> str:
    """A series that stays as it is."""
    return f"{value}+0x1200"


def counter(per_step: float) -> str:
    return f"0+{per_step:g}x1200"


def turns(before: str, after: str) -> str:
    """A series that is another one in the last five hours. `{lead}` is filled in by how long the
    test looks."""
    return f"{before}+0x{{lead}} {after}+0x{TAIL + 20}"


def quiet(step_events: float = 3000) -> dict[str, str]:
    """The series of a pipeline where all is well. One step is five minutes."""
    requests = '{method="GET",route="/v1/costs",status="200"}'
    return {
        'gpu_tokens_backlog_age_seconds{stage="kafka"}': steady("2"),
        'gpu_tokens_backlog_age_seconds{stage="ledger"}': steady("11"),
        'gpu_tokens_log_records_total{kind="events"}': counter(step_events),
        'gpu_tokens_log_records_total{kind="dead_letters"}': steady("7"),
        f"gpu_tokens_api_requests_total{requests}": counter(300),
        'gpu_tokens_api_request_seconds_bucket{route="/v1/costs",le="1.0"}': counter(300),
        'gpu_tokens_api_request_seconds_count{route="/v1/costs"}': counter(300),
        # Probes are no requests, however slow and however they end.
        'gpu_tokens_api_requests_total{method="GET",route="/ready",status="503"}': counter(3000),
        'gpu_tokens_api_request_seconds_bucket{route="/ready",le="1.0"}': counter(0),
        'gpu_tokens_api_request_seconds_count{route="/ready"}': counter(3000),
        "gpu_tokens_audit_findings": steady("0"),
        "gpu_tokens_audit_interval_seconds": steady("900"),
        "gpu_tokens_audit_last_timestamp_seconds": "0+300x1200",
        'gpu_tokens_group_lost_records{partition="0"}': steady("0"),
        'gpu_tokens_exporter_source_up{source="kafka"}': steady("1"),
        'gpu_tokens_exporter_source_up{source="ledger"}': steady("1"),
        'gpu_tokens_assigned_partitions{instance="a"}': steady("6"),
        'gpu_tokens_assigned_partitions{instance="b"}': steady("6"),
        "gpu_tokens_topic_partitions": steady("12"),
        'gpu_tokens_store_up{instance="a"}': steady("1"),
        "gpu_tokens_documents_set_aside": steady("0"),
        'gpu_tokens_ledger_topic_lag_seconds{instance="a"}': steady("40"),
        'gpu_tokens_ledger_topic_lag_seconds{instance="b"}': steady("0"),
        'gpu_tokens_budget_alerts_undelivered{state="waiting"}': steady("0"),
        'gpu_tokens_budget_alerts_undelivered{state="failed"}': steady("3"),
        'gpu_tokens_agent_gpu_problems{source="nvml",problem="lost"}': steady("0"),
        'up{job="exporter",instance="e"}': steady("1"),
        'up{job="processor",instance="a"}': steady("1"),
        "kafka_server_replicamanager_underreplicatedpartitions": steady("0"),
        'mongodb_rs_members_health{member_idx="m-0:27017"}': steady("1"),
    }


GONE = ""  # the series is not there at all
NAN = "NaN+0x1200"
_BAD = 'gpu_tokens_log_records_total{kind="dead_letters"}'
_EVENTS = 'gpu_tokens_log_records_total{kind="events"}'
_FAULT = 'gpu_tokens_api_requests_total{method="GET",route="/v1/costs",status="500"}'
_FAST = 'gpu_tokens_api_request_seconds_bucket{route="/v1/costs",le="1.0"}'
_KAFKA_AGE = 'gpu_tokens_backlog_age_seconds{stage="kafka"}'
_LEDGER_AGE = 'gpu_tokens_backlog_age_seconds{stage="ledger"}'
_LAST_AUDIT = "gpu_tokens_audit_last_timestamp_seconds"
_TOPIC_LAG = 'gpu_tokens_ledger_topic_lag_seconds{instance="a"}'
_LOST = 'gpu_tokens_group_lost_records{partition="0"}'
_EXPORTER = 'up{job="exporter",instance="e"}'
_KAFKA = 'gpu_tokens_exporter_source_up{source="kafka"}'
_WAITING, _GIVEN_UP = (
    f'gpu_tokens_budget_alerts_undelivered{{state="{state}"}}' for state in ("waiting", "failed")
)
_PARTS_A, _PARTS_B = (f'gpu_tokens_assigned_partitions{{instance="{name}"}}' for name in "ab")

# alert -> what breaks it -> the series that are different then.
FIRES: dict[str, dict[str, dict[str, str]]] = {
    "FreshnessPage": {
        "a backlog that grows old": {_KAFKA_AGE: turns("2", "900")},
        "nobody can tell": {_KAFKA_AGE: turns("2", "NaN")},
        "the ledger is late": {_LEDGER_AGE: turns("2", "121")},
    },
    "FreshnessTicket": {
        "late for half an hour in two days": {_KAFKA_AGE: "2+0x{lead} 900+0x5 2+0x80"}
    },
    "CompletenessPage": {"one record of ten is refused": {_BAD: "0+0x{lead} 0+300x80"}},
    "CompletenessTicket": {"two of a thousand, for days": {_BAD: counter(6)}},
    "ApiLatencyPage": {"half of the answers are slow": {_FAST: "0+300x{lead} {fast}+150x80"}},
    "ApiLatencyTicket": {"two of a hundred are slow, for days": {_FAST: counter(294)}},
    "ApiAvailabilityPage": {"one answer of ten is a fault": {_FAULT: "0+0x{lead} 0+30x80"}},
    "ApiAvailabilityTicket": {"two of a thousand, for days": {_FAULT: counter(0.6)}},
    "LedgerNotExact": {"a finding": {"gpu_tokens_audit_findings": turns("0", "1")}},
    "RecordsLost": {"records deleted before they were read": {_LOST: turns("0", "5")}},
    "ExporterDown": {
        "it does not answer": {_EXPORTER: turns("1", "0")},
        "it is gone": {_EXPORTER: GONE},
    },
    "SourceUnreachable": {"Kafka": {_KAFKA: turns("1", "0")}},
    "AuditStale": {
        "the last is old": {_LAST_AUDIT: steady("1")},
        "there was none": {_LAST_AUDIT: NAN},
    },
    "DeadLetters": {"one": {_BAD: "7+0x{lead} 7+0x58 8+0x20"}},
    "PartitionsUnread": {
        "a processor without successor": {_PARTS_B: turns("6", "0")},
        "no processor at all": {_PARTS_A: GONE, _PARTS_B: GONE},
    },
    "StoreRefusesWrites": {"writes wait": {'gpu_tokens_store_up{instance="a"}': turns("1", "0")}},
    "DocumentsSetAside": {"a cell": {"gpu_tokens_documents_set_aside": turns("0", "1")}},
    "BudgetAlertsUndelivered": {
        "a receiver is away": {_WAITING: turns("0", "1")},
        "one was given up": {_GIVEN_UP: "3+0x{lead} 3+0x40 4+0x40"},
    },
    "LedgerTopicBehind": {
        "nothing reaches it any more": {_TOPIC_LAG: "40+0x{lead} 40+300x80"},
    },
    "GpusUnreadable": {
        "a lost GPU": {
            'gpu_tokens_agent_gpu_problems{source="nvml",problem="lost"}': turns("0", "1")
        }
    },
    "TargetDown": {
        "a processor does not answer": {'up{job="processor",instance="a"}': turns("1", "0")}
    },
    "KafkaUnderReplicated": {
        "a broker is away": {
            "kafka_server_replicamanager_underreplicatedpartitions": turns("0", "4")
        }
    },
    "MongoMemberDown": {
        "a member is away": {'mongodb_rs_members_health{member_idx="m-0:27017"}': turns("1", "0")}
    },
}

# alert -> what looks like trouble and is none.
SILENT: dict[str, dict[str, dict[str, str]]] = {
    "FreshnessPage": {"late for half an hour, long ago": {_KAFKA_AGE: "2+0x20 900+0x5 2+0x1200"}},
    "FreshnessTicket": {
        "late for half an hour, the day before": {_KAFKA_AGE: "2+0x420 900+0x5 2+0x800"}
    },
    "CompletenessPage": {
        "one of a thousand": {_BAD: counter(3)},
        "no record at all": {_EVENTS: steady("5")},
    },
    "CompletenessTicket": {"one of two thousand": {_BAD: counter(1.5)}},
    "ApiLatencyPage": {"five of a hundred are slow": {_FAST: counter(285)}},
    "ApiLatencyTicket": {"five of a thousand are slow": {_FAST: counter(298.5)}},
    "ApiAvailabilityPage": {"half of a per cent is a fault": {_FAULT: counter(1.5)}},
    "ApiAvailabilityTicket": {"one of two thousand": {_FAULT: counter(0.15)}},
    "AuditStale": {
        "audits are switched off": {
            "gpu_tokens_audit_interval_seconds": steady("0"),
            _LAST_AUDIT: NAN,
        }
    },
    "PartitionsUnread": {"while partitions move": {_PARTS_B: "6+0x{lead} 6+0x58 0 6+0x50"}},
    "LedgerNotExact": {"not audited yet": {"gpu_tokens_audit_findings": NAN}},
    "BudgetAlertsUndelivered": {
        "one that is tried again": {_WAITING: "0+0x{lead} 0+0x78 1+0x1"},
        "some, given up long ago": {_GIVEN_UP: steady("3")},
    },
    "LedgerTopicBehind": {
        "a broker that was away for ten minutes": {_TOPIC_LAG: "40+0x{lead} 40+0x56 640 40+0x80"},
        "LEDGER_TOPIC is not set": {_TOPIC_LAG: steady("0")},
    },
    "DeadLetters": {"one, an hour ago": {_BAD: "7+0x{lead} 7+0x48 8+0x50"}},
}


def evaluate(tmp_path: Path, series: dict[str, str], *alerts: str) -> list[str]:
    """The labels of what these alerts fire at the end, by the real promtool. Two days for tickets,
    half a day for the rest."""
    steps = 648 if any(alert.endswith("Ticket") for alert in alerts) else 144
    lead = steps - TAIL - 1  # both ends of a run of values are counted
    filled = {
        name: values.format(lead=lead, fast=300 * (lead + 1))
        for name, values in series.items()
        if values != GONE
    }
    inputs = [{"series": name, "values": values} for name, values in filled.items()]
    expected = [
        {"eval_time": f"{steps * STEP_MINUTES}m", "alertname": alert, "exp_alerts": []}
        for alert in alerts
    ]
    tests = {
        "rule_files": [str(ROOM / "rules.yaml")],
        "evaluation_interval": "30m",
        # Else in any order; alerts then see shares of errors that were recorded half an hour ago,
        # which are none.
        "group_eval_order": [group["name"] for group in rule_groups()["groups"]],
        "tests": [{"interval": "5m", "input_series": inputs, "alert_rule_test": expected}],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(tests))
    command = [tool("promtool", "prometheus"), "test", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return []
    assert any(f"alertname: {alert}" in said for alert in alerts), said
    firing = re.findall(r"Labels:\{[^}]*\}", said)
    assert firing, said
    return firing


@pytest.mark.parametrize(
    ("alert", "why"), [(alert, why) for alert, cases in FIRES.items() for why in cases]
)
def test_an_alert_fires(alert: str, why: str, tmp_path: Path) -> None:
    assert len(evaluate(tmp_path, quiet() | FIRES[alert][why], alert)) == 1


@pytest.mark.parametrize(
    ("alert", "why"), [(alert, why) for alert, cases in SILENT.items() for why in cases]
)
def test_an_alert_stays_silent(alert: str, why: str, tmp_path: Path) -> None:
    assert evaluate(tmp_path, quiet() | SILENT[alert][why], alert) == []


def test_no_alert_fires_while_all_is_well(tmp_path: Path) -> None:
    assert evaluate(tmp_path, quiet(), *alert_names()) == []


def test_every_alert_is_made_to_fire() -> None:
    assert set(FIRES) == set(alert_names())
    assert {rule["alert"] for rule in every_rule() if "alert" in rule} == set(alert_names())
    assert len(SLOS) == 4
    assert len(ALERTS) == len({alert.name for alert in ALERTS})


def test_every_alert_has_its_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / RUNBOOKS).read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(alert_names())
    for rule in every_rule():
        if "alert" in rule:
            assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}#{rule['alert'].lower()}"
            assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.parametrize(
    ("seconds", "text"), [(300, "5m"), (3600, "1h"), (86_400, "1d"), (90, "90s"), (0.2, "1s")]
)
def test_durations_are_written_as_prometheus_reads_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert errors_metric(300) == "slo:errors:ratio_5m"


# -- who is told -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [(("severity=page", "slo=freshness"), "pages"), (("severity=ticket",), "tickets")],
)
def test_alertmanager_tells_the_right_receiver(labels: tuple[str, ...], receiver: str) -> None:
    config = str(ROOM / "config" / "alertmanager.yaml")
    amtool = tool("amtool", "prometheus-alertmanager")
    run(amtool, "check-config", config)
    assert (
        run(amtool, "config", "routes", "test", f"--config.file={config}", *labels).split()[0]
        == receiver
    )


# -- Kubernetes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    """CA3's bench overlay and the observability, rendered together."""
    try:
        kustomize()
    except NoKustomize as lack:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(str(lack))
        pytest.skip(f"NOT CHECKED: {lack}")
    return render(copy_with_secrets(tmp_path_factory.mktemp("stages")) / "CA3/overlays/observed")


def named(objects: list[Manifest], kind: str, name: str) -> dict[str, Any]:
    return next(
        one
        for one in objects
        if one["kind"] == kind and re.sub(r"-[a-z0-9]{10}$", "", one["metadata"]["name"]) == name
    )


def test_the_exporter_gets_the_settings_and_secrets_of_the_others(objects: list[Manifest]) -> None:
    def sources(name: str) -> Any:
        return named(objects, "Deployment", name)["spec"]["template"]["spec"]["containers"][0][
            "envFrom"
        ]

    assert sources("exporter") == sources("processor")


def test_prometheus_has_no_right_at_the_api_server(objects: list[Manifest]) -> None:
    bound = [
        subject["name"]
        for one in objects
        if one["kind"].endswith("Binding")
        for subject in one["subjects"]
    ]
    assert not {"prometheus", "alertmanager", "exporter"} & set(bound)
    for kind, name in (
        ("StatefulSet", "prometheus"),
        ("Deployment", "alertmanager"),
        ("Deployment", "exporter"),
    ):
        assert (
            named(objects, kind, name)["spec"]["template"]["spec"]["automountServiceAccountToken"]
            is False
        )


def scraped() -> dict[str, tuple[str, str, int]]:
    """By job: the Service whose pods are scraped, its namespace, the pods' port."""
    config = yaml.safe_load((ROOM / "config/prometheus.yaml").read_text())
    found = {}
    for job in config["scrape_configs"]:
        for discovery in job.get("dns_sd_configs", ()):
            (host,) = discovery["names"]
            service, namespace, rest = host.split(".", 2)
            assert rest == "svc.cluster.local"
            found[job["job_name"]] = (service, namespace, discovery["port"])
    return found


def test_every_scraped_name_is_a_headless_service_of_pods_that_listen_there(
    objects: list[Manifest],
) -> None:
    optional = list(yaml.safe_load_all((ROOM / "servers/targets.yaml").read_text()))
    for job, (service, namespace, port) in scraped().items():
        (target,) = [
            one
            for one in objects + optional
            if one["kind"] == "Service"
            and one["metadata"]["name"] == service
            and one["metadata"]["namespace"] == namespace
        ]
        assert target["spec"]["clusterIP"] == "None"
        assert target["spec"]["publishNotReadyAddresses"], (
            "a pod that fails is the one whose metrics are wanted"
        )
        assert target["spec"]["selector"] == {"app.kubernetes.io/name": job}
        assert target["spec"]["ports"][0]["port"] == port
    for name in ("processor", "api", "exporter"):
        template = named(objects, "Deployment", name)["spec"]["template"]
        assert template["metadata"]["labels"]["app.kubernetes.io/name"] == name
        assert {"name": "http", "containerPort": scraped()[name][2]} in template["spec"][
            "containers"
        ][0]["ports"]


def test_prometheus_may_reach_what_it_scrapes() -> None:
    policies = list(yaml.safe_load_all((ROOM / "policies.yaml").read_text()))
    (mine,) = [one for one in policies if one["metadata"]["name"] == "prometheus"]
    open_to = {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in mine["spec"]["egress"]
        for peer in rule["to"]
        if "namespaceSelector" in peer
        for port in rule["ports"]
    }
    assert open_to == {(namespace, port) for _, namespace, port in scraped().values()}
    (deny,) = [one for one in policies if one["metadata"]["name"] == "default-deny"]
    assert deny["spec"]["podSelector"] == {}


def test_observability_pods_are_restricted(objects: list[Manifest]) -> None:
    for kind, name in (
        ("Deployment", "exporter"),
        ("StatefulSet", "prometheus"),
        ("Deployment", "alertmanager"),
    ):
        pod = named(objects, kind, name)["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert container["resources"]["limits"]["memory"]


def test_dashboards_carry_the_label_that_grafana_looks_for(objects: list[Manifest]) -> None:
    packed = named(objects, "ConfigMap", "grafana-dashboards")
    assert packed["metadata"]["labels"]["grafana_dashboard"] == "1"
    for text in packed["data"].values():
        dashboard = json.loads(text)
        assert dashboard["panels"]
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_operators_monitors_scrape_what_prometheus_scrapes() -> None:
    monitors = list(yaml.safe_load_all((ROOM / "operator/pods.yaml").read_text()))
    seen = {
        (name, monitor["metadata"]["namespace"])
        for monitor in monitors
        for name in monitor["spec"]["selector"]["matchExpressions"][0]["values"]
    }
    assert seen == {(job, namespace) for job, (_, namespace, _) in scraped().items()}


def test_the_collector_reads_the_fields_that_the_product_logs() -> None:
    """It is not run: its file receiver is no module that can be verified here. What can be compared
    is compared."""
    config = yaml.safe_load((ROOM / "config/collector.yaml").read_text())
    pipeline = config["service"]["pipelines"]["logs"]
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == set(config[kind])
    operators = config["receivers"]["filelog"]["operators"]
    asked = set(re.findall(r"attributes\.(\w+)", json.dumps(operators)))
    assert asked <= {"ts", "level", "message", *FIELDS}
    namespaces = [
        path.split("/")[4].removesuffix("_*") for path in config["receivers"]["filelog"]["include"]
    ]
    assert namespaces == ["gpu-tokens", "gpu-tokens-agents"]


def test_the_readme_names_every_field_of_a_log_line() -> None:
    page = (ROOM / "README.md").read_text()
    assert [field for field in FIELDS if f"`{field}`" not in page] == []
