"""python -m deploy.bench sites COMMAND: two sites and a vote on this machine, in network
namespaces. Needs root on Linux.

    up              start everything and leave it running (make sites); `down` ends it
    promote SITE    the other site's runbook, on what runs (make promote SITE=b)
    failback        back to the active site (make failback)
    cut SITE | heal SITE | lose SITE    what a drill does by itself
    drill           from nothing: the mesh's checks, then every row of the drill, one table (make
                    drill)
    down            end everything and remove it

drill takes --full (longer rows), --only mesh|rows|terraform, --rows N ..., --without REMEDY (a row
then fails), --strict, --evidence, --install.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.bench import evidence
from deploy.bench.report import NotChecked, Report
from deploy.bench.shell import run, wait
from deploy.bench.sites import infrastructure, network, servers
from deploy.bench.sites.drill import REMEDIES, Drill
from deploy.bench.sites.mesh import Mesh
from deploy.bench.sites.rows import HEADER
from deploy.bench.sites.sites import Sites
from deploy.sites import table as tables
from deploy.sites.table import ROOT

STAGE = "CA4"
_RUN = network.FOLDER / "run"
_LOCK = Path("/run/lock/gpu-tokens-sites")
_PACKAGES = "iproute2 nftables procps openssl curl openjdk-17-jre-headless maven"


def main(arguments_given: Sequence[str]) -> int:
    """The exit status: 1 when a check failed, 2 when there is nothing to work on."""
    parser = argparse.ArgumentParser(
        "deploy.bench sites", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in ("up", "failback", "down"):
        commands.add_parser(name)
    for name in ("promote", "cut", "heal", "lose"):
        commands.add_parser(name).add_argument("site", choices=["a", "b"])
    drill = commands.add_parser("drill")
    drill.add_argument("--full", action="store_true")
    drill.add_argument("--only", choices=["mesh", "rows", "terraform"])
    drill.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[],
        help="only the rows with these numbers; 4 needs 3",
    )
    remedies = "; ".join(f"{name}: {what}" for name, what in REMEDIES.items())
    drill.add_argument(
        "--without",
        choices=sorted(REMEDIES),
        action="append",
        default=[],
        help=f"repeatable. {remedies}",
    )
    drill.add_argument(
        "--strict", action="store_true", help="exit 1 also when something could not be checked"
    )
    drill.add_argument(
        "--evidence",
        action="store_true",
        help="write the output into CA4/README.md and CA4/evidence.md",
    )
    drill.add_argument("--install", action="store_true", help="apt-get install what is missing")
    arguments = parser.parse_args(arguments_given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    if arguments.command == "drill":
        return _drill(arguments)
    if os.geteuid() != 0:
        sys.exit("two sites need root: network namespaces and their firewall")
    steps: dict[str, Callable[[], None]] = {
        "up": _up,
        "down": _down,
        "failback": lambda: _fail_back(_running()),
        "promote": lambda: _promote(_running(), arguments.site),
        "cut": lambda: network.cut(arguments.site),
        "heal": lambda: network.heal(arguments.site),
        "lose": lambda: _running().lose(arguments.site),
    }
    with only_run():
        steps[arguments.command]()
    return 0


# On what runs


def _up() -> None:
    _fresh()
    sites = Sites(_RUN, print)
    try:
        _start(sites)
    except BaseException:
        keep_logs()
        sites.close()
        raise
    sites.start_load(sites.active)
    port = sites.table.api.port
    print(
        f"both sites run; events flow at {sites.active}. The API there: "
        f"ip netns exec {network.namespace('a')} curl 127.0.0.1:{port}/health"
    )
    print("next: make promote SITE=b | make failback | make sites-down; logs: build/sites/run/logs")


def _running() -> Sites:
    if not (_RUN / "running").is_dir() or not any((_RUN / "running").iterdir()):
        sys.exit("nothing runs: make sites")
    return Sites(_RUN, print)


def _promote(sites: Sites, site: str) -> None:
    """For a disaster and for a rehearsal: whether the other site is dead, cut off or alive, nothing
    is lost or doubled."""
    if site != sites.standby:
        sys.exit(f"site {site} is the active one; make failback brings it back to work")
    sites.promote(site)
    if not sites.processes.running(f"load-{site}"):
        sites.start_load(site)
    print(f"site {site} takes and stores events. When the other one is back: make failback")


def _fail_back(sites: Sites) -> None:
    if not sites.gateways.ready(sites.active):
        print(f"site {sites.active} returns with its disk")
        sites.bring_back(sites.active)
    else:
        network.heal(sites.active)
    drill = Drill(sites, Report())
    sites.fail_back(drill.drained)
    if not sites.processes.running(f"load-{sites.active}"):
        sites.start_load(sites.active)
    print(f"site {sites.active} takes and stores events again; {sites.standby} keeps the copy")


def _down() -> None:
    network.remove()
    shutil.rmtree(_RUN, ignore_errors=True)
    print("everything is removed")


# From nothing


def _drill(arguments: argparse.Namespace) -> int:
    report = Report()
    report.begin(STAGE)
    if arguments.install and servers.lacking() and os.geteuid() == 0:
        report.say(f"installing {_PACKAGES}")
        run(["apt-get", "update", "-qq"], timeout_seconds=300)
        run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *_PACKAGES.split()],
            timeout_seconds=600,
        )
    if arguments.only in (None, "terraform"):
        _infrastructure(report)
    if arguments.only != "terraform":
        _sites(report, arguments)
    if arguments.evidence:
        for path in evidence.write(report, "make drill ARGS=--evidence", []):
            print(f"written: {path.relative_to(ROOT)}")
    return report.close(strict=arguments.strict)


def _sites(report: Report, arguments: argparse.Namespace) -> None:
    with report.check(f"{STAGE}: ran to its end"):
        if lacks := servers.lacking():
            raise NotChecked(f"two sites cannot run here, this machine lacks: {'; '.join(lacks)}")
        with only_run():
            _checked(report, arguments)


def _infrastructure(report: Report) -> None:
    with (
        report.check(f"{STAGE}: Terraform ran to its end"),
        tempfile.TemporaryDirectory(prefix="ca4-terraform-") as folder,
    ):
        infrastructure.run_checks(
            report, tables.load(), Path(folder), ROOT / "build" / "vms" / "cache"
        )


def _checked(report: Report, arguments: argparse.Namespace) -> None:
    _fresh()
    sites = Sites(_RUN, report.say)
    try:
        sites.servers.prepare()
        sites.start_network()
        report.say("three sites, a router, and a gateway at each site")
        if arguments.only != "rows":
            Mesh(sites.table, _RUN, sites.processes, sites.gateways).run_checks(report)
        if arguments.only != "mesh":
            _rows(report, sites, arguments)
    except BaseException:
        keep_logs()
        raise
    finally:
        if report.failed:
            keep_logs()
        sites.close()
        shutil.rmtree(_RUN, ignore_errors=True)
        report.say("processes, network and files are removed")


def _rows(report: Report, sites: Sites, arguments: argparse.Namespace) -> None:
    sites.start_stores()
    report.say("two brokers and five members of one replica set run")
    sites.start_pipeline()
    report.say("MirrorMaker, the processor at A and an API at both sites run")
    drill = Drill(sites, report, frozenset(arguments.without))
    try:
        drill.run(full=arguments.full, only=arguments.rows)
    finally:
        report.table(HEADER, [row.cells() for row in drill.rows])


def _start(sites: Sites) -> None:
    sites.servers.prepare()
    sites.start_network()
    print("gateways run")
    sites.start_stores()
    print("stores run")
    sites.start_pipeline()
    wait(lambda: sites.processes.running("mirror-b"), 10, "MirrorMaker ended")


def _fresh() -> None:
    network.remove()
    shutil.rmtree(_RUN, ignore_errors=True)
    _RUN.mkdir(parents=True)


def keep_logs() -> None:
    """What everything said, for whoever looks at a failure."""
    kept = ROOT / "test-logs" / "sites"
    shutil.rmtree(kept, ignore_errors=True)
    if (_RUN / "logs").is_dir():
        shutil.copytree(_RUN / "logs", kept)


@contextmanager
def only_run() -> Iterator[None]:
    """One bench at a time on this machine: names and addresses are fixed."""
    with _LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another run of the two sites is in progress on this machine")
        yield
