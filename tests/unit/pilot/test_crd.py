"""Resources: what is read, and what is refused with file, line and field."""

from __future__ import annotations

import pytest

from tidegate.pilot.crd.destination_rule import DestinationRule
from tidegate.pilot.crd.kinds import read_resources
from tidegate.pilot.crd.virtual_service import VirtualService

RULE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - %s
"""
ROUTE = "route: [{destination: {host: reviews}}]"


def refused(text: str) -> str:
    resources, rejections = read_resources(text, "f.yaml")
    assert resources == ()
    assert len(rejections) == 1
    return str(rejections[0])


def rule(body: str) -> str:
    return refused(RULE % body)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ("{}", "f.yaml:7: spec.http[0]: needs exactly one of route, redirect, directResponse; found none"),
        (f"{{{ROUTE}, redirect: {{uri: /x}}}}", "found route, redirect"),
        ("route: []", "spec.http[0].route: needs at least one destination"),
        ("route: [{destination: {}}]", "spec.http[0].route[0].destination.host: is required"),
        ("route: [{destination: {host: a b}}]", "destination.host: must be a DNS name, is 'a b'"),
        ("route: [{destination: {host: a, port: {number: 0}}}]", "port.number: must be between 1 and 65535, is 0"),
        ("route: [{destination: {host: a}, weight: -1}]", "route[0].weight: must be between 0 and"),
        ("route: [{destination: {host: a}, weight: 1.5}]", "route[0].weight: must be an integer, is a number"),
        ("route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]", "the weights add up to nothing"),
        (f"{{{ROUTE}, timeout: 5}}", "spec.http[0].timeout: must be a string, is an integer; quote it: '5'"),
        (f"{{{ROUTE}, timeout: 5 s}}", "timeout: must be a duration such as 10s"),
        (f"{{{ROUTE}, timeout: 0.1ms}}", "timeout: must be at least 1ms"),
        (f"{{{ROUTE}, match: [{{uri: {{exact: /a, prefix: /b}}}}]}}", "match[0].uri: needs exactly one of"),
        (f"{{{ROUTE}, match: [{{uri: {{suffix: /a}}}}]}}", "match[0].uri: needs exactly one of exact, prefix, regex"),
        (f"{{{ROUTE}, match: [{{uri: {{regex: '('}}}}]}}", "uri.regex: is not a regular expression"),
        (f"{{{ROUTE}, match: [{{uri: {{regex: '(?=a)'}}}}]}}", "uri.regex: look-ahead is not part of RE2 syntax"),
        (f"{{{ROUTE}, match: [{{path: /x}}]}}", "match[0].path: is not a known field"),
        (f"{{{ROUTE}, mirror: {{host: b}}}}", "spec.http[0].mirror: is not supported"),
        (f"{{{ROUTE}, mirrors: []}}", "spec.http[0].mirrors: is not supported"),
        ("delegate: {name: x}", "spec.http[0].delegate: is not supported"),
        (f"{{{ROUTE}, fault: {{}}}}", "spec.http[0].fault: needs delay or abort"),
        (f"{{{ROUTE}, fault: {{abort: {{httpStatus: 99}}}}}}", "httpStatus: must be between 200 and 599"),
        (f"{{{ROUTE}, fault: {{delay: {{percent: 101, fixedDelay: 1s}}}}}}", "percent: must be between 0 and 100"),
        (f"{{{ROUTE}, fault: {{delay: {{exponentialDelay: 1s}}}}}}", "exponentialDelay: is not supported"),
        (f"{{{ROUTE}, headers: {{request: {{set: {{'a b': c}}}}}}}}", "'a b' is not a header name"),
        (f"{{{ROUTE}, corsPolicy: {{allowMethods: [FETCH]}}}}", "allowMethods[0]: 'FETCH' is not one of"),
        (f"{{{ROUTE}, retries: {{attempts: many}}}}", "retries.attempts: must be an integer, is a string"),
        ("redirect: {uri: /x, redirectCode: 305}", "redirectCode: must be 301, 302, 303, 307 or 308, is 305"),
        ("redirect: {}", "spec.http[0].redirect: needs uri, authority, port or scheme"),
        ("{redirect: {uri: /x}, rewrite: {uri: /y}}", "spec.http[0].rewrite: rewrite goes with route only"),
        ("directResponse: {status: 42}", "directResponse.status: must be between 200 and 599, is 42"),
    ],
)
def test_http_rules_refused(body: str, wanted: str) -> None:
    line = rule(body)
    assert line.startswith("f.yaml:7: ")
    assert wanted in line


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: [", "f.yaml:2: is not YAML:"),
        ("just text", "f.yaml:1: must be an object, is a string"),
        ("kind: Service", "f.yaml:1: apiVersion: is required"),
        ("{apiVersion: v1, kind: Ingress}", "f.yaml:1: kind: Ingress is not a kind that this discovery reads"),
        ("{apiVersion: v2, kind: Service}", "f.yaml:1: apiVersion: v2 is not one of v1 for Service"),
        ("{apiVersion: v1, kind: Service}", "f.yaml:1: metadata: is required"),
        ("{apiVersion: v1, kind: Service, kind: Pod}", "f.yaml:1: kind: is given twice"),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a, labels: {version: 1.0}}, spec: {}}",
            "metadata.labels.version: must be a string, is a number; quote it: '1.0'",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {clusterIP: 10.0.0, ports: []}}",
            "spec.clusterIP: must be an IP address, is '10.0.0'",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 1}, {port: 2}]}}",
            "spec: several ports need names",
        ),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a}, endpoints: []}",
            "metadata.labels needs kubernetes.io/service-name",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a}, "
            "spec: {hosts: [a.b], ports: [{number: 1, name: x}], resolution: STATIC}}",
            "spec: resolution STATIC needs endpoints or a workloadSelector",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a}, "
            "spec: {hosts: ['*.b'], ports: [{number: 1, name: x}], resolution: DNS}}",
            "spec.hosts: a wildcard host cannot be resolved",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a}, "
            "spec: {hosts: [a.b], addresses: [10.0.0.0/8], ports: [{number: 1, name: x}]}}",
            "spec.addresses[0]: an address range is not supported",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, "
            "spec: {host: a, trafficPolicy: {outlierDetection: {}}}}",
            "spec.trafficPolicy.outlierDetection: is not a known field, or one that this version does not translate",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, "
            "spec: {host: a, trafficPolicy: {loadBalancer: {simple: FASTEST}}}}",
            "spec.trafficPolicy.loadBalancer.simple: 'FASTEST' is not one of",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, "
            "spec: {host: a, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}",
            "spec.trafficPolicy.tls.mode: ISTIO_MUTUAL is not supported",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, "
            "spec: {host: a, subsets: [{name: x}, {name: x}]}}",
            "spec.subsets: subset names must be unique",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a}, "
            "spec: {servers: [{port: {number: 443, protocol: HTTPS}, hosts: ['*']}]}}",
            "spec.servers[0].port.protocol: HTTPS is not supported",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, "
            "spec: {hosts: ['*'], http: []}}",
            "spec.hosts: the wildcard host * is for gateways, not for the mesh",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, "
            "spec: {hosts: [a], tls: []}}",
            "spec.tls: TLS routes are not supported",
        ),
        (
            "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: [a]}}",
            "spec: needs http or tcp rules",
        ),
    ],
)
def test_documents_refused(text: str, wanted: str) -> None:
    assert wanted in refused(text)


def test_every_reason_of_a_file_is_told_with_its_line() -> None:
    text = RULE % "route: []" + "---\n" + RULE % ROUTE + "---\n" + RULE % "{}"
    resources, rejections = read_resources(text, "f.yaml")
    assert resources == ()
    assert [rejection.line for rejection in rejections] == [7, 23]


def test_a_resource_defined_twice_in_a_file_is_refused() -> None:
    text = RULE % ROUTE + "---\n" + RULE % ROUTE
    assert refused(text) == "f.yaml:9: metadata.name: VirtualService default/reviews is already defined at line 1"


def test_a_single_destination_needs_no_weight() -> None:
    (found,), _ = read_resources(RULE % ROUTE, "f.yaml")
    assert isinstance(found, VirtualService)
    assert [route.weight for route in found.http[0].routes] == [100]


def test_manifests_of_no_concern_are_passed_over() -> None:
    assert read_resources("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}", "f") == ((), ())


def test_lists_are_unpacked() -> None:
    text = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {}}]}"
    resources, rejections = read_resources(text, "f")
    assert rejections == ()
    assert [resource.meta.name for resource in resources] == ["a"]


def test_port_settings_replace_the_general_ones() -> None:
    text = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    connectionPool: {tcp: {maxConnections: 7}}
    portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: LEAST_REQUEST}}]
"""
    (found,), _ = read_resources(text, "f.yaml")
    assert isinstance(found, DestinationRule)
    special, general = found.policy.for_port(80), found.policy.for_port(81)
    assert (special.load_balancer, general.load_balancer) == ("LEAST_REQUEST", "RANDOM")
    assert special.connection_pool == general.connection_pool
