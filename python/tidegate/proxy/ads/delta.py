"""The incremental conversation (`DELTA_GRPC`): what to ask, what to answer. No I/O, no clock.

The methods are those of `protocol.AdsProtocol`; what is said differs. A request carries changes: names to subscribe to
and to unsubscribe from, with an empty nonce; an answer carries the nonce of what it answers and, for a NACK, the
reason. The first request of a type on a stream says everything again: all names that are wanted, none for the wildcard,
and the versions of what is there (`initial_resource_versions`), which may be empty texts.

As Envoy does it: answers leave before changes of subscription where both wait, changes in the order in which the types
were first asked for; a refused response leaves the versions as they were; a resource that the server removed is still
wanted, but has no version any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tidegate.proxy.ads.patience import EVERYTHING, Patience
from tidegate.proxy.ads.protocol import Update, patience_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence, Set

    from tidegate.proxy.ads.protocol import Outcome, Wanted

__all__ = ["DeltaProtocol", "DeltaRequest", "DeltaResponse"]


class DeltaRequest(NamedTuple):
    """A DeltaDiscoveryRequest but for the node."""

    type_url: str
    nonce: str = ""
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: tuple[tuple[str, str], ...] = ()
    error_message: str = ""  # not empty = NACK


class DeltaResponse(NamedTuple):
    """A DeltaDiscoveryResponse."""

    type_url: str
    version: str  # system_version_info
    nonce: str
    resources: Sequence[tuple[str, bytes]]
    versions: Sequence[tuple[str, str]]  # name and version of each
    removed: Sequence[str]
    control_plane: str = ""


@dataclass(slots=True)
class _Type:
    """All that is remembered of one type."""

    names: set[str] = field(default_factory=set)
    wildcard: bool = False
    watched: bool = False
    versions: dict[str, str] = field(default_factory=dict)  # of what was accepted
    asked: bool = False  # on this stream
    added: set[str] = field(default_factory=set)  # not said yet
    gone: set[str] = field(default_factory=set)

    def has_changes(self) -> bool:
        return bool(self.added or self.gone) or (self.watched and not self.asked)


class DeltaProtocol:
    """One proxy's conversation, over any number of streams."""

    def __init__(self) -> None:
        self._types: dict[str, _Type] = {}  # in the order of first asking
        self._answers: list[DeltaRequest] = []
        self._connected = False
        self._current: DeltaResponse | None = None
        self._paused: Set[str] = frozenset()
        self.patience = Patience()

    # --- what the engine wants ---------------------------------------------------------------------------------------

    def subscribe(self, wanted: Iterable[Wanted], now: float) -> list[DeltaRequest]:
        """The engine's present subscriptions, all of them; returns what has to be sent because they changed."""
        present = patience_of(wanted)
        for type_url, patience in present.items():
            state = self._types.setdefault(type_url, _Type())
            names = patience.keys() - {EVERYTHING}
            new, gone = names - state.names, state.names - names
            if not names and not state.watched:
                state.wildcard, new = True, {EVERYTHING}
            state.watched = True
            self._change(type_url, state, new - {EVERYTHING}, gone)
            self.patience.wait(type_url, {name: patience[name] for name in new}, now)
        for type_url, state in self._types.items():
            if state.watched and type_url not in present:
                state.watched = False
                self.patience.stop(type_url, [EVERYTHING])
                self._change(type_url, state, set(), set(state.names))
        return self._flush()

    def _change(self, type_url: str, state: _Type, new: set[str], gone: set[str]) -> None:
        state.names = (state.names | new) - gone
        state.added = (state.added | new) - gone
        state.gone = (state.gone | gone) - new
        for name in gone:
            state.versions.pop(name, None)
        self.patience.stop(type_url, gone)

    def pause(self, type_urls: Iterable[str]) -> list[DeltaRequest]:
        """The types about which nothing may be said now; returns what others have been waiting to say."""
        self._paused = frozenset(type_urls)
        return self._flush()

    def _flush(self) -> list[DeltaRequest]:
        """All that can be said now."""
        if not self._connected:
            return []
        requests, held = [], []
        for answer in self._answers:
            if answer.type_url in self._paused:
                held.append(answer)
            else:
                requests.append(self._ask(answer, self._types[answer.type_url]))
        self._answers = held
        requests += [
            self._ask(DeltaRequest(type_url), state)
            for type_url, state in self._types.items()
            if type_url not in self._paused and state.has_changes()
        ]
        return requests

    @staticmethod
    def _ask(request: DeltaRequest, state: _Type) -> DeltaRequest:
        """With the changes of its type."""
        if not state.asked:
            state.asked = True
            state.added, state.gone = set(state.names), set()
            request = request._replace(initial_versions=tuple(sorted(state.versions.items())))
        request = request._replace(subscribe=tuple(sorted(state.added)), unsubscribe=tuple(sorted(state.gone)))
        state.added, state.gone = set(), set()
        return request

    # --- the stream --------------------------------------------------------------------------------------------------

    def connected(self) -> list[DeltaRequest]:
        """A stream has opened: everything that is watched is asked for, with the versions in force."""
        self._connected = True
        self._current = None
        self._answers.clear()
        for state in self._types.values():
            state.asked = False
            state.added, state.gone = set(), set()
        return self._flush()

    def disconnected(self) -> None:
        """The stream is gone; what was accepted stays in force."""
        self._connected = False
        self._current = None

    def received(self, response: DeltaResponse) -> Update | DeltaRequest | None:
        """A response: an update to apply, an answer to send at once, or nothing to do."""
        state = self._types.get(response.type_url)
        if state is None:
            return None
        if not state.watched:
            # It crossed our unsubscription on the wire.
            return DeltaRequest(response.type_url, response.nonce)
        self._current = response
        return Update(response.type_url, response.version, response.resources, response.removed, response.versions)

    def applied(self, outcome: Outcome) -> list[DeltaRequest]:
        """The engine is through with the last update: ACK or NACK. Nothing, when the stream ended meanwhile."""
        response, self._current = self._current, None
        if response is None:
            return []
        state = self._types[response.type_url]
        self.patience.stop(response.type_url, (EVERYTHING, *outcome.accepted, *outcome.rejected, *response.removed))
        if not outcome.detail:
            state.versions.update(each for each in response.versions if state.wildcard or each[0] in state.names)
            for name in response.removed:
                state.versions.pop(name, None)
        self._answers.append(DeltaRequest(response.type_url, response.nonce, error_message=outcome.detail))
        return self._flush()

    def watched(self) -> list[str]:
        """The type URLs that somebody is waiting for, in the order of first asking."""
        return [type_url for type_url, state in self._types.items() if state.watched]
