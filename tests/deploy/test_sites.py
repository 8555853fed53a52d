"""Everything about the two sites says what deploy/sites.yaml says, and Envoy takes its files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.sites import documents, envoy, stores, table, written

from gpu_token_analytics.settings import Settings

TABLE = table.load()
RAW: dict[str, Any] = yaml.safe_load(table.TABLE.read_text())
STAGE = table.ROOT / "CA4"
HOME_OF = {name: service["site"] for name, service in RAW["services"].items()}
CALLS = {(call["from"], call["as"], service) for call in RAW["calls"] for service in call["to"]}


def listeners(site: str) -> dict[str, Any]:
    """A site's listeners by name, as they stand in the repository."""
    resources = yaml.safe_load((STAGE / "envoy" / site / "listeners.yaml").read_text())["resources"]
    return {resource["name"]: resource for resource in resources}


def clusters(site: str) -> dict[str, Any]:
    resources = yaml.safe_load((STAGE / "envoy" / site / "clusters.yaml").read_text())["resources"]
    return {resource["name"]: resource for resource in resources}


def properties(name: str) -> dict[str, str]:
    lines = (STAGE / "mirror" / name).read_text().splitlines()
    return dict(
        line.split(" = ", 1) for line in lines if " = " in line and not line.startswith("#")
    )


def test_everything_written_from_the_table_is_up_to_date() -> None:
    assert [str(path.relative_to(table.ROOT)) for path in written.stale(TABLE)] == [], (
        "run: make sites-files"
    )


@pytest.mark.parametrize("site", RAW["sites"])
def test_the_gateway_lets_in_exactly_the_callers_of_the_table(site: str) -> None:
    """Read back from the file, independently of the code that writes it."""
    allowed = {}
    for chain in listeners(site)["gateway"]["filter_chains"]:
        (name,) = chain["filter_chain_match"]["server_names"]
        (rbac,) = [
            f["typed_config"] for f in chain["filters"] if f["name"] == "envoy.filters.network.rbac"
        ]
        assert rbac["rules"]["action"] == "ALLOW"
        (policy,) = rbac["rules"]["policies"].values()
        allowed[name] = {
            p["authenticated"]["principal_name"]["exact"] for p in policy["principals"]
        }
    domain = {name: entry["trust_domain"] for name, entry in RAW["sites"].items()}
    expected: dict[str, set[str]] = {}
    for source, identity, service in CALLS:
        if HOME_OF[service] == site:
            expected.setdefault(f"{service}.mesh", set()).add(
                f"spiffe://{domain[source]}/{identity}"
            )
    assert allowed == expected


@pytest.mark.parametrize("site", RAW["sites"])
def test_tls_1_3_is_the_least_and_the_most_and_nobody_comes_without_a_certificate(
    site: str,
) -> None:
    contexts = [
        chain["transport_socket"]["typed_config"]
        for chain in listeners(site)["gateway"]["filter_chains"]
    ]
    assert all(context["require_client_certificate"] is True for context in contexts)
    outward = [
        c["transport_socket"]["typed_config"]
        for c in clusters(site).values()
        if "transport_socket" in c
    ]
    assert outward
    for context in [*contexts, *outward]:
        assert set(context["common_tls_context"]["tls_params"].values()) == {"TLSv1_3"}


@pytest.mark.parametrize("site", RAW["sites"])
def test_a_site_has_a_way_out_for_its_calls_and_for_nothing_else(site: str) -> None:
    ways = {
        name: cluster["transport_socket"]["typed_config"]
        for name, cluster in clusters(site).items()
        if "transport_socket" in cluster
    }
    mine = {(identity, service) for source, identity, service in CALLS if source == site}
    plain = {(identity, service) for identity, service in mine if not service.startswith("api")}
    seen = {
        (context["common_tls_context"]["tls_certificate_sds_secret_configs"][0]["name"], name)
        for name, context in ways.items()
    }
    assert seen == plain
    for name, context in ways.items():
        home = RAW["sites"][HOME_OF[name]]
        combined = context["common_tls_context"]["combined_validation_context"][
            "default_validation_context"
        ]
        assert combined["match_typed_subject_alt_names"] == [
            {"san_type": "URI", "matcher": {"exact": f"spiffe://{home['trust_domain']}/gateway"}}
        ]
    bound = {
        name: listener["address"]["socket_address"]
        for name, listener in listeners(site).items()
        if name not in ("gateway", "api")
    }
    assert {name: address["port_value"] for name, address in bound.items()} == {
        service: RAW["services"][service]["port"] for _, service in plain
    }
    assert {address["address"] for address in bound.values()} <= {"127.0.0.1"}, (
        "a way out is for this host only"
    )


@pytest.mark.parametrize("site", RAW["sites"])
def test_envoy_takes_the_files(site: str, tmp_path: Path) -> None:
    """The binary's own judgement: fields, RBAC, TLS, filters. What it says about a bad one, see
    below."""
    assert _validated(tmp_path, site, envoy.static(TABLE, TABLE.sites[site])).returncode == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"node": {"id": "x", "nonsense": 1}}, "unknown fields"),
        ({"static_resources": {"clusters": [{"name": "x", "type": "NOWHERE"}]}}, "NOWHERE|invalid"),
    ],
)
def test_envoy_refuses_what_is_wrong(wrong: dict[str, Any], says: str, tmp_path: Path) -> None:
    done = _validated(tmp_path, "a", envoy.static(TABLE, TABLE.sites["a"]) | wrong)
    assert done.returncode != 0
    assert re.search(says, done.stdout), done.stdout[-2000:]


def _validated(folder: Path, site: str, config: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    binary = shutil.which(
        "envoy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if binary is None:
        assert not os.environ.get("CI"), "CI installs envoy (make setup-dev)"
        pytest.skip("envoy is not here: make setup-dev installs it on Linux x86-64")
    for name in envoy.secret_files(TABLE, TABLE.sites[site]):
        (folder / name).parent.mkdir(exist_ok=True)
        # secrets come later; the paths have to be there
        (folder / name).write_text("resources: []\n")
    (folder / "envoy.yaml").write_text(written.as_yaml(config))
    command = [
        binary,
        "--mode",
        "validate",
        "-c",
        "envoy.yaml",
        "--base-id",
        "71",
        "--disable-hot-restart",
    ]
    return subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )


def test_exactly_once_is_asked_of_the_target_and_never_at_the_top() -> None:
    """MirrorMaker ignores the keys without a cluster's name, and copies at least once without a
    word."""
    one_way, both_ways = (
        properties("active-passive.properties"),
        properties("active-active.properties"),
    )
    assert one_way["b.exactly.once.source.support"] == "enabled"
    assert {both_ways[f"{site}.exactly.once.source.support"] for site in "ab"} == {"enabled"}
    for name in ("exactly.once.source.support", "offset.flush.interval.ms"):
        assert name not in one_way
        assert name not in both_ways


def test_topics_keep_their_names_in_one_direction_only() -> None:
    one_way, both_ways = (
        properties("active-passive.properties"),
        properties("active-active.properties"),
    )
    assert (one_way["a->b.enabled"], one_way["b->a.enabled"]) == ("true", "false")
    assert one_way["replication.policy.class"].endswith(".IdentityReplicationPolicy")
    assert (both_ways["a->b.enabled"], both_ways["b->a.enabled"]) == ("true", "true")
    assert both_ways["replication.policy.class"].endswith(".DefaultReplicationPolicy")
    assert one_way["topics"] == r"tokens, tokens\\.dlq"


def test_the_replica_set_is_on_loopback_and_no_site_has_half_of_the_votes() -> None:
    document = json.loads((STAGE / "mongodb/replica-set.json").read_text())
    assert [m["host"] for m in document["members"]] == [
        f"127.0.0.1:{s['port']}" for s in RAW["services"].values() if s["kind"] == "mongodb"
    ]
    votes = [m["tags"]["site"] for m in document["members"] if m["votes"]]
    assert all(2 * votes.count(site) < len(votes) for site in RAW["sites"])
    assert [m["priority"] for m in document["members"] if m["tags"]["site"] == "c"] == [0]


def test_settings_of_a_site_are_the_products_and_the_store_is_the_same_everywhere() -> None:
    of_site = {
        site: dict(
            line.split("=", 1)
            for line in (STAGE / f"site-{site}.env").read_text().splitlines()
            if "=" in line[:30]
        )
        for site in ("a", "b")
    }
    for values in of_site.values():
        assert {name.lower() for name in values if name.isupper()} <= set(Settings.model_fields)
    assert of_site["a"]["MONGODB_URI"] == of_site["b"]["MONGODB_URI"] == stores.mongodb_uri(TABLE)
    assert not (STAGE / "site-c.env").exists(), "the voter runs no process of ours"


def test_terraform_takes_everything_but_its_providers_from_the_table() -> None:
    texts = [path.read_text() for path in (STAGE / "terraform").rglob("*.tf")]
    for port in (15443, 9092, 27011, 22):
        assert not any(
            re.search(rf"\b{port}\b", re.sub(r"(?m)#.*|description\s*=.*", "", text))
            for text in texts
        ), port
    providers = re.findall(r'alias\s+= "(\w+)"', (STAGE / "terraform/sites.tf").read_text())
    assert providers == list(RAW["sites"])


def test_the_documents_carry_the_tables() -> None:
    carried = {
        name
        for path in STAGE.rglob("*.md")
        for name in re.findall(r"<!-- sites:(\w+) -->", path.read_text())
    }
    assert carried >= set(documents.tables(TABLE))


@pytest.mark.parametrize(
    ("replace", "by", "message"),
    [
        (
            "vpc_cidr: 10.72.0.0/16, subnet_cidr: 10.72",
            "vpc_cidr: 10.71.0.0/16, subnet_cidr: 10.71",
            "outside|overlaps",
        ),
        ("host_ip: 10.71.0.10", "host_ip: 10.99.0.10", "outside subnet_cidr"),
        (
            "trust_domain: site-b.tokens",
            "trust_domain: site-a.tokens",
            "one authority could then speak for both",
        ),
        ("{role: standby", "{role: active", "exactly one site has the role"),
        ("port: 9192", "port: 9092", "has two owners"),
        ("{site: c, kind: mongodb", "{site: a, kind: mongodb", "no majority"),
        ("{from: b, as: mirror", "{from: d, as: mirror", "unknown site or service"),
        ("{from: b, as: mirror", "{from: b, as: gateway", "unknown identity"),
        ("to: [kafka-a]", "to: [kafka-b]", "at the same site"),
        (
            "{from: b, as: api, to: [api-a]",
            "{from: b, as: api, to: [kafka-a]",
            "stands there twice",
        ),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    replace: str, by: str, message: str, tmp_path: Path
) -> None:
    text = table.TABLE.read_text()
    assert replace in text
    broken = tmp_path / "sites.yaml"
    broken.write_text(text.replace(replace, by, 1))
    with pytest.raises(table.SiteTableError, match=message):
        table.load(broken)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not here (Debian's package prometheus has it)")
    folder = STAGE / "prometheus"
    for command in (
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run(
            [promtool, *command],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_runbook() -> None:
    rules = yaml.safe_load((STAGE / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    chapters = {
        line[3:].strip().lower()
        for line in (STAGE / "docs/runbooks.md").read_text().splitlines()
        if line[:3] == "## "
    }
    for rule in rules:
        named = rule["annotations"]["description"].partition("Runbook: ")[2].rstrip(".")
        assert named in chapters, f"{rule['alert']}: CA4/docs/runbooks.md has no chapter `{named}`"
