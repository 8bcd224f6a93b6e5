"""A management server that serves exactly the bytes it is told to over ADS (state of the world), good or corrupt.

For the `update-storm` case and for tests: no real control plane sends a corrupt resource on demand. It knows the
transport, not the proxies.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import grpc.aio

from tidegate import xdsapi

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


@dataclass
class Seen:
    """One request of the stream: an ACK, a NACK (with its detail) or a new subscription."""

    type_url: str
    version: str
    nonce: str
    names: list[str]
    error: str
    node_id: str


@dataclass
class ServerThread:
    """A gRPC server on a loop and a thread of its own; `_up` makes it (`_server`) and starts it."""

    port: int = 0
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _server: Any = None

    async def _up(self) -> None:
        raise NotImplementedError

    def start(self) -> Self:
        ready = threading.Event()

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._up())
            ready.set()
            self._loop.run_forever()
            self._loop.run_until_complete(self._server.stop(0))
            self._loop.close()

        self._thread = threading.Thread(target=run, name=type(self).__name__, daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def stop(self) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread:
            self._thread.join(10)


@dataclass
class AdsServer(ServerThread):
    """`set()` publishes resources; `seen` lists what the client said."""

    seen: list[Seen] = field(default_factory=list)
    _resources: dict[str, tuple[str, list[tuple[str, bytes]]]] = field(default_factory=dict)
    _versions: int = 0
    _wakes: list[asyncio.Event] = field(default_factory=list)

    async def _up(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        service, method = METHOD[1:].split("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    def set(self, full_name: str, resources: Mapping[str, Mapping[str, Any] | bytes]) -> str:
        """Publishes all resources of a type (documents in proto-JSON, or raw bytes) and returns their version."""
        encoded = [
            (name, value if isinstance(value, bytes) else xdsapi.serialize(xdsapi.from_dict(full_name, value)))
            for name, value in resources.items()
        ]
        self._versions += 1
        version = str(self._versions)

        def publish() -> None:
            self._resources[xdsapi.type_url(full_name)] = (version, encoded)
            for wake in self._wakes:
                wake.set()

        self._loop.call_soon_threadsafe(publish)
        return version

    async def _stream(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        subscribed: dict[str, list[str]] = {}
        sent: dict[str, tuple[str, tuple[str, ...]]] = {}
        wake = asyncio.Event()
        self._wakes.append(wake)
        nonce = 0

        async def listen() -> None:
            async for data in requests:
                request = xdsapi.parse(xdsapi.DISCOVERY_REQUEST, data)
                names = list(request.resource_names)
                self.seen.append(
                    Seen(request.type_url, request.version_info, request.response_nonce, names,
                         request.error_detail.message, request.node.id)
                )  # fmt: skip
                subscribed[request.type_url] = names
                wake.set()

        listener = asyncio.create_task(listen())
        try:
            while not listener.done():
                await wake.wait()
                wake.clear()
                for url, names in list(subscribed.items()):
                    if url not in self._resources:
                        continue
                    version, resources = self._resources[url]
                    state = (version, tuple(sorted(names)))
                    if sent.get(url) == state:
                        continue
                    sent[url] = state
                    nonce += 1
                    response = xdsapi.message(xdsapi.DISCOVERY_RESPONSE)()
                    response.version_info, response.type_url, response.nonce = version, url, str(nonce)
                    for name, value in resources:
                        if names and name not in names:
                            continue
                        packed = response.resources.add()
                        packed.type_url, packed.value = url, value
                    yield xdsapi.serialize(response)
        finally:
            listener.cancel()
            self._wakes.remove(wake)
