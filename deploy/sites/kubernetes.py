"""The table's rules for an existing mesh: Istio, multi-primary on different networks, one cluster
per site.

Written and checked by schema, **never run**: Istio's control plane could not be had here
(CA4/kubernetes/README.md).
"""

from __future__ import annotations

from typing import Any

from deploy.sites.table import Kind, Service, Site, SiteTable

Manifest = dict[str, Any]

NAMESPACE = "gpu-tokens"


def manifests(table: SiteTable, site: Site) -> list[Manifest]:
    """Everything of one site's cluster."""
    return [
        _object(
            "security.istio.io/v1", "PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}}
        ),
        _gateway(table),
        *(_policy(table, site, service) for service in table.at(site.name)),
        *(_stub(table.services[call.service]) for call in table.calls_from(site.name)),
        *([_failover(table, site)] if table.at(site.name, Kind.API) else []),
    ]


def _gateway(table: SiteTable) -> Manifest:
    """The one port that other clusters reach; TLS ends in the pods, so the gateway holds no key."""
    server = {
        "port": {"number": table.mesh.gateway_port, "name": "tls", "protocol": "TLS"},
        "tls": {"mode": "AUTO_PASSTHROUGH"},
        "hosts": [f"*.{NAMESPACE}.svc.cluster.local"],
    }
    return _object(
        "networking.istio.io/v1",
        "Gateway",
        "other-sites",
        {"selector": {"istio": "eastwestgateway"}, "servers": [server]},
    )


def _policy(table: SiteTable, site: Site, service: Service) -> Manifest:
    """Who may call a service: the table's callers from other sites, and the site's own service
    accounts."""
    domain = {entry.name: entry.trust_domain for entry in table.sites.values()}
    remote = [
        f"{domain[c.source]}/ns/{NAMESPACE}/sa/{c.identity}"
        for c in table.calls
        if c.service == service.name
    ]
    principals = [f"{site.trust_domain}/ns/{NAMESPACE}/sa/*", *remote]
    spec = {
        "selector": {"matchLabels": {"app": service.name}},
        "action": "ALLOW",
        "rules": [
            {
                "from": [{"source": {"principals": principals}}],
                "to": [{"operation": {"ports": [str(service.port)]}}],
            }
        ],
    }
    return _object("security.istio.io/v1", "AuthorizationPolicy", service.name, spec)


def _stub(service: Service) -> Manifest:
    """The name of another site's service, so that it resolves here; Istio knows the endpoints from
    that cluster."""
    port = {"name": f"tcp-{service.kind.value}", "port": service.port}
    return _object("v1", "Service", service.name, {"ports": [port]})


def _failover(table: SiteTable, site: Site) -> Manifest:
    """The API: this region first, the other one when no local process is healthy."""
    others = [
        entry.region
        for entry in table.sites.values()
        if entry != site and table.at(entry.name, Kind.API)
    ]
    policy = {
        "outlierDetection": {
            "consecutive5xxErrors": 3,
            "interval": "1s",
            "baseEjectionTime": "5s",
            "maxEjectionPercent": 100,
        },
        "loadBalancer": {
            "localityLbSetting": {
                "enabled": True,
                "failover": [{"from": site.region, "to": region} for region in others],
            }
        },
    }
    host = f"api.{NAMESPACE}.svc.cluster.local"
    return _object(
        "networking.istio.io/v1", "DestinationRule", "api", {"host": host, "trafficPolicy": policy}
    )


def _object(version: str, kind: str, name: str, spec: Manifest) -> Manifest:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
