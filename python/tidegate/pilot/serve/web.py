"""The pages of the control plane: readiness, Istio's /debug pages, metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from tidegate.pilot.serve import dumps
from tidegate.pilot.serve.hub import Hub

_PAGES: Final[dict[str, tuple[str, Callable[[Hub], Any]]]] = {
    "adsz": ("what each proxy was sent; ?push=true sends everything again", dumps.adsz),
    "cdsz": ("the clusters each proxy was sent", dumps.cdsz),
    "edsz": ("the endpoints of every cluster", dumps.edsz),
    "syncz": (
        "which versions each proxy has taken up or refused",
        lambda hub: dumps.syncz(hub, asyncio.get_running_loop().time()),
    ),
    "registryz": ("the services of all registries", dumps.registryz),
    "endpointz": ("the endpoints of each service port", dumps.endpointz),
    "configz": ("the resources in force, and the files refused with file, line and field", dumps.configz),
    "push_status": ("conflicts and refusals of the current version", dumps.push_status),
}


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        text=json.dumps(value, indent=2, ensure_ascii=False) + "\n", content_type="application/json", status=status
    )


class _Site:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def ready(self, _: web.Request) -> web.Response:
        if self._hub.ready:
            return web.Response(text="ready\n")
        return web.Response(text="not ready: no registry has been read yet\n", status=503)

    async def index(self, _: web.Request) -> web.Response:
        rows = [f"/debug/{name}\t{about}" for name, (about, _) in _PAGES.items()]
        rows.append(
            "/debug/config_dump?proxyID=NAME.NAMESPACE\twhat one proxy was sent, as its own /config_dump has it"
        )
        return web.Response(text="\n".join([*rows, "/metrics\tPrometheus", "/ready\treadiness"]) + "\n")

    async def page(self, request: web.Request) -> web.Response:
        found = _PAGES.get(request.match_info["page"])
        if found is None:
            return web.Response(text="no such page; see /debug\n", status=404)
        if request.match_info["page"] == "adsz" and request.query.get("push") == "true":
            self._hub.push_all()
            return web.Response(text=f"Pushed to {len(self._hub.connections)} servers\n")
        return _json(found[1](self._hub))

    async def config_dump(self, request: web.Request) -> web.Response:
        proxy_id = request.query.get("proxyID", "")
        if not proxy_id:
            return web.Response(text="You must provide a proxyID in the query string\n", status=400)
        connection = self._hub.find(proxy_id)
        if connection is None:
            return web.Response(text="Proxy not connected to this Pilot instance\n", status=404)
        return _json(dumps.config_dump(connection))

    async def metrics(self, _: web.Request) -> web.Response:
        hub = self._hub
        rejecting = [
            (kind, connection.session.node.proxy_id, next(iter(watch.rejected.values())))
            for connection in hub.connections.values()
            for kind, watch in connection.session.watches.items()
            if watch.rejected
        ]
        gauges = {
            "pilot_xds": ("Proxies connected over xDS.", float(len(hub.connections))),
            "pilot_services": ("Services known.", float(len(hub.snapshot.services))),
            "pilot_virt_services": ("Virtual services in force.", float(len(hub.snapshot.virtual_services))),
            "pilot_rejected_configs": ("Reasons why files are not in force.", float(len(hub.rejections))),
            "pilot_conflicts": ("Resources that contradict others.", float(len(hub.snapshot.conflicts))),
        }
        return web.Response(text=hub.metrics.render(gauges, rejecting), content_type="text/plain")


def application(hub: Hub) -> web.Application:
    """All pages."""
    site = _Site(hub)
    application = web.Application()
    application.add_routes(
        [
            web.get("/", site.index),
            web.get("/ready", site.ready),
            web.get("/healthz", site.ready),
            web.get("/metrics", site.metrics),
            web.get("/debug", site.index),
            web.get("/debug/config_dump", site.config_dump),
            web.get("/debug/{page}", site.page),
        ]
    )
    return application
