"""nginx, configured as one who knows it would: kept-alive upstreams, a server per virtual host, hashes large enough."""

from __future__ import annotations

from pathlib import Path

from tidegate.bench.peers.site import Launch, Site
from tidegate.bench.scenarios import VHOST, Case, Table
from tidegate.peer import PeerMissing

_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
#: The only way to an HTTP/2 upstream; it serves for requests that are no gRPC just as well.
_GRPC = "grpc_pass grpc://up; grpc_read_timeout 1h; grpc_send_timeout 1h;"


def _pass(upstream: str) -> str:
    return f'proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_set_header Connection "";'


def launch(binary: str, case: Case, site: Site) -> Launch:
    config = site.directory / "nginx.conf"
    block = _http(case, site) if case.protocol == "http" else _stream(site)
    module = f"load_module {_MODULE};\n" if case.protocol == "tcp" else ""
    text = (
        f"{module}daemon off;\nworker_processes 1;\npid {site.directory}/nginx.pid;\n"
        f"error_log {site.directory}/error.log;\nworker_rlimit_nofile 20000;\n"
        f"events {{ worker_connections 18000; }}\n{block}"
    )
    return Launch((binary, "-p", str(site.directory), "-c", str(config)), {config: text})


def _stream(site: Site) -> str:
    if not _MODULE.exists():
        raise PeerMissing("nginx has no stream module here (Debian: libnginx-mod-stream)")
    return f"stream {{ server {{ listen 127.0.0.1:{site.listen}; proxy_pass 127.0.0.1:{site.upstream}; }} }}\n"


def _http(case: Case, site: Site) -> str:
    temp = "".join(f"  {k}_temp_path {site.directory};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return (
        "http {\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n"
        "  client_max_body_size 0;\n  proxy_request_buffering off;\n"
        "  server_names_hash_max_size 262144;\n  server_names_hash_bucket_size 128;\n"
        f"  map_hash_max_size 65536;\n  map_hash_bucket_size 128;\n{temp}"
        f"{_upstreams(case.table, site.upstream)}{_tls(site) if case.tls else ''}{_servers(case, site.listen)}}}\n"
    )


def _tls(site: Site) -> str:
    return f"  ssl_certificate {site.cert};\n  ssl_certificate_key {site.key};\n  ssl_protocols TLSv1.3;\n"


def _upstreams(table: Table | None, port: int) -> str:
    names = ["up"]
    if table and table.of == "clusters":
        names = [f"up-{n}" for n in range(table.size)]
    keep = "keepalive 256; keepalive_requests 1000000000;"
    return "".join(f"  upstream {name} {{ server 127.0.0.1:{port}; {keep} }}\n" for name in names)


def _servers(case: Case, port: int) -> str:
    table = case.table
    listen = f"listen 127.0.0.1:{port}{' http2' if case.http2_client else ''}{' ssl' if case.tls else ''};"
    if table is None:
        to = _GRPC if case.http2_upstream else _pass("up")
        return f"  server {{ {listen} location / {{ {to} }} }}\n"
    if table.of != "routes":
        star = "*." if table.match == "wildcard" else ""
        return "".join(
            f"  server {{ {listen} server_name {star}{VHOST.format(n=n)};"
            f" location / {{ {_pass(f'up-{n}' if table.of == 'clusters' else 'up')} }} }}\n"
            for n in range(table.size)
        )
    if table.match == "header":
        entries = "".join(f" v{n} up;" for n in range(table.size))
        return (
            f"  map $http_x_svc $target {{ default none;{entries} }}\n"
            f"  server {{ {listen} location / {{ {_pass('$target')} }} }}\n"
        )
    pattern = "/svc-{}/" if table.match == "prefix" else "~ ^/svc-{}/[a-z0-9]+$"
    locations = "".join(f"    location {pattern.format(n)} {{ {_pass('up')} }}\n" for n in range(table.size))
    return f"  server {{ {listen}\n{locations}  }}\n"
