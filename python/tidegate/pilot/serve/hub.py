"""What is being served right now, and to whom. The streams and the debug pages both look here."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from tidegate.pilot.crd.kinds import Resource
from tidegate.pilot.crd.rejection import Rejection
from tidegate.pilot.serve.config import Generator
from tidegate.pilot.serve.metrics import Metrics
from tidegate.pilot.serve.session import Session
from tidegate.pilot.services.snapshot import MeshSnapshot
from tidegate.pilot.translate.proxy import Node
from tidegate.pilot.translate.settings import MeshSettings

_log: Final = logging.getLogger(__name__)


@dataclass(eq=False)
class Connection:
    """One open stream."""

    id: str
    peer: str
    session: Session
    connected: datetime
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def config_version(self) -> str:
        return self.session.config.version if self.session.config is not None else ""


class Hub:
    """The current generator, the open connections and the metrics. Lives on one event loop."""

    def __init__(self, snapshot: MeshSnapshot, settings: MeshSettings, *, patience: float = 5.0) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.connections: dict[str, Connection] = {}
        self.resources: tuple[Resource, ...] = ()
        self.rejections: tuple[Rejection, ...] = ()
        self.ready = False
        self._patience = patience
        self._count = 0
        self._streams = 0
        self.generator = Generator(snapshot, settings, self._next_version())

    def _next_version(self) -> str:
        self._count += 1
        return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}/{self._count}"

    @property
    def snapshot(self) -> MeshSnapshot:
        return self.generator.snapshot

    def publish(self, snapshot: MeshSnapshot) -> bool:
        """Serve `snapshot` from now on; whether it differs from what was served."""
        self.ready = True
        if snapshot == self.snapshot:
            return False
        self.metrics.config_updates += 1
        self.generator = Generator(snapshot, self.settings, self._next_version())
        for conflict in snapshot.conflicts:
            _log.warning("conflict: %s", conflict)
        self.wake_all()
        return True

    def push_all(self) -> None:
        """Send everything to everybody again."""
        for connection in self.connections.values():
            connection.session.resend_all()
        self.wake_all()

    def wake_all(self) -> None:
        for connection in self.connections.values():
            connection.wake.set()

    def open(self, node: Node, peer: str) -> Connection:
        self._streams += 1
        session = Session(node, self._patience)
        connection = Connection(f"{session.node.id}-{self._streams}", peer, session, datetime.now(UTC))
        self.connections[connection.id] = connection
        _log.info("ADS: new connection for node %s from %s", connection.id, peer)
        return connection

    def close(self, connection: Connection) -> None:
        self.connections.pop(connection.id, None)
        _log.info("ADS: connection for node %s closed", connection.id)

    def refresh(self, connection: Connection) -> None:
        """Give the connection's session the configuration of the current snapshot, unless it has it."""
        if connection.config_version != self.generator.version:
            connection.session.offer(self.generator.config(connection.session.node))

    def find(self, proxy_id: str) -> Connection | None:
        """The newest connection of a proxy, by `name.namespace` or whole node id."""
        for connection in reversed(self.connections.values()):
            if proxy_id in (connection.session.node.proxy_id, connection.session.node.id, connection.id):
                return connection
        return None
