"""The service model: protocols, hosts, merging and conflicts."""

from __future__ import annotations

import pytest

from tidegate.pilot.crd.kinds import read_resources
from tidegate.pilot.services.hosts import covers, most_specific, resolve
from tidegate.pilot.services.model import Protocol, protocol_of
from tidegate.pilot.services.registry import build_snapshot
from tidegate.pilot.services.snapshot import MeshSnapshot
from tidegate.pilot.translate.names import host_forms
from tidegate.pilot.translate.proxy import BadNodeError, read_node, view


def snapshot(text: str) -> MeshSnapshot:
    resources, rejections = read_resources(text, "f.yaml")
    assert rejections == ()
    return build_snapshot(resources, "cluster.local")


@pytest.mark.parametrize(
    ("name", "application", "wanted"),
    [
        ("http", None, Protocol.HTTP),
        ("http-web", None, Protocol.HTTP),
        ("HTTP2-x", None, Protocol.HTTP2),
        ("grpc", None, Protocol.GRPC),
        ("grpc-web-x", None, Protocol.HTTP),
        ("grpc-web", None, Protocol.HTTP),
        ("https-x", None, Protocol.HTTPS),
        ("mongo", None, Protocol.TCP),
        ("httpx", None, Protocol.TCP),
        ("", None, Protocol.TCP),
        ("tcp", "http", Protocol.HTTP),
        ("http", "tcp", Protocol.TCP),
        ("web", "kubernetes.io/h2c", Protocol.HTTP2),
    ],
)
def test_protocol_by_port_name(name: str, application: str | None, wanted: Protocol) -> None:
    assert protocol_of(name, application) is wanted


def test_udp_is_udp_whatever_its_name() -> None:
    assert protocol_of("http", None, "UDP") is Protocol.UDP


def test_hosts() -> None:
    assert resolve("reviews", "ns", "cluster.local") == "reviews.ns.svc.cluster.local"
    assert resolve("a.b", "ns", "cluster.local") == "a.b"
    assert covers("*.example.com", "a.b.example.com")
    assert not covers("*.example.com", "example.com")
    table = {"*": 0, "*.com": 1, "*.example.com": 2, "a.example.com": 3}
    assert [most_specific(table, host) for host in ("a.example.com", "b.example.com", "x.com", "x.org")] == [3, 2, 1, 0]
    assert most_specific({"*.com": 1}, "x.org") is None


def test_host_forms_are_the_seeds_in_their_order() -> None:
    forms = list(host_forms("details.default.svc.cluster.local", "default.svc.cluster.local"))
    assert forms == [
        "details.default.svc.cluster.local", "details", "details.default.svc.cluster", "details.default.svc",
        "details.default",
    ]  # fmt: skip


def test_host_forms_from_another_namespace_and_outside() -> None:
    forms = list(host_forms("details.default.svc.cluster.local", "other.svc.cluster.local"))
    assert forms == [
        "details.default.svc.cluster.local", "details.default", "details.default.svc.cluster", "details.default.svc",
    ]  # fmt: skip
    assert list(host_forms("api.example.com", "default.svc.cluster.local")) == ["api.example.com"]
    assert list(host_forms("db.local", "default.svc.cluster.local")) == ["db.local"]


SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{name: http, port: 80}]}}\n"
ENTRY = (
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, "
    "spec: {hosts: [a.default.svc.cluster.local], ports: [{number: 80, name: http}]}}\n"
)


def test_a_host_in_two_registries_is_a_conflict_and_the_first_holds() -> None:
    found = snapshot(f"{SERVICE}---\n{ENTRY}")
    assert found.services["a.default.svc.cluster.local"].registry == "Kubernetes"
    assert found.conflicts == ("f.yaml:3: a.default.svc.cluster.local is already defined at f.yaml:1",)


def test_destination_rules_of_one_host_are_merged() -> None:
    template = (
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: %s}, "
        "spec: {host: a, subsets: [{name: %s}, {name: both}]%s}}\n"
    )
    found = snapshot(
        template % ("r1", "v1", "")
        + "---\n"
        + template % ("r2", "v2", ", trafficPolicy: {loadBalancer: {simple: RANDOM}}")
    )
    rule = found.destination_rule("a.default.svc.cluster.local")
    assert rule is not None
    assert [subset.name for subset in rule.subsets] == ["v1", "both", "v2"]
    assert rule.policy.load_balancer == "RANDOM"
    assert len(found.conflicts) == 1


def test_the_order_of_the_resources_decides_nothing() -> None:
    texts = [SERVICE, ENTRY.replace("a.default", "b.default"), SERVICE.replace("name: a", "name: c")]
    forth, back = (snapshot("---\n".join(order)) for order in (texts, texts[::-1]))
    assert list(forth.services) == list(back.services)


@pytest.mark.parametrize(
    "node", ["", "sidecar~1.2.3.4~a.b", "envoy~1.2.3.4~a.b~c", "sidecar~x~a.b~c", "sidecar~1.2.3.4~a~c"]
)
def test_bad_node_ids(node: str) -> None:
    with pytest.raises(BadNodeError):
        read_node(node, "", {})


def test_labels_come_from_the_pod_and_the_nodes_metadata() -> None:
    pod = "{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: a}}, status: {podIP: 1.2.3.4}}"
    node = read_node("sidecar~1.2.3.4~p.default~d", "", {"LABELS": '{"version": "v1"}'})
    assert view(node, snapshot(pod)).labels == {"app": "a", "version": "v1"}
