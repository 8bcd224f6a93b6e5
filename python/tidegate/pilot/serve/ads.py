"""The aggregated discovery service on grpc.aio: drives one `Session` per stream.

Each stream wakes up when its proxy says something, when a new snapshot is published, or when the session asks to be
looked at again. However many snapshots are published meanwhile, the stream takes the newest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from google.protobuf.json_format import MessageToDict

from tidegate import xdsapi
from tidegate.pilot.serve.hub import Connection, Hub
from tidegate.pilot.serve.metrics import SHORT
from tidegate.pilot.serve.session import Request, Response
from tidegate.pilot.translate.proxy import BadNodeError, read_node

_log: Final = logging.getLogger(__name__)
_METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
_Request: Final = xdsapi.message(xdsapi.DISCOVERY_REQUEST)
_Response: Final = xdsapi.message(xdsapi.DISCOVERY_RESPONSE)


def _read(message: Any) -> Request:
    detail = message.error_detail
    return Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        version=message.version_info,
        names=tuple(message.resource_names),
        error=(detail.message or f"code {detail.code}") if message.HasField("error_detail") else None,
    )


def _write(response: Response) -> Any:
    return _Response(
        version_info=response.version,
        type_url=response.type_url,
        nonce=response.nonce,
        resources=[{"type_url": response.type_url, "value": value} for value in response.resources],
    )


class AdsService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers `StreamAggregatedResources`, and nothing else."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method != _METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=_Request.FromString,
            response_serializer=_Response.SerializeToString,
        )

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        first = await anext(aiter(requests), None)
        if first is None:
            return
        try:
            metadata = MessageToDict(first.node.metadata, descriptor_pool=xdsapi.pool())
            node = read_node(first.node.id, first.node.cluster, metadata)
        except BadNodeError as error:
            self._hub.metrics.bad_nodes += 1
            _log.warning("ADS: %s: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            return
        connection = self._hub.open(node, context.peer())
        reader = asyncio.create_task(self._read_all(connection, first, requests))
        try:
            await self._write_all(connection, context, reader)
        finally:
            reader.cancel()
            self._hub.close(connection)

    async def _read_all(self, connection: Connection, first: Any, requests: AsyncIterator[Any]) -> None:
        self._receive(connection, first)
        async for message in requests:
            self._receive(connection, message)
        connection.wake.set()

    def _receive(self, connection: Connection, message: Any) -> None:
        request = _read(message)
        if request.type_url not in SHORT:
            # Other types (secrets, names, extensions) are simply not served; an answer would be a lie.
            return
        metrics = self._hub.metrics
        metrics.requests[request.type_url] += 1
        answer = connection.session.receive(request, asyncio.get_running_loop().time())
        if answer is not None:
            metrics.observe_push(answer.type_url, answer.seconds)
            if answer.error is not None:
                metrics.rejects[answer.type_url] += 1
                _log.warning("ADS: %s rejected %s: %s", connection.id, SHORT[answer.type_url], answer.error)
        connection.wake.set()

    async def _write_all(self, connection: Connection, context: Any, reader: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        while not reader.done():
            connection.wake.clear()
            self._hub.refresh(connection)
            responses = connection.session.responses(loop.time())
            for response in responses:
                self._hub.metrics.pushes[response.type_url] += 1
                _log.info(
                    "%s: PUSH for node:%s resources:%d",
                    SHORT[response.type_url].upper(), connection.session.node.proxy_id, len(response.resources),
                )  # fmt: skip
                await context.write(_write(response))
            deadline = connection.session.deadline(loop.time())
            timeout = None if deadline is None else max(0.0, deadline - loop.time())
            try:
                async with asyncio.timeout(timeout):
                    await connection.wake.wait()
            except TimeoutError:
                continue
        if not reader.cancelled() and reader.exception() is not None:
            _log.debug("ADS: %s: %s", connection.id, reader.exception())


async def serve(
    hub: Hub, address: str, credentials: grpc.ServerCredentials | None = None
) -> tuple[grpc.aio.Server, int]:
    """Start serving on `address`, in plain text without credentials; the server and the port it got."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", 16 * 1024 * 1024),
            ("grpc.max_send_message_length", -1),
            # Notice a proxy that vanished without a word, and tolerate the keepalives of those that live.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.http2.max_ping_strikes", 0),
        ]
    )
    server.add_generic_rpc_handlers((AdsService(hub),))
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    await server.start()
    return server, port
