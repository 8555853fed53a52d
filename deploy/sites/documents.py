"""The tables between `<!-- sites:NAME -->` and `<!-- /sites -->` in documents; only what stands
between is replaced."""

from __future__ import annotations

import re

from deploy.sites.table import LOOPBACK, Kind, SiteTable

BLOCK = re.compile(r"(<!-- sites:(\w+) -->\n).*?(<!-- /sites -->)", re.DOTALL)


def tables(table: SiteTable) -> dict[str, str]:
    """Every table a document may carry, by name."""
    sites = [
        [
            f"**{s.name}**",
            s.role.value,
            s.region,
            s.host_ip,
            f"`{s.trust_domain}`",
            f"{s.size}, {s.disk_gb} GB",
            s.runs,
        ]
        for s in table.sites.values()
    ]
    services = [
        [
            f"`{s.name}`",
            s.site,
            f"`{LOOPBACK}:{s.port}`",
            str(s.priority) if s.kind is Kind.MONGODB else "-",
        ]
        for s in table.services.values()
    ]
    calls = [
        [c.source, f"`{table.sites[c.source].identity(c.identity)}`", f"`{c.service}`", c.why]
        for c in table.calls
    ]
    callers = {
        (c.source, c.identity): [
            d.service for d in table.calls if (d.source, d.identity) == (c.source, c.identity)
        ]
        for c in table.calls
    }
    matrix = [
        [
            f"`{table.sites[source].identity(name)}`",
            *("yes" if s in services_of else "-" for s in table.services),
        ]
        for (source, name), services_of in callers.items()
    ]
    identities = [[f"`{name}`", what] for name, what in table.identities.items()]
    ports = [
        [
            f"TCP {table.mesh.gateway_port}",
            "the hosts of the other sites that call it",
            "the mesh: mutual TLS 1.3",
        ],
        *([f"TCP {p.port}", "your address (`my_ip_cidr`)", p.why] for p in table.admin_ports),
    ]
    return {
        "sites": _markdown(
            ["Site", "Role", "Region", "Host", "Trust domain", "Size", "Runs"], sites
        ),
        "services": _markdown(
            ["Service", "At", "Address, the same everywhere", "Priority"], services
        ),
        "calls": _markdown(["From", "As", "To", "Why"], calls),
        "matrix": _markdown(["Caller", *(f"`{name}`" for name in table.services)], matrix),
        "identities": _markdown(["Identity", "Whose"], identities),
        "ports": _markdown(["Inbound", "From", "Why"], ports),
    }


def with_tables(text: str, by_name: dict[str, str]) -> str:
    """The document with its tables replaced. Raises KeyError on a name that is no table's."""
    return BLOCK.sub(lambda block: block[1] + by_name[block[2]] + block[3], text)


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
