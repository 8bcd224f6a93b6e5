"""One proxy's ADS conversation, state of the world: requests and target configurations in, responses out.

No sockets and no clock, so that every order of events can be tested. Make before break is kept like this:

    a change:   CDS (new and old clusters) -> EDS -> LDS -> RDS -> CDS (without the old clusters)

and each step waits until the proxy has answered the one before it (or has had `patience` seconds to), the EDS step
moreover until the proxy has asked for the endpoints of every cluster it was given. Types whose content is unchanged are
not sent; of endpoints and routes only the changed ones are. What a proxy asks for by itself is answered at once, but
for listeners and routes at the start of a stream: a proxy that comes back asks for all types together, and must have
its new clusters before the routes to them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tidegate.pilot.serve.config import ProxyConfig
from tidegate.pilot.translate.generate import CDS, EDS, LDS, RDS, TYPES
from tidegate.pilot.translate.proxy import Node

_WILDCARD: Final = (CDS, LDS)


@dataclass(frozen=True)
class Request:
    """A `DiscoveryRequest`, as far as it decides anything. `error` is the detail of a NACK."""

    type_url: str
    nonce: str = ""
    version: str = ""
    names: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Response:
    """A `DiscoveryResponse` to be."""

    type_url: str
    version: str
    nonce: str
    resources: tuple[bytes, ...]


@dataclass(frozen=True)
class Answer:
    """What became of a response: accepted, or rejected with `error`; and how long it took."""

    type_url: str
    error: str | None
    seconds: float


@dataclass
class Watch:
    """One resource type of one proxy. Times are those of the caller's clock."""

    names: frozenset[str] = frozenset()
    answered: bool = False
    #: What the proxy was last sent, by name.
    sent: dict[str, bytes] = field(default_factory=dict)
    #: To be sent again though unchanged.
    owed: set[str] = field(default_factory=set)
    #: To be sent at once, because the proxy just asked for them.
    asked: set[str] = field(default_factory=set)
    nonce: str = ""
    in_flight: frozenset[str] | None = None
    sent_at: float = 0.0
    version_sent: str = ""
    version_acked: str = ""
    #: Name -> why the proxy refused the response that brought it.
    rejected: dict[str, str] = field(default_factory=dict)
    pushes: int = 0


class Session:
    """State of one stream; see the module."""

    def __init__(self, node: Node, patience: float = 5.0) -> None:
        self.node = node
        self.config: ProxyConfig | None = None
        self.watches: dict[str, Watch] = {}
        self._patience = patience
        self._nonce = 0
        self._last_sent = 0.0

    # Events

    def offer(self, config: ProxyConfig) -> None:
        """The proxy is to have `config` from now on."""
        self.config = config

    def resend_all(self) -> None:
        """Send everything again on the next occasion, changed or not (`/debug/adsz?push=true`)."""
        for watch in self.watches.values():
            watch.owed.update(watch.sent)

    def receive(self, request: Request, now: float) -> Answer | None:
        """A subscription, an ACK, a NACK, or something too late to matter."""
        names = frozenset(request.names) - {"*"}
        watch = self.watches.get(request.type_url)
        if watch is None or not request.nonce:
            # A new stream, or a proxy that starts over: what it has is unknown.
            self.watches[request.type_url] = Watch(names=names)
            return None
        if request.nonce != watch.nonce:
            return None
        answer = None
        if watch.in_flight is not None:
            answer = Answer(request.type_url, request.error, now - watch.sent_at)
            self._settle(watch, request.error)
        if request.type_url not in _WILDCARD:
            watch.asked |= names - watch.names
            for name in watch.names - names:
                watch.sent.pop(name, None)
                watch.rejected.pop(name, None)
        watch.names = names
        return answer

    def _settle(self, watch: Watch, error: str | None) -> None:
        for name in watch.in_flight or ():
            watch.rejected.pop(name, None)
            if error is not None:
                watch.rejected[name] = error
        if error is None:
            watch.version_acked = watch.version_sent
        watch.in_flight = None

    # What to send

    def responses(self, now: float) -> list[Response]:
        """All that may be sent at this moment."""
        if self.config is None:
            return []
        found = []
        for kind in TYPES:
            watch = self.watches.get(kind)
            held = kind in (LDS, RDS) and (self._waiting(CDS, now) or self._waiting(EDS, now))
            if watch is None or (held and not watch.answered):
                continue
            response = self._answer(kind, watch, now)
            if response is not None:
                found.append(response)
        for kind in TYPES:
            response = self._change(kind, now)
            if response is not None:
                found.append(response)
            if self._waiting(kind, now):
                return found
        removal = self._removal(now)
        return [*found, removal] if removal is not None else found

    def deadline(self, now: float) -> float | None:
        """When to look again although nothing was received; `None`: no need."""
        if self.config is None or not any(self._waiting(kind, now) for kind in TYPES):
            return None
        return self._last_sent + self._patience

    def settled(self, now: float) -> str:
        """The version that the proxy has taken up completely; empty while anything is still on its way."""
        if self.config is None or not self.watches or any(self._waiting(kind, now) for kind in TYPES):
            return ""
        for kind, watch in self.watches.items():
            wanted = self._wanted(kind)
            if watch.in_flight is not None or watch.asked or watch.owed or watch.rejected:
                return ""
            if kind not in _WILDCARD and not watch.names:
                continue
            if not watch.answered or any(watch.sent.get(name) != encoded for name, encoded in wanted.items()):
                return ""
            if kind in _WILDCARD and watch.sent.keys() - wanted.keys():
                return ""
        return self.config.version if {CDS, LDS} <= self.watches.keys() else ""

    def _wanted(self, kind: str) -> dict[str, bytes]:
        """What the proxy is to have of a type, as far as it subscribed to it."""
        assert self.config is not None
        desired = self.config.resources.get(kind, {})
        names = self.watches[kind].names
        if kind in _WILDCARD and not names:
            return dict(desired)
        return {name: desired[name] for name in sorted(names) if name in desired}

    def _answer(self, kind: str, watch: Watch, now: float) -> Response | None:
        """The first response of a type, or the names the proxy has just added."""
        if not watch.answered:
            if kind not in _WILDCARD and not watch.names:
                return None
            watch.answered = True
            watch.asked.clear()
            return self._send(kind, self._wanted(kind), now)
        if watch.asked:
            wanted = self._wanted(kind)
            asked = {name: encoded for name, encoded in wanted.items() if name in watch.asked}
            watch.asked.clear()
            return self._send(kind, asked, now) if asked else None
        return None

    def _change(self, kind: str, now: float) -> Response | None:
        watch = self.watches.get(kind)
        if watch is None or not watch.answered or (watch.in_flight is not None and not self._late(now)):
            return None
        wanted = self._wanted(kind)
        changed = {
            name: encoded for name, encoded in wanted.items() if watch.sent.get(name) != encoded or name in watch.owed
        }
        gone = watch.sent.keys() - wanted.keys()
        if kind == CDS and changed:
            # The old clusters stay until nothing routes to them any more; see `_removal`.
            return self._send(kind, {**{name: watch.sent[name] for name in gone}, **wanted}, now)
        if kind == LDS and (changed or gone):
            return self._send(kind, wanted, now)
        if kind in (EDS, RDS):
            for name in gone:
                del watch.sent[name]
            if changed:
                return self._send(kind, changed, now)
        return None

    def _removal(self, now: float) -> Response | None:
        watch = self.watches.get(CDS)
        if watch is None or not watch.answered:
            return None
        wanted = self._wanted(CDS)
        return self._send(CDS, wanted, now) if watch.sent.keys() - wanted.keys() else None

    def _send(self, kind: str, resources: dict[str, bytes], now: float) -> Response:
        assert self.config is not None
        watch = self.watches[kind]
        self._owe_dependents(kind, resources)
        if kind in _WILDCARD:
            watch.sent = dict(resources)
        else:
            watch.sent.update(resources)
        self._nonce += 1
        watch.nonce = f"{self.config.version}-{self._nonce}"
        watch.owed -= resources.keys()
        watch.in_flight = frozenset(resources)
        watch.sent_at = self._last_sent = now
        watch.version_sent = self.config.version
        watch.pushes += 1
        return Response(kind, self.config.version, watch.nonce, tuple(resources.values()))

    def _owe_dependents(self, kind: str, resources: dict[str, bytes]) -> None:
        """A cluster that changes warms anew and waits for endpoints, a listener for routes, even for those it had."""
        assert self.config is not None
        watch = self.watches[kind]
        changed = [name for name, encoded in resources.items() if watch.sent.get(name, encoded) != encoded]
        if kind == CDS:
            self._owe(EDS, (self.config.endpoints_of[name] for name in changed if name in self.config.endpoints_of))
        elif kind == LDS:
            self._owe(RDS, (route for name in changed for route in self.config.routes_of.get(name, ())))

    def _owe(self, kind: str, names: Iterable[str]) -> None:
        watch = self.watches.get(kind)
        if watch is not None:
            watch.owed.update(name for name in names if name in watch.sent)

    # Waiting

    def _late(self, now: float) -> bool:
        return now - self._last_sent >= self._patience

    def _waiting(self, kind: str, now: float) -> bool:
        """Whether what comes after this type must wait for the proxy."""
        if self._late(now):
            return False
        watch = self.watches.get(kind)
        if watch is not None and watch.in_flight is not None:
            return True
        if kind == EDS:
            return self._lacks(EDS, CDS)
        if kind == RDS:
            return self._lacks(RDS, LDS)
        return False

    def _lacks(self, kind: str, parent: str) -> bool:
        """Whether the proxy has yet to subscribe to what it was told of by `parent`."""
        assert self.config is not None
        told = self.watches.get(parent)
        if told is None or not told.answered:
            return False
        if kind == EDS:
            needed = {self.config.endpoints_of[name] for name in told.sent if name in self.config.endpoints_of}
        else:
            needed = {route for name in told.sent for route in self.config.routes_of.get(name, ())}
        watch = self.watches.get(kind)
        return not needed <= (watch.names if watch is not None else frozenset())
