"""The bootstrap that Istio 1.0's agent wrote (`envoy-rev0.json`), section by section, in v3 form.

What v3 spells differently from the v2 original: `hosts` are a `load_assignment`, extensions carry a `typed_config`,
HTTP/2 is chosen by `typed_extension_protocol_options`. The real Envoy takes the same document. Added to the original: a
short back-off for the ADS stream, so that a proxy hears of a new control plane within seconds; Envoy's default grows to
30 s.
"""

from __future__ import annotations

from tidegate import __version__
from tidegate.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from tidegate.settings import AgentSettings

    Document = dict[str, Any]

__all__ = ["bootstrap", "node_metadata"]

_TYPE: Final = "type.googleapis.com/envoy."
_XDS_CLUSTER: Final = "xds-grpc"
_ZIPKIN_CLUSTER: Final = "zipkin"
# The dialect that is spoken with a control plane which asks for it: that of the release the seed describes.
_ISTIO_VERSION: Final = "1.0.0"
_NO_LIMIT: Final = 100000


def bootstrap(settings: AgentSettings, metadata: Mapping[str, Any]) -> Document:
    """The whole document. `metadata` is `node_metadata`'s: its JSON has been read by then."""
    document: Document = {
        "node": _node(settings, metadata),
        "admin": _admin(settings),
        "dynamic_resources": _dynamic_resources(settings),
        "static_resources": {"clusters": [_xds_cluster(settings)]},
    }
    if settings.zipkin:
        document["static_resources"]["clusters"].append(_zipkin_cluster(settings.zipkin))
        document["tracing"] = _tracing(settings.zipkin)
    if settings.statsd:
        document["stats_sinks"] = [_statsd(settings.statsd)]
    return document


def node_metadata(settings: AgentSettings, objects: Mapping[str, object]) -> Document:
    """What the control plane learns about this pod; `objects` are the values of ISTIO_METAJSON_*, read as JSON."""
    metadata: Document = {
        "INTERCEPTION_MODE": "REDIRECT",
        "ISTIO_PROXY_SHA": f"tidegate:{__version__}",
        "ISTIO_PROXY_VERSION": __version__,
        "ISTIO_VERSION": _ISTIO_VERSION,
        **dict(settings.metadata),
    }
    for variable, value in objects.items():
        if not isinstance(value, dict):
            raise UsageError(f"ISTIO_METAJSON_{variable}", "not a JSON object")
        metadata.update(value)
    metadata["istio"] = settings.role
    return metadata


def _node(settings: AgentSettings, metadata: Mapping[str, Any]) -> Document:
    node: Document = {"id": settings.node_id, "cluster": settings.service_cluster}
    if settings.availability_zone:
        node["locality"] = {"zone": settings.availability_zone}
    node["metadata"] = dict(metadata)
    return node


def _admin(settings: AgentSettings) -> Document:
    access_log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
        },
    }
    return {"access_log": [access_log], "address": _address("127.0.0.1", settings.admin_port)}


def _dynamic_resources(settings: AgentSettings) -> Document:
    ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        "lds_config": dict(ads),
        "cds_config": dict(ads),
        "ads_config": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "refresh_delay": _duration(settings.discovery_refresh_s),
            "grpc_services": [
                {
                    "envoy_grpc": {
                        "cluster_name": _XDS_CLUSTER,
                        "retry_policy": {"retry_back_off": {"base_interval": "0.5s", "max_interval": "3s"}},
                    }
                }
            ],
        },
    }


def _xds_cluster(settings: AgentSettings) -> Document:
    limits = {"max_connections": _NO_LIMIT, "max_pending_requests": _NO_LIMIT, "max_requests": _NO_LIMIT}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        **_dns_cluster(_XDS_CLUSTER, settings.discovery_host, settings.discovery_port, settings.connect_timeout_s),
        "circuit_breakers": {"thresholds": [{"priority": priority, **limits} for priority in ("DEFAULT", "HIGH")]},
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _zipkin_cluster(zipkin: tuple[str, int]) -> Document:
    return _dns_cluster(_ZIPKIN_CLUSTER, *zipkin, 1.0)


def _tracing(zipkin: tuple[str, int]) -> Document:
    return {
        "http": {
            "name": "envoy.tracers.zipkin",
            "typed_config": {
                "@type": f"{_TYPE}config.trace.v3.ZipkinConfig",
                "collector_cluster": _ZIPKIN_CLUSTER,
                "collector_endpoint": "/api/v2/spans",
                "collector_endpoint_version": "HTTP_JSON",
                "collector_hostname": f"{_bracketed(zipkin[0])}:{zipkin[1]}",
            },
        }
    }


def _statsd(statsd: tuple[str, int]) -> Document:
    return {
        "name": "envoy.stat_sinks.statsd",
        "typed_config": {"@type": f"{_TYPE}config.metrics.v3.StatsdSink", "address": _address(*statsd)},
    }


def _dns_cluster(name: str, host: str, port: int, connect_timeout_s: float) -> Document:
    endpoint = {"endpoint": {"address": _address(host, port)}}
    return {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": _duration(connect_timeout_s),
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(host: str, port: int) -> Document:
    return {"socket_address": {"address": host, "port_value": port}}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _duration(seconds: float) -> str:
    """Proto-JSON's duration: "10s", "0.25s"."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
