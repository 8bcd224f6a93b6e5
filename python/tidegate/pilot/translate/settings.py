"""Mesh-wide choices that translation depends on (a part of Istio's MeshConfig)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class MeshSettings:
    """Defaults are Istio 1.0's."""

    #: `REGISTRY_ONLY` or `ALLOW_ANY`: what becomes of traffic to unknown destinations.
    outbound_traffic_policy: str = "REGISTRY_ONLY"
    connect_timeout: timedelta = timedelta(seconds=1)
    #: Empty: no access log.
    access_log_file: str = "/dev/stdout"
    #: Ask sidecars to trace; needs a tracer in their bootstrap.
    enable_tracing: bool = False
    #: `UPGRADE` or `DO_NOT_UPGRADE`: whether calls to HTTP ports travel as HTTP/2 where no DestinationRule says.
    h2_upgrade_policy: str = "DO_NOT_UPGRADE"
    #: The explicit HTTP proxy port of workloads without redirection that have no Sidecar resource.
    proxy_http_port: int = 15002
