"""Writes the generated reference pages (`make docs`); with --check only says whether they are up to
date."""

from __future__ import annotations

import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from gpu_token_analytics.agent.metrics import AgentMetrics, EngineMetrics, PodMetrics
from gpu_token_analytics.api.metrics import ApiMetrics
from gpu_token_analytics.exporter.metrics import ExporterMetrics
from gpu_token_analytics.metrics import Metrics
from gpu_token_analytics.tools.reference import metrics_markdown, settings_markdown, with_tables

DOCS = Path(__file__).parent.parent / "docs"


def pages() -> dict[Path, str]:
    """Each generated page and its text."""
    agent = CollectorRegistry()
    AgentMetrics(agent)
    EngineMetrics(agent)
    PodMetrics(agent)
    registries = (
        ("processor", Metrics().registry),
        ("api", ApiMetrics().registry),
        ("exporter", ExporterMetrics().registry),
        ("agent", agent),
    )
    with_sizes = (
        DOCS / "sizing.md",
        DOCS / "scaling.md",
        DOCS.parent / "CA0" / "docs" / "architecture.md",
    )
    sized = {page: with_tables(page.read_text()) for page in with_sizes}
    return {
        DOCS / "settings.md": settings_markdown(),
        DOCS / "metrics.md": metrics_markdown(registries),
        **sized,
    }


def main() -> int:
    """0 when the pages are as they should be."""
    stale = [
        page for page, text in pages().items() if not page.exists() or page.read_text() != text
    ]
    if "--check" not in sys.argv:
        for page in stale:
            page.write_text(pages()[page])
            print(f"wrote {page.relative_to(DOCS.parent)}")
        return 0
    for page in stale:
        print(f"{page.relative_to(DOCS.parent)} is not what the code says: run `make docs`")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
