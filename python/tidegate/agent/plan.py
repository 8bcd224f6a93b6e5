"""What to run, worked out once: flags and environment in, bootstrap file written, the proxy's command line out.

Reading flags, writing JSON and asking a foreign binary for its help take imports that the agent would then carry in
every pod for ever. So this part runs in a process of its own that ends (`tidegate agent plan FD ...`), and hands the
plan over through a pipe; `app` runs it and stays.
"""

from __future__ import annotations

import json
import os
import socket

from tidegate.agent import log
from tidegate.agent.bootstrap import bootstrap, node_metadata
from tidegate.agent.supervise.command import command, find_binary
from tidegate.errors import ConfigError, UsageError
from tidegate.settings import agent_help, agent_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidegate.settings import AgentSettings

__all__ = ["encode", "plan", "write_plan"]


def write_plan(argv: Sequence[str]) -> int:
    """`tidegate agent plan FD proxy sidecar ...`: what goes to FD is for `app`, a help text goes to stdout."""
    fields = plan(argv[1:])
    if isinstance(fields, str):
        print(fields, end="")
        return 0 if len(argv) > 1 else 1
    with os.fdopen(int(argv[0]), "wb") as pipe:
        pipe.write(encode(fields))
    return 0


def plan(argv: Sequence[str]) -> list[str] | str:
    """The fields of a Plan in the order in which `app` reads them, or a text to print."""
    if not argv or argv[0] in ("-h", "--help"):
        return agent_help()
    if argv[0] != "proxy":
        raise UsageError(argv[0], "the agent knows one command: proxy")
    settings = agent_settings(argv[1:])
    if isinstance(settings, str):
        return settings
    settings = settings.with_ip(settings.ip or _own_address(settings.discovery_host, settings.discovery_port))
    log.info(f"Proxy role: {settings.node_id}")
    binary = find_binary(settings.binary_path)
    config_file = settings.custom_config_file or _write_bootstrap(settings)
    return [
        f"{settings.drain_s:g}",
        str(int(binary.drains_on_sigterm)),
        str(settings.admin_port),
        str(settings.status_port),
        ",".join(map(str, settings.application_ports)),
        *command(settings, binary, config_file, epoch=0),
    ]


def encode(fields: Sequence[str]) -> bytes:
    return "\0".join(fields).encode("utf-8", "surrogateescape")


def _write_bootstrap(settings: AgentSettings) -> str:
    """`envoy-rev0.json`, whole or not at all."""
    try:
        objects = {name: json.loads(text) for name, text in settings.metadata_json}
    except ValueError as error:
        raise UsageError("ISTIO_METAJSON_*", str(error)) from error
    document = bootstrap(settings, node_metadata(settings, objects))
    path = os.path.join(settings.config_path, "envoy-rev0.json")
    try:
        os.makedirs(settings.config_path, 0o700, exist_ok=True)
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
        os.replace(path + ".new", path)
    except OSError as error:
        raise ConfigError(path, "", error.strerror or str(error)) from error
    return path


def _own_address(host: str, port: int) -> str:
    """The address this pod uses towards the discovery service; nothing is sent to find it out."""
    for target in (host, "192.0.2.1"):
        try:
            found = socket.getaddrinfo(target, port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                own: str = probe.getsockname()[0]
                return own
        except OSError:
            continue
    return "127.0.0.1"
