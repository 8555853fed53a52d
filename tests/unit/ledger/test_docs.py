"""docs/cost-model.md and its picture say what the ledger computes; the decisions are all listed."""

from __future__ import annotations

import re
from pathlib import Path

from docs.cost_model_picture import PICTURE, cells_of, draw, parts_of

DOCS = Path(__file__).parents[3] / "docs"


def test_the_picture_is_the_ledgers() -> None:
    assert PICTURE.read_text() == draw(), "run .venv/bin/python docs/cost_model_picture.py"


def test_the_golden_example_of_the_page() -> None:
    (minute,) = cells_of(60)
    parts = dict(parts_of(minute))
    sums = (
        "| **sum** | **60,000,000** | "
        + " | ".join(f"**{parts[who]:,}**" for who in ("r0", "r1", "idle"))
        + " |"
    )
    assert sums in (DOCS / "cost-model.md").read_text()


def test_every_class_and_method_is_explained() -> None:
    text = (DOCS / "cost-model.md").read_text()
    for word in (
        "attributed",
        "unmetered_work",
        "warm_idle",
        "cold_idle",
        "unobserved",
        "sweep",
        "sweep_no_ttft",
        "window",
    ):
        assert f"`{word}`" in text


def test_decisions_are_listed_numbered_and_dated() -> None:
    folder = DOCS / "decisions"
    files = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [name[:4] for name in files] == [f"{number:04d}" for number in range(1, len(files) + 1)]
    assert re.findall(r"\]\((\d{4}-[^)]+)\)", (folder / "README.md").read_text()) == files
    for name in files:
        title, _, dated, *rest = (folder / name).read_text().splitlines()
        assert title.startswith(f"# {name[:4]}. ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d · \w+.*", dated)
        heads = [line for line in rest if line.startswith("## ")]
        assert heads == ["## Context", "## Decision", "## Consequences", "## Alternatives"], name
