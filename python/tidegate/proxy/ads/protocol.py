"""The state-of-the-world conversation: what to ask, what to answer, what to do about silence. No I/O, no clock.

    engine wants            subscribe() ----> requests (new names, first asks, unsubscriptions)
    stream opens            connected() ----> one request per type: last accepted version, no nonce
    response arrives        received() -----> an Update to apply, or the answer at once when nobody wants it
    engine has applied      applied() ------> ACK (this version) or NACK (the last good version, error detail)
    stream ends             disconnected()    versions stay, nonces go
    types are busy          pause() --------> what was held back, once they are not
    time passes             patience -------> names whose initial_fetch_timeout went by

A request says in `version` what is in force and in `nonce` which response it answers; a changed list of names with the
last nonce is a change of subscription. What Envoy does is done here too: the node goes with the first request of a
stream only (the client adds it), a type that nobody watches any more is asked for with no names at all, and a response
for a type that was never asked for is ignored.

Warming is not decided here. The engine says which subscriptions it wants and in which order (LDS appears once the
clusters are warm), and which types have to wait (an update of clusters is answered when they are warm); this module
follows. `delta` is the same conversation in its incremental form, with the same methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tidegate.proxy.ads.patience import EVERYTHING, Patience

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence, Set

__all__ = ["AdsProtocol", "Outcome", "Request", "Response", "Update", "Wanted", "patience_of"]


class Wanted(NamedTuple):
    """A subscription of the engine, or a part of one whose names are waited for equally long. No names = everything of
    that type (CDS, LDS)."""

    type_url: str
    names: tuple[str, ...]
    initial_fetch_timeout: float  # seconds; 0 = wait for ever


def patience_of(wanted: Iterable[Wanted]) -> dict[str, dict[str, float]]:
    """Per type: the names that are wanted (`EVERYTHING` where none is given), and how long to wait for each."""
    found: dict[str, dict[str, float]] = {}
    for each in wanted:
        found.setdefault(each.type_url, {}).update(
            dict.fromkeys(each.names or (EVERYTHING,), each.initial_fetch_timeout)
        )
    return found


class Request(NamedTuple):
    """A DiscoveryRequest but for the node."""

    type_url: str
    version: str
    nonce: str
    names: tuple[str, ...]
    error_message: str = ""  # not empty = NACK


class Response(NamedTuple):
    """A DiscoveryResponse."""

    type_url: str
    version: str
    nonce: str
    resources: Sequence[tuple[str, bytes]]
    control_plane: str = ""


class Update(NamedTuple):
    """A response that somebody is waiting for: apply it and report with `applied`."""

    type_url: str
    version: str
    resources: Sequence[tuple[str, bytes]]
    removed: Sequence[str] | None = None  # of an incremental response; None = what is absent is gone
    versions: Sequence[tuple[str, str]] = ()  # of an incremental response: name and version of each resource


class Outcome(NamedTuple):
    """What became of an update: `detail` is empty when every resource was accepted."""

    accepted: Sequence[str]
    rejected: Sequence[str]
    detail: str = ""


@dataclass(slots=True)
class _Type:
    """All that is remembered of one type."""

    names: tuple[str, ...]
    watched: bool = True
    version: str = ""  # the last one that was accepted
    nonce: str = ""  # of the last response on this stream
    asked: bool = False  # on this stream
    held: Request | None = None  # while the type is paused


class AdsProtocol:
    """One proxy's conversation, over any number of streams."""

    def __init__(self) -> None:
        self._types: dict[str, _Type] = {}  # in the order of first asking
        self._connected = False
        self._current: Response | None = None
        self._paused: Set[str] = frozenset()
        self.patience = Patience()

    # --- what the engine wants ---------------------------------------------------------------------------------------

    def subscribe(self, wanted: Iterable[Wanted], now: float) -> list[Request]:
        """The engine's present subscriptions, all of them; returns what has to be sent because they changed."""
        requests = []
        present = patience_of(wanted)
        for type_url, patience in present.items():
            state = self._types.get(type_url)
            names = tuple(sorted(patience.keys() - {EVERYTHING}))
            if state is None:
                state = self._types[type_url] = _Type(())
                changed = True
            else:
                changed = names != state.names or not state.watched
            if not changed:
                continue
            before = set(state.names) if state.watched else set[str]()
            new = [EVERYTHING] if not names else [name for name in names if name not in before]
            self.patience.stop(type_url, before - set(names))
            self.patience.wait(type_url, {name: patience[name] for name in new}, now)
            state.names, state.watched = names, True
            requests += self._ask(type_url, state)
        for type_url, state in self._types.items():
            if state.watched and type_url not in present:
                self.patience.stop(type_url, (EVERYTHING, *state.names))
                state.watched, state.names = False, ()
                requests += self._ask(type_url, state)
        return requests

    def _ask(self, type_url: str, state: _Type) -> list[Request]:
        if not self._connected:
            return []
        if not state.watched and not state.asked:
            return []
        state.asked = True
        return self._say(state, Request(type_url, state.version, state.nonce, state.names))

    def _say(self, state: _Type, request: Request) -> list[Request]:
        if request.type_url not in self._paused:
            return [request]
        # One request later says it all: what is said of a type says what is in force and what is wanted.
        state.held = request
        return []

    def pause(self, type_urls: Iterable[str]) -> list[Request]:
        """The types about which nothing may be said now; returns what others have been waiting to say."""
        self._paused = frozenset(type_urls)
        requests = []
        for type_url, state in self._types.items():
            if state.held is not None and type_url not in self._paused:
                requests.append(state.held._replace(names=state.names))
                state.held = None
        return requests

    # --- the stream --------------------------------------------------------------------------------------------------

    def connected(self) -> list[Request]:
        """A stream has opened: everything that is watched is asked for, with the version in force and no nonce."""
        self._connected = True
        self._current = None
        requests: list[Request] = []
        for type_url, state in self._types.items():
            state.nonce, state.asked, state.held = "", False, None
            if state.watched:
                requests += self._ask(type_url, state)
        return requests

    def disconnected(self) -> None:
        """The stream is gone; what was accepted stays in force."""
        self._connected = False
        self._current = None

    def received(self, response: Response) -> Update | Request | None:
        """A response: an update to apply, an answer to send at once, or nothing to do."""
        state = self._types.get(response.type_url)
        if state is None or not state.asked:
            return None
        state.nonce = response.nonce
        if not state.watched:
            # The server may not have read our unsubscription yet. Nothing left to say is fine; more of it is not.
            if not response.resources:
                state.version = response.version
            return Request(response.type_url, state.version, response.nonce, ())
        self._current = response
        return Update(response.type_url, response.version, response.resources)

    def applied(self, outcome: Outcome) -> list[Request]:
        """The engine is through with the last update: ACK or NACK. Nothing, when the stream ended meanwhile."""
        response, self._current = self._current, None
        if response is None:
            return []
        state = self._types[response.type_url]
        self.patience.stop(response.type_url, (EVERYTHING, *outcome.accepted, *outcome.rejected))
        if not outcome.detail:
            state.version = response.version
        return self._say(state, Request(response.type_url, state.version, response.nonce, state.names, outcome.detail))

    def watched(self) -> list[str]:
        """The type URLs that somebody is waiting for, in the order of first asking."""
        return [type_url for type_url, state in self._types.items() if state.watched]
