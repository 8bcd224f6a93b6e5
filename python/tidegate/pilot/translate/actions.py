"""What a rule does -> the action, the header changes and the per-filter configuration of an Envoy route."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from tidegate.pilot.crd.http_rule import CorsPolicy, Fault, HeaderChanges, HeaderOperations, Redirect, Retries
from tidegate.pilot.crd.virtual_service import Destination, HttpRule, WeightedDestination
from tidegate.pilot.services.snapshot import MeshSnapshot
from tidegate.pilot.translate import names, wire
from tidegate.pilot.translate.matches import string_matcher

#: Istio's own default, for rules that ask for retries without saying when.
_RETRY_ON: Final = "connect-failure,refused-stream,unavailable,cancelled,503"


def cluster_of(snapshot: MeshSnapshot, destination: Destination, listener_port: int) -> str:
    """The cluster a destination names; its port may be left out where there is only one, or the listener's fits."""
    service = snapshot.services.get(destination.host)
    port = destination.port
    if port is None:
        port = service.ports[0].number if service is not None and len(service.ports) == 1 else listener_port
    return names.outbound(port, destination.subset or "", destination.host)


def _additions(operations: HeaderOperations) -> list[dict[str, Any]]:
    kinds = (("APPEND_IF_EXISTS_OR_ADD", operations.add), ("OVERWRITE_IF_EXISTS_OR_ADD", operations.set))
    return [
        {"header": {"key": name, "value": value}, "append_action": action}
        for action, pairs in kinds
        for name, value in pairs
        if name != "host"
    ]


def header_mutations(changes: HeaderChanges) -> dict[str, Any]:
    """The four header fields that a route and a weighted cluster have alike."""
    fields = {
        "request_headers_to_add": _additions(changes.request),
        "request_headers_to_remove": list(changes.request.remove),
        "response_headers_to_add": _additions(changes.response),
        "response_headers_to_remove": list(changes.response.remove),
    }
    return {name: value for name, value in fields.items() if value}


def _set_host(changes: HeaderChanges) -> str | None:
    """`set: {host: x}`: Envoy changes the host by rewriting, not as a header."""
    return dict(changes.request.set).get("host")


def _retry_policy(retries: Retries) -> dict[str, Any]:
    words = (retries.retry_on or _RETRY_ON).split(",")
    codes = [int(word) for word in words if word.strip().isdigit()]
    conditions = [word.strip() for word in words if not word.strip().isdigit()]
    if codes and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    policy: dict[str, Any] = {
        "retry_on": ",".join(conditions),
        "num_retries": {"value": retries.attempts},
        "retriable_status_codes": codes,
    }
    if retries.per_try_timeout:
        policy["per_try_timeout"] = wire.duration(retries.per_try_timeout)
    return policy


def plain_forward(cluster: str, timeout: timedelta = timedelta(0)) -> dict[str, Any]:
    """A `RouteAction` to one cluster. Timeouts are off unless a rule sets them, gRPC's deadline is the caller's."""
    return {
        "cluster": cluster,
        "timeout": wire.duration(timeout),
        "max_stream_duration": {"grpc_timeout_header_max": wire.ZERO},
    }


def _weighted_cluster(snapshot: MeshSnapshot, route: WeightedDestination, port: int) -> dict[str, Any]:
    weighted: dict[str, Any] = {
        "name": cluster_of(snapshot, route.destination, port),
        "weight": {"value": route.weight},
        **header_mutations(route.headers),
    }
    host = _set_host(route.headers)
    if host is not None:
        weighted["host_rewrite_literal"] = host
    return weighted


def _forward(snapshot: MeshSnapshot, rule: HttpRule, port: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `RouteAction` and the header mutations of the route around it."""
    live = [route for route in rule.routes if route.weight > 0]
    only = live[0] if len(live) == 1 else None
    action = plain_forward(cluster_of(snapshot, live[0].destination, port), rule.timeout or timedelta(0))
    changes = header_mutations(rule.headers)
    host = rule.rewrite.authority if rule.rewrite and rule.rewrite.authority else _set_host(rule.headers)
    if only is None:
        del action["cluster"]
        action["weighted_clusters"] = {"clusters": [_weighted_cluster(snapshot, route, port) for route in live]}
    else:
        host = host or _set_host(only.headers)
        for name, value in header_mutations(only.headers).items():
            changes[name] = changes.get(name, []) + value
    if host:
        action["host_rewrite_literal"] = host
    if rule.rewrite and rule.rewrite.uri:
        action["prefix_rewrite"] = rule.rewrite.uri
    if rule.rewrite and rule.rewrite.uri_regex:
        pattern, substitution = rule.rewrite.uri_regex
        action["regex_rewrite"] = {"pattern": {"regex": pattern}, "substitution": substitution}
    if rule.retries and rule.retries.attempts > 0:
        action["retry_policy"] = _retry_policy(rule.retries)
    return action, changes


_REDIRECT_CODES: Final = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def _redirect(redirect: Redirect) -> dict[str, Any]:
    action: dict[str, Any] = {"response_code": _REDIRECT_CODES[redirect.code]}
    if redirect.authority:
        action["host_redirect"] = redirect.authority
    if redirect.uri:
        action["path_redirect"] = redirect.uri
    if redirect.port:
        action["port_redirect"] = redirect.port
    if redirect.scheme:
        action["scheme_redirect"] = redirect.scheme
    return action


def _cors(cors: CorsPolicy) -> Any:
    fields: dict[str, Any] = {
        "allow_origin_string_match": [string_matcher(origin) for origin in cors.allow_origins],
        "allow_methods": ",".join(cors.allow_methods),
        "allow_headers": ",".join(cors.allow_headers),
        "expose_headers": ",".join(cors.expose_headers),
    }
    if cors.max_age is not None:
        fields["max_age"] = str(int(cors.max_age.total_seconds()))
    if cors.allow_credentials is not None:
        fields["allow_credentials"] = {"value": cors.allow_credentials}
    if cors.unmatched_preflights is not None:
        fields["forward_not_matching_preflights"] = {"value": cors.unmatched_preflights == "FORWARD"}
    return wire.CorsPolicy(**fields)


def _fault(fault: Fault) -> Any:
    fields: dict[str, Any] = {}
    if fault.delay is not None:
        fields["delay"] = {
            "fixed_delay": wire.duration(fault.delay.fixed),
            "percentage": wire.fraction(fault.delay.percent),
        }
    if fault.abort is not None:
        fields["abort"] = {"percentage": wire.fraction(fault.abort.percent)}
        if fault.abort.http_status is not None:
            fields["abort"]["http_status"] = fault.abort.http_status
        else:
            fields["abort"]["grpc_status"] = fault.abort.grpc_status
    return wire.HttpFault(**fields)


def rule_action(snapshot: MeshSnapshot, rule: HttpRule, port: int) -> dict[str, Any]:
    """All fields of a `config.route.v3.Route` but its name, match and decorator."""
    fields: dict[str, Any] = header_mutations(rule.headers)
    if rule.redirect is not None:
        fields["redirect"] = _redirect(rule.redirect)
    elif rule.direct_response is not None:
        fields["direct_response"] = {"status": rule.direct_response.status}
        if rule.direct_response.body is not None:
            fields["direct_response"]["body"] = {"inline_string": rule.direct_response.body.decode()}
    else:
        fields["route"], changes = _forward(snapshot, rule, port)
        fields.update(changes)
    per_filter = {}
    if rule.cors is not None:
        per_filter[wire.CORS] = wire.packed(_cors(rule.cors))
    if rule.fault is not None:
        per_filter[wire.FAULT] = wire.packed(_fault(rule.fault))
    if per_filter:
        fields["typed_per_filter_config"] = per_filter
    return fields
