"""Rules and dashboards, written from the tables.

python -m deploy.observability write     after a change of a table or of a metric's sentence (`make
                                         observability`)
python -m deploy.observability check     exit 1 and the stale files when something written differs
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from deploy.observability.grafana import dashboard_json, sentences
from deploy.observability.panels import DASHBOARDS
from deploy.observability.rules import rule_groups

ROOT = Path(__file__).resolve().parents[2]
ROOM = ROOT / "CA3" / "observability"
_GENERATED = "# Written by `make observability` from deploy/observability/: change it there.\n"


def files() -> dict[Path, str]:
    """Each written file and its text."""
    told = sentences()
    made = {ROOM / "rules.yaml": _GENERATED + _yaml(rule_groups())}
    operator = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "gpu-tokens", "namespace": "gpu-tokens"},
        "spec": rule_groups(),
    }
    made[ROOM / "operator" / "rules.yaml"] = _GENERATED + _yaml(operator)
    for dashboard in DASHBOARDS:
        path = ROOM / "dashboards" / f"{dashboard.uid.removeprefix('gpu-tokens-')}.json"
        made[path] = (
            json.dumps(dashboard_json(dashboard, told), indent=2, ensure_ascii=False) + "\n"
        )
    return made


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=1000, allow_unicode=True)


def main() -> int:
    """0 when the files are as they should be."""
    stale = [
        path for path, text in files().items() if not path.exists() or path.read_text() != text
    ]
    if sys.argv[1:] == ["write"]:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path])
            print(f"wrote {path.relative_to(ROOT)}")
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not what the tables say: run `make observability`")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
