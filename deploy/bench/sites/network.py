"""Three sites and a router between them, each a network namespace. A site's link is cut by dropping
its packets on the router, as a lost line does: nobody is told.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from deploy.bench.machines import leftovers
from deploy.bench.shell import CommandFailed, run
from deploy.sites.table import ROOT, SiteTable

PREFIX = "ca4-"
ROUTER = f"{PREFIX}wan"
FOLDER = ROOT / "build" / "sites"


def namespace(site: str) -> str:
    """Where a site's processes live."""
    return f"{PREFIX}{site}"


def inside(site: str, *command: str) -> list[str]:
    """A command that runs at a site. The process keeps its id: `ip netns exec` becomes the
    command."""
    return ["ip", "netns", "exec", namespace(site), *command]


def up(table: SiteTable) -> None:
    """Namespaces, addresses, routes."""
    run(["ip", "netns", "add", ROUTER])
    run(["ip", "-n", ROUTER, "link", "set", "lo", "up"])
    run(["ip", "netns", "exec", ROUTER, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
    for site in table.sites.values():
        name, router_end = namespace(site.name), f"w-{site.name}"
        gateway = site.host_ip.rpartition(".")[0] + ".1"
        prefix = site.subnet_cidr.partition("/")[2]
        run(["ip", "netns", "add", name])
        run(["ip", "-n", name, "link", "set", "lo", "up"])
        run(
            [
                "ip",
                "link",
                "add",
                "eth0",
                "netns",
                name,
                "type",
                "veth",
                "peer",
                "name",
                router_end,
                "netns",
                ROUTER,
            ]
        )
        for where, words in (
            (name, f"addr add {site.host_ip}/{prefix} dev eth0"),
            (name, "link set eth0 up"),
            (ROUTER, f"addr add {gateway}/{prefix} dev {router_end}"),
            (ROUTER, f"link set {router_end} up"),
            (name, f"route add default via {gateway}"),
        ):
            run(["ip", "-n", where, *words.split()])


def cut(site: str) -> None:
    """Nothing from or to the site passes the router any more."""
    rules = (
        f"table inet cut_{site} {{\n chain c {{\n  type filter hook forward priority 0; policy "
        "accept;\n"
        f'  iifname "w-{site}" drop\n  oifname "w-{site}" drop\n }}\n}}\n'
    )
    run(["ip", "netns", "exec", ROUTER, "nft", "-f", "-"], stdin=rules)


def heal(site: str) -> None:
    """The site's link is there again. Does nothing when it was not cut."""
    run(
        ["ip", "netns", "exec", ROUTER, "nft", "delete", "table", "inet", f"cut_{site}"],
        check=False,
    )


def kill_everything_at(site: str) -> None:
    """kill -9 of every process of a site, as when its power goes."""
    end = time.monotonic() + 30
    while pids := _pids(namespace(site)):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            raise CommandFailed(f"processes of site {site} do not end: {pids}")
        time.sleep(0.05)


def remove() -> None:
    """Everything with the bench's prefix: processes, links, namespaces. Also what a killed run
    left."""
    names = [
        line.split()[0]
        for line in run(["ip", "netns", "list"], check=False).stdout.splitlines()
        if line.strip()
    ]
    for name in names:
        if name.startswith(PREFIX):
            kill_everything_at(name.removeprefix(PREFIX))
    leftovers.remove(PREFIX, FOLDER / "run")


def _pids(name: str) -> list[int]:
    """Processes of a namespace, zombies not counted (their parent is this process)."""
    pids = [
        int(word)
        for word in run(["ip", "netns", "pids", name], check=False).stdout.split()
        if word.isdigit()
    ]
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return [pid for pid in pids if _state(pid) not in ("Z", "")]


def _state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a path that may vanish between two calls
            return stat.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
