"""`tidegate agent proxy sidecar|router`: write the bootstrap, start the proxy, stay with it."""

from __future__ import annotations

import os
import socket
import sys

from tidegate.agent import log
from tidegate.agent.bootstrap import bootstrap, node_metadata
from tidegate.agent.supervise import Supervisor, command, find_binary
from tidegate.errors import ConfigError, UsageError
from tidegate.settings import agent_help, agent_settings, environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidegate.settings import AgentSettings

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(agent_help())
        return 0 if argv else 1
    if argv[0] != "proxy":
        raise UsageError(argv[0], "the agent knows one command: proxy")
    settings = agent_settings(argv[1:])
    if isinstance(settings, str):
        sys.stdout.write(settings)
        return 0
    settings = settings.with_ip(settings.ip or _own_address(settings.discovery_host, settings.discovery_port))
    log.info(f"Proxy role: {settings.node_id}")
    binary = find_binary(settings.binary_path)
    config_file = settings.custom_config_file or _write_bootstrap(settings)
    if settings.status_port:
        # Imported late: threads stay out of an agent that nobody asks.
        from tidegate.agent.status import StatusServer

        log.info(f"Opening status port {settings.status_port}")
        StatusServer(settings.status_port, settings.admin_port, settings.application_ports).start()
    return Supervisor(
        command(settings, binary, config_file, epoch=0),
        environment(),
        drain_s=settings.drain_s,
        drains_on_sigterm=binary.drains_on_sigterm,
        admin_port=settings.admin_port,
    ).run()


def _write_bootstrap(settings: AgentSettings) -> str:
    """`envoy-rev0.json`, whole or not at all."""
    import json

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
            # As bytes: a string would load the tables of internationalised domain names, a megabyte.
            found = socket.getaddrinfo(target.encode(), port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                own: str = probe.getsockname()[0]
                return own
        except OSError:
            continue
    return "127.0.0.1"
