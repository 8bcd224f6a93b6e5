"""The discovery streams of the process: ADS, and one for each secret that has a source of its own.

grpc is imported only where there is a stream to open.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from tidegate.proxy.ads.client import Channels, XdsClient
    from tidegate.proxy.engine import DataPlane, GrpcTarget, OwnStream

__all__ = ["Streams"]


class Streams:
    """Open streams, each a task. `applied`: see `XdsClient`; `guard` runs a task again when it fails."""

    def __init__(
        self,
        plane: DataPlane,
        applied: Callable[[], None],
        guard: Callable[[str, Callable[[], Any]], Coroutine[Any, Any, None]],
    ) -> None:
        self._plane = plane
        self._applied = applied
        self._guard = guard
        self._channels: Channels | None = None
        self._own: dict[tuple[GrpcTarget, tuple[str, ...]], tuple[XdsClient, asyncio.Task[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, name: str, target: GrpcTarget) -> XdsClient:
        """A stream for the life of the process."""
        client = self._client(target, "")
        self._tasks.append(self._run(name, client))
        return client

    def follow(self, wanted: Iterable[OwnStream]) -> None:
        """Opens the streams that are new and ends those that are not wanted any more."""
        present = {(each.target, each.wanted.names): each for each in wanted}
        for key in self._own.keys() - present.keys():
            _, task = self._own.pop(key)
            task.cancel()
        for key, each in present.items():
            if key not in self._own:
                client = self._client(each.target, each.origin)
                client.subscribe([each.wanted])
                self._own[key] = client, self._run(f"{each.origin} {' '.join(each.wanted.names)}", client)

    async def close(self) -> None:
        self._tasks += [task for _, task in self._own.values()]
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _run(self, name: str, client: XdsClient) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._guard(name, client.run))

    def _client(self, target: GrpcTarget, origin: str) -> XdsClient:
        from tidegate.proxy.ads.backoff import JitteredBackOff
        from tidegate.proxy.ads.client import Channels, Target, XdsClient

        if self._channels is None:
            self._channels = Channels()
        interval, timeout = target.http2_keepalive or (0.0, 20.0)
        if not interval and target.tcp_keepalive:
            interval = Target.ping_for_tcp_keepalive(target.tcp_keepalive[1])
        return XdsClient(
            Target(
                cluster=target.cluster,
                addresses=tuple(target.targets),
                node=self._plane.info.node,
                authority=target.authority,
                metadata=tuple(target.initial_metadata),
                connect_timeout=target.connect_timeout,
                ping_interval=interval,
                ping_timeout=timeout,
            ),
            self._plane,
            JitteredBackOff(*target.retry_back_off),
            self._applied,
            delta=target.delta,
            origin=origin,
            channels=self._channels,
        )
