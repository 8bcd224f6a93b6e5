"""Discovery over mutual TLS, over real sockets: who gets in, and certificates that come late or change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from integration.certificates import Authority, Certificate
from tidegate.pilot.app import Discovery
from tidegate.pilot.settings import discovery_settings
from tidegate.pilot.translate.generate import CDS
from unit.pilot.test_serving import MESH, Client

PILOT = "istio-pilot.test"


def _write(directory: Path, authority: Authority, certificate: Certificate) -> None:
    (directory / "key.pem").write_text(certificate.key)
    (directory / "cert-chain.pem").write_text(certificate.chain)
    (directory / "root-cert.pem").write_text(authority.certificate)


def _channel(discovery: Discovery, roots: Authority, own: Certificate | None) -> grpc.aio.Channel:
    key, chain = (own.key.encode(), own.chain.encode()) if own is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(roots.certificate.encode(), key, chain)
    options = [
        ("grpc.ssl_target_name_override", PILOT),
        # Channels that differ in credentials only must not share a connection or a session.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    return grpc.aio.secure_channel(f"127.0.0.1:{discovery.secure_grpc_port}", credentials, options=options)


async def _served(channel: grpc.aio.Channel) -> str:
    async with channel:
        client = Client(channel)
        await client.send(CDS)
        return str((await client.receive()).type_url)


async def _refused(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _served(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_only_clients_with_a_certificate_of_the_authority_are_served(tmp_path: Path) -> None:
    config, certs = tmp_path / "config", tmp_path / "certs"
    config.mkdir()
    certs.mkdir()
    (config / "mesh.yaml").write_text(MESH)
    ours, theirs = Authority("ours"), Authority("theirs")
    argv = ["--configDir", str(config), "--grpcAddr", "127.0.0.1:0", "--secureGrpcAddr", "127.0.0.1:0",
            "--httpAddr", "", "--monitoringAddr", "", "--certDir", str(certs), "--pollInterval", "20ms"]  # fmt: skip
    settings = discovery_settings(argv)
    assert not isinstance(settings, str)

    async def story() -> None:
        discovery = Discovery(settings)
        await discovery.start()
        watcher = asyncio.create_task(discovery.watch())
        assert discovery.grpc_port != 0
        assert discovery.secure_grpc_port == 0
        _write(certs, ours, ours.issue(PILOT))
        async with asyncio.timeout(20):
            while not discovery.secure_grpc_port:  # noqa: ASYNC110 - it looks for files
                await asyncio.sleep(0.02)

        assert await _served(_channel(discovery, ours, ours.issue("a-workload"))) == CDS
        await _refused(_channel(discovery, ours, None))
        await _refused(_channel(discovery, ours, theirs.issue("a-workload")))

        # New certificates, of another authority: for connections from then on.
        _write(certs, theirs, theirs.issue(PILOT))
        assert await _served(_channel(discovery, theirs, theirs.issue("a-workload"))) == CDS
        await _refused(_channel(discovery, theirs, ours.issue("a-workload")))

        # Half of them gone: the last good ones stay.
        (certs / "key.pem").unlink()
        assert await _served(_channel(discovery, theirs, theirs.issue("a-workload"))) == CDS
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        await discovery.stop()

    asyncio.run(story())
