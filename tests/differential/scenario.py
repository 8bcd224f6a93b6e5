"""Scenarios as data: a folder of YAML files, each one configuration and the requests put to it.

A file holds `hcm` (fields of the connection manager, merged over the defaults), `routes` (virtual hosts),
`route_config` (further fields of the route configuration), `clusters` (further clusters) or a whole `listener`,
and `cases`. A case is a line `METHOD PATH; name: value; …; body=TEXT` or a mapping with `request` (such a line),
`raw` (bytes with `\\r\\n` escapes, a list with pauses and ClientHellos, see `_hello`), `count`,
`end` (whether the end of the connection matters).

With `client: h2` (of a file or a case) the cases are HTTP/2: a line, a list of them in `request` (one after the other,
each on a stream of its own; `together` sends all in one write) or `frames` (see `frames`); further options are those of
`h2client.converse`. `upstream: h2` puts HTTP/2 backends behind the clusters a and b. `@key@` in a request is a word
of its own each time, `@a@` the port of the upstream a. `announced`: SETTINGS are compared. `stats`:
expressions of the counters whose movement is compared. `lines`: how many log lines to wait for, if not one a stream.
`goaway`: see `FrameCase`.

`tls` (of a file or a case): the client speaks TLS, with the options of `pki.Pki.client`, `sni`, `piece` and `resume`.
`tls_backends`: further upstreams by the name of their port, with the options of `pki.Pki.server`. `chain`: further
fields of the filter chain. `@pki/NAME.pem@` is a file of `pki`.
"""

from __future__ import annotations

import contextlib
import copy
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from differential import frames
from differential.frames import Step
from differential.pki import pki

CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Case:
    scenario: str
    name: str
    parts: tuple[bytes | float, ...]
    methods: tuple[str, ...]
    linger: float
    shut: bool
    timeout: float
    abort_after: float | None
    repeat: int
    #: log lines are compared (some cases end a connection at a moment of the kernel's choosing)
    compare_log: bool
    #: the only acceptable difference, explained: {"tidegate": status, "why": text}
    intended: dict[str, Any] | None
    lines: int = 0
    stats: tuple[str, ...] = ()
    #: the client speaks TLS, see `pki.Pki.client`; `sni`, `piece` (size of its writes), `resume`
    tls: dict[str, Any] | None = None


@dataclass(frozen=True)
class FrameCase:
    """A conversation in HTTP/2; `options` are those of `h2client.converse`."""

    scenario: str
    name: str
    steps: tuple[Step, ...]
    options: dict[str, Any]
    #: log lines to wait for
    lines: int
    compare_log: bool
    stats: tuple[str, ...]
    repeat: int
    intended: dict[str, Any] | None
    leave: bool = False
    #: `allowed`: GOAWAY with an error may precede a close where Envoy leaves it out; `same`: it may not
    goaway: str = "allowed"
    #: parts of the outcome that are left out of the comparison
    without: tuple[str, ...] = field(default=())
    tls: dict[str, Any] | None = None


@dataclass(frozen=True)
class Scenario:
    name: str
    document: dict[str, Any]
    cases: tuple[Case | FrameCase, ...]

    @property
    def upstream(self) -> str:
        return str(self.document.get("upstream", "h1"))

    def bootstrap(self, ports: dict[str, int], log: str, admin_port: int, port: int) -> str:
        """The bootstrap with `@NAME@` ports, the log path and the listener's port filled in."""
        text = yaml.safe_dump(self._bootstrap(), sort_keys=False)
        for name, number in ports.items():
            text = text.replace(f"'@{name}@'", str(number)).replace(f"@{name}@", str(number))
        text = re.sub(r"@pki/([^@]+)@", lambda match: pki().path(match[1]), text)
        text = text.replace("@log@", log).replace("'@admin@'", str(admin_port)).replace("'@port@'", str(port))
        return text.replace("@port@", str(port))

    def _bootstrap(self) -> dict[str, Any]:
        doc = self.document
        clusters = [_static("a", "@a@"), _static("b", "@b@"), _static("dead", "@dead@"), _static("empty")]
        if self.upstream == "h2":
            clusters = [c | http2_upstream(doc.get("http2", {})) for c in clusters]
        clusters += doc.get("clusters", [])
        names = [c["name"] for c in doc.get("clusters", [])]
        clusters = [c for i, c in enumerate(clusters) if i >= 4 or c["name"] not in names]
        listener = doc.get("listener") or {
            "name": "main",
            "address": _socket("@port@"),
            "filter_chains": [{"filters": [_hcm(doc)], **doc.get("chain", {})}],
        }
        return {
            "node": {"id": "sidecar~127.0.0.1~test.default~default.svc.cluster.local", "cluster": "test"},
            "admin": {"address": _socket("@admin@")},
            "static_resources": {"listeners": [listener, *doc.get("listeners", [])], "clusters": clusters},
            **doc.get("bootstrap", {}),
        }


def _socket(port: str) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _static(name: str, *ports: str) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _socket(port)}} for port in ports]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}] if ports else []},
    }


def http2_upstream(options: dict[str, Any]) -> dict[str, Any]:
    """What makes a cluster's upstream speak HTTP/2."""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "typed_extension_protocol_options": {
            name: {"@type": f"type.googleapis.com/{name}", "explicit_http_config": {"http2_protocol_options": options}}
        }
    }


#: The first word says whose line it is; it is taken off before the comparison.
LOG_FORMAT = (
    "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% "
    "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% "
    "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON% "
    '%BYTES_RECEIVED% %BYTES_SENT% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(:AUTHORITY)%" '
    "%UPSTREAM_HOST% %UPSTREAM_CLUSTER% %ROUTE_NAME% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\n"
)


def _hcm(doc: dict[str, Any]) -> dict[str, Any]:
    hcm: dict[str, Any] = {
        "@type": (
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": "ingress",
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": "@log@",
                    "log_format": {"text_format_source": {"inline_string": doc.get("log_format", LOG_FORMAT)}},
                },
            }
        ],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "name": "local",
            "virtual_hosts": doc.get("routes")
            or [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]}],
            **doc.get("route_config", {}),
        },
    }
    hcm.update(copy.deepcopy(doc.get("hcm", {})))
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}


def _line(text: str) -> tuple[str, bytes]:
    """`POST /x; host: a; body=abc` as a method and the bytes of the request."""
    first, *items = text.split("; ")
    method, path = first.split(" ", 1)
    headers, body = [], ""
    for item in items:
        if item.startswith("body="):
            body = item[5:]
        else:
            headers.append(item)
    names = {h.partition(":")[0].lower() for h in headers}
    if "host" not in names:
        headers.insert(0, "host: test.example")
    if body and not names & {"content-length", "transfer-encoding"}:
        headers.append(f"content-length: {len(body)}")
    return method, (f"{method} {path} HTTP/1.1\r\n" + "".join(h + "\r\n" for h in headers) + "\r\n" + body).encode()


def _hello(options: dict[str, Any]) -> list[bytes | float]:
    """The first flight of a TLS client: `hello` is its server name, `alpn` what it offers; in `pieces`, if so many are
    asked for, with a moment between them; `drop` leaves out so many bytes of the end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if "alpn" in options:
        context.set_alpn_protocols(options["alpn"])
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(received, sent, server_hostname=options["hello"] or None)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    data = sent.read()
    data = data[: len(data) - int(options.get("drop", 0))]
    size = -(-len(data) // int(options.get("pieces", 1)))
    parts: list[bytes | float] = []
    for at in range(0, len(data), size):
        parts += [0.02, data[at : at + size]] if at else [data[:size]]
    return parts


def _case(scenario: str, index: int, entry: str | dict[str, Any], document: dict[str, Any]) -> Case:
    options = {"request": entry} if isinstance(entry, str) else dict(entry)
    parts: list[bytes | float] = []
    methods: list[str] = []
    if "request" in options:
        lines = options["request"] if isinstance(options["request"], list) else [options["request"]]
        for line in lines:
            method, data = _line(line)
            # The next one when an answer came: how many a proxy finds in one pass must not be a matter of luck.
            parts += [1.0, data] if parts else [data]
            methods.append(method)
        if options.get("pipelined"):
            parts = [b"".join(p for p in parts if isinstance(p, bytes))]
    if "raw" in options:
        raw = options["raw"] if isinstance(options["raw"], list) else [options["raw"]]
        for part in raw:
            if isinstance(part, dict):
                parts += _hello(part)
            elif isinstance(part, str):
                data = part.encode("latin-1").decode("unicode_escape").encode("latin-1")
                parts.append(data)
            else:
                parts.append(float(part))
        if not methods:
            methods = (
                list(options["methods"])
                if "methods" in options
                else [bytes(p).split(b" ")[0].decode("latin-1") for p in parts[:1] if isinstance(p, bytes)]
            )
    label = options.get("name") or (entry if isinstance(entry, str) else options.get("request") or f"raw {index}")
    return Case(
        scenario=scenario,
        name=f"{index:02d} {str(label)[:90]}",
        parts=tuple(parts),
        methods=tuple(methods),
        linger=float(options.get("linger", 0.6 if "raw" in options else 0.0)),
        shut=bool(options.get("shut", False)),
        timeout=float(options.get("timeout", 8.0)),
        abort_after=cast("float | None", options.get("abort_after")),
        repeat=int(options.get("repeat", 1)),
        compare_log=bool(options.get("log", True)),
        intended=cast("dict[str, Any] | None", options.get("intended")),
        lines=int(options.get("lines", 0)),
        stats=tuple(options.get("stats", document.get("stats", ()))),
        tls=_client_tls(options, document),
    )


def _client_tls(options: dict[str, Any], document: dict[str, Any]) -> dict[str, Any] | None:
    """Of the case, on top of what all cases of the file have; `false`: plaintext."""
    own, common = options.get("tls"), document.get("tls")
    if own is False or (own is None and common is None):
        return None
    return (common or {}) | (own or {})


#: What `h2client.converse` takes.
_CONVERSE = ("timeout", "settings", "give_back", "preface", "eager", "leave", "linger")


def _frame_case(scenario: str, index: int, entry: str | dict[str, Any], document: dict[str, Any]) -> FrameCase:
    options = {"request": entry} if isinstance(entry, str) else dict(entry)
    entries: list[Any] = []
    if "request" in options:
        lines = options["request"] if isinstance(options["request"], list) else [options["request"]]
        for number, line in enumerate(lines):
            entries.append(line)
            if not options.get("together"):
                entries.append(f"WAIT {2 * number + 1}")
    entries += options.get("frames", [])
    steps = frames.steps(entries)
    streams = {s.stream for s in steps if isinstance(s, frames.Frame) and s.kind == frames.TYPES["HEADERS"]}
    label = options.get("name") or (entry if isinstance(entry, str) else options.get("request"))
    return FrameCase(
        scenario=scenario,
        name=f"{index:02d} {str(label)[:90]}",
        steps=steps,
        options={k: options[k] for k in _CONVERSE if k in options},
        lines=int(options.get("lines", len(streams))),
        compare_log=bool(options.get("log", True)),
        stats=tuple(options.get("stats", document.get("stats", ()))),
        repeat=int(options.get("repeat", 1)),
        intended=cast("dict[str, Any] | None", options.get("intended")),
        leave=bool(options.get("leave", False)),
        goaway=str(options.get("goaway", "allowed")),
        without=tuple(options.get("without", () if options.get("announced") else ("settings",))),
        tls=_client_tls(options, document),
    )


def load() -> list[Scenario]:
    """Every scenario, by file name."""
    scenarios = []
    for path in sorted(CASES.glob("*.yaml")):
        document = yaml.load(path.read_text(), yaml.CSafeLoader)
        cases: list[Case | FrameCase] = []
        for index, entry in enumerate(document["cases"]):
            client = entry.get("client") if isinstance(entry, dict) else None
            if (client or document.get("client", "h1")) == "h2":
                cases.append(_frame_case(path.stem, index, entry, document))
            else:
                cases.append(_case(path.stem, index, entry, document))
        scenarios.append(Scenario(path.stem, document, tuple(cases)))
    return scenarios
