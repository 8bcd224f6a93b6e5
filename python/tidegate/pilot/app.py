"""`tidegate discovery`: puts source, snapshot, ADS and pages together, and runs until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Final

import grpc
from aiohttp import web

from tidegate.errors import UsageError
from tidegate.pilot.serve import ads
from tidegate.pilot.serve.certificates import CertificateError, Certificates
from tidegate.pilot.serve.debounce import Debounce
from tidegate.pilot.serve.hub import Hub
from tidegate.pilot.serve.web import application
from tidegate.pilot.services.registry import build_snapshot
from tidegate.pilot.services.snapshot import empty
from tidegate.pilot.settings import DiscoverySettings, discovery_settings
from tidegate.pilot.sources.files import FileSource
from tidegate.settings import environment

_log: Final = logging.getLogger("tidegate.discovery")


class Discovery:
    """The control plane as one object; `start`, then `watch` until cancelled, then `stop`."""

    def __init__(self, settings: DiscoverySettings) -> None:
        self._settings = settings
        self._source = FileSource(settings.config_dir)
        self._refused: frozenset[str] = frozenset()
        self._runners: list[web.AppRunner] = []
        self.hub = Hub(empty(settings.domain), settings.mesh)
        self._servers: list[grpc.aio.Server] = []
        self._certificates = Certificates(settings.cert_dir)
        self._missing = ""
        self.grpc_port = 0
        #: 0 until the certificates are there.
        self.secure_grpc_port = 0
        self.web_ports: list[int] = []

    async def start(self) -> None:
        """Read the registry, then open the ports: nobody is ever served an empty mesh by mistake."""
        await asyncio.to_thread(self._source.scan)
        self._publish()
        try:
            server, self.grpc_port = await ads.serve(self.hub, self._settings.grpc_address)
        except RuntimeError as error:
            raise UsageError("--grpcAddr", f"cannot listen on {self._settings.grpc_address}: {error}") from error
        self._servers.append(server)
        await self._open_secure()
        await self._open("--httpAddr", self._settings.http_address)
        await self._open("--monitoringAddr", self._settings.monitoring_address)
        _log.info(
            "serving xDS on port %d, pages on %s; %d services, %d virtual services from %s",
            self.grpc_port,
            ", ".join(map(str, self.web_ports)) or "no port",
            len(self.hub.snapshot.services),
            len(self.hub.snapshot.virtual_services),
            self._settings.config_dir,
        )

    async def _open_secure(self) -> None:
        """Serve over mutual TLS if that is wanted and the certificates are there; `watch` tries again if not."""
        address = self._settings.secure_grpc_address
        if not address or self.secure_grpc_port:
            return
        try:
            credentials = self._certificates.credentials()
            server, self.secure_grpc_port = await ads.serve(self.hub, address, credentials)
        except (CertificateError, RuntimeError) as error:
            # Of a key that is not the certificate's, grpc only says that there is no port.
            if str(error) != self._missing:
                self._missing = str(error)
                _log.error("no xDS over TLS yet on %s: %s", address, error)
            return
        self._servers.append(server)
        _log.info("serving xDS over mutual TLS on port %d", self.secure_grpc_port)

    async def _open(self, flag: str, address: tuple[str, int] | None) -> None:
        if address is None:
            return
        runner = web.AppRunner(application(self.hub), access_log=None)
        await runner.setup()
        self._runners.append(runner)
        host, port = address
        try:
            await web.TCPSite(runner, host or None, port).start()
        except OSError as error:
            raise UsageError(flag, f"cannot listen on {host}:{port}: {error.strerror}") from error
        self.web_ports.append(runner.addresses[0][1])

    def _publish(self) -> None:
        found = self._source.current()
        self.hub.resources, self.hub.rejections = found.resources, found.rejections
        refused = frozenset(map(str, found.rejections))
        for line in sorted(refused - self._refused):
            _log.error("refused: %s (the last good version stays in force)", line)
        for line in sorted(self._refused - refused):
            _log.info("no longer refused: %s", line)
        self._refused = refused
        if self.hub.publish(build_snapshot(found.resources, self._settings.domain)):
            _log.info("push: version %s to %d proxies", self.hub.generator.version, len(self.hub.connections))

    async def watch(self) -> None:
        """Follow the directory for ever."""
        loop = asyncio.get_running_loop()
        debounce = Debounce(self._settings.debounce_after, self._settings.debounce_max)
        while True:
            due = debounce.due()
            pause = self._settings.poll_interval
            await asyncio.sleep(pause if due is None else max(0.0, min(pause, due - loop.time())))
            try:
                await self._open_secure()
                if await asyncio.to_thread(self._source.scan):
                    debounce.changed(loop.time())
                if debounce.take(loop.time()):
                    self._publish()
            except Exception:
                # Whatever one change does, the mesh goes on with what it has, and the next change gets its chance.
                _log.exception("a change could not be taken up")

    async def stop(self) -> None:
        """Close the ports; proxies keep what they have."""
        for runner in self._runners:
            await runner.cleanup()
        await asyncio.gather(*(server.stop(grace=0.5) for server in self._servers))


async def _run(settings: DiscoverySettings) -> None:
    loop = asyncio.get_running_loop()
    discovery = Discovery(settings)
    try:
        await discovery.start()
        watcher = asyncio.create_task(discovery.watch())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, watcher.cancel)
        await asyncio.wait({watcher})
        _log.info("stopping")
    finally:
        await discovery.stop()


def main(argv: Sequence[str]) -> int:
    """The entry point of `tidegate discovery`."""
    settings = discovery_settings(argv, environment())
    if isinstance(settings, str):
        sys.stdout.write(settings)
        return 0
    level = {"warn": "WARNING", "none": "CRITICAL"}.get(settings.log_level, settings.log_level.upper())
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s.%(msecs)03d\t%(levelname)s\t%(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )  # fmt: skip
    asyncio.run(_run(settings))
    return 0
