"""FOCUS files are accepted by FinOps' own validator, in an environment of its own
(requirements/focus.in): every rule of its model for FOCUS 1.2 that applies to a provider like this
one. It brings no rules for 1.3; those are test_api_answers.py's."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from tests.conftest import ROOT, unavailable

from gpu_token_analytics.errors import EmbeddedServiceError

from .conftest import START, Api

LOCKED, BUILD = (ROOT / "requirements" / f"{name}.txt" for name in ("focus", "focus-build"))
PACKAGE = Path("lib/python3.12/site-packages/focus_validator")
MODEL = "1.2.0.1"
# What a provider of this kind does. Not: availability zones, regions, several types of accounts, a
# public price list, negotiated prices, commitment discounts, prices in other currencies. Capacity
# reservations: see test_conditions_of_capacity_reservations_are_lost_in_the_model.
APPLIES = (
    "ACCOUNT_NAMING_SUPPORTED",
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED",
    "MULTIPLE_PRICING_CATEGORIES_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "SUB_ACCOUNT_SUPPORTED",
    "TAGGING_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
)
# "Null without an invoice, else not null" is one rule of two halves; no row has an invoice.
OTHER_HALF = {"InvoiceId-C-005-C"}


def python_3_12() -> str:
    """That Python: numpy 1, which the validator needs, has no wheels for later ones."""
    versions = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for found in (shutil.which("python3.12"), *sorted(versions.glob("3.12.*/bin/python"))):
        command = [str(found), "-c", "import sys; sys.exit(sys.version_info[:2] != (3, 12))"]
        if found and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return str(found)
    pytest.skip("the FOCUS validator needs Python 3.12: put python3.12 on PATH")


@pytest.fixture(scope="module")
def validator() -> Path:
    """The environment with the validator, hash-checked, kept in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpu-tokens" / "focus"
    folder = base / sha256(LOCKED.read_bytes() + BUILD.read_bytes()).hexdigest()[:16]
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            subprocess.run([python_3_12(), "-m", "venv", "--clear", folder], check=True)
            pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--require-hashes"]
            for more in (["-r", str(BUILD)], ["--no-build-isolation", "-r", str(LOCKED)]):
                done = subprocess.run([*pip, *more], capture_output=True, text=True, check=False)
                if done.returncode:
                    said = " ".join(done.stderr.split())[-400:]
                    unavailable(
                        EmbeddedServiceError(f"the FOCUS validator cannot be installed: {said}")
                    )
            (folder / "installed").touch()
    return folder


@pytest.fixture
def validate(validator: Path, tmp_path: Path) -> Callable[[Path], dict[str, str]]:
    """What the validator says of a file: PASS, FAIL or SKIPPED, by rule."""

    def run(file: Path) -> dict[str, str]:
        link = tmp_path / "focus_validator"  # it reads currency codes below its working folder
        if not link.exists():
            link.symlink_to(validator / PACKAGE)
        command = [str(validator / "bin" / "focus-validator"), "--data-file", str(file)]
        command += ["--block-download", "--validate-version", MODEL]
        command += ["--applicability-criteria", ",".join(APPLIES)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        said = dict(re.findall(r"^\S+ ([\w-]+): (PASS|FAIL|SKIPPED)", done.stdout, re.MULTILINE))
        assert len(said) > 500, done.stderr[-2000:]
        return said

    return run


def failed(said: dict[str, str]) -> set[str]:
    return {rule for rule, result in said.items() if result == "FAIL"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_focus_file_is_accepted(
    api: Api, validate: Callable[[Path], dict[str, str]], tmp_path: Path, kind: str
) -> None:
    params = {"from": START.isoformat(), "to": (START + timedelta(hours=3)).isoformat()}
    params |= {"layout": "focus", "format": kind}
    file = tmp_path / f"focus.{kind}"
    file.write_bytes(api.reader.get("/v1/export", params=params).content)
    said = validate(file)
    assert failed(said) == OTHER_HALF
    assert sum(result == "PASS" for result in said.values()) > 200
    assert said["ConsumedQuantity-C-000-C"] == said["InvoiceId-C-003-C"] == "PASS"


def test_the_validator_refuses_a_file_that_breaks_a_rule(
    api: Api, validate: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    params = {"from": START.isoformat(), "to": (START + timedelta(hours=1)).isoformat()}
    text = api.reader.get("/v1/export", params={**params, "layout": "focus"}).text
    file = tmp_path / "focus.csv"
    file.write_text(text.replace(",Usage-Based,", ",Sometimes,").replace(",USD,", ",QQQ,"))
    assert {"ChargeFrequency-C-003-M", "BillingCurrency-C-006-M"} <= failed(validate(file))


def test_conditions_of_capacity_reservations_are_lost_in_the_model(validator: Path) -> None:
    """Why CAPACITY_RESERVATION_SUPPORTED is left out of APPLIES: two of its rules have conditions
    that name no function, which the validator takes for none, so that the status would have to be
    null and not null at once. Once they are mended this fails: add it there. What the rules mean is
    tested in test_api_answers.py."""
    rules = json.loads((validator / PACKAGE / "rules" / f"model-{MODEL}.json").read_text())
    for rule in ("CapacityReservationStatus-C-003-C", "CapacityReservationStatus-C-004-C"):
        criteria = rules["ModelRules"][rule]["ValidationCriteria"]
        assert "CheckFunction" not in criteria["Condition"]
