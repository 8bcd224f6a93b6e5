"""HAProxy, configured as one who knows it would: maps for tables, forced splice for bulk."""

from __future__ import annotations

from pathlib import Path

from tidegate.bench.peers.site import Launch, Site
from tidegate.bench.scenarios import VHOST, Case, Table

#: The converter and file per kind of table. A wildcard's first label is cut off, so that a tree answers: `map_dom` and
#: `map_end` search a list.
_LOOKUPS = {
    "exact": "req.hdr(host),lower,map_str({map},none)",
    "wildcard": "req.hdr(host),lower,field(2,.,0),map_str({map},none)",
    "prefix": "path,map_beg({map},none)",
    "header": "req.hdr(x-svc),map_str({map},none)",
    "regex": "path,map_reg({map},none)",
}
_KEYS = {"exact": VHOST, "wildcard": VHOST, "prefix": "/svc-{n}/", "header": "v{n}", "regex": "^/svc-{n}/[a-z0-9]+$"}


def launch(binary: str, case: Case, site: Site) -> Launch:
    config, table = site.directory / "haproxy.cfg", site.directory / "table.map"
    files = {config: _configuration(case, site, table)}
    if case.table:
        files[table] = "".join(f"{_key(case.table, n)} {_backend(case.table, n)}\n" for n in range(case.table.size))
    return Launch((binary, "-db", "-f", str(config)), files)


def _configuration(case: Case, site: Site, table: Path) -> str:
    splice = case.backend in ("sink", "source")
    text = (
        # Splicing wants pipes, hence descriptors, for every connection that there may be.
        f"global\n  nbthread 1\n  maxconn {1000 if splice else 9000}\n"
        # With the usual 16 KiB a body of 64 costs nearly twice as much.
        f"{'  tune.bufsize 65536' if case.backend == 'h2_64k' else ''}\n"
        f"defaults\n  mode {case.protocol}\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
    )
    if case.protocol == "http":
        text += "  option http-keep-alive\n  http-reuse always\n"
    elif splice:
        text += "  option splice-request\n  option splice-response\n"
    bind = f"127.0.0.1:{site.listen}{' proto h2' if case.http2_client else ''}"
    if case.tls:
        bind += f" ssl crt {site.cert_and_key} ssl-min-ver TLSv1.3 ssl-max-ver TLSv1.3 alpn http/1.1"
    text += f"frontend bench\n  bind {bind}\n"
    if case.table is None:
        text += "  default_backend up\n"
    else:
        text += f"  use_backend %[{_LOOKUPS[case.table.match].format(map=table)}]\n"
    names = ["up"]
    if case.table and case.table.of == "clusters":
        names = [_backend(case.table, n) for n in range(case.table.size)]
    server = f"127.0.0.1:{site.upstream}{' proto h2' if case.http2_upstream else ''}"
    return text + "".join(f"backend {name}\n  server s {server}\n" for name in names)


def _key(table: Table, number: int) -> str:
    return _KEYS[table.match].replace("{n}", str(number))


def _backend(table: Table, number: int) -> str:
    return f"up-{number}" if table.of == "clusters" else "up"
