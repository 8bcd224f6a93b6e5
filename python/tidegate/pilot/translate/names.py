"""Names that operators, dashboards and istioctl read: clusters, listeners, the forms of a host."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

BLACK_HOLE: Final = "BlackHoleCluster"
PASSTHROUGH: Final = "PassthroughCluster"
#: The route configuration of explicit HTTP proxy listeners.
HTTP_PROXY: Final = "http_proxy"


def outbound(port: int, subset: str, host: str) -> str:
    return f"outbound|{port}|{subset}|{host}"


def inbound(port: int, host: str) -> str:
    return f"inbound|{port}||{host}"


def listener(address: str, port: int) -> str:
    return f"{address}_{port}"


def gateway_routes(port: int) -> str:
    return f"http.{port}"


def literal(address: str) -> str:
    """An address as it stands in a Host header."""
    try:
        return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        return address


def host_forms(hostname: str, proxy_domain: str) -> Iterator[str]:
    """The ways a caller in `proxy_domain` may write `hostname`: in full, then without the domain, then partly with it.

    For `details.default.svc.cluster.local`, asked from its own namespace: itself, `details`,
    `details.default.svc.cluster`, `details.default.svc`, `details.default`.
    """
    yield hostname
    if hostname.startswith("*"):
        return
    parts, domain = hostname.split("."), proxy_domain.split(".")
    shared = 0
    while shared < min(len(parts) - 1, len(domain)) and parts[-1 - shared] == domain[-1 - shared]:
        shared += 1
    # A name outside the cluster may end like the domain by chance; only a shared ".svc." is a short name in use.
    if not shared or "svc" not in parts[len(parts) - shared :]:
        return
    unique = ".".join(parts[: len(parts) - shared])
    rest = parts[len(parts) - shared :]
    yield unique
    for length in range(len(rest) - 1, 0, -1):
        yield ".".join([unique, *rest[:length]])
