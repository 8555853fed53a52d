"""The flow table (`flows.yaml`) and everything that is written from it.

    python -m deploy.flows write     after a change of flows.yaml
    python -m deploy.flows check     exit 1 and the stale files when something written differs from
                                     the table

Documents carry a table between `<!-- flows:NAME -->` and `<!-- /flows -->`; only what stands
between is replaced. Terraform reads flows.yaml itself (CA1/terraform/main.tf); the test bench asks
`allowed()` for its reachability matrix.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "deploy" / "flows.yaml"
ADMIN = "admin"
ADMIN_PLACEHOLDER = "ADMIN_CIDR"
_BLOCK = re.compile(r"(<!-- flows:(\w+) -->\n).*?(<!-- /flows -->)", re.DOTALL)
GENERATED = "Written by `make flows` from deploy/flows.yaml: change it there."


class FlowTableError(ValueError):
    """flows.yaml contradicts itself; the message names the entry and the fix."""


@dataclass(frozen=True)
class Machine:
    """One of the four machines; `size` is an AWS instance type, `disk_gb` its root volume."""

    name: str
    ip: str
    size: str
    disk_gb: int
    security_group: str
    runs: str


@dataclass(frozen=True)
class Flow:
    """TCP from `source` (a machine, or `admin`) to `port` of the machine `target`."""

    source: str
    target: str
    port: int
    why: str


@dataclass(frozen=True)
class FlowTable:
    """flows.yaml, checked."""

    subnet_cidr: str
    os: str
    machines: dict[str, Machine]
    flows: tuple[Flow, ...]

    def allowed(self, source: str, target: str, port: int) -> bool:
        """Whether `source` may open `port` of `target`. Whoever is not in the table may open
        nothing."""
        return any(
            (flow.source, flow.target, flow.port) == (source, target, port) for flow in self.flows
        )

    @property
    def ports(self) -> list[int]:
        """Every service port of the table, sorted."""
        return sorted({flow.port for flow in self.flows})

    def into(self, target: str) -> list[Flow]:
        """The flows into one machine, in the table's order."""
        return [flow for flow in self.flows if flow.target == target]


def load(path: Path = TABLE) -> FlowTable:
    """The table. Raises FlowTableError when an entry names an unknown machine, repeats itself or
    leaves the subnet."""
    raw: dict[str, Any] = yaml.safe_load(path.read_text())
    machines = {name: Machine(name=name, **fields) for name, fields in raw["machines"].items()}
    flows = tuple(
        Flow(item["from"], item["to"], item["port"], item["why"]) for item in raw["flows"]
    )
    subnet = ipaddress.ip_network(raw["network"]["subnet_cidr"])
    for machine in machines.values():
        if ipaddress.ip_address(machine.ip) not in subnet:
            raise FlowTableError(f"{machine.name}: ip {machine.ip} is outside subnet_cidr {subnet}")
    seen: set[tuple[str, str, int]] = set()
    for flow in flows:
        key = (flow.source, flow.target, flow.port)
        if flow.target not in machines or flow.source not in {*machines, ADMIN}:
            raise FlowTableError(
                f"flow {key}: unknown machine; known are {sorted(machines)} and `{ADMIN}` as a "
                "source"
            )
        if not 1 <= flow.port <= 65535 or key in seen:
            raise FlowTableError(f"flow {key}: port out of range, or the flow stands there twice")
        seen.add(key)
    return FlowTable(str(subnet), raw["network"]["os"], machines, flows)


def firewall_rules(table: FlowTable, machine: Machine) -> str:
    """The machine's inbound rules, one per line as `port/tcp from address`, for
    CA0/common/firewall.sh."""
    lines = [
        f"# {GENERATED}",
        (
            f"# Everything else into {machine.name} is denied. {ADMIN_PLACEHOLDER} is filled in on "
            "the machine."
        ),
    ]
    for flow in table.into(machine.name):
        source = ADMIN_PLACEHOLDER if flow.source == ADMIN else table.machines[flow.source].ip
        lines.append(f"{flow.port}/tcp from {source}  # {flow.source}: {flow.why}")
    return "\n".join(lines) + "\n"


def topology_env(table: FlowTable) -> str:
    """Addresses and ports as shell variables, for the Makefiles and compose files."""
    ports: dict[str, list[int]] = {}
    for flow in table.flows:
        if flow.port != 22 and flow.port not in ports.setdefault(flow.target, []):
            ports[flow.target].append(flow.port)
    ip = {machine.name: machine.ip for machine in table.machines.values()}
    lines = [f"# {GENERATED}"]
    lines += [f"{name.split('-')[0].upper()}_IP={address}" for name, address in ip.items()]
    lines += [
        f"KAFKA_HOST={ip['vm1-kafka']}",
        f"KAFKA_PORT={ports['vm1-kafka'][0]}",
        f"MONGO_HOST={ip['vm2-mongo']}",
        f"MONGO_PORT={ports['vm2-mongo'][0]}",
        f"PROCESSOR_HOST={ip['vm3-processor']}",
        f"PROCESSOR_PORT={ports['vm3-processor'][0]}",
        f"API_PORT={ports['vm3-processor'][1]}",
    ]
    return "\n".join(lines) + "\n"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def documents_tables(table: FlowTable) -> dict[str, str]:
    """The tables that documents may carry, by name."""
    machines = table.machines.values()
    vms = [
        [f"`{m.name}`", m.runs, m.size, f"{m.disk_gb} GB", table.os, m.ip, f"`{m.security_group}`"]
        for m in machines
    ]
    flows = [[f.source, f.target, f"TCP {f.port}", f.why] for f in table.flows]
    groups = [
        [
            f"`{m.security_group}`",
            f"TCP {f.port}",
            "your address (`my_ip_cidr`)" if f.source == ADMIN else _group(table, f),
            f.why,
        ]
        for m in machines
        for f in table.into(m.name)
    ]
    matrix = [
        [
            f"from **{source}**",
            *(
                ", ".join(str(p) for p in table.ports if table.allowed(source, m.name, p)) or "-"
                for m in machines
            ),
        ]
        for source in [*table.machines, ADMIN]
    ]
    return {
        "machines": markdown(
            ["VM", "Runs", "Size", "Disk", "OS", "Private IP", "Security group"], vms
        ),
        "flows": markdown(["From", "To", "Port", "Why"], flows),
        "groups": markdown(["Security group", "Inbound", "Source", "Why"], groups),
        "matrix": markdown(["open ports", *(f"to **{m.name}**" for m in machines)], matrix),
    }


def _group(table: FlowTable, flow: Flow) -> str:
    source = table.machines[flow.source]
    return f"`{source.security_group}` ({source.ip})"


def _with_tables(text: str, tables: dict[str, str]) -> str:
    return _BLOCK.sub(
        lambda block: block[1] + tables[block[2]] + block[3] if block[2] in tables else block[0],
        text,
    )


def rendered(table: FlowTable) -> Iterator[tuple[Path, str]]:
    """Every file that comes from the table, with the text it must have."""
    for machine in table.machines.values():
        yield ROOT / "CA0" / machine.name / "firewall.rules", firewall_rules(table, machine)
    yield ROOT / "CA0" / "topology.env", topology_env(table)
    yield from documents(("CA0", "CA1"), documents_tables(table))


def documents(stages: tuple[str, ...], tables: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """The stages' documents that carry one of `tables`, with the text they must have."""
    for path in sorted(page for stage in stages for page in (ROOT / stage).rglob("*.md")):
        text = path.read_text()
        if any(name in tables for _, name, _ in _BLOCK.findall(text)):
            yield path, _with_tables(text, tables)


def stale(table: FlowTable) -> list[Path]:
    """The files that differ from what the table says."""
    return [path for path, _ in _differing(rendered(table))]


def _differing(files: Iterable[tuple[Path, str]]) -> list[tuple[Path, str]]:
    return [(path, text) for path, text in files if not path.exists() or path.read_text() != text]


def write_or_check(
    files: Iterable[tuple[Path, str]], write: bool, command: str = "make flows"
) -> int:
    """Write what differs, or only say so and name `command`; returns the exit status: 1 when
    something was left stale."""
    changed = _differing(files)
    for path, text in changed:
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        said = "written" if write else f"differs from what it is written from, {command}"
        print(f"{said}: {path.relative_to(ROOT)}")
    return 1 if changed and not write else 0


def main(arguments: list[str]) -> int:
    """`write` or `check`; returns the exit status."""
    if arguments not in (["write"], ["check"]):
        print(__doc__, file=sys.stderr)
        return 2
    return write_or_check(rendered(load()), arguments == ["write"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
