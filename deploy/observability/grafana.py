"""Grafana's JSON from the panel table. Descriptions are the metrics' own sentences
(docs/metrics.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from deploy.observability.panels import Dashboard, Panel
from gpu_token_analytics.agent.metrics import AgentMetrics, EngineMetrics
from gpu_token_analytics.api.metrics import ApiMetrics
from gpu_token_analytics.exporter.metrics import ExporterMetrics
from gpu_token_analytics.metrics import Metrics

_OURS = re.compile(r"\bgpu_tokens_[a-z0-9_]+")
_WIDTH = 24
_SIZES = {"stat": (6, 4), "bargauge": (12, 8), "timeseries": (12, 8)}
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def registries() -> list[CollectorRegistry]:
    """The metrics of every process."""
    agent = CollectorRegistry()
    AgentMetrics(agent)
    EngineMetrics(agent)
    return [Metrics().registry, ApiMetrics().registry, ExporterMetrics().registry, agent]


def sentences() -> dict[str, str]:
    """What each series of ours tells, by its name in PromQL."""
    told: dict[str, str] = {}
    for registry in registries():
        for family in registry.collect():
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
                family.type, ("",)
            )
            told |= {family.name + suffix: family.documentation for suffix in suffixes}
    return told


def names_in(expression: str) -> set[str]:
    """The product's own metrics that an expression asks for."""
    return set(_OURS.findall(expression))


def dashboard_json(dashboard: Dashboard, told: Mapping[str, str]) -> dict[str, Any]:
    """One dashboard as Grafana imports it (schema 39, Grafana 10 and newer)."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["gpu-tokens"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "timezone": "utc",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "type": "datasource",
                    "query": "prometheus",
                    "label": "Prometheus",
                }
            ]
        },
        "panels": list(_panels(dashboard.panels, told)),
    }


def _panels(panels: Iterable[Panel], told: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    x = y = row_height = 0
    for number, panel in enumerate(panels, 1):
        width, height = _SIZES[panel.kind]
        if x + width > _WIDTH:
            x, y, row_height = 0, y + row_height, 0
        yield _panel(number, panel, {"x": x, "y": y, "w": width, "h": height}, told)
        x, row_height = x + width, max(row_height, height)


def _panel(
    number: int, panel: Panel, place: dict[str, int], told: Mapping[str, str]
) -> dict[str, Any]:
    names = sorted({name for expression, _ in panel.queries for name in names_in(expression)})
    notes = [told[name] for name in names if name in told]
    notes += [f"Needs {panel.source}."] if panel.source else []
    notes += [f"Empty when {panel.empty}."] if panel.empty else []
    custom = {"fillOpacity": 20, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": " ".join(dict.fromkeys(notes)),
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit}
            | ({"custom": custom} if panel.kind == "timeseries" else {}),
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }
