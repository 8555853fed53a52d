"""The compose files and what stands around them: one place for versions, no published ports, no
root, no secrets."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.flows import ROOT

from gpu_token_analytics.settings import Settings

VMS = sorted((ROOT / "CA0").glob("vm*"))
COMPOSE_FILES = [ROOT / "compose.yaml", *(vm / "docker-compose.yml" for vm in VMS)]
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split()
DEPLOYMENT = [
    ROOT / name
    for name in TRACKED
    if name.startswith(
        ("CA0/", "CA1/", "CA2/", "CA3/", "compose.yaml", "Dockerfile", ".env.example")
    )
    and not name.endswith((".svg", ".png", ".cast"))
]


def services(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["services"]
    return found


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_container_is_confined(path: Path) -> None:
    for name, service in services(path).items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service, name
        # The product's compose file leaves Kafka's root file system writable: its image writes in
        # several places.
        assert service.get("read_only") or (path.name == "compose.yaml" and name == "kafka"), name


@pytest.mark.parametrize("vm", VMS, ids=lambda path: path.name)
def test_machines_publish_no_ports_because_docker_goes_around_ufw(vm: Path) -> None:
    for name, service in services(vm / "docker-compose.yml").items():
        assert service["network_mode"] == "host", name
        assert "ports" not in service, name
        assert "mem_limit" in service, name


def test_the_products_compose_file_publishes_on_loopback_only() -> None:
    published = [
        port
        for service in services(ROOT / "compose.yaml").values()
        for port in service.get("ports", [])
    ]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_versions_of_images_stand_in_one_place() -> None:
    named = dict(
        re.findall(r"^([A-Z_]+_IMAGE)=(\S+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    )
    assert set(named) == {"KAFKA_IMAGE", "MONGO_IMAGE", "GPU_TOKENS_IMAGE"}
    for path in DEPLOYMENT:
        if path.name in {".env.example", "evidence.md"}:  # evidence shows what a run used
            continue
        # shows what a run used
        text = re.sub(r"<!-- evidence:.*?<!-- /evidence -->", "", path.read_text(), flags=re.DOTALL)
        for image in named.values():
            assert image not in text, (
                f"{path.relative_to(ROOT)} repeats {image}: read it from .env.example"
            )
    for path in COMPOSE_FILES:
        for name, service in services(path).items():
            assert service["image"].startswith("${"), f"{path.relative_to(ROOT)}: {name}"


def test_no_withdrawn_images() -> None:
    guilty = [
        str(path.relative_to(ROOT))
        for path in DEPLOYMENT
        if re.search(r"(image:|IMAGE=|FROM)\s*\S*bitnami", path.read_text(), re.I)
    ]
    assert guilty == []


def test_the_dockerfile_is_non_root_and_locked() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert text.splitlines()[0].startswith("#")
    assert "syntax=" not in text  # BuildKit would fetch a frontend before anything else
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["python:3.12-slim"] * 2
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "--require-hashes" in text


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_of_our_processes_exist(path: Path) -> None:
    """A misspelt environment variable would be ignored without a word."""
    known = {name.upper() for name in Settings.model_fields}
    for name, service in services(path).items():
        if service["image"].startswith("${GPU_TOKENS_IMAGE"):
            assert set(service["environment"]) <= known, (
                f"{name}: {set(service['environment']) - known}"
            )


@pytest.mark.parametrize("vm", [vm.name for vm in VMS])
def test_a_machine_gets_the_variables_it_names_and_no_other(vm: str, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.env"
    subprocess.run([ROOT / "CA0/common/secrets.sh", secrets], check=True, capture_output=True)
    done = subprocess.run(
        [ROOT / "CA0/common/vm-env.sh", vm],
        env={"SECRETS_FILE": str(secrets), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    given = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert set(given) == set(
        re.findall(r"\$\{([A-Z0-9_]+)\}", (ROOT / "CA0" / vm / "docker-compose.yml").read_text())
    )
    empty = {name for name, value in given.items() if not value}
    # Kafka asks for none by default
    sasl = {"KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"}
    assert empty <= {*sasl, "LEDGER_TOPIC"}
    assert secrets.stat().st_mode & 0o777 == 0o600


def test_secrets_are_made_once(tmp_path: Path) -> None:
    def made(name: str) -> str:
        subprocess.run(
            [ROOT / "CA0/common/secrets.sh", tmp_path / name], check=True, capture_output=True
        )
        return (tmp_path / name).read_text()

    first = made("a.env")
    assert made("a.env") == first  # new passwords would not fit the data
    assert not set(first.splitlines()) & set(made("b.env").splitlines())


def test_no_secret_is_tracked() -> None:
    for name in TRACKED:
        assert Path(name).name not in {
            "secrets.env",
            "hosts.env",
            "settings.env",
            "terraform.tfvars",
            ".env",
        }, name


@pytest.mark.parametrize("path", ["CA0/common/docker-daemon.json", "CA0/common/gpu_seed.json"])
def test_json_files_parse(path: str) -> None:
    json.loads((ROOT / path).read_text())


def test_shell_scripts_parse_and_stop_at_errors() -> None:
    scripts = [path for path in DEPLOYMENT if path.suffix == ".sh"]
    assert len(scripts) >= 6
    for script in scripts:
        subprocess.run(["bash", "-n", script], check=True)
        assert "set -euo pipefail" in script.read_text(), script
