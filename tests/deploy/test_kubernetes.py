"""The manifests of CA2 and CA3, rendered by kustomize: what must hold for every pod, and that they
agree with their tables."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploy.flows import ROOT
from deploy.rendering import (
    OVERLAYS,
    Manifest,
    NoKustomize,
    copy_with_secrets,
    kustomize,
    pods,
    render,
)

from deploy import manifests as written
from gpu_token_analytics.ingest.run import STOP_WITHIN_SECONDS
from gpu_token_analytics.settings import Settings

OURS = "gpu-token-analytics"
AGENTS = "gpu-tokens-agents"
MONITORING = "monitoring"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Manifest]]:
    """Every overlay's objects, by its path."""
    try:
        kustomize()
    except NoKustomize as lack:
        if os.environ.get("CI"):
            pytest.fail(str(lack))
        pytest.skip(f"NOT CHECKED: {lack}")
    folder = copy_with_secrets(tmp_path_factory.mktemp("stages"))
    return {overlay: render(folder / overlay) for overlay in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    """One overlay's objects."""
    return rendered[request.param]


def containers(template: Manifest) -> Iterator[Manifest]:
    yield from template["spec"].get("initContainers", [])
    yield from template["spec"]["containers"]


def by_kind(objects: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def config(objects: list[Manifest], name: str) -> dict[str, str]:
    """The data of a generated ConfigMap, whatever hash its name ends with."""
    (data,) = (
        item["data"]
        for key, item in by_kind(objects, "ConfigMap").items()
        if re.fullmatch(rf"{name}-[a-z0-9]{{10}}", key)
    )
    return dict(data)


def breaks_restricted(template: Manifest) -> list[str]:
    """What the Pod Security Standard `restricted` (its rules of Kubernetes 1.34) forbids in a
    pod."""
    spec, problems = template["spec"], []
    pod = spec.get("securityContext", {})
    problems += [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    allowed = {
        "configMap",
        "secret",
        "emptyDir",
        "persistentVolumeClaim",
        "projected",
        "downwardAPI",
        "csi",
        "ephemeral",
    }
    for volume in spec.get("volumes", []):
        problems += [
            f"volume {volume['name']}: {kind}" for kind in set(volume) - {"name"} - allowed
        ]
    for container in containers(template):
        name, own = container["name"], container.get("securityContext", {})
        merged = {**pod, **own}
        if merged.get("runAsNonRoot") is not True or merged.get("runAsUser") == 0:
            problems.append(f"{name}: may run as root")
        if merged.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}:
            problems.append(f"{name}: no seccomp profile")
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            problems.append(f"{name}: may gain privileges")
        capabilities = own.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or set(capabilities.get("add", [])) - {
            "NET_BIND_SERVICE"
        }:
            problems.append(f"{name}: keeps capabilities")
        problems += [
            f"{name}: hostPort" for port in container.get("ports", []) if port.get("hostPort")
        ]
    return problems


def test_what_is_written_from_settings_and_versions_is_up_to_date() -> None:
    stale = [
        str(path.relative_to(ROOT)) for path, text in written.rendered() if path.read_text() != text
    ]
    assert stale == [], "run: make manifests"


def test_the_agents_settings_name_all_that_the_agent_reads() -> None:
    sources = "".join(
        path.read_text() for path in (ROOT / "src/gpu_token_analytics/agent").glob("*.py")
    )
    read = {name.upper() for name in re.findall(r"\bsettings\.(\w+)", sources)}
    read &= {name.upper() for name in Settings.model_fields}
    assert {"GPU_METRICS_SOURCE", "SAMPLE_INTERVAL_SECONDS", "ENGINES"} <= read
    named = set(re.findall(r"^(?:# )?([A-Z_]+)=", written.AGENT_SETTINGS.read_text(), re.M))
    assert read - named - written.PER_POD == set()


def test_images_are_those_of_env_example(overlay: list[Manifest]) -> None:
    versions = set(
        re.findall(r"^[A-Z_]+_IMAGE=(\S+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    )
    used = {
        container["image"] for _, _, template in pods(overlay) for container in containers(template)
    }
    foreign = {image for image in used if image.startswith(("nvcr.io/", "prom/"))}
    assert used - foreign == versions
    assert all(re.search(r":v?\d", image) for image in foreign), "a version, not `latest`"


def test_namespaces_enforce_restricted_but_for_the_agents(overlay: list[Manifest]) -> None:
    levels = {
        name: item["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        for name, item in by_kind(overlay, "Namespace").items()
    }
    assert levels.pop(AGENTS, "privileged") == "privileged"
    assert levels.pop(MONITORING, "restricted") == "restricted"
    assert levels == {"gpu-tokens": "restricted"}
    clusterwide = {"Namespace", "PriorityClass"}
    assert {
        item["metadata"].get("namespace", "-")
        for item in overlay
        if item["kind"] not in clusterwide
    } <= {
        *levels,
        AGENTS,
        MONITORING,
    }


def test_every_pod_keeps_to_restricted(overlay: list[Manifest]) -> None:
    for namespace, name, template in pods(overlay):
        if namespace != AGENTS:
            assert breaks_restricted(template) == [], name


def test_the_agent_breaks_restricted_only_where_it_must(
    rendered: dict[str, list[Manifest]],
) -> None:
    (template,) = (
        template for _, name, template in pods(rendered["CA2/overlays/cluster"]) if name == "agent"
    )
    assert set(breaks_restricted(template)) == {
        "volume pod-resources: hostPath",
        "agent: may run as root",
    }
    mounts = {mount["name"]: mount for mount in template["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["pod-resources"]["readOnly"] is True
    # it takes no GPU from anybody
    assert "nvidia.com/gpu" not in str(template["spec"]["containers"][0]["resources"])
    assert template["spec"]["runtimeClassName"] == "nvidia"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"hostNetwork": True}, "hostNetwork is set"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "volume host: hostPath"),
        ({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}, "x: may run as root"),
        ({"securityContext": {"runAsNonRoot": True, "runAsUser": 1}}, "x: no seccomp profile"),
        (
            {"containers": [{"name": "x", "securityContext": {"capabilities": {"drop": ["ALL"]}}}]},
            "x: may gain privileges",
        ),
        (
            {"containers": [{"name": "x", "securityContext": {"allowPrivilegeEscalation": False}}]},
            "x: keeps capabilities",
        ),
    ],
)
def test_the_rule_of_restricted_can_fail(change: dict[str, Any], problem: str) -> None:
    good = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "x",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    assert breaks_restricted({"spec": good}) == []
    assert breaks_restricted({"spec": {**good, **change}}) == [problem]


def test_every_pod_is_confined_beyond_restricted(overlay: list[Manifest]) -> None:
    accounts = {
        (item["metadata"]["namespace"], name)
        for name, item in by_kind(overlay, "ServiceAccount").items()
    }
    for namespace, name, template in pods(overlay):
        spec = template["spec"]
        assert spec["serviceAccountName"] == name
        assert (namespace, name) in accounts
        assert spec["automountServiceAccountToken"] is False, name
        # KAFKA_PORT=tcp://... would be taken for a setting
        assert spec["enableServiceLinks"] is False, name
        for container in containers(template):
            # dcgm-exporter: not ours, and where its image writes was not looked at.
            assert (
                container["securityContext"].get("readOnlyRootFilesystem") is True
                or name == "dcgm-exporter"
            ), name
            assert container["imagePullPolicy"] == "IfNotPresent", name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert set(container["resources"]["limits"]) == {"memory"}, name
        for volume in spec.get("volumes", []):
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], name


def test_liveness_never_asks_for_others_and_readiness_does(overlay: list[Manifest]) -> None:
    for item in [
        *by_kind(overlay, "Deployment").values(),
        *by_kind(overlay, "StatefulSet").values(),
    ]:
        name = item["metadata"]["name"]
        if item["metadata"]["namespace"] == MONITORING:
            continue  # not ours
        (container,) = item["spec"]["template"]["spec"]["containers"]
        if name == "simulate":
            assert "livenessProbe" not in container  # it serves nothing; it ends when it fails
            continue
        alive, ready, started = (
            container[f"{kind}Probe"] for kind in ("liveness", "readiness", "startup")
        )
        own_only = alive.get("httpGet", {}).get("path") == "/health" or "tcpSocket" in alive
        assert own_only, name
        # The exporter must be asked also while Kafka and MongoDB are away: it says so in its
        # metrics.
        assert (
            ready.get("httpGet", {}).get("path") == "/ready"
            or "exec" in ready
            or name == "exporter"
        ), name
        # Recovery may take minutes, and being busy is not being dead.
        assert started["failureThreshold"] * started["periodSeconds"] >= 300, name
        assert alive["failureThreshold"] * alive["periodSeconds"] >= 60, name
        assert min(probe["timeoutSeconds"] for probe in (alive, ready, started)) >= 5, name


def test_a_processor_has_time_to_finish_its_batch(overlay: list[Manifest]) -> None:
    spec = by_kind(overlay, "Deployment")["processor"]["spec"]
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] >= 2 * STOP_WITHIN_SECONDS
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_settings_of_our_processes_exist(overlay: list[Manifest]) -> None:
    """A misspelt environment variable would be ignored without a word."""
    known = {name.upper() for name in Settings.model_fields}
    # MONGODB_URI is made of them
    helpers = {"MONGO_APP_PASSWORD", "MONGO_MEMBERS", "MONGO_URI_TAIL", "MONGO_CACHE_GB"}
    maps = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): set(item["data"])
        for item in overlay
        if item["kind"] in {"ConfigMap", "Secret"}
    }
    maps |= {
        (item["metadata"]["namespace"], item["spec"]["target"]["name"]): {
            entry["secretKey"] for entry in item["spec"]["data"]
        }
        for item in overlay
        if item["kind"] == "ExternalSecret"
    }
    for namespace, name, template in pods(overlay):
        for container in containers(template):
            if not container["image"].startswith(OURS):
                continue
            names = {variable["name"] for variable in container.get("env", [])}
            for source in container["envFrom"]:
                names |= maps[
                    namespace, (source.get("configMapRef") or source.get("secretRef"))["name"]
                ]
            assert (
                names - {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"} <= known | helpers
            ), name


def test_stores_are_as_many_as_they_are_told(overlay: list[Manifest]) -> None:
    stateful = by_kind(overlay, "StatefulSet")
    kafka, mongo = config(overlay, "kafka-cluster"), config(overlay, "mongo-cluster")
    brokers, members = (stateful[name]["spec"]["replicas"] for name in ("kafka", "mongo"))
    voters = [f"{n}@kafka-{n}.kafka-nodes:9093" for n in range(brokers)]
    assert kafka["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",") == voters
    assert int(kafka["KAFKA_DEFAULT_REPLICATION_FACTOR"]) == brokers
    assert int(kafka["KAFKA_MIN_INSYNC_REPLICAS"]) == max(1, brokers - 1)
    assert mongo["MONGO_MEMBERS"].split(",") == [
        f"mongo-{n}.mongo.gpu-tokens.svc:27017" for n in range(members)
    ]
    for name in ("kafka", "mongo"):
        spec = stateful[name]["spec"]
        assert spec["podManagementPolicy"] == "Parallel"  # no quorum forms one by one
        assert by_kind(overlay, "PodDisruptionBudget")[name]["spec"]["maxUnavailable"] == 1
        hard = [
            c
            for c in spec["template"]["spec"]["topologySpreadConstraints"]
            if c["whenUnsatisfiable"] == "DoNotSchedule"
        ]
        assert [c["topologyKey"] for c in hard] == ["kubernetes.io/hostname"]
        services = by_kind(overlay, "Service")
        assert services[spec["serviceName"]]["spec"]["clusterIP"] == "None"
        assert services[spec["serviceName"]]["spec"]["publishNotReadyAddresses"] is True


def test_processors_are_never_more_than_partitions_and_never_none(
    rendered: dict[str, list[Manifest]],
) -> None:
    partitions = Settings.model_fields["kafka_partitions"].default
    for path, objects in rendered.items():
        scalers = {
            name: item["spec"] for name, item in by_kind(objects, "HorizontalPodAutoscaler").items()
        }
        scaled = by_kind(objects, "ScaledObject")
        assert ("processor" in scalers) != ("processor" in scaled), (
            f"{path}: exactly one scaler of the processors"
        )
        for spec in [scalers["processor"]] if "processor" in scalers else []:
            assert 1 <= spec["minReplicas"] <= spec["maxReplicas"] <= partitions
        for item in scaled.values():
            assert (
                2
                <= item["spec"]["minReplicaCount"]
                <= item["spec"]["maxReplicaCount"]
                == partitions
            )
        for name in ("processor", "api"):
            assert "replicas" not in by_kind(objects, "Deployment")[name]["spec"], (
                "an apply would undo the autoscaler"
            )


def test_both_ways_of_scaling_by_lag_have_the_same_numbers(
    rendered: dict[str, list[Manifest]],
) -> None:
    hpa = by_kind(rendered["CA3/overlays/bench"], "HorizontalPodAutoscaler")["processor"]["spec"]
    keda = by_kind(rendered["CA3/overlays/cluster"], "ScaledObject")["processor"]["spec"]
    (metric,), (trigger,) = hpa["metrics"], keda["triggers"]
    assert trigger["metadata"]["lagThreshold"] == metric["external"]["target"]["averageValue"]
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (
        hpa["minReplicas"],
        hpa["maxReplicas"],
    )
    settings = config(rendered["CA3/overlays/cluster"], "settings")
    assert trigger["metadata"]["topic"] == settings["KAFKA_TOPIC"]
    assert trigger["metadata"]["bootstrapServers"] == settings["KAFKA_BOOTSTRAP"]
    assert trigger["metadata"]["consumerGroup"] == Settings.model_fields["kafka_group"].default


def test_the_overlay_that_the_readme_shows_renders(
    tmp_path: Path, rendered: dict[str, list[Manifest]]
) -> None:
    (text,) = re.findall(
        r"```yaml\n(# overlays/ours/kustomization.yaml\n.*?)```",
        (ROOT / "CA2/README.md").read_text(),
        re.DOTALL,
    )
    ours = copy_with_secrets(tmp_path) / "CA2/overlays/ours"
    ours.mkdir()
    (ours / "kustomization.yaml").write_text(text)
    objects = render(ours)
    assert len(objects) == len(rendered["CA2/overlays/cluster"])
    assert config(objects, "settings")["PRICE_PER_HOUR_USD"] == "2.10"
    images = {
        container["image"] for _, _, template in pods(objects) for container in containers(template)
    }
    assert any(
        image.startswith("registry.example.com/gpu-token-analytics@sha256:") for image in images
    )
    assert not any(image.startswith("gpu-token-analytics") for image in images)
    claims = [
        item["spec"]["volumeClaimTemplates"][0]["spec"]
        for item in by_kind(objects, "StatefulSet").values()
    ]
    assert [claim["storageClassName"] for claim in claims] == ["gp3", "gp3"]


def test_secrets_reach_only_those_who_use_them(overlay: list[Manifest]) -> None:
    holders: dict[str, set[str]] = {}
    for _, name, template in pods(overlay):
        for secret in re.findall(
            r"'(?:name|secretName)': '((?:kafka|mongo)-(?:servers|client))(?:-[a-z0-9]{10})?'",
            str(template),
        ):
            holders.setdefault(secret, set()).add(name)
    assert holders["kafka-servers"] == {"kafka"}
    assert holders["mongo-servers"] == {"mongo", "mongo-init"}
    assert holders["mongo-client"] - {"exporter"} == {"mongo-init", "processor", "api"}
    assert holders["kafka-client"] <= {
        "topics",
        "processor",
        "api",
        "simulate",
        "agent",
        "exporter",
    }


def test_a_secret_store_gives_the_same_secrets(rendered: dict[str, list[Manifest]]) -> None:
    made = {
        (item["metadata"]["namespace"], item["metadata"]["name"].rsplit("-", 1)[0]): set(
            item["data"]
        )
        for item in rendered["CA3/overlays/cluster"]
        if item["kind"] == "Secret"
    }
    objects = rendered["CA3/overlays/external-secrets"]
    fetched = {
        (item["metadata"]["namespace"], item["spec"]["target"]["name"]): {
            entry["secretKey"] for entry in item["spec"]["data"]
        }
        for item in objects
        if item["kind"] == "ExternalSecret"
    }
    assert fetched == made
    assert not by_kind(objects, "Secret")
    for item in by_kind(objects, "ExternalSecret").values():
        assert {entry["remoteRef"]["property"] for entry in item["spec"]["data"]} == {
            e["secretKey"] for e in item["spec"]["data"]
        }


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    folder = copy_with_secrets(tmp_path) / "CA2/components"
    files = {path: path.read_bytes() for path in folder.glob("*/*.env")} | {
        path: path.read_bytes() for path in folder.glob("*/mongo-keyfile")
    }
    assert len(files) == 7
    again = subprocess.run(
        [folder / "secrets/generate.sh"], capture_output=True, text=True, check=True
    )
    assert again.stdout == ""
    assert {path: path.read_bytes() for path in files} == files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    keyfile = (folder / "secrets/mongo-keyfile").read_text().strip()
    assert 6 <= len(keyfile) <= 1024  # what mongod takes
    ignored = subprocess.run(
        ["git", "check-ignore", *(str(path.relative_to(tmp_path)) for path in files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(ignored.stdout.split()) == len(files), "git would take a Secret's file"


def test_no_manifest_in_git_holds_a_secret() -> None:
    names = subprocess.run(
        ["git", "ls-files", "CA2", "CA3"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in names:
        if name.endswith((".yaml", ".env")):
            text = (ROOT / name).read_text()
            assert not re.search(r"^kind: Secret$", text, re.MULTILINE), name
            assert not re.search(r"(?i)password[\"']?\s*[:=]\s*[\"']?[0-9a-f]{16,}", text), name


def test_brokers_and_mongod_leave_no_secret_in_their_arguments(overlay: list[Manifest]) -> None:
    for _, name, template in pods(overlay):
        for container in containers(template):
            words = " ".join([*container.get("command", []), *container.get("args", [])])
            assert "PASSWORD" not in words, name
