"""CA3 over CA2: policies and scaling by lag, by the stage's own commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench


def up(bench: Bench) -> None:
    """`make up` on top of what CA2 left; afterwards every flow that the table does not name is closed."""
    with bench.report.check("CA3: make up over a running CA2, everything Ready with the policies in force"):
        bench.operator.do("make -s -C CA3 up OVERLAY=bench", timeout_seconds=580)
        bench.workload.wait_until_ready(300)
        said = bench.operator.do("make -s -C CA3 policies")
        bench.report.say(f"{said.count('gpu-tokens')} policies; {said.strip().splitlines()[-1]}")
