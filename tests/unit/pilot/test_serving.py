"""Discovery as a whole, over real sockets: the stream, pushes on a file change, the pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from tidegate import xdsapi
from tidegate.errors import UsageError
from tidegate.pilot.app import Discovery
from tidegate.pilot.settings import discovery_help, discovery_settings
from tidegate.pilot.translate.generate import CDS, EDS, LDS, RDS

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
MESH = """\
apiVersion: v1
kind: Service
metadata: {name: details}
spec:
  clusterIP: 10.0.0.1
  ports: [{name: http, port: 9080}]
---
apiVersion: v1
kind: Endpoints
metadata: {name: details}
subsets: [{addresses: [{ip: 10.1.0.1}], ports: [{name: http, port: 9080}]}]
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: details}
spec:
  hosts: [details]
  http: [{timeout: %s, route: [{destination: {host: details}}]}]
"""


class Client:
    """A proxy reduced to its stream."""

    def __init__(
        self, channel: Any, node: str = "sidecar~10.1.0.1~details-v1.default~default.svc.cluster.local"
    ) -> None:
        request, response = (xdsapi.message(name) for name in (xdsapi.DISCOVERY_REQUEST, xdsapi.DISCOVERY_RESPONSE))
        self._request = request
        self.node = node
        self.stream = channel.stream_stream(
            METHOD, request_serializer=request.SerializeToString, response_deserializer=response.FromString
        )()

    async def send(self, kind: str, *names: str, answering: Any = None, error: str = "") -> None:
        message = self._request(type_url=kind, resource_names=names, node={"id": self.node})
        if answering is not None:
            message.response_nonce, message.version_info = answering.nonce, answering.version_info
        if error:
            message.error_detail.message = error
        await self.stream.write(message)

    async def receive(self) -> Any:
        async with asyncio.timeout(10):
            return await self.stream.read()

    async def converse(self) -> dict[str, Any]:
        """Subscribe as Envoy does; the first response of every type."""
        found: dict[str, Any] = {}
        await self.send(CDS)
        found[CDS] = await self.receive()
        await self.send(CDS, answering=found[CDS])
        clusters = [xdsapi.any_unpack(packed) for packed in found[CDS].resources]
        names = [cluster.name for cluster in clusters if cluster.HasField("eds_cluster_config")]
        await self.send(EDS, *names)
        found[EDS] = await self.receive()
        await self.send(EDS, *names, answering=found[EDS])
        await self.send(LDS)
        found[LDS] = await self.receive()
        await self.send(LDS, answering=found[LDS])
        await self.send(RDS, "9080")
        found[RDS] = await self.receive()
        await self.send(RDS, "9080", answering=found[RDS])
        return found


class World:
    def __init__(self, directory: Path, discovery: Discovery, channel: Any) -> None:
        self.directory, self.discovery, self.channel = directory, discovery, channel

    async def page(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.discovery.web_ports[0]}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()

    async def json(self, path: str) -> Any:
        status, text = await self.page(path)
        assert status == 200
        return json.loads(text)

    async def eventually(self, what: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(10):
            while not await what():  # noqa: ASYNC110 - what is waited for happens in another process or page
                await asyncio.sleep(0.02)


def run(directory: Path, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    """`story` against a discovery that serves `directory`."""

    async def main() -> None:
        async for world in _world(directory):
            await story(world)

    asyncio.run(main())


async def _world(directory: Path) -> AsyncIterator[World]:
    argv = ["--configDir", str(directory), "--grpcAddr", "127.0.0.1:0", "--httpAddr", "", "--monitoringAddr",
            "127.0.0.1:0", "--pollInterval", "20ms", "--debounceAfter", "20ms"]  # fmt: skip
    settings = discovery_settings(argv)
    assert not isinstance(settings, str)
    discovery = Discovery(settings)
    await discovery.start()
    watcher = asyncio.create_task(discovery.watch())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{discovery.grpc_port}") as channel:
        yield World(directory, discovery, channel)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    await discovery.stop()


def test_a_stream_from_the_first_request_to_a_rule_change(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH)

    async def story(world: World) -> None:
        client = Client(world.channel)
        found = await client.converse()
        names = {kind: [xdsapi.any_unpack(one) for one in response.resources] for kind, response in found.items()}
        assert {c.name for c in names[CDS]} == {
            "outbound|9080||details.default.svc.cluster.local", "inbound|9080||details.default.svc.cluster.local",
            "BlackHoleCluster", "PassthroughCluster",
        }  # fmt: skip
        assert [listener.name for listener in names[LDS]] == ["virtual", "10.1.0.1_9080", "0.0.0.0_9080"]

        async def settled() -> bool:
            (row,) = await world.json("/debug/syncz")
            return bool(row["version"] == (await world.json("/debug/push_status"))["version"])

        await world.eventually(settled)
        (world.directory / "rule.yaml").write_text(RULE % "7s")
        pushed = await client.receive()
        assert pushed.type_url == RDS
        (routes,) = [xdsapi.any_unpack(one) for one in pushed.resources]
        assert routes.virtual_hosts[0].routes[0].route.timeout.seconds == 7
        assert pushed.version_info != found[RDS].version_info

        await client.send(RDS, "9080", answering=pushed, error="no such thing")

        async def told() -> bool:
            _, text = await world.page("/metrics")
            return 'pilot_xds_rds_reject{node="details-v1.default",err="no such thing"} 1' in text

        await world.eventually(told)
        (row,) = await world.json("/debug/syncz")
        assert (row["route_state"], row["route_rejected"], row["version"]) == ("ERROR", "no such thing", "")
        await client.stream.done_writing()

    run(tmp_path, story)


def test_a_bad_rule_file_changes_nothing_and_is_shown(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH)
    (tmp_path / "rule.yaml").write_text(RULE % "7s")

    async def story(world: World) -> None:
        before = (await world.json("/debug/push_status"))["version"]
        (world.directory / "rule.yaml").write_text(RULE % "seven")

        async def refused() -> bool:
            return bool((await world.json("/debug/configz"))["rejected"])

        await world.eventually(refused)
        found = await world.json("/debug/configz")
        (rejected,) = found["rejected"]
        assert (rejected["file"], rejected["line"]) == ("rule.yaml", 6)
        assert rejected["field"] == "spec.http[0].timeout"
        (rule,) = [one for one in found["configs"] if one["kind"] == "VirtualService"]
        assert rule["spec"]["http"][0]["timeout"] == "7s"
        assert (await world.json("/debug/push_status"))["version"] == before
        assert "pilot_rejected_configs 1" in (await world.page("/metrics"))[1]

    run(tmp_path, story)


def test_the_pages(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH)

    async def story(world: World) -> None:
        client = Client(world.channel)
        await client.converse()
        assert await world.page("/ready") == (200, "ready\n")
        (assignment,) = await world.json("/debug/edsz")
        assert assignment["clusterName"] == "outbound|9080||details.default.svc.cluster.local"
        socket = assignment["endpoints"][0]["lbEndpoints"][0]["endpoint"]["address"]["socketAddress"]
        assert socket == {"address": "10.1.0.1", "portValue": 9080}
        (sent,) = await world.json("/debug/adsz")
        assert [len(sent[part]) for part in ("listeners", "RDSRoutes", "clusters")] == [3, 1, 4]
        assert len((await world.json("/debug/cdsz"))[0]["Clusters"]) == 4
        assert [one["hostname"] for one in await world.json("/debug/registryz")] == [
            "details.default.svc.cluster.local"
        ]
        assert (await world.json("/debug/endpointz"))[0]["ep"][0]["endpoint"] == {"Address": "10.1.0.1", "Port": 9080}
        dump = await world.json("/debug/config_dump?proxyID=details-v1.default")
        assert [one["@type"].rpartition(".")[2] for one in dump["configs"]] == [
            "ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump", "EndpointsConfigDump",
        ]  # fmt: skip
        assert dump["configs"][1]["dynamic_listeners"][0]["active_state"]["listener"]["use_original_dst"] is True
        assert (await world.page("/debug/config_dump"))[0] == 400
        assert (await world.page("/debug/config_dump?proxyID=nobody.default"))[0] == 404
        assert (await world.page("/debug/nothing"))[0] == 404
        assert "/debug/adsz" in (await world.page("/debug"))[1]
        assert (await world.page("/debug/adsz?push=true"))[1] == "Pushed to 1 servers\n"
        assert (await client.receive()).type_url == CDS
        await client.stream.done_writing()

    run(tmp_path, story)


def test_a_node_id_that_means_nothing_ends_the_stream(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        client = Client(world.channel, node="who?")
        await client.send(CDS)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.receive()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "type~IP~name.namespace~domain" in (caught.value.details() or "")

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], "--configDir: is required"),
        (["--configDir", "/no/such/directory"], "is not a directory"),
        (["--configDir", ".", "--grpcAddr", "15010"], "'15010' is not host:port or :port"),
        (["--configDir", ".", "--registries", "Kubernetes"], "only files are read"),
        (["--configDir", ".", "--secureGrpcAddr", "15011"], "--secureGrpcAddr: '15011' is not host:port or :port"),
        (["--configDir", ".", "--log_output_level", "loud"], "'loud' is not one of"),
        (["serve", "--configDir", "."], "serve: not a flag"),
    ],
)
def test_command_lines_refused(argv: list[str], wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        discovery_settings(argv)
    assert wanted in str(caught.value)


def test_istios_own_command_line_is_understood(tmp_path: Path) -> None:
    mesh = tmp_path / "mesh"
    mesh.write_text("outboundTrafficPolicy: {mode: ALLOW_ANY}\nconnectTimeout: 10s\nh2UpgradePolicy: UPGRADE\n")
    settings = discovery_settings(
        ["discovery", f"--configDir={tmp_path}", "--log_output_level=default:warn,ads:debug", "--meshConfig", str(mesh),
         "--domain", "cluster.local", "--discovery_cache=true"],
    )  # fmt: skip
    assert not isinstance(settings, str)
    assert (settings.log_level, settings.grpc_address, settings.monitoring_address) == (
        "warn",
        "[::]:15010",
        ("", 9093),
    )
    assert (settings.mesh.outbound_traffic_policy, settings.mesh.h2_upgrade_policy) == ("ALLOW_ANY", "UPGRADE")
    assert "--configDir" in discovery_help()


def test_the_secure_address_has_two_names() -> None:
    for flag in ("--secureGrpcAddr", "--secureGRPCAddr"):
        settings = discovery_settings(["--configDir", ".", f"{flag}=:15011"])
        assert not isinstance(settings, str)
        assert (settings.secure_grpc_address, settings.cert_dir) == ("[::]:15011", Path("/etc/certs"))
    settings = discovery_settings(["--configDir", ".", "--secureGrpcAddr", ""], {"PILOT_CERT_DIR": "/certs"})
    assert not isinstance(settings, str)
    assert (settings.secure_grpc_address, settings.cert_dir) == ("", Path("/certs"))
