"""CA2 on the cluster, from nothing: everything Ready, applied twice, restricted pods only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.bench.kubernetes import images
from deploy.bench.kubernetes.workload import apply_folder
from deploy.bench.report import expect

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

OVERLAY = "CA2/overlays/bench"
_READY_SECONDS = 420


def up(bench: Bench) -> bool:
    """Secrets, objects, everything Ready. Whether it went well."""
    before = len(bench.report.failed)
    with bench.report.check("CA2: from an empty cluster to everything Ready"):
        bench.operator.do("CA2/components/secrets/generate.sh")
        apply_folder(bench.cluster, bench.operator.folder / OVERLAY)
        if images.previous_commit():  # what comes before the upgrade that is checked later
            set_image(bench, images.previous_tag())
        seconds = bench.workload.wait_until_ready(_READY_SECONDS)
        bench.report.say(f"everything Ready {seconds:.0f} s after apply")
        bench.report.say("\n" + bench.workload.kubectl("get", "pods", "-o", "wide").rstrip())
    return len(bench.report.failed) == before


def set_image(bench: Bench, tag: str) -> None:
    """The processor and the API with another image of the product: a rolling update."""
    for name in ("processor", "api"):
        bench.workload.kubectl("set", "image", f"deployment/{name}", f"{name}={tag}")


def run_checks(bench: Bench) -> None:
    """Applied again without a difference; the namespace refuses what is not restricted."""
    with bench.report.check("CA2: kubectl diff after a second apply is empty"):
        apply_folder(bench.cluster, bench.operator.folder / OVERLAY)
        # `diff` exits 1 for a difference, and then run() says which.
        said = bench.cluster.kubectl("diff", "-k", str(bench.operator.folder / OVERLAY), check=False)
        expect(not [line for line in said.splitlines() if line and not line.startswith("Warning")], said[-3000:])
