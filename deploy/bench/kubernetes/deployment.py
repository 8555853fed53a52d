"""CA2 on the cluster by its own commands: from nothing to the first cost, applied twice, restricted
pods only, down again."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import yaml

from deploy.bench.images import servers
from deploy.bench.kubernetes import images, probes
from deploy.bench.report import CheckFailed, expect
from deploy.bench.shell import CommandFailed, wait

if TYPE_CHECKING:
    from deploy.bench.kubernetes.checks import Bench

UP = "make -s -C CA2 up OVERLAY=bench WAIT=9m"
_READY_SECONDS = 600
_OVERLAYS = (
    "CA2/overlays/laptop",
    "CA2/overlays/cluster",
    "CA3/overlays/cluster",
    "CA3/overlays/external-secrets",
)
_OPERATORS = ("keda.sh/", "external-secrets.io/")
_KINDS = (
    "deployment,statefulset,daemonset,job,pod,service,configmap,secret,networkpolicy,"
    "serviceaccount,pvc,role,rolebinding,"
    "clusterrole,clusterrolebinding,priorityclass"
)
_OURS = "app.kubernetes.io/part-of=gpu-tokens"
_TAGS = "CA2/components/images/kustomization.yaml"


def up(bench: Bench, *, from_earlier: bool) -> bool:
    """`make up`; `from_earlier` with the image of an earlier commit, where there is one: something
    to upgrade."""
    before = len(bench.report.failed)
    with bench.report.check(
        "CA2: the API server takes every object of the overlays that are not applied here (dry run)"
    ):
        accepted(bench)
    if from_earlier and images.previous_commit():
        use_product(bench, images.previous_tag())
    with bench.report.check("CA2: make up, from an empty cluster to everything Ready"):
        try:
            bench.operator.do(UP, timeout_seconds=580)
        except CommandFailed as failure:
            raise CommandFailed(f"{failure}\n{bench.workload.troubles()}") from None
        seconds = bench.workload.wait_until_ready(_READY_SECONDS)
        bench.report.say(f"every pod Ready {seconds:.0f} s after make up had returned")
        bench.report.say("\n" + bench.workload.kubectl("get", "pods", "-o", "wide").rstrip())
    return len(bench.report.failed) == before


def accepted(bench: Bench) -> None:
    """A dry run on the server, before anything is there: validation, defaults, quotas, PodSecurity.
    Leaves the namespaces."""
    bench.operator.do("make -s -C CA2 secrets")
    for overlay in _OVERLAYS:
        rendered = bench.operator.do(f"kubectl kustomize {overlay}")
        objects = [item for item in yaml.safe_load_all(rendered) if item]
        spaces = [item for item in objects if item["kind"] == "Namespace"]
        known = [item for item in objects if not item["apiVersion"].startswith(_OPERATORS)]
        bench.cluster.apply_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": spaces}))
        items = json.dumps({"apiVersion": "v1", "kind": "List", "items": known}, default=str)
        said = bench.cluster.kubectl(
            "apply", "--dry-run=server", "-f", "-", stdin=items, check=False
        )
        taken = said.count("(server dry run)")
        expect(
            taken == len(known) and "violate" not in said,
            f"{overlay}: {taken} of {len(known)} objects taken: {said[-2000:]}",
        )
        bench.report.say(f"{overlay}: {taken} objects taken")
        if kinds := sorted({item["kind"] for item in objects} - {item["kind"] for item in known}):
            bench.report.leave_out(
                f"{overlay}: {', '.join(kinds)}", "no operator here; a test checks them by schema"
            )


def use_product(bench: Bench, tag: str) -> None:
    """Writes the product's image into the operator's overlay, as somebody does who upgrades or goes
    back."""
    name, _, version = tag.rpartition(":")
    file = bench.operator.folder / _TAGS
    text, count = re.subn(
        rf"(newName: {re.escape(name)}, newTag: )\S+\}}", rf'\g<1>"{version}"}}', file.read_text()
    )
    expect(count == 1, f"{_TAGS} names {name} {count} times")
    file.write_text(text)


def upgrade(bench: Bench) -> None:
    """From the earlier image to this checkout's, by the same command that made everything."""
    use_product(bench, servers.versions()["GPU_TOKENS_IMAGE"])
    bench.operator.do(UP, timeout_seconds=580)


def run_checks(bench: Bench) -> None:
    """The README's other commands, and what a second apply and a bad pod come to."""
    with bench.report.check(
        "CA2: make verify: marked events stored once and accounted, audit exact; the first cost"
    ):
        said = bench.operator.do("make -s -C CA2 verify", timeout_seconds=400)
        bench.report.say(_last(said))
        cost = bench.workload.kubectl(
            "exec", "deploy/api", "-c", "api", "--", "gpu-tokens", "report", timeout_seconds=120
        )
        bench.report.say(_last(cost, 14))
    with bench.report.check("CA2: make doctor has nothing to say"):
        bench.report.say(_last(bench.operator.do("make -s -C CA2 doctor", timeout_seconds=200)))
    with bench.report.check("CA2: applied a second time, kubectl diff is empty"):
        bench.cluster.kubectl("apply", "-k", str(bench.operator.folder / "CA2/overlays/bench"))
        said = bench.operator.do(
            "make -s -C CA2 diff OVERLAY=bench", timeout_seconds=200, check=False
        )
        expect(
            not [line for line in said.splitlines() if line and "Warning" not in line], said[-3000:]
        )
    with bench.report.check(
        "CA2: the namespace refuses a pod that is not restricted; all of ours run in it"
    ):
        refused(bench)


def refused(bench: Bench) -> None:
    """Pods that are restricted but for one thing, each refused for that thing."""
    good = probes.pod("refused", bench.workload.namespace)
    bench.workload.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(good))
    for spoil, says in (
        ({"hostNetwork": True}, "host namespaces"),
        ({"securityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
        ({"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, "hostPath"),
    ):
        bad = {**good, "spec": {**good["spec"], **spoil}}
        said = bench.workload.kubectl(
            "apply", "--dry-run=server", "-f", "-", stdin=json.dumps(bad), check=False
        )
        expect(
            "violates PodSecurity" in said and says in said, f"{spoil} was answered with: {said}"
        )


def down(bench: Bench) -> None:
    """`make down` leaves volumes and passwords; `make destroy-data` leaves nothing."""
    with bench.report.check(
        "CA2: make down stops everything and keeps the data; make destroy-data leaves nothing"
    ):
        started = time.monotonic()
        bench.operator.do("make -s -C CA3 down", timeout_seconds=300)
        down_seconds = time.monotonic() - started
        wait(lambda: not bench.workload.get("pods")["items"], 180, "pods are left after make down")
        expect(len(bench.workload.get("pvc")["items"]) == 6, "make down took volumes with it")
        said = bench.operator.do("make -s -C CA2 destroy-data", check=False)
        expect("SURE=yes" in said, f"destroy-data did not ask: {said}")
        started = time.monotonic()
        bench.operator.do("make -s -C CA2 destroy-data SURE=yes", timeout_seconds=300)
        bench.report.say(
            f"make down took {down_seconds:.0f} s, make destroy-data "
            f"{time.monotonic() - started:.0f} s"
        )
        names = {item["metadata"]["name"] for item in bench.cluster.get("namespaces")["items"]}
        if left := names & {"gpu-tokens", "gpu-tokens-agents"}:
            raise CheckFailed(f"namespaces left: {left}")
        rest = bench.cluster.get(_KINDS, "-A", "-l", _OURS)["items"]
        expect(not rest, f"left: {[(item['kind'], item['metadata']['name']) for item in rest]}")


def _last(output: str, lines: int = 12) -> str:
    return "\n".join(["", *(f"    {line}" for line in output.strip().splitlines()[-lines:])])
