"""Prometheus rules from the table: the share of errors over each window, and the alerts."""

from __future__ import annotations

from typing import Any

from deploy.observability.table import (
    ALERTS,
    BURNS,
    PAGE,
    SLOS,
    STALE_SECONDS,
    TICKET,
    WINDOWS_SECONDS,
    Slo,
)

RUNBOOKS = "docs/runbooks.md"
_ERRORS = "slo:errors:ratio_{window}"
_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def duration(seconds: float) -> str:
    """A length of time as Prometheus writes it, in the largest unit that divides it."""
    whole = max(1, round(seconds))
    unit, length = next((unit, length) for unit, length in _UNITS if whole % length == 0)
    return f"{whole // length}{unit}"


def errors_metric(window_seconds: int) -> str:
    """The recorded share of errors over a window; its name keeps the window's real length."""
    return _ERRORS.format(window=duration(window_seconds))


def rule_groups(speed: float = 1, interval_seconds: float = 30) -> dict[str, Any]:
    """The rules file. speed: divides every length of time in it, so that a test sees an hour's
    alert within a minute."""

    def scaled(seconds: float) -> str:
        return duration(seconds / speed)

    recorded = [
        {"record": name, "expr": expression}
        for slo in SLOS
        for name, expression in slo.records(max(1, round(STALE_SECONDS / speed))).items()
    ]
    ratios = [
        {
            "record": errors_metric(window),
            "expr": slo.errors(scaled(window)),
            "labels": {"slo": slo.name},
        }
        for slo in SLOS
        for window in WINDOWS_SECONDS
    ]
    objectives = [
        {
            "record": "slo:objective:ratio",
            "expr": f"vector({slo.objective:g})",
            "labels": {"slo": slo.name},
        }
        for slo in SLOS
    ]
    burns = [_burn(slo, severity) for slo in SLOS for severity in (PAGE, TICKET)]
    others = [
        _alert(
            alert.name,
            alert.severity,
            alert.expression(scaled),
            alert.summary,
            scaled(alert.for_seconds),
        )
        if alert.for_seconds
        else _alert(alert.name, alert.severity, alert.expression(scaled), alert.summary, None)
        for alert in ALERTS
    ]
    every = {"interval": duration(interval_seconds)}
    return {
        "groups": [
            {"name": "gpu-tokens-slos", **every, "rules": recorded + objectives + ratios},
            {"name": "gpu-tokens-burn-rates", **every, "rules": burns},
            {"name": "gpu-tokens-alerts", **every, "rules": others},
        ]
    }


def _burn(slo: Slo, severity: str) -> dict[str, Any]:
    conditions = [
        f"({_over(slo, burn.long_seconds, burn.factor)} and "
        f"{_over(slo, burn.short_seconds, burn.factor)})"
        for burn in BURNS
        if burn.severity == severity
    ]
    pace = "fast" if severity == PAGE else "slowly, but surely"
    return _alert(
        f"{slo.alert}{severity.title()}",
        severity,
        " or ".join(conditions),
        (
            f"The error budget of {slo.name} is being spent {pace}: {{{{ $value | "
            f"humanizePercentage }}}} is bad. {slo.promise}"
        ),
        None,
        slo=slo.name,
    )


def _over(slo: Slo, window_seconds: int, factor: float) -> str:
    return (
        f'{errors_metric(window_seconds)}{{slo="{slo.name}"}} > {factor * (1 - slo.objective):.6g}'
    )


def _alert(
    name: str, severity: str, expression: str, summary: str, for_duration: str | None, **labels: str
) -> dict[str, Any]:
    waits = {} if for_duration is None else {"for": for_duration}
    return {
        "alert": name,
        "expr": expression,
        **waits,
        "labels": {"severity": severity, **labels},
        "annotations": {"summary": summary, "runbook_url": f"{RUNBOOKS}#{name.lower()}"},
    }
