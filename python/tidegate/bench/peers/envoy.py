"""Envoy and tidegate: the very same bootstrap, the same command line, one worker.

Also the resources of the `update-storm` case, as documents; who serves them is no concern of this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tidegate.bench.peers.site import CAPTURE_PORT, REDIRECT_ADDRESS, REDIRECT_PORT, Launch, Site
from tidegate.bench.scenarios import VHOST, Case, Table

Document = dict[str, Any]

_TYPE = "type.googleapis.com/envoy.extensions."
_HCM = f"{_TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager"
_ADS: Document = {"ads": {}, "resource_api_version": "V3"}

#: What makes a cluster's upstream speak HTTP/2. Downstream the connection manager finds out for itself.
_HTTP2: Document = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPE}upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}

#: The name of the one cluster, of the one listener, and of the one route configuration.
NAME = "bench"


def start(binary: str, bootstrap: Path, files: dict[Path, str] | None = None, logs: tuple[Path, ...] = ()) -> Launch:
    argv = (binary, "-c", str(bootstrap), "--concurrency", "1", "--disable-hot-restart", "-l", "warning")
    return Launch(argv, files or {}, logs)


def launch(binary: str, case: Case, site: Site) -> Launch:
    path, log = site.directory / "bootstrap.json", site.directory / "access.log"
    document = dynamic_bootstrap(site) if case.kind == "storm" else static_bootstrap(case, site, log)
    return start(binary, path, {path: json.dumps(document)}, (log,) if case.istio else ())


def static_bootstrap(case: Case, site: Site, log: Path) -> Document:
    """One listener (two with redirection), STATIC clusters; HTTP with the router filter only unless `istio`."""
    if case.protocol == "http":
        chain = connection_manager({"route_config": routes(case.table)}, log if case.istio else None)
    else:
        chain = _tcp_proxy()
    if case.kind == "redirect":
        # As Istio 1.0 does it: one listener takes every connection and hands it to the listener of its destination.
        listeners = [
            {"name": "virtual", "address": _socket(CAPTURE_PORT, "0.0.0.0"), "use_original_dst": True,
             "filter_chains": [{"filters": [_tcp_proxy()]}]},
            {"name": NAME, "address": _socket(REDIRECT_PORT, REDIRECT_ADDRESS), "bind_to_port": False,
             "filter_chains": [{"filters": [chain]}]},
        ]  # fmt: skip
    else:
        listeners = [listener(site.listen, chain, _downstream_tls(site) if case.tls else None)]
    clusters = [_static_cluster(name, site.upstream) for name in _cluster_names(case.table)]
    if case.http2_upstream:
        clusters = [cluster | _HTTP2 for cluster in clusters]
    if case.kind == "idle":
        # The default allows 1,024 connections, and as many requests.
        clusters[0]["circuit_breakers"] = {"thresholds": [{"max_connections": 20_000, "max_requests": 20_000}]}
    return {
        "node": {"id": NAME, "cluster": NAME},
        "admin": {"address": _socket(site.admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def dynamic_bootstrap(site: Site) -> Document:
    """Everything from the management server at `site.ads`."""
    management = _static_cluster("ads", site.ads) | _HTTP2
    return {
        "node": {"id": NAME, "cluster": NAME},
        "admin": {"address": _socket(site.admin)},
        "dynamic_resources": {
            "lds_config": _ADS,
            "cds_config": _ADS,
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}],
            },
        },
        "static_resources": {"clusters": [management]},
    }


def eds_cluster(name: str) -> Document:
    return {"name": name, "type": "EDS", "connect_timeout": "5s", "eds_cluster_config": {"eds_config": _ADS}}


def endpoints(name: str, ports: list[int]) -> Document:
    """A cluster's load assignment: these ports of 127.0.0.1."""
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(p)}} for p in ports]}],
    }


def listener(port: int, chain: Document, transport_socket: Document | None = None) -> Document:
    filter_chain: Document = {"filters": [chain]}
    if transport_socket:
        filter_chain["transport_socket"] = transport_socket
    return {"name": NAME, "address": _socket(port), "filter_chains": [filter_chain]}


def connection_manager(route_source: Document, log: Path | None = None, stat_prefix: str = NAME) -> Document:
    """The HTTP connection manager; with a log file, as a sidecar has it."""
    filters = [_http_filter("router", f"{_TYPE}filters.http.router.v3.Router")]
    config: Document = {"@type": _HCM, "stat_prefix": stat_prefix, **route_source}
    if log:
        filters = [
            _http_filter("cors", f"{_TYPE}filters.http.cors.v3.Cors"),
            _http_filter("fault", f"{_TYPE}filters.http.fault.v3.HTTPFault"),
            _http_filter("grpc_stats", f"{_TYPE}filters.http.grpc_stats.v3.FilterConfig"),
            *filters,
        ]
        config["generate_request_id"] = True
        config["access_log"] = [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {"@type": f"{_TYPE}access_loggers.file.v3.FileAccessLog", "path": str(log)},
            }
        ]
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": config | {"http_filters": filters},
    }


def rds() -> Document:
    """Where a connection manager gets its routes from the management server."""
    return {"rds": {"route_config_name": NAME, "config_source": _ADS}}


def routes(table: Table | None) -> Document:
    """The route configuration of a table; without one, everything to the one cluster."""
    return {"name": NAME, "virtual_hosts": _virtual_hosts(table)}


def _virtual_hosts(table: Table | None) -> list[Document]:
    if table is None:
        return [_virtual_host("all", "*", [_route({"prefix": "/"})])]
    numbers = range(table.size)
    if table.of == "routes":
        return [_virtual_host("all", "*", [_route(_match(table.match, n)) for n in numbers])]
    prefix = "*." if table.match == "wildcard" else ""
    return [
        _virtual_host(
            f"svc-{n}",
            prefix + VHOST.format(n=n),
            [_route({"prefix": "/"}, f"cluster-{n}" if table.of == "clusters" else NAME)],
        )
        for n in numbers
    ]


def _match(by: str, number: int) -> Document:
    if by == "prefix":
        return {"prefix": f"/svc-{number}/"}
    if by == "regex":
        return {"safe_regex": {"regex": f"/svc-{number}/[a-z0-9]+"}}
    return {"prefix": "/", "headers": [{"name": "x-svc", "string_match": {"exact": f"v{number}"}}]}


def _virtual_host(name: str, domain: str, routes: list[Document]) -> Document:
    return {"name": name, "domains": [domain], "routes": routes}


def _route(match: Document, cluster: str = NAME) -> Document:
    return {"match": match, "route": {"cluster": cluster}}


def _cluster_names(table: Table | None) -> list[str]:
    if table and table.of == "clusters":
        return [NAME, *(f"cluster-{n}" for n in range(table.size))]
    return [NAME]


def _static_cluster(name: str, port: int) -> Document:
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": endpoints(name, [port])}


def _tcp_proxy() -> Document:
    return {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{_TYPE}filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": NAME,
            "cluster": NAME,
        },
    }


def _downstream_tls(site: Site) -> Document:
    files = {"certificate_chain": {"filename": str(site.cert)}, "private_key": {"filename": str(site.key)}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [files],
                "alpn_protocols": ["http/1.1"],
            },
        },
    }


def _http_filter(name: str, type_url: str) -> Document:
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": type_url}}


def _socket(port: int, address: str = "127.0.0.1") -> Document:
    return {"socket_address": {"address": address, "port_value": port}}
