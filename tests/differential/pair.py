"""Both proxies of a scenario in front of the same upstreams, and what each answered, in a form to be compared.

What is made up per request (dates, generated ids, durations, ephemeral ports) is replaced by its name.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import brotli
import zstandard

from differential import jwt
from differential.authz import Authz
from differential.backend import Backend, free_port
from differential.client import Exchange, Response, Tls, exchange
from differential.counts import Counts
from differential.frames import Frame, Step
from differential.h2backend import H2Backend
from differential.h2client import Conversation, Message, converse
from differential.pki import pki
from differential.proxies import Proxy, running
from differential.scenario import Case, FrameCase, Scenario

#: Set to `envoy` to try the suite against itself.
SUBJECT = os.environ.get("TIDEGATE_SUBJECT", "tidegate")

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
DATE = re.compile(r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT$")
REMOTE = re.compile(r"127\.0\.0\.1:(\d+) ")
#: What SETTINGS mean that are not announced.
UNSAID = {"HEADER_TABLE_SIZE": 4096, "ENABLE_CONNECT_PROTOCOL": 0}
MADE_COOKIE = re.compile(r'="[0-9a-f]{16}"')
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


KEY = re.compile(r"key-[0-9a-f]{32}")


def _value(name: str, value: str) -> str:
    if name == "date" and DATE.match(value) and "2024" not in value:
        return "<date>"
    if name == "set-cookie":  # made of the connection's ports
        return MADE_COOKIE.sub('="<hash>"', value)
    if name == "x-envoy-upstream-service-time":
        return "<ms>"
    if name == "x-envoy-expected-rq-timeout-ms" and value.isdigit() and int(value) > 1000:  # what is left of it
        return f"<up to {-(-int(value) // 1000)} s>"
    if name == "grpc-timeout" and value[-1:] in "mun":  # what is left of it
        return re.sub(r"^\d+", "<n>", value)
    return KEY.sub("<key>", UUID.sub("<uuid>", STAMP.sub("<time>", value)))


def _headers(pairs: list[tuple[str, str]], port: int) -> list[tuple[str, str]]:
    return sorted((n, _value(n, v).replace(str(port), "<port>")) for n, v in pairs)


def _in_order(pairs: list[tuple[str, str]], port: int) -> list[tuple[str, str]]:
    """By name; those of one name as they came. A long value by its sum."""
    values = ((n, _value(n, v).replace(str(port), "<port>")) for n, v in pairs)
    return sorted(((n, v if len(v) < 300 else _sum(v)) for n, v in values), key=lambda p: p[0])


def _sum(text: str) -> str:
    return f"<{len(text)} bytes, {hashlib.sha256(text.encode('latin-1')).hexdigest()[:12]}>"


def _plain(response: Response | Message) -> bytes:
    """What was compressed, as it was before: libraries differ in what they make of it."""
    match response.get("content-encoding"):
        case "gzip":
            return gzip.decompress(response.body)
        case "br":
            return bytes(brotli.decompress(response.body))
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(response.body)
    return response.body


def _body(response: Response | Message, port: int) -> Any:
    """The upstream's echo as a document, a long one by its sum, anything else as text."""
    whole = response.complete if isinstance(response, Response) else response.ended
    text = (_plain(response) if whole else response.body).decode("latin-1")
    if response.get("x-backend") and text.startswith("{") and whole:
        echo = json.loads(text)
        pairs = [(n, v) for n, v in echo["headers"]]
        echo["headers"] = _in_order(pairs, port) if isinstance(response, Message) else _headers(pairs, port)
        return echo
    if isinstance(response, Message) and len(text) > 1000:
        return _sum(text)
    return text.replace(str(port), "<port>")


def comparable(result: Exchange, port: int) -> dict[str, Any]:
    """What must be equal, in a form that prints well."""

    def one(r: Response) -> dict[str, Any]:
        body = _body(r, port)
        pairs = r.headers
        if isinstance(body, dict):  # its length depends on the ids within
            pairs = [(n, v if n != "content-length" else "<n>") for n, v in r.headers]
        return {
            "status": r.status,
            "headers": _headers(pairs, port),
            "body": body,
            "trailers": r.trailers,
            "complete": r.complete,
        }

    return {
        "responses": [one(r) for r in result.responses],
        "end": result.end,
        "leftover": result.leftover.decode("latin-1"),
        **({"tls": result.tls} if result.tls else {}),
    }


def comparable_frames(result: Conversation, port: int) -> dict[str, Any]:
    """The same of a conversation in HTTP/2."""

    def one(m: Message) -> dict[str, Any]:
        body = _body(m, port)
        pairs = [(n, v if n != "content-length" or not isinstance(body, dict) else "<n>") for n, v in m.headers]
        return {
            "informational": [(s, _in_order(p, port)) for s, p in m.informational],
            "status": m.status,
            "headers": _in_order(pairs, port),
            "body": body,
            "trailers": m.trailers if m.trailers is None else _in_order(m.trailers, port),
            "reset": m.reset,
            "ended": m.ended,
            "headers_only": m.headers_only,
        }

    return {
        "streams": {number: one(m) for number, m in result.streams.items()},
        "end": result.end,
        "settings": UNSAID | result.settings,
        "goaway": result.goaway,
        "leftover": re.sub(r"date: [^\r]*", "date: <date>", result.leftover.decode("latin-1")),
    }


def statuses(outcome: dict[str, Any]) -> list[int]:
    """The statuses of the first turn, in order."""
    first = outcome["0"]
    return [r["status"] for r in (first["streams"].values() if "streams" in first else first["responses"])]


def _tls(case: Case | FrameCase) -> Tls | None:
    """The client of a case with TLS."""
    if case.tls is None:
        return None
    return Tls(pki().client(case.tls), case.tls.get("sni"), int(case.tls.get("piece", 0)), bool(case.tls.get("resume")))


def _allow_goaway(envoy: dict[str, Any], subject: dict[str, Any]) -> None:
    """Where Envoy closes without a word, saying why first (RFC 9113 5.4.1) is no difference."""
    codes = [code for _, code in subject["goaway"]]
    if not envoy["goaway"] and envoy.get("end") == "eof" and len(codes) == 1 and codes[0] != "NO_ERROR":
        subject["goaway"] = []


class Pair:
    """Both proxies of one scenario, started once, and what each answered."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.stack = ExitStack()
        self.scenario = scenario
        self.results: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        ports = {"dead": free_port(), "free1": free_port(), "free2": free_port()}
        backends = {"a": Backend("a"), "b": Backend("b"), "a2": H2Backend("a"), "b2": H2Backend("b")}
        for name, options in scenario.document.get("tls_backends", {}).items():
            kind = H2Backend if options.get("h2") else Backend
            backends[name] = backend = kind(str(options.get("name", name)))
            backend.tls = pki().server(options)
        if "small2" in str(scenario.document):
            backends["small2"] = H2Backend("small", {"MAX_CONCURRENT_STREAMS": 2, "INITIAL_WINDOW_SIZE": 1000})
        for name, backend in backends.items():
            self.stack.callback(backend.start().stop)
            ports[name] = backend.port
        if "@authz@" in str(scenario.document) or "@authz-grpc@" in str(scenario.document):
            authz = Authz().start()
            self.stack.callback(authz.stop)
            ports["authz"], ports["authz-grpc"] = authz.http_port, authz.grpc_port
        ports["a1"], ports["b1"] = ports["a"], ports["b"]
        if scenario.upstream == "h2":
            ports["a"], ports["b"] = ports["a2"], ports["b2"]
        self.ports = {f"@{name}@".encode(): str(number).encode() for name, number in ports.items()}
        self.proxies: list[Proxy] = []
        with ExitStack() as started:  # what runs is ended when something after it does not start
            started.push(self.stack)
            self._start(ports, directory)
            started.pop_all()

    def _start(self, ports: dict[str, int], directory: Path) -> None:
        for index, kind in enumerate((("envoy", SUBJECT)) if SUBJECT != "envoy" else ("envoy", "envoy")):
            own = directory / f"{index}"
            own.mkdir()
            log = own / "access.log"
            admin, port = free_port(), free_port()
            text = self.scenario.bootstrap(ports, str(log), admin, port)
            text = text.replace("@jwks@", jwt.jwks().replace('"', '\\"') if '"@jwks@"' in text else jwt.jwks())
            self.proxies.append(
                self.stack.enter_context(
                    running(kind, text, admin_port=admin, port=port, directory=own, log=log,
                            args=tuple(self.scenario.document.get("args", ())))
                )
            )  # fmt: skip

    def ask(self, case: Case | FrameCase) -> tuple[dict[str, Any], dict[str, Any]]:
        for proxy in self.proxies:
            proxy.log_lines()
        counts = [Counts(proxy, case.stats) for proxy in self.proxies] if case.stats else []
        with ThreadPoolExecutor(2) as pool:
            (envoy, ports), (subject, others) = pool.map(lambda p: self._put(p, case), self.proxies)
        if case.compare_log:
            envoy["log"], subject["log"] = self._logs(case, ports, others)
        if counts:
            envoy["stats"] = counts[0].at_rest()
            subject["stats"] = counts[1].until(envoy["stats"])
        if isinstance(case, FrameCase) and case.goaway == "allowed":
            for turn in (t for t in envoy if t.isdigit() and "goaway" not in case.without):
                _allow_goaway(envoy[turn], subject[turn])
        return envoy, subject

    def _put(self, proxy: Proxy, case: Case | FrameCase) -> tuple[dict[str, Any], set[int]]:
        outcomes: dict[str, Any] = {}
        ports: set[int] = set()
        client = _tls(case)
        for turn in range(case.repeat):
            outcomes[str(turn)], port = self._once(proxy, case, client)
            ports.add(port)
        return outcomes, ports

    def _expand(self, data: bytes, key: bytes) -> bytes:
        """With tokens, ports and the turn's key filled in."""
        data = data.replace(b"@key@", key)
        for name, number in self.ports.items() if b"@" in data else ():
            data = data.replace(name, number)
        return jwt.expand(data)

    def _keyed(self, step: Step, key: bytes) -> Step:
        if not isinstance(step, Frame) or step.fields is None:
            return step
        return dataclasses.replace(step, fields=tuple((n, self._expand(v, key)) for n, v in step.fields))

    def _once(self, proxy: Proxy, case: Case | FrameCase, client: Tls | None) -> tuple[dict[str, Any], int]:
        key = f"key-{uuid.uuid4().hex}".encode()
        if isinstance(case, FrameCase):
            conversation = converse(
                proxy.port, tuple(self._keyed(s, key) for s in case.steps), tls=client, **case.options
            )
            outcome = comparable_frames(conversation, proxy.port)
            return {k: v for k, v in outcome.items() if k not in case.without}, conversation.port
        parts = [self._expand(p, key) if isinstance(p, bytes) else p for p in case.parts]
        result = exchange(
            proxy.port, parts, methods=list(case.methods), timeout=case.timeout,
            linger=case.linger, shut=case.shut, abort_after=case.abort_after, tls=client,
        )  # fmt: skip
        return comparable(result, proxy.port), result.port

    def _logs(self, case: Case | FrameCase, ports: set[int], others: set[int]) -> tuple[list[str], list[str]]:
        """Waits for Envoy's lines to come to rest, then for as many of the other's."""
        reference, subject = self.proxies
        frames = isinstance(case, FrameCase)
        want: list[str] = []
        left = case.leave if isinstance(case, FrameCase) else case.abort_after is not None
        deadline = time.monotonic() + (3 if case.lines else 1.5 if left else 0.1 if frames else 0.5)
        quiet = deadline
        while time.monotonic() < (deadline if len(want) < case.lines * case.repeat else quiet):
            if fresh := _own(reference.log_lines(), ports):
                want += fresh
                quiet = time.monotonic() + 0.04
            time.sleep(0.01)
        have: list[str] = []
        deadline = time.monotonic() + 2
        while len(have) < len(want) and time.monotonic() < deadline:
            have += _own(subject.log_lines(), others)
            time.sleep(0.01)
        have += _own(subject.log_lines(), others)
        lines = [_log(line, reference.port) for line in want], [_log(line, subject.port) for line in have]
        # Streams end in any order.
        return (sorted(lines[0]), sorted(lines[1])) if frames else lines


def _own(lines: list[str], ports: set[int]) -> list[str]:
    """Without their first word, the lines of connections from `ports`; a line of another format is kept whole.

    A connection that its client closed is logged whenever the proxy comes to it: perhaps in the next case.
    """
    own = []
    for line in lines:
        if not (match := REMOTE.match(line)):
            own.append(line)
        elif int(match[1]) in ports:
            own.append(line[match.end() :])
    return own


def _log(line: str, port: int) -> str:
    # That is what Envoy's HTTP/2 library calls a fault, not what Envoy does.
    line = re.sub(r"codec_error:\S+|http2\.unknown\.nghttp2\.error", "codec_error:<why>", line)
    if len(line) > 2000:
        line = re.sub(r"(.)\1{500,}", r"<many \1>", line)
    return KEY.sub("<key>", UUID.sub("<uuid>", STAMP.sub("<time>", line))).replace(str(port), "<port>")
