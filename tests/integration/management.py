"""A management server for both forms of ADS and for SDS on streams of its own, which writes down the conversation.

`set` publishes resources and sends what changed to whoever subscribed; `lines` is the conversation, one short line per
message, with nonces counted per type, so that two clients that behave alike give the same lines. It knows the transport
and the subscriptions, nothing of what it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from tidegate import xdsapi
from tidegate.bench.ads_server import ServerThread

_ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_SDS = "envoy.service.secret.v3.SecretDiscoveryService"
_DELTA_REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
_DELTA_RESPONSE = "envoy.service.discovery.v3.DeltaDiscoveryResponse"
_SHORT = {
    xdsapi.CLUSTER: "CDS",
    xdsapi.CLUSTER_LOAD_ASSIGNMENT: "EDS",
    xdsapi.LISTENER: "LDS",
    xdsapi.ROUTE_CONFIGURATION: "RDS",
    xdsapi.SECRET: "SDS",
    "envoy.config.core.v3.TypedExtensionConfig": "ECDS",
    "envoy.service.runtime.v3.Runtime": "RTDS",
}


def short(url: str) -> str:
    return _SHORT.get(xdsapi.type_name(url), url)


@dataclass
class _Type:
    """What a type looks like now."""

    version: int = 0
    resources: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)


@dataclass
class _Subscription:
    """What one stream has of one type."""

    names: set[str] = field(default_factory=set)
    wildcard: bool = False
    sent: dict[str, int] = field(default_factory=dict)
    answered: int = -1  # the version of the type sent last
    nonces: dict[str, int] = field(default_factory=dict)
    force: bool = False


@dataclass
class Management(ServerThread):
    """`address`: what to listen on (`127.0.0.1:0` or `unix:/path`)."""

    address: str = "127.0.0.1:0"
    delays: dict[str, float] = field(default_factory=dict)  # seconds before an answer, by the type's name
    resource_versions: bool = False  # istiod leaves `Resource.version` empty
    lines: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _types: dict[str, _Type] = field(default_factory=dict)
    _wakes: list[asyncio.Event] = field(default_factory=list)
    _calls: list[asyncio.Event] = field(default_factory=list)
    _streams: int = 0
    _held: set[str] = field(default_factory=set)

    def set(self, full_name: str, resources: Mapping[str, Mapping[str, Any] | bytes], *, again: bool = False) -> None:
        """All resources of a type. With `again`, unchanged ones are sent too, as istiod does with listeners."""
        self.set_all({full_name: resources}, again=again)

    def set_all(self, types: Mapping[str, Mapping[str, Mapping[str, Any] | bytes]], *, again: bool = False) -> None:
        """Several types in one push, in this order."""
        encoded = {
            full_name: {
                name: value if isinstance(value, bytes) else xdsapi.serialize(xdsapi.from_dict(full_name, value))
                for name, value in resources.items()
            }
            for full_name, resources in types.items()
        }

        def publish() -> None:
            for full_name, resources in encoded.items():
                known = self._types.setdefault(xdsapi.type_url(full_name), _Type())
                known.version += 1
                for name, raw in resources.items():
                    if again or known.resources.get(name) != raw:
                        known.versions[name] = known.version
                known.resources = resources
            for wake in self._wakes:
                wake.set()

        self._loop.call_soon_threadsafe(publish)

    def hold(self, full_name: str) -> None:
        """Answers nothing about a type until `release`."""
        self._held.add(xdsapi.type_url(full_name))

    def release(self, full_name: str) -> None:
        def release() -> None:
            self._held.discard(xdsapi.type_url(full_name))
            for wake in self._wakes:
                wake.set()

        self._loop.call_soon_threadsafe(release)

    def drop_streams(self) -> None:
        """Ends every stream, as a restarting server would; the client comes back."""

        def drop() -> None:
            for call in self._calls:
                call.set()
            for wake in self._wakes:
                wake.set()

        self._loop.call_soon_threadsafe(drop)

    async def _up(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for service, methods in (
            (_ADS, {"StreamAggregatedResources": self._whole, "DeltaAggregatedResources": self._delta}),
            (_SDS, {"StreamSecrets": self._whole}),
        ):
            handlers = {name: grpc.stream_stream_rpc_method_handler(method) for name, method in methods.items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()

    # --- both forms --------------------------------------------------------------------------------------------------

    def _note(self, line: str, error: Any, node: Any) -> None:
        if error is not None and (error.code or error.message):
            line += f" NACK={error.code}"
            self.errors.append(error.message)
        if node.id:
            line += " node"
            self.nodes.append(node.id)
        self.lines.append(line)

    @staticmethod
    def _nonce(subscription: _Subscription, nonce: str) -> str:
        return f"<{subscription.nonces[nonce]}>" if nonce in subscription.nonces else nonce

    def _new_nonce(self, subscription: _Subscription) -> str:
        self._streams += 1
        nonce = f"nonce-{self._streams}"
        subscription.nonces[nonce] = len(subscription.nonces) + 1
        return nonce

    async def _serve(self, requests: AsyncIterator[bytes], heard: Any, answer: Any) -> AsyncIterator[bytes]:
        subscribed: dict[str, _Subscription] = {}
        wake = asyncio.Event()
        self._wakes.append(wake)
        dropped = asyncio.Event()
        self._calls.append(dropped)

        async def listen() -> None:
            async for data in requests:
                heard(subscribed, data)
                wake.set()
            wake.set()

        listener = asyncio.create_task(listen())
        try:
            while True:
                await wake.wait()
                wake.clear()
                if listener.done() or dropped.is_set():
                    return
                for url, subscription in list(subscribed.items()):
                    if url in self._types and url not in self._held:
                        data = answer(url, subscription, self._types[url])
                        if data is not None:
                            await asyncio.sleep(self.delays.get(xdsapi.type_name(url), 0.0))
                            yield data
        finally:
            listener.cancel()
            self._wakes.remove(wake)
            self._calls.remove(dropped)

    # --- state of the world ------------------------------------------------------------------------------------------

    async def _whole(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        def heard(subscribed: dict[str, _Subscription], data: bytes) -> None:
            request = xdsapi.parse(xdsapi.DISCOVERY_REQUEST, data)
            known = subscribed.setdefault(request.type_url, _Subscription())
            error = request.error_detail if request.HasField("error_detail") else None
            names = " ".join(sorted(request.resource_names))
            nonce = self._nonce(known, request.response_nonce)
            self._note(
                f"{short(request.type_url)} version={request.version_info} nonce={nonce} [{names}]", error, request.node
            )
            if known.names != set(request.resource_names):
                known.force = True
            known.names = set(request.resource_names)

        def answer(url: str, known: _Subscription, now: _Type) -> bytes | None:
            newest = max((now.versions[n] for n in known.names if n in now.resources), default=0)
            version = newest if known.names else now.version
            if version <= known.answered and not known.force:
                return None
            if known.names and not newest:
                return None
            known.answered, known.force = max(version, known.answered), False
            response = xdsapi.message(xdsapi.DISCOVERY_RESPONSE)()
            response.version_info, response.type_url = str(now.version), url
            response.nonce = self._new_nonce(known)
            for name, raw in now.resources.items():
                if not known.names or name in known.names:
                    packed = response.resources.add()
                    packed.type_url, packed.value = url, raw
            return xdsapi.serialize(response)

        async for data in self._serve(requests, heard, answer):
            yield data

    # --- delta -------------------------------------------------------------------------------------------------------

    async def _delta(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        def heard(subscribed: dict[str, _Subscription], data: bytes) -> None:
            request = xdsapi.parse(_DELTA_REQUEST, data)
            first = request.type_url not in subscribed
            known = subscribed.setdefault(request.type_url, _Subscription())
            added, gone = set(request.resource_names_subscribe), set(request.resource_names_unsubscribe)
            if first and not added:
                known.wildcard = True
            known.names = (known.names | added) - gone
            for name in added:
                known.sent.pop(name, None)
            error = request.error_detail if request.HasField("error_detail") else None
            words = [
                f"{short(request.type_url)} nonce={self._nonce(known, request.response_nonce)}",
                f"+[{' '.join(sorted(added))}]" if added else "",
                f"-[{' '.join(sorted(gone))}]" if gone else "",
                f"initial=[{' '.join(sorted(request.initial_resource_versions))}]"
                if request.initial_resource_versions
                else "",
            ]
            self._note(" ".join(filter(None, words)), error, request.node)

        def answer(url: str, known: _Subscription, now: _Type) -> bytes | None:
            concerned = [n for n in now.resources if known.wildcard or n in known.names]
            fresh = [n for n in concerned if known.sent.get(n) != now.versions[n]]
            gone = [n for n in known.sent if n not in now.resources and (known.wildcard or n in known.names)]
            first = known.wildcard and known.answered < 0
            if not fresh and not gone and not first:
                return None
            known.answered = now.version
            response = xdsapi.message(_DELTA_RESPONSE)()
            response.system_version_info, response.type_url = str(now.version), url
            response.nonce = self._new_nonce(known)
            for name in fresh:
                known.sent[name] = now.versions[name]
                resource = response.resources.add()
                resource.name = name
                if self.resource_versions:
                    resource.version = str(now.versions[name])
                resource.resource.type_url, resource.resource.value = url, now.resources[name]
            for name in gone:
                del known.sent[name]
                response.removed_resources.append(name)
            return xdsapi.serialize(response)

        async for data in self._serve(requests, heard, answer):
            yield data
