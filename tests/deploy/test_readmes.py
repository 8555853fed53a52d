"""The stages' READMEs: their commands exist, and the output they show is of a run in which nothing
failed."""

from __future__ import annotations

import re
import subprocess

import pytest
from deploy.bench.vms.workstation import readme_steps
from deploy.flows import ROOT

# with a run of theirs in the README: at least so many checks
ROWS = {"CA0": 10, "CA1": 10, "CA2": 10, "CA3": 10}
STAGES = list(ROWS)


@pytest.mark.parametrize("stage", STAGES)
def test_the_evidence_is_of_a_run_without_failures(stage: str) -> None:
    text = (ROOT / stage / "README.md").read_text()
    shown = text.split(f"<!-- evidence:{stage.lower()} -->", 1)[1].split("<!-- /evidence -->", 1)[0]
    log = (ROOT / stage / "evidence.md").read_text()
    assert len(re.findall(rf"^\| {stage}.* \| passed \|", shown, re.MULTILINE)) >= ROWS[stage]
    assert log.count(f"passed  {stage}") >= ROWS[stage]
    for text in (shown, log):
        assert "FAILED" not in text
        assert "NOT CHECKED" not in text


def test_the_evidence_of_ca0_is_of_the_steps_that_the_readme_has_today() -> None:
    text = (ROOT / "CA0/README.md").read_text()
    executed = re.findall(
        r"passed  CA0 README step \d+: (.*)", (ROOT / "CA0/evidence.md").read_text()
    )
    assert executed == readme_steps(text, "Steps")


def test_every_make_target_that_the_stages_name_exists() -> None:
    pages = "\n".join(path.read_text() for path in ROOT.glob("CA[0-3]/**/*.md"))
    for stage in STAGES:
        targets = set(
            re.findall(
                r"^([a-z0-9-]+)(?:-%)?:", (ROOT / stage / "Makefile").read_text(), re.MULTILINE
            )
        )
        named = set(re.findall(rf"make (?:-s )?-C {stage} ([a-z0-9-]+)", pages))
        assert named
        assert named <= targets, named - targets


def test_links_between_the_documents_lead_somewhere() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *STAGES, "deploy"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.split():
        if name.endswith(".md"):
            for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text()):
                assert ((ROOT / name).parent / target).exists(), f"{name} links to {target}"
