"""The Envoy messages that translation builds, and their small recurring parts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from tidegate import xdsapi

_HCM = "envoy.extensions.filters.network.http_connection_manager.v3"

Listener: Final = xdsapi.message(xdsapi.LISTENER)
Cluster: Final = xdsapi.message(xdsapi.CLUSTER)
ClusterLoadAssignment: Final = xdsapi.message(xdsapi.CLUSTER_LOAD_ASSIGNMENT)
RouteConfiguration: Final = xdsapi.message(xdsapi.ROUTE_CONFIGURATION)
Any_: Final = xdsapi.message(xdsapi.ANY)
HttpConnectionManager: Final = xdsapi.message(f"{_HCM}.HttpConnectionManager")
TcpProxy: Final = xdsapi.message("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy")
FileAccessLog: Final = xdsapi.message("envoy.extensions.access_loggers.file.v3.FileAccessLog")
Router: Final = xdsapi.message("envoy.extensions.filters.http.router.v3.Router")
Cors: Final = xdsapi.message("envoy.extensions.filters.http.cors.v3.Cors")
CorsPolicy: Final = xdsapi.message("envoy.extensions.filters.http.cors.v3.CorsPolicy")
HttpFault: Final = xdsapi.message("envoy.extensions.filters.http.fault.v3.HTTPFault")
Metadata: Final = xdsapi.message("envoy.config.core.v3.Metadata")
HttpProtocolOptions: Final = xdsapi.message("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")

HTTP_CONNECTION_MANAGER: Final = "envoy.filters.network.http_connection_manager"
TCP_PROXY: Final = "envoy.filters.network.tcp_proxy"
FILE_ACCESS_LOG: Final = "envoy.access_loggers.file"
CORS: Final = "envoy.filters.http.cors"
FAULT: Final = "envoy.filters.http.fault"
ROUTER: Final = "envoy.filters.http.router"
HTTP_PROTOCOL_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

#: Resources come over the stream that asked for them.
ADS: Final = {"ads": {}, "resource_api_version": "V3"}
#: In force when given, unlike an absent one.
ZERO: Final = {"seconds": 0}


def duration(value: timedelta) -> dict[str, int]:
    """A `google.protobuf.Duration`."""
    whole = value // timedelta(seconds=1)
    return {"seconds": whole, "nanos": (value - timedelta(seconds=whole)) // timedelta(microseconds=1) * 1000}


def address(host: str, port: int) -> dict[str, Any]:
    """A `config.core.v3.Address`."""
    return {"socket_address": {"address": host, "port_value": port}}


def packed(message: Any) -> Any:
    """`message` in a `google.protobuf.Any`."""
    return xdsapi.any_pack(message)


def typed(name: str, message: Any) -> dict[str, Any]:
    """A filter, an access logger or another extension: a name and a typed config."""
    return {"name": name, "typed_config": packed(message)}


def fraction(percent: float) -> dict[str, Any]:
    """A `type.v3.FractionalPercent`, exact to a ten-thousandth of a percent."""
    if percent == int(percent):
        return {"numerator": int(percent), "denominator": "HUNDRED"}
    return {"numerator": round(percent * 10_000), "denominator": "MILLION"}
