"""sites.yaml, read and checked: a table that contradicts itself is refused with the entry and the
fix."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = ROOT / "deploy" / "sites.yaml"
LOOPBACK = "127.0.0.1"
SERVER_IDENTITY = "gateway"


class SiteTableError(ValueError):
    """sites.yaml contradicts itself; the message names the entry and the fix."""


class Role(StrEnum):
    """What a site is for."""

    ACTIVE = "active"
    STANDBY = "standby"
    VOTER = "voter"


class Kind(StrEnum):
    """What a service speaks."""

    KAFKA = "kafka"
    MONGODB = "mongodb"
    API = "api"


@dataclass(frozen=True)
class Site:
    """One site: a region of its own, one host, one trust domain with an authority of its own."""

    name: str
    role: Role
    region: str
    vpc_cidr: str
    subnet_cidr: str
    host_ip: str
    trust_domain: str
    size: str
    disk_gb: int
    runs: str

    def identity(self, name: str) -> str:
        """The SPIFFE id of one of the site's identities."""
        return f"spiffe://{self.trust_domain}/{name}"


@dataclass(frozen=True)
class Service:
    """A server at one site. `port` is its port on loopback, there and (but for the API)
    everywhere."""

    name: str
    site: str
    kind: Kind
    port: int
    priority: int = 0


@dataclass(frozen=True)
class Call:
    """Callers at `source` with the identity `identity` may open `service`, which is at another
    site."""

    source: str
    identity: str
    service: str
    why: str


@dataclass(frozen=True)
class Mesh:
    """Ports and names of the gateways."""

    gateway_port: int
    admin_port: int
    sni_suffix: str

    def server_name(self, service: str) -> str:
        """The name that a caller asks a gateway for."""
        return f"{service}.{self.sni_suffix}"


@dataclass(frozen=True)
class Port:
    """TCP port with its reason."""

    port: int
    why: str


@dataclass(frozen=True)
class ReplicaSet:
    """MongoDB's replica set over all sites."""

    name: str
    election_timeout_ms: int
    heartbeat_interval_ms: int


@dataclass(frozen=True)
class Api:
    """Where every site's callers find the API, and how Envoy asks whether one is healthy."""

    port: int
    health_path: str


@dataclass(frozen=True)
class Processor:
    """Where a site's processor shows its health and metrics, on loopback."""

    port: int


@dataclass(frozen=True)
class Topics:
    """What is mirrored."""

    events: str
    dead_letters: str
    partitions: int
    group: str


@dataclass(frozen=True)
class SiteTable:
    """sites.yaml, checked."""

    mesh: Mesh
    sites: dict[str, Site]
    services: dict[str, Service]
    replica_set: ReplicaSet
    api: Api
    processor: Processor
    topics: Topics
    identities: dict[str, str]
    calls: tuple[Call, ...]
    admin_ports: tuple[Port, ...]
    egress: tuple[Port, ...]

    def at(self, site: str, kind: Kind | None = None) -> list[Service]:
        """The services of a site, of one kind or all, in the table's order."""
        return [s for s in self.services.values() if s.site == site and kind in (None, s.kind)]

    def of(self, kind: Kind) -> list[Service]:
        """The services of one kind at all sites, in the table's order."""
        return [s for s in self.services.values() if s.kind is kind]

    def callers(self, service: str) -> list[str]:
        """SPIFFE ids that may open a service through its gateway."""
        return [
            self.sites[c.source].identity(c.identity) for c in self.calls if c.service == service
        ]

    def calls_from(self, site: str) -> list[Call]:
        """What a site's callers may open elsewhere."""
        return [call for call in self.calls if call.source == site]

    def by_role(self, role: Role) -> Site:
        """The one site with a role."""
        return next(site for site in self.sites.values() if site.role is role)

    def the(self, site: str, kind: Kind) -> Service:
        """A site's one service of a kind."""
        return self.at(site, kind)[0]


def load(path: Path = TABLE) -> SiteTable:
    """The table. Raises SiteTableError when entries contradict each other."""
    raw: dict[str, Any] = yaml.safe_load(path.read_text())
    calls = [
        Call(entry["from"], entry["as"], service, entry["why"])
        for entry in raw["calls"]
        for service in entry["to"]
    ]
    table = SiteTable(
        mesh=Mesh(**raw["mesh"]),
        sites={
            name: Site(name=name, **{**fields, "role": Role(fields["role"])})
            for name, fields in raw["sites"].items()
        },
        services={
            name: Service(name=name, **{**fields, "kind": Kind(fields["kind"])})
            for name, fields in raw["services"].items()
        },
        replica_set=ReplicaSet(**raw["replica_set"]),
        api=Api(**raw["api"]),
        processor=Processor(**raw["processor"]),
        topics=Topics(**raw["topics"]),
        identities=raw["identities"],
        calls=tuple(calls),
        admin_ports=tuple(Port(**entry) for entry in raw["admin_ports"]),
        egress=tuple(Port(**entry) for entry in raw["egress"]),
    )
    for problem in [
        *_of_sites(table),
        *_of_services(table),
        *_of_the_store(table),
        *_of_calls(table),
    ]:
        raise SiteTableError(f"{path.name}: {problem}")
    return table


def _of_sites(table: SiteTable) -> list[str]:
    problems = []
    networks = [ipaddress.ip_network(site.vpc_cidr) for site in table.sites.values()]
    for site in table.sites.values():
        subnet = ipaddress.ip_network(site.subnet_cidr)
        if not subnet.subnet_of(ipaddress.ip_network(site.vpc_cidr)):  # type: ignore[arg-type]
            problems.append(
                f"site {site.name}: subnet_cidr {subnet} is outside vpc_cidr {site.vpc_cidr}"
            )
        if ipaddress.ip_address(site.host_ip) not in subnet:
            problems.append(
                f"site {site.name}: host_ip {site.host_ip} is outside subnet_cidr {subnet}"
            )
    for index, network in enumerate(networks):
        if any(network.overlaps(other) for other in networks[:index]):
            problems.append(
                f"vpc_cidr {network} overlaps with another site's: peered networks need ranges of "
                "their own"
            )
    if repeated := _repeated([site.trust_domain for site in table.sites.values()]):
        problems.append(
            f"trust_domain {repeated} stands at two sites: one authority could then speak for both"
        )
    for role in (Role.ACTIVE, Role.STANDBY):
        if [site.role for site in table.sites.values()].count(role) != 1:
            problems.append(f"exactly one site has the role `{role}`")
    return problems


def _of_services(table: SiteTable) -> list[str]:
    problems = [
        f"service {s.name}: unknown site {s.site}"
        for s in table.services.values()
        if s.site not in table.sites
    ]
    # The API is called through Envoy's own port, so its processes may have the same one at each
    # site.
    everywhere = [s.port for s in table.services.values() if s.kind is not Kind.API]
    everywhere += [
        table.api.port,
        table.processor.port,
        table.mesh.gateway_port,
        table.mesh.admin_port,
    ]
    everywhere += sorted({s.port for s in table.of(Kind.API)})
    if repeated := _repeated([str(port) for port in everywhere]):
        problems.append(
            f"port {repeated} has two owners: an address that is the same everywhere names one "
            "service"
        )
    return problems


def _of_calls(table: SiteTable) -> list[str]:
    problems = []
    for call in table.calls:
        name = f"call {call.source} as {call.identity} to {call.service}"
        if call.source not in table.sites or call.service not in table.services:
            problems.append(f"{name}: unknown site or service")
        elif call.identity not in table.identities or call.identity == SERVER_IDENTITY:
            problems.append(f"{name}: unknown identity; `{SERVER_IDENTITY}` calls nobody")
        elif table.services[call.service].site == call.source:
            problems.append(f"{name}: that service is at the same site, where no gateway is needed")
    if repeated := _repeated([f"{c.source} to {c.service}" for c in table.calls]):
        problems.append(f"call {repeated} stands there twice: one listener has one identity")
    return problems


def _of_the_store(table: SiteTable) -> list[str]:
    """No site alone may hold half of the votes: losing it would stop writes everywhere."""
    members = table.of(Kind.MONGODB)
    problems = []
    for site in table.sites:
        left = sum(member.site != site for member in members)
        if left * 2 <= len(members):
            problems.append(
                f"replica_set: without site {site} {left} of {len(members)} votes are left, which "
                "is no majority"
            )
    return problems


def _repeated(names: Sequence[str]) -> str:
    return next((name for name in names if names.count(name) > 1), "")
