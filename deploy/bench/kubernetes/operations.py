"""CA3 over CA2: policies, scaling by lag and observability, by the stage's own commands."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from deploy.bench.kubernetes.workload import Workload
from deploy.bench.report import expect
from deploy.bench.shell import CommandFailed
from deploy.flows import ROOT

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

_MONITORING = "monitoring"
_ASK = """
import json, sys, urllib.parse, urllib.request
answers = []
for path in json.loads(sys.stdin.read()):
    url = f"http://127.0.0.1:9090{path}"
    try: answers.append(json.load(urllib.request.urlopen(url, timeout=30)))
    except OSError as error: answers.append({"status": "error", "error": str(error)})
print(json.dumps(answers))
"""


def up(bench: Bench) -> None:
    """`make up` on top of what CA2 left; afterwards every flow that the table does not name is
    closed."""
    with bench.report.check(
        "CA3: make up over a running CA2, everything Ready with the policies in force"
    ):
        bench.operator.do("make -s -C CA3 up OVERLAY=observed", timeout_seconds=580)
        bench.workload.wait_until_ready(600)
        Workload(bench.cluster, _MONITORING).wait_until_ready(600)
        policies, refusal = bench.operator.do("make -s -C CA3 policies").strip().rsplit("\n", 1)
        # the first line is the table's head
        bench.report.say(f"{len(policies.splitlines()) - 1} policies; {refusal}")
    with bench.report.check(
        "CA3: Prometheus scrapes every pod it is to scrape, and every rule evaluates"
    ):
        scraped(bench)
    with bench.report.check("CA3: every query of every dashboard is answered by that Prometheus"):
        queries = sorted(_queries())
        answers = ask(bench, [f"/api/v1/query?{_query(query)}" for query in queries])
        wrong = [
            f"{query}: {a.get('error')}"
            for query, a in zip(queries, answers, strict=True)
            if a["status"] != "success"
        ]
        expect(bool(queries) and not wrong, "; ".join(wrong) or "no query in any dashboard")
        filled = sum(bool(answer["data"]["result"]) for answer in answers)
        bench.report.say(f"{len(queries)} queries answered, {filled} of them with figures")


def scraped(bench: Bench, timeout_seconds: float = 240) -> None:
    """Until every target is up and no rule has an error. Raises CheckFailed with what is not."""
    end = time.monotonic() + timeout_seconds
    while True:
        targets, rules = ask(bench, ["/api/v1/targets?state=active", "/api/v1/rules"])
        active = targets.get("data", {}).get("activeTargets", [])
        groups = rules.get("data", {}).get("groups", [])
        down = [
            f"{t['labels'].get('job')} {t['scrapeUrl']}: {t['lastError']}"
            for t in active
            if t["health"] != "up"
        ]
        broken = [
            f"{rule['name']}: {rule['lastError']}"
            for group in groups
            for rule in group["rules"]
            if rule["health"] == "err"
        ]
        if active and groups and not down and not broken:
            jobs = sorted({target["labels"]["job"] for target in active})
            bench.report.say(
                f"{len(active)} targets up ({', '.join(jobs)}); "
                f"{sum(len(g['rules']) for g in groups)} rules"
            )
            return
        expect(time.monotonic() < end, "; ".join([*down, *broken]) or "no target and no rule")
        time.sleep(5)


def ask(bench: Bench, paths: list[str]) -> list[dict[str, Any]]:
    """Answers of Prometheus' API, asked in its own pod."""
    monitoring = Workload(bench.cluster, _MONITORING)
    pods = monitoring.pods("prometheus")
    expect(bool(pods), "no Prometheus runs")
    said = monitoring.in_network_of(
        pods[0], [sys.executable, "-c", _ASK], timeout_seconds=120, stdin=json.dumps(paths)
    )
    try:
        answers: list[dict[str, Any]] = json.loads(said.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise CommandFailed(f"Prometheus' API: {said[-500:]}") from None
    return answers


def _queries() -> set[str]:
    queries: set[str] = set()
    for path in sorted((ROOT / "CA3/observability/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            queries |= {target["expr"] for target in panel.get("targets", [])}
    return queries


def _query(expression: str) -> str:
    # What Grafana fills in: its step, and variables that mean "all".
    for variable, value in (("$__rate_interval", "5m"), ("$__range", "1h"), ("$__interval", "1m")):
        expression = expression.replace(variable, value)
    return urlencode({"query": expression})
