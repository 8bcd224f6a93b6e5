"""`DestinationRule`: subsets of a service, and how to talk to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tidegate.pilot.crd.meta import Meta, read_meta
from tidegate.pilot.crd.reader import Mapping, Value, labels

#: Spellings of `loadBalancer.simple`, today's and Istio 1.0's, to Envoy's policies.
_SIMPLE = {
    "UNSPECIFIED": None,
    "ROUND_ROBIN": "ROUND_ROBIN",
    "LEAST_CONN": "LEAST_REQUEST",
    "LEAST_REQUEST": "LEAST_REQUEST",
    "RANDOM": "RANDOM",
    "PASSTHROUGH": "PASSTHROUGH",
}


@dataclass(frozen=True)
class TcpKeepalive:
    probes: int | None
    time: timedelta | None
    interval: timedelta | None


@dataclass(frozen=True)
class ConnectionPool:
    """`connectionPool`; `None` means not given."""

    max_connections: int | None = None
    connect_timeout: timedelta | None = None
    tcp_keepalive: TcpKeepalive | None = None
    http1_max_pending_requests: int | None = None
    http2_max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    idle_timeout: timedelta | None = None
    #: UPGRADE or DO_NOT_UPGRADE; `None`, which is also DEFAULT, leaves it to the mesh
    h2_upgrade_policy: str | None = None


@dataclass(frozen=True)
class TrafficPolicy:
    """`trafficPolicy`; `load_balancer` is one of Envoy's policies, or PASSTHROUGH."""

    load_balancer: str | None = None
    connection_pool: ConnectionPool | None = None
    ports: tuple[tuple[int, TrafficPolicy], ...] = ()

    def for_port(self, port: int) -> TrafficPolicy:
        """The policy of one port: what the port's own settings say replaces the rest field by field."""
        for number, policy in self.ports:
            if number == port:
                return policy.over(TrafficPolicy(self.load_balancer, self.connection_pool))
        return TrafficPolicy(self.load_balancer, self.connection_pool)

    def over(self, other: TrafficPolicy) -> TrafficPolicy:
        """This policy, with `other` where it says nothing."""
        return TrafficPolicy(
            load_balancer=self.load_balancer or other.load_balancer,
            connection_pool=self.connection_pool or other.connection_pool,
            ports=self.ports or other.ports,
        )


@dataclass(frozen=True)
class Subset:
    name: str
    labels: dict[str, str]
    policy: TrafficPolicy


@dataclass(frozen=True)
class DestinationRule:
    meta: Meta
    host: str
    policy: TrafficPolicy
    subsets: tuple[Subset, ...]


def _load_balancer(value: Value) -> str | None:
    balancer = value.mapping()
    simple = balancer.optional("simple", lambda v: _SIMPLE[v.one_of(_SIMPLE)])
    balancer.finish()
    return simple


def _keepalive(value: Value) -> TcpKeepalive:
    fields = value.mapping()
    read = TcpKeepalive(
        probes=fields.optional("probes", Value.integer),
        time=fields.optional("time", lambda v: v.duration(timedelta(seconds=1))),
        interval=fields.optional("interval", lambda v: v.duration(timedelta(seconds=1))),
    )
    fields.finish()
    return read


def _h2_upgrade_policy(value: Value) -> str | None:
    policy = value.one_of(("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"))
    return None if policy == "DEFAULT" else policy


def _connection_pool(value: Value) -> ConnectionPool:
    pool = value.mapping()
    tcp_field, http_field = pool.take("tcp"), pool.take("http")
    pool.finish()
    read = ConnectionPool()
    if tcp_field is not None:
        tcp = tcp_field.mapping()
        read = ConnectionPool(
            max_connections=tcp.optional("maxConnections", lambda v: v.integer(1)),
            connect_timeout=tcp.optional("connectTimeout", Value.duration),
            tcp_keepalive=tcp.optional("tcpKeepalive", _keepalive),
        )
        tcp.finish()
    if http_field is not None:
        http = http_field.mapping()
        read = ConnectionPool(
            max_connections=read.max_connections,
            connect_timeout=read.connect_timeout,
            tcp_keepalive=read.tcp_keepalive,
            http1_max_pending_requests=http.optional("http1MaxPendingRequests", lambda v: v.integer(0)) or None,
            http2_max_requests=http.optional("http2MaxRequests", lambda v: v.integer(0)) or None,
            max_requests_per_connection=http.optional("maxRequestsPerConnection", lambda v: v.integer(0, 2**29))
            or None,
            max_retries=http.optional("maxRetries", lambda v: v.integer(0)) or None,
            idle_timeout=http.optional("idleTimeout", Value.duration),
            h2_upgrade_policy=http.optional("h2UpgradePolicy", _h2_upgrade_policy),
        )
        http.finish()
    return read


def _policy_body(policy: Mapping) -> tuple[str | None, ConnectionPool | None]:
    return policy.optional("loadBalancer", _load_balancer), policy.optional("connectionPool", _connection_pool)


def _port_policy(value: Value) -> tuple[int, TrafficPolicy]:
    setting = value.mapping()
    port = setting.need("port").mapping()
    number = port.need("number").port()
    port.finish()
    balancer, pool = _policy_body(setting)
    setting.finish()
    return number, TrafficPolicy(balancer, pool)


def _policy(value: Value) -> TrafficPolicy:
    policy = value.mapping()
    balancer, pool = _policy_body(policy)
    read = TrafficPolicy(balancer, pool, policy.sequence("portLevelSettings", _port_policy))
    tls = policy.take("tls")
    if tls is not None:
        # DISABLE is what plaintext upstreams are anyway; anything else needs what is not here yet.
        fields = tls.mapping()
        mode = fields.read(
            "mode", lambda v: v.one_of(("DISABLE",), unsupported=("SIMPLE", "MUTUAL", "ISTIO_MUTUAL")), "DISABLE"
        )
        if mode == "DISABLE":
            fields.finish()
    policy.finish()
    return read


def _subset(value: Value) -> Subset:
    subset = value.mapping()
    name_field = subset.need("name")
    name = name_field.non_empty()
    if "|" in name:
        name_field.refuse("must not contain '|', which separates the parts of a cluster name")
    read = Subset(
        name=name,
        labels=labels(subset, "labels"),
        policy=subset.read("trafficPolicy", _policy, TrafficPolicy()),
    )
    subset.finish()
    return read


def read_destination_rule(document: Mapping) -> DestinationRule:
    meta = read_meta(document)
    spec = document.need("spec").mapping()
    host = spec.need("host").host()
    subsets_field = spec.take("subsets")
    subsets = () if subsets_field is None else tuple(_subset(item) for item in subsets_field.items())
    if subsets_field is not None and len({subset.name for subset in subsets}) != len(subsets):
        subsets_field.refuse("subset names must be unique")
    policy = spec.read("trafficPolicy", _policy, TrafficPolicy())
    export = spec.take("exportTo")
    if export is not None and [item.string() for item in export.items()] != ["*"]:
        export.refuse('only exportTo: ["*"] is supported')
    spec.finish()
    document.skip("status")
    return DestinationRule(meta=meta, host=host, policy=policy, subsets=subsets)
