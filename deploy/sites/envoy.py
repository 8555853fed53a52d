"""Each site's Envoy: a gateway in (mutual TLS, one chain per local service) and loopback listeners
out (one per call).

The files are read from the folder that Envoy is started in: `envoy -c envoy.yaml`. Listeners and
clusters are file xDS: rename a new file over the old one and Envoy takes it without a restart, or
refuses it and goes on with what it has. Certificates and trust bundles are file SDS in `sds/`, one
file per identity (deploy/bench/sites/identity.py writes them for the bench).

Fields: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api
"""

from __future__ import annotations

from typing import Any

from deploy.sites.table import LOOPBACK, SERVER_IDENTITY, Call, Kind, Service, Site, SiteTable

Config = dict[str, Any]

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
_CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
PEERS = "peers"  # the secret with the trust bundles of all domains
API_CLUSTER = "api"
# Both bounds: Envoy's clients stop at TLS 1.2 by default, so a minimum of 1.3 alone fails with
# NO_SUPPORTED_VERSIONS_ENABLED.
_TLS = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
# A cut link says nothing: without these a connection over it would look alive until somebody
# writes.
_KEEPALIVE = {
    "tcp_keepalive": {"keepalive_time": 10, "keepalive_interval": 5, "keepalive_probes": 2}
}


def bootstrap(table: SiteTable, site: Site) -> Config:
    """envoy.yaml: who this is, and where listeners and clusters are read from."""
    return {
        "node": {
            "id": f"gateway-{site.name}",
            "cluster": f"site-{site.name}",
            "locality": {"region": site.region},
        },
        "admin": {"address": _address(LOOPBACK, table.mesh.admin_port)},
        "dynamic_resources": {
            "lds_config": _watched("listeners.yaml", "."),
            "cds_config": _watched("clusters.yaml", "."),
        },
    }


def listeners(table: SiteTable, site: Site) -> list[Config]:
    """The gateway, a loopback listener per call to another site, and the API's."""
    out = [
        _outbound_listener(table, call)
        for call in table.calls_from(site.name)
        if not _is_api(table, call)
    ]
    api = [_api_listener(table)] if table.at(site.name, Kind.API) else []
    return [_gateway(table, site), *out, *api]


def clusters(table: SiteTable, site: Site) -> list[Config]:
    """What the listeners hand connections to."""
    local = [_local_cluster(service) for service in table.at(site.name)]
    remote = [
        _remote_cluster(table, call)
        for call in table.calls_from(site.name)
        if not _is_api(table, call)
    ]
    api = [_api_cluster(table, site)] if table.at(site.name, Kind.API) else []
    return [*local, *remote, *api]


def discovery(kind: str, resources: list[Config]) -> Config:
    """A file that Envoy's file xDS reads: `kind` is `listeners` or `clusters`."""
    tag = _LISTENER if kind == "listeners" else _CLUSTER
    return {"resources": [{"@type": tag} | resource for resource in resources]}


def static(table: SiteTable, site: Site) -> Config:
    """All of it in one file, for `envoy --mode validate`, which does not read dynamic resources."""
    resources = {"listeners": listeners(table, site), "clusters": clusters(table, site)}
    return {
        key: value for key, value in bootstrap(table, site).items() if key != "dynamic_resources"
    } | {"static_resources": resources}


def secret_files(table: SiteTable, site: Site) -> list[str]:
    """The SDS files that a site's Envoy reads, relative to the folder it runs in."""
    used = {call.identity for call in table.calls_from(site.name)}
    names = [SERVER_IDENTITY, *(name for name in table.identities if name in used), PEERS]
    return [f"sds/{name}.yaml" for name in names]


def _gateway(table: SiteTable, site: Site) -> Config:
    return {
        "name": "gateway",
        "address": _address(site.host_ip, table.mesh.gateway_port),
        "listener_filters": [
            {
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": _typed("filters.listener.tls_inspector.v3.TlsInspector"),
            }
        ],
        "filter_chains": [
            _inbound_chain(table, service)
            for service in table.at(site.name)
            if table.callers(service.name)
        ],
    }


def _inbound_chain(table: SiteTable, service: Service) -> Config:
    tls = _typed(
        "transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context=_certificates(SERVER_IDENTITY)
        | {"validation_context_sds_secret_config": _secret(PEERS)},
    )
    principals = [
        {"authenticated": {"principal_name": {"exact": caller}}}
        for caller in table.callers(service.name)
    ]
    rbac = _typed(
        "filters.network.rbac.v3.RBAC",
        stat_prefix=f"{service.name}.",  # the dot is part of it
        rules={
            "action": "ALLOW",
            "policies": {"calls": {"permissions": [{"any": True}], "principals": principals}},
        },
    )
    # Without this mode a stranger opens a socket to the server before TLS and RBAC have seen him,
    # and a server that is down looks like a TLS failure. The mode needs max_early_data_bytes: Envoy
    # exits without.
    proxy = _tcp_proxy(service.name) | {
        "upstream_connect_mode": "ON_DOWNSTREAM_TLS_HANDSHAKE",
        "max_early_data_bytes": 65_536,
    }
    return {
        "name": service.name,
        "filter_chain_match": {"server_names": [table.mesh.server_name(service.name)]},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "filters": [
            {"name": "envoy.filters.network.rbac", "typed_config": rbac},
            {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy},
        ],
    }


def _outbound_listener(table: SiteTable, call: Call) -> Config:
    filters = [
        {"name": "envoy.filters.network.tcp_proxy", "typed_config": _tcp_proxy(call.service)}
    ]
    address = _address(LOOPBACK, table.services[call.service].port)
    return {"name": call.service, "address": address, "filter_chains": [{"filters": filters}]}


def _api_listener(table: SiteTable) -> Config:
    """HTTP, so that a call that met a dead or failing process can be repeated elsewhere without the
    caller noticing."""
    retry = {
        "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
        "retriable_status_codes": [500, 502, 503],
        "num_retries": 3,
        # Reads only are repeated: POST /v1/events is safe to repeat too (events carry ids), price
        # changes are not.
        "retriable_request_headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
        # A retry goes to a priority that was not tried: without it, all stay at the local site
        # until it is ejected.
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": _typed(
                "retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", update_frequency=1
            ),
        },
    }
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": API_CLUSTER, "timeout": "30s", "retry_policy": retry},
    }
    manager = _typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=API_CLUSTER,
        route_config={
            "name": API_CLUSTER,
            "virtual_hosts": [{"name": API_CLUSTER, "domains": ["*"], "routes": [route]}],
        },
        http_filters=[
            {
                "name": "envoy.filters.http.router",
                "typed_config": _typed("filters.http.router.v3.Router"),
            }
        ],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": API_CLUSTER,
        "address": _address(LOOPBACK, table.api.port),
        "filter_chains": [{"filters": filters}],
    }


def _local_cluster(service: Service) -> Config:
    """What a service's chain of the gateway hands on to."""
    return _cluster(service.name, [_endpoint(LOOPBACK, service.port)])


def _remote_cluster(table: SiteTable, call: Call) -> Config:
    target = table.sites[table.services[call.service].site]
    endpoints = [_endpoint(target.host_ip, table.mesh.gateway_port)]
    return _cluster(call.service, endpoints) | {
        "upstream_connection_options": _KEEPALIVE,
        "transport_socket": _to_gateway(table, call),
    }


def _api_cluster(table: SiteTable, site: Site) -> Config:
    """Priority 0 are the site's own API processes, priority 1 the other site's gateway; health
    decides."""
    here = {
        "lb_endpoints": [_endpoint(LOOPBACK, s.port) for s in table.at(site.name, Kind.API)],
        "priority": 0,
    }
    there, matches = [], []
    for call in table.calls_from(site.name):
        if _is_api(table, call):
            target = table.sites[table.services[call.service].site]
            there.append(_endpoint(target.host_ip, table.mesh.gateway_port) | _marked(call.service))
            matches.append(
                {
                    "name": call.service,
                    "match": {"service": call.service},
                    "transport_socket": _to_gateway(table, call),
                }
            )
    check = {
        "timeout": "2s",
        "interval": "1s",
        # Default 60 s: an API that came up after this Envoy would count as failed for a minute,
        # while nobody asks.
        "no_traffic_interval": "1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "http_health_check": {"path": table.api.health_path},
    }
    plain = {"name": "here", "match": {}, "transport_socket": _plain_socket()}
    return {
        "name": API_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "2s",
        "health_checks": [check],
        "outlier_detection": {
            "consecutive_5xx": 3,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 100,
        },
        # Default 1 s: so long a worker goes on with what it knew of the hosts, and calls reach one
        # that has just failed.
        "common_lb_config": {"update_merge_window": "0s"},
        "transport_socket_matches": [*matches, plain],
        "load_assignment": {
            "cluster_name": API_CLUSTER,
            # Default 140: with one of two local processes healthy a third of the calls would go to
            # the other site.
            "policy": {"overprovisioning_factor": 200},
            "endpoints": [here, {"lb_endpoints": there, "priority": 1}],
        },
    }


def _to_gateway(table: SiteTable, call: Call) -> Config:
    """TLS to another site's gateway: our certificate is the caller's, and it has to be the right
    site that answers."""
    target = table.sites[table.services[call.service].site]
    expected = [{"san_type": "URI", "matcher": {"exact": target.identity(SERVER_IDENTITY)}}]
    validation = {
        "default_validation_context": {"match_typed_subject_alt_names": expected},
        "validation_context_sds_secret_config": _secret(PEERS),
    }
    tls = _typed(
        "transport_sockets.tls.v3.UpstreamTlsContext",
        sni=table.mesh.server_name(call.service),
        common_tls_context=_certificates(call.identity)
        | {"combined_validation_context": validation},
    )
    return {"name": "envoy.transport_sockets.tls", "typed_config": tls}


def _certificates(identity: str) -> Config:
    return {"tls_params": dict(_TLS), "tls_certificate_sds_secret_configs": [_secret(identity)]}


def _secret(name: str) -> Config:
    return {"name": name, "sds_config": _watched(f"sds/{name}.yaml", "sds")}


def _watched(path: str, folder: str) -> Config:
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": path, "watched_directory": {"path": folder}},
    }


def _is_api(table: SiteTable, call: Call) -> bool:
    return table.services[call.service].kind is Kind.API


def _tcp_proxy(cluster: str) -> Config:
    return _typed("filters.network.tcp_proxy.v3.TcpProxy", stat_prefix=cluster, cluster=cluster)


def _cluster(name: str, endpoints: list[Config]) -> Config:
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": assignment}


def _endpoint(address: str, port: int) -> Config:
    return {"endpoint": {"address": _address(address, port)}}


def _marked(service: str) -> Config:
    return {"metadata": {"filter_metadata": {"envoy.transport_socket_match": {"service": service}}}}


def _plain_socket() -> Config:
    return {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": _typed("transport_sockets.raw_buffer.v3.RawBuffer"),
    }


def _address(address: str, port: int) -> Config:
    return {"socket_address": {"address": address, "port_value": port}}


def _typed(name: str, **fields: Any) -> Config:
    return {"@type": f"{_EXTENSIONS}.{name}"} | fields
