"""Diagrams are of the text beside them, and show what runs on the machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from deploy.flows import ROOT

DIAGRAMS = sorted(ROOT.glob("CA*/diagrams/*.puml"))


@pytest.mark.parametrize("source", DIAGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_diagrams_are_drawn_from_the_text_beside_them(source: Path) -> None:
    """PlantUML keeps its source in the SVG, as a comment: two hyphens have a space between."""
    drawn = source.with_suffix(".svg").read_text()
    assert source.read_text().strip().replace("--", "- -") in drawn, "make diagrams"


def test_diagrams_of_the_machines_show_what_runs_on_them() -> None:
    for name in ("CA0/diagrams/topology", "CA1/diagrams/deploy"):
        said = (ROOT / f"{name}.puml").read_text()
        assert "API and dashboard" in said
        assert "8081" in said
