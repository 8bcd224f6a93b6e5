"""The proxies under test: how each is found, configured for one case with one worker, and started.

Must not know how they are measured.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.bench.scenarios import Case
from tidegate.peer import PeerMissing, envoy_binary


@dataclass(frozen=True)
class Launch:
    """A command line, and the files it reads (path -> text)."""

    argv: tuple[str, ...]
    files: dict[Path, str]


def envoy_bootstrap(case: Case, listen: int, upstream: int, admin: int) -> dict[str, Any]:
    """One listener, one STATIC cluster; the HTTP cases with the router filter and no access log."""
    if case.protocol == "http":
        chain: dict[str, Any] = {
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": (
                    "type.googleapis.com/envoy.extensions.filters.network"
                    ".http_connection_manager.v3.HttpConnectionManager"
                ),
                "stat_prefix": "bench",
                "route_config": {
                    "name": "bench",
                    "virtual_hosts": [
                        {
                            "name": "all",
                            "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
                        }
                    ],
                },
                "http_filters": [
                    {
                        "name": "envoy.filters.http.router",
                        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                    }
                ],
            },
        }
    else:
        chain = {
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "bench",
                "cluster": "up",
            },
        }
    return {
        "node": {"id": "bench", "cluster": "bench"},
        "admin": {"address": _socket(admin)},
        "static_resources": {
            "listeners": [{"name": "bench", "address": _socket(listen), "filter_chains": [{"filters": [chain]}]}],
            "clusters": [
                {
                    "name": "up",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "load_assignment": {
                        "cluster_name": "up",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(upstream)}}]}],
                    },
                }
            ],
        },
    }


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _like_envoy(binary: str, case: Case, listen: int, upstream: int, admin: int, directory: Path) -> Launch:
    config = directory / "bootstrap.json"
    argv = (binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning")
    return Launch(argv, {config: json.dumps(envoy_bootstrap(case, listen, upstream, admin))})


def _haproxy(binary: str, case: Case, listen: int, upstream: int, _admin: int, directory: Path) -> Launch:
    mode = "http" if case.protocol == "http" else "tcp"
    extra = "  option http-keep-alive\n  http-reuse always\n" if mode == "http" else ""
    text = (
        "global\n  nbthread 1\n  maxconn 9000\n"
        f"defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        f"listen bench\n  bind 127.0.0.1:{listen}\n{extra}  server up 127.0.0.1:{upstream}\n"
    )
    config = directory / "haproxy.cfg"
    return Launch((binary, "-db", "-f", str(config)), {config: text})


def _nginx(binary: str, case: Case, listen: int, upstream: int, _admin: int, directory: Path) -> Launch:
    config = directory / "nginx.conf"
    temp = "".join(f"  {k}_temp_path {directory};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    if case.protocol == "http":
        block = (
            "http {\n  access_log off;\n  keepalive_requests 1000000000;\n  client_max_body_size 0;\n"
            f"  proxy_request_buffering off;\n{temp}"
            f"  upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}\n"
            f"  server {{ listen 127.0.0.1:{listen}; location / {{ proxy_pass http://up; proxy_http_version 1.1;"
            ' proxy_set_header Connection ""; } }\n}\n'
        )
    else:
        module = next(Path("/usr/lib/nginx/modules").glob("ngx_stream_module.so"), None)
        if module is None:
            raise PeerMissing("nginx has no stream module here (Debian: libnginx-mod-stream)")
        block = f"stream {{ server {{ listen 127.0.0.1:{listen}; proxy_pass 127.0.0.1:{upstream}; }} }}\n"
    load = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n" if case.protocol == "tcp" else ""
    text = (
        f"{load}daemon off;\nworker_processes 1;\npid {directory}/nginx.pid;\nerror_log {directory}/error.log;\n"
        f"events {{ worker_connections 8192; }}\n{block}"
    )
    return Launch((binary, "-p", str(directory), "-c", str(config)), {config: text})


NAMES = ("direct", "tidegate", "envoy", "haproxy", "nginx")


def launch(name: str, case: Case, listen: int, upstream: int, admin: int, directory: Path) -> Launch:
    """How to start peer `name` for `case`; `PeerMissing` if it is not installed."""
    if name == "tidegate":
        return _like_envoy(_tidegate(), case, listen, upstream, admin, directory)
    if name == "envoy":
        return _like_envoy(envoy_binary(), case, listen, upstream, admin, directory)
    if name == "haproxy":
        return _haproxy(_which("haproxy"), case, listen, upstream, admin, directory)
    if name == "nginx":
        return _nginx(_which("nginx"), case, listen, upstream, admin, directory)
    raise KeyError(name)


def _which(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if not found:
        raise PeerMissing(f"{name} is not installed (Debian: apt-get install {name})")
    return found


def _tidegate() -> str:
    beside = Path(sys.executable).with_name("tidegate-proxy")
    return str(beside) if beside.exists() else _which("tidegate-proxy")


def native_tool(name: str) -> str:
    """`tg-load` or `tg-backend`, built with the workspace and installed beside this module."""
    found = Path(__file__).with_name("bin") / name
    if not found.exists():
        raise PeerMissing(f"{name} is not built; run `make build`")
    return str(found)
