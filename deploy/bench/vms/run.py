"""python -m deploy.bench vms [--full] [--install] [--strict] [--only ca0|ca1] [--recording]:
the checks of CA0 and CA1 on four machines here.

Needs root on Linux. --full also takes the power from each machine in turn. --install fetches
missing Debian packages first. --recording only follows CA0's README and records its tour;
--evidence writes what a run said into the documents of CA0 and CA1, the tour and pictures included.
Everything is removed at the end, also after a failure or Ctrl-C; only build/vms/cache stays, to
make the next run faster (make vms-clean removes it). What this machine cannot run is reported as
NOT CHECKED.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy import flows
from deploy.bench import evidence
from deploy.bench.images import engine, servers
from deploy.bench.machines import roots
from deploy.bench.report import NotChecked, Report
from deploy.bench.sessions import Recorder
from deploy.bench.shell import run
from deploy.bench.vms import ca0, ca1, end_to_end, machines, pictures, product
from deploy.bench.vms.machines import Bench
from deploy.bench.vms.workstation import Operator
from deploy.flows import ROOT

_FOLDER = ROOT / "build" / "vms"
_PACKAGES = (
    "debootstrap systemd-container openssh-client iproute2 procps util-linux make curl maven"
)


def main(arguments_given: Sequence[str]) -> int:
    """Runs the checks; returns 1 when one failed."""
    parser = argparse.ArgumentParser(
        "deploy.bench vms",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--full", action="store_true", help="also kill each machine during a replay"
    )
    parser.add_argument("--install", action="store_true", help="apt-get install what is missing")
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 also when something could not be checked"
    )
    parser.add_argument(
        "--evidence",
        action="store_true",
        help="write the output into evidence.md and README.md of CA0 and CA1",
    )
    parser.add_argument(
        "--recording",
        action="store_true",
        help="only CA0's steps, and its tour as pictures in CA0/demo and CA0/docs/images",
    )
    parser.add_argument("--only", choices=["ca0", "ca1"], help="one stage")
    arguments = parser.parse_args(arguments_given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the clean-up below runs
    report = Report()
    if arguments.install and (machines.lacking() or servers.lacking()):
        report.say(f"installing {_PACKAGES}")
        run(["apt-get", "update", "-qq"], timeout_seconds=300)
        run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *_PACKAGES.split()],
            timeout_seconds=600,
        )
    with only_run():
        if arguments.recording:
            _recording(report)
        else:
            _stages(report, arguments.only, arguments.full, arguments.evidence)
    if arguments.evidence:
        for path in evidence.write(report, "make vms-evidence", list(servers.versions().values())):
            print(f"written: {path.relative_to(ROOT)}")
    return report.close(strict=arguments.strict)


def _recording(report: Report) -> None:
    layers, images_by_name = _machines(report)
    if layers:
        with fresh_machines(report, layers, images_by_name, "CA0") as (bench, operator):
            ca0.follow_readme(report, bench, operator)
            _pictures_of_ca0(report, bench, operator)


def _pictures_of_ca0(report: Report, bench: Bench, operator: Operator) -> None:
    pictures.tour(report, bench, operator, _recorder())
    pictures.dashboard(report, bench, "CA0")


def _recorder() -> Recorder:
    cache = _FOLDER / "cache"
    return Recorder(ca1.ensure_tools(cache), cache / "svg-term")


def _machines(report: Report) -> tuple[list[Path], dict[str, Path]]:
    """The machines' layers and the images by name; nothing where this machine cannot run them."""
    cache = _FOLDER / "cache"
    images_by_name: dict[str, Path] = {}
    layers: list[Path] = []
    with report.check("test bench: machines' file systems and container images"):
        if lacks := machines.lacking():
            raise NotChecked(
                f"four machines cannot run here, this machine lacks: {'; '.join(lacks)}"
            )
        minimal, machine, builder = roots.ensure(cache)
        report.say("file systems of Debian 13 are there")
        images_by_name |= engine.build(_FOLDER / "run", cache, [builder, machine, minimal])
        layers += [machine, minimal]
        for name in images_by_name:
            report.say(
                f"image {name}: built here under the reference tag, not the vendor's "
                "(deploy/bench/images/README.md)"
            )
    return layers, images_by_name


def _stages(report: Report, only: str | None, full: bool, pictured: bool) -> None:
    cache = _FOLDER / "cache"
    layers, images_by_name = _machines(report)
    if not layers:
        for stage in ("CA0", "CA1", "end to end"):
            if only == "ca0" and stage != "CA0":
                continue
            report.skip(f"{stage}: everything that needs the four machines", "see above")
    if only != "ca1" and layers:
        with (
            report.check("CA0: ran to its end"),
            fresh_machines(report, layers, images_by_name, "CA0") as (bench, operator),
        ):
            ca0.follow_readme(report, bench, operator)
            if pictured:
                _pictures_of_ca0(report, bench, operator)
            ca0.run_checks(report, bench, operator, servers.versions()["GPU_TOKENS_IMAGE"])
            ca0.down(report, bench, operator)
            product.run_checks(report, bench, images_by_name)
    if only != "ca0":
        with report.check("CA1: ran to its end"):
            _ca1(report, cache, layers, images_by_name, full, pictured)


def _ca1(
    report: Report,
    cache: Path,
    layers: Sequence[Path],
    images_by_name: dict[str, Path],
    full: bool,
    pictured: bool,
) -> None:
    if shutil.which("ssh-keygen") is None:
        report.skip(
            "CA1: everything", "this machine lacks ssh-keygen (apt-get install openssh-client)"
        )
        return
    tools = ca1.ensure_tools(cache)
    with fresh_machines(report, layers, images_by_name, "CA1") as (bench, operator):
        if pictured:
            operator.recorder = _recorder()
        ca1.lint(report, operator, tools)
        terraform = ca1.terraform_tests(report, operator, bench.folder)
        if terraform is None:
            return
        with ca1.mocked_aws(tools, bench.folder) as aws:
            ca1.infrastructure(report, operator, terraform, tools, aws)
            ca1.state_in_s3(report, operator, terraform, tools, aws)
            if layers:
                image = images_by_name[servers.versions()["GPU_TOKENS_IMAGE"]]
                ca1.configuration(report, bench, operator, image)
                ca1.verification(report, operator)
                if pictured:
                    pictures.dashboard(report, bench, "CA1")
                end_to_end.run_checks(report, bench, kill_machines=full)
            ca1.destroy(report, operator, tools, aws)


@contextmanager
def fresh_machines(
    report: Report, layers: Sequence[Path], images_by_name: dict[str, Path], stage: str
) -> Iterator[tuple[Bench, Operator]]:
    """Four new machines with Kafka's and MongoDB's images; removed at the end whatever happens. No
    layers: only a folder."""
    folder = _FOLDER / "run"
    report.begin(stage)
    machines.remove_leftovers(folder)
    shutil.rmtree(folder, ignore_errors=True)
    bench = Bench(flows.load(), folder, layers)
    names = servers.versions()
    try:
        if layers:
            bench.up()
            for vm, image in (("vm1-kafka", "KAFKA_IMAGE"), ("vm2-mongo", "MONGO_IMAGE")):
                bench.load(vm, images_by_name[names[image]])
            report.say(f"{stage}: four machines are up")
        else:
            bench.prepare()
        yield bench, Operator(bench, images_by_name.get(names["GPU_TOKENS_IMAGE"]))
    except BaseException:
        keep_logs(folder)
        raise
    finally:
        if report.failed:
            keep_logs(folder)
        bench.down()
        report.say(f"{stage}: machines, network and files are removed")


def keep_logs(folder: Path) -> None:
    """Consoles, journals and containers' logs of the machines, for whoever looks at a failure."""
    logs = ROOT / "test-logs" / "vms"
    logs.mkdir(parents=True, exist_ok=True)
    for path in [*folder.glob("*/console.log"), *folder.glob("*/docker/containers/*/*-json.log")]:
        shutil.copy(path, logs / f"{path.relative_to(folder).parts[0]}-{path.name[-40:]}")


@contextmanager
def only_run() -> Iterator[None]:
    """One bench at a time on this machine: names and addresses are fixed. Exits with 2 when another
    one runs."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        Path("/run/lock/gpu-tokens-vms").open("w")
        if os.geteuid() == 0
        else (_FOLDER / "lock").open("w") as lock
    ):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another run of the bench is in progress on this machine")
        try:
            yield
        finally:
            if os.geteuid() == 0:
                machines.remove_leftovers(_FOLDER / "run")
                shutil.rmtree(_FOLDER / "run", ignore_errors=True)
