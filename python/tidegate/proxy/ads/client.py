"""A discovery stream: opens it, keeps it open, moves bytes between it and the protocol.

grpc.aio without (de)serialisers: what goes through here is bytes, made and read by the data plane. Holds no rule of the
conversation (`protocol` and `delta` do) and never looks into a resource. Whatever goes wrong ends the stream, not the
loop: after a back-off there is a new one, and what was accepted before serves on.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
import grpc.aio

from tidegate.errors import DecodeError
from tidegate.proxy.ads.delta import DeltaProtocol
from tidegate.proxy.ads.protocol import AdsProtocol, Update, Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from tidegate.proxy.ads.backoff import JitteredBackOff
    from tidegate.proxy.ads.delta import DeltaRequest, DeltaResponse
    from tidegate.proxy.ads.protocol import Outcome, Request, Response

__all__ = ["Channels", "Sink", "Target", "XdsClient"]

_ADS: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
_ADS_METHODS: Final = (_ADS + "StreamAggregatedResources", _ADS + "DeltaAggregatedResources")
_SDS: Final = "/envoy.service.secret.v3.SecretDiscoveryService/"
_SDS_METHODS: Final = (_SDS + "StreamSecrets", _SDS + "DeltaSecrets")
# A server may refuse to be asked "are you there" more often than this (gRPC's own default).
_LEAST_PING_S: Final = 300.0


class Sink(Protocol):
    """What the stream needs of the data plane."""

    def encode_request(self, request: Request | DeltaRequest, node: bytes) -> bytes: ...
    def decode_response(self, data: bytes) -> Response: ...
    def decode_delta_response(self, data: bytes) -> DeltaResponse: ...
    def apply(self, update: Update, origin: str = "") -> Outcome: ...
    def update_failed(self, type_url: str, names: Sequence[str], *, timed_out: bool, origin: str = "") -> None: ...
    def ads_connected(self, connected: bool) -> None: ...
    def control_plane_identifier(self, identifier: str) -> None: ...
    def log(self, level: str, component: str, message: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Where the stream goes, from a static cluster of the bootstrap."""

    cluster: str
    addresses: tuple[str, ...]  # gRPC targets, tried in turn
    node: bytes
    authority: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    connect_timeout: float = 5.0
    ping_interval: float = 0.0  # 0 = none
    ping_timeout: float = 20.0

    def channel_options(self) -> list[tuple[str, Any]]:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            # Every attempt is a connection of its own; the pauses between attempts are ours.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.min_reconnect_backoff_ms", int(self.connect_timeout * 1000)),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
        ]
        if self.authority:
            options.append(("grpc.default_authority", self.authority))
        if self.ping_interval:
            options += [
                ("grpc.keepalive_time_ms", int(self.ping_interval * 1000)),
                ("grpc.keepalive_timeout_ms", int(self.ping_timeout * 1000)),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        return options

    @staticmethod
    def ping_for_tcp_keepalive(time_s: int) -> float:
        """gRPC has no TCP keepalive of its own; a ping that comes as seldom does the same."""
        return max(float(time_s), _LEAST_PING_S)


class Channels:
    """One connection for all streams to the same address, while there are any."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[grpc.aio.Channel, int]] = {}

    @contextlib.asynccontextmanager
    async def use(self, address: str, options: list[tuple[str, Any]]) -> AsyncIterator[grpc.aio.Channel]:
        channel, users = self._open.get(address) or (grpc.aio.insecure_channel(address, options=options), 0)
        self._open[address] = channel, users + 1
        try:
            yield channel
        finally:
            users = self._open[address][1] - 1
            if users:
                self._open[address] = channel, users
            else:
                del self._open[address]
                await channel.close()


class XdsClient:
    """One stream for the life of the process, or until its subscription is gone: ADS, or (with an `origin`) secrets.

    `applied` is called when the data plane has taken an update, before that is acknowledged: it may `subscribe` to what
    the update refers to.
    """

    def __init__(
        self,
        target: Target,
        sink: Sink,
        back_off: JitteredBackOff,
        applied: Callable[[], None] = lambda: None,
        *,
        delta: bool = False,
        origin: str = "",
        channels: Channels | None = None,
    ) -> None:
        self._target = target
        self._sink = sink
        self._back_off = back_off
        self._applied = applied
        self._protocol: AdsProtocol | DeltaProtocol = DeltaProtocol() if delta else AdsProtocol()
        self._origin = origin
        self._method = (_SDS_METHODS if origin else _ADS_METHODS)[delta]
        self._channels = channels or Channels()
        self._outgoing: asyncio.Queue[Request | DeltaRequest] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None

    def subscribe(self, wanted: Iterable[Wanted], paused: Iterable[str] = ()) -> None:
        """The engine's present subscriptions, and the types about which nothing is to be said now."""
        self._send(self._protocol.pause(paused))
        self._send(self._protocol.subscribe(wanted, self._now()))
        self._arm()

    async def run(self) -> None:
        """Keep a stream open until cancelled."""
        attempt = 0
        while True:
            address = self._target.addresses[attempt % len(self._target.addresses)]
            attempt += 1
            try:
                await self._stream(address)
                reason = "closed by the server"
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().value[0]}, {error.details()}"
            except DecodeError as error:
                reason = f"13, {error}"
            finally:
                self._protocol.disconnected()
                self._connected(False)
            for type_url in self._protocol.watched():
                self._sink.update_failed(type_url, (), timed_out=False, origin=self._origin)
            wait = self._back_off.next()
            self._sink.log(
                "warning",
                "config",
                f"{self._method.rpartition('/')[2]} gRPC config stream to {self._target.cluster} closed: {reason}; "
                f"next attempt in {wait:.1f}s",
            )
            await asyncio.sleep(wait)

    async def _stream(self, address: str) -> None:
        async with self._channels.use(address, self._target.channel_options()) as channel:
            call = channel.stream_stream(self._method)(metadata=self._target.metadata or None)
            self._outgoing = asyncio.Queue()
            self._send(self._protocol.connected())
            writer = asyncio.create_task(self._write(call))
            try:
                await self._read(call)
            finally:
                writer.cancel()
                call.cancel()
                with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await writer

    async def _write(self, call: Any) -> None:
        """Requests leave in the order in which the protocol made them; the first one says who we are."""
        node = self._target.node
        while True:
            request = await self._outgoing.get()
            await call.write(self._sink.encode_request(request, node))
            node = b""

    async def _read(self, call: Any) -> None:
        heard = False
        while True:
            try:
                data = await call.read()
            except asyncio.CancelledError:
                # grpc.aio cancels the reader of a call whose writer has failed; a cancelled call is an ended stream.
                if call.cancelled() and not _task_is_cancelled():
                    return
                raise
            if data is grpc.aio.EOF:
                await self._raise_status(call)
                return
            if not heard:
                heard = True
                self._back_off.reset()
                self._connected(True)
            self._receive(data)

    @staticmethod
    async def _raise_status(call: Any) -> None:
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code, await call.initial_metadata(), await call.trailing_metadata(), await call.details()
            )

    def _receive(self, data: bytes) -> None:
        protocol = self._protocol
        response: Response | DeltaResponse
        answer: Update | Request | DeltaRequest | None
        if isinstance(protocol, DeltaProtocol):
            response = self._sink.decode_delta_response(data)
            answer = protocol.received(response)
        else:
            response = self._sink.decode_response(data)
            answer = protocol.received(response)
        if response.control_plane and not self._origin:
            self._sink.control_plane_identifier(response.control_plane)
        if isinstance(answer, Update):
            outcome = self._sink.apply(answer, self._origin)
            if outcome.detail:
                self._sink.log(
                    "warning",
                    "config",
                    f"gRPC config for {response.type_url} rejected: {outcome.detail}",
                )
            self._applied()
            self._send(protocol.applied(outcome))
            self._arm()
        elif answer is not None:
            self._send([answer])

    def _connected(self, connected: bool) -> None:
        if not self._origin:
            self._sink.ads_connected(connected)

    def _send(self, requests: Iterable[Request | DeltaRequest]) -> None:
        for request in requests:
            self._outgoing.put_nowait(request)

    # --- initial_fetch_timeout ---------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._protocol.patience.next()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_at(due, self._overdue)

    def _overdue(self) -> None:
        self._timer = None
        for late in self._protocol.patience.overdue(self._now()):
            what = ", ".join(late.names) or "everything"
            self._sink.log("warning", "config", f"gRPC config: initial fetch timed out for {late.type_url} ({what})")
            self._sink.update_failed(late.type_url, late.names, timed_out=True, origin=self._origin)
        self._arm()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _task_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
