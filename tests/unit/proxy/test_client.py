"""The ADS client against a real grpc.aio server, with messages that are JSON instead of protobuf."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from tidegate.errors import DecodeError
from tidegate.proxy.ads.backoff import JitteredBackOff
from tidegate.proxy.ads.client import Target, XdsClient
from tidegate.proxy.ads.delta import DeltaRequest, DeltaResponse
from tidegate.proxy.ads.protocol import Outcome, Request, Response, Update, Wanted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

CDS, EDS = "type/Cluster", "type/ClusterLoadAssignment"
SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


class Plane:
    """Stands in for the data plane: accepts everything but resources called "bad"."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.lines: list[str] = []
        self.states: list[bool] = []
        self.late: list[tuple[str, tuple[str, ...], bool]] = []
        self.identifier = ""
        self.fail = False

    def encode_request(self, request: Request | DeltaRequest, node: bytes) -> bytes:
        return json.dumps([*request, node.decode()]).encode()

    def decode_delta_response(self, data: bytes) -> DeltaResponse:
        type_url, version, nonce, names, removed = json.loads(data)
        return DeltaResponse(type_url, version, nonce, [(n, b"") for n in names], [(n, "") for n in names], removed)

    def decode_response(self, data: bytes) -> Response:
        if data == b"garbage":
            raise DecodeError("not a DiscoveryResponse")
        type_url, version, nonce, names = json.loads(data)
        return Response(type_url, version, nonce, [(name, b"") for name in names], "pilot-1")

    def apply(self, update: Update, origin: str = "") -> Outcome:
        if self.fail:
            self.fail = False
            raise RuntimeError("a bug")
        self.updates.append(update)
        bad = [name for name, _ in update.resources if name == "bad"]
        return Outcome([name for name, _ in update.resources if name != "bad"], bad, "bad: wrong" if bad else "")

    def update_failed(self, type_url: str, names: Sequence[str], *, timed_out: bool, origin: str = "") -> None:
        self.late.append((type_url, tuple(names), timed_out))

    def ads_connected(self, connected: bool) -> None:
        self.states.append(connected)

    def control_plane_identifier(self, identifier: str) -> None:
        self.identifier = identifier

    def log(self, level: str, component: str, message: str) -> None:
        self.lines.append(f"{level} {component} {message}")


class Server:
    """A control plane that a test drives by hand: what came in, what goes out, one queue pair per stream."""

    def __init__(self) -> None:
        self.streams: asyncio.Queue[tuple[asyncio.Queue[Any], asyncio.Queue[Any]]] = asyncio.Queue()
        self.metadata: list[dict[str, Any]] = []

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        incoming: asyncio.Queue[Any] = asyncio.Queue()
        outgoing: asyncio.Queue[Any] = asyncio.Queue()
        await self.streams.put((incoming, outgoing))

        async def read() -> None:
            async for data in requests:
                await incoming.put(json.loads(data))

        reader = asyncio.create_task(read())
        try:
            while (answer := await outgoing.get()) is not None:
                await context.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def next(self) -> tuple[asyncio.Queue[Any], asyncio.Queue[Any]]:
        return await asyncio.wait_for(self.streams.get(), 5)


@contextlib.asynccontextmanager
async def serving(server: Server, port: int = 0) -> AsyncIterator[int]:
    grpc_server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(server.stream)
    generic = grpc.method_handlers_generic_handler(
        SERVICE,
        dict.fromkeys(("StreamAggregatedResources", "DeltaAggregatedResources"), handler),
    )
    grpc_server.add_generic_rpc_handlers((generic,))
    bound = grpc_server.add_insecure_port(f"127.0.0.1:{port}")
    await grpc_server.start()
    try:
        yield bound
    finally:
        await grpc_server.stop(0)


@contextlib.asynccontextmanager
async def running(client: XdsClient) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(client.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, RuntimeError):
            await task


def client_for(plane: Plane, *ports: int) -> XdsClient:
    target = Target(
        "xds-grpc",
        tuple(f"ipv4:127.0.0.1:{port}" for port in ports),
        node=b"node",
        authority="xds-grpc",
        metadata=(("clusterid", "k"),),
    )
    return XdsClient(target, plane, JitteredBackOff(0.05, 0.2))


async def read(incoming: asyncio.Queue[Any]) -> Any:
    return await asyncio.wait_for(incoming.get(), 5)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is a plain list of a stand-in
            await asyncio.sleep(0.01)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scene()

    asyncio.run(bounded())


def test_a_conversation() -> None:
    async def scene() -> None:
        plane, server = Plane(), Server()
        async with serving(server) as port:
            client = client_for(plane, port)
            client.subscribe([Wanted(CDS, (), 0)])
            async with running(client):
                incoming, outgoing = await server.next()
                assert await read(incoming) == [CDS, "", "", [], "", "node"]
                await outgoing.put([CDS, "1", "a", ["c1", "c2"]])
                assert await read(incoming) == [CDS, "1", "a", [], "", ""]
                client.subscribe([Wanted(CDS, (), 0), Wanted(EDS, ("c1", "c2"), 0)])
                assert await read(incoming) == [EDS, "", "", ["c1", "c2"], "", ""]
                await outgoing.put([CDS, "2", "b", ["c1", "bad"]])
                assert await read(incoming) == [CDS, "1", "b", [], "bad: wrong", ""]
        assert [update.version for update in plane.updates] == ["1", "2"]
        assert plane.states[0] is True
        assert plane.identifier == "pilot-1"
        assert server.metadata[0]["clusterid"] == "k"

    play(scene)


def test_the_server_goes_and_comes_back() -> None:
    async def scene() -> None:
        plane, first, second = Plane(), Server(), Server()
        async with serving(first) as port:
            client = client_for(plane, port)
            client.subscribe([Wanted(CDS, (), 0)])
            task = running(client)
            await task.__aenter__()
            incoming, outgoing = await first.next()
            await read(incoming)
            await outgoing.put([CDS, "41", "a", ["c"]])
            await read(incoming)
        await until(lambda: plane.states[-1] is False)
        assert (CDS, (), False) in plane.late
        await asyncio.sleep(0.5)  # several attempts are refused meanwhile
        async with serving(second, port):
            incoming, _ = await second.next()
            assert await read(incoming) == [CDS, "41", "", [], "", "node"]
            await task.__aexit__(None, None, None)

    play(scene)


def test_bytes_that_are_no_message_end_the_stream_only() -> None:
    async def scene() -> None:
        plane, server = Plane(), Server()
        async with serving(server) as port:
            client = client_for(plane, port)
            client.subscribe([Wanted(CDS, (), 0)])
            async with running(client):
                incoming, outgoing = await server.next()
                await read(incoming)
                await outgoing.put(b"garbage")
                incoming, _ = await server.next()
                assert (await read(incoming))[0] == CDS
        assert any("not a DiscoveryResponse" in line for line in plane.lines)

    play(scene)


def test_the_end_of_a_stream_without_an_error_is_an_end_as_well() -> None:
    async def scene() -> None:
        plane, server = Plane(), Server()
        async with serving(server) as port:
            client = client_for(plane, port)
            client.subscribe([Wanted(CDS, (), 0)])
            async with running(client):
                incoming, outgoing = await server.next()
                await read(incoming)
                await outgoing.put(None)
                await server.next()
        assert any("closed by the server" in line for line in plane.lines)

    play(scene)


def test_addresses_are_tried_in_turn() -> None:
    async def scene() -> None:
        plane, server = Plane(), Server()
        async with serving(server) as port:
            client = client_for(plane, 1, port)
            client.subscribe([Wanted(CDS, (), 0)])
            async with running(client):
                incoming, _ = await server.next()
                assert (await read(incoming))[-1] == "node"

    play(scene)


def test_a_bug_in_a_callback_is_the_caller_s_to_count_and_the_next_run_goes_on() -> None:
    async def scene() -> None:
        plane, server = Plane(), Server()
        async with serving(server) as port:
            client = client_for(plane, port)
            client.subscribe([Wanted(CDS, (), 0)])
            async with running(client) as task:
                incoming, outgoing = await server.next()
                await read(incoming)
                plane.fail = True
                await outgoing.put([CDS, "1", "a", ["c"]])
                await asyncio.wait([task], timeout=5)
                assert isinstance(task.exception(), RuntimeError)
            async with running(client):
                incoming, outgoing = await server.next()
                assert await read(incoming) == [CDS, "", "", [], "", "node"]

    play(scene)


def test_silence_is_reported_when_patience_ends() -> None:
    async def scene() -> None:
        plane, server = Plane(), Server()
        async with serving(server) as port:
            client = client_for(plane, port)
            client.subscribe([Wanted(CDS, (), 0.2), Wanted(EDS, ("a",), 0.1)])
            async with running(client):
                await until(lambda: len([each for each in plane.late if each[2]]) == 2)
        assert [each for each in plane.late if each[2]] == [(EDS, ("a",), True), (CDS, (), True)]

    play(scene)


def test_back_off_doubles_to_its_maximum_and_starts_over() -> None:
    back_off = JitteredBackOff(0.5, 3, uniform=lambda: 1.0)
    assert [back_off.next() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    back_off.reset()
    assert back_off.next() == 0.5
