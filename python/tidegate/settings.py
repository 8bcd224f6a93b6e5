"""Every flag and environment variable of the sidecar's commands, turned into frozen settings.

The one file that reads the environment. A command calls its function here (`proxy_settings`, `agent_settings`,
`iptables_settings`) and hands the result on; nothing below a command's `app` ever looks at a flag or a variable again.
The tables say what a flag means, why an accepted flag has no effect, and why a known flag is refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from tidegate.errors import UsageError
from tidegate.flags import Flag, Parsed, help_text, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, Literal

    Mode = Literal["serve", "validate", "init_only"]
    Role = Literal["sidecar", "router"]

__all__ = [
    "AgentSettings",
    "IptablesSettings",
    "ProxySettings",
    "agent_help",
    "agent_settings",
    "environment",
    "iptables_help",
    "iptables_settings",
    "proxy_help",
    "proxy_settings",
]


def environment() -> Mapping[str, str]:
    """The process's environment: for handing to a child, or for a command that has variables of its own."""
    return os.environ


# --- tidegate proxy --------------------------------------------------------------------------------------------------

_NO_SHARED_MEMORY: Final = "there is no shared memory between proxies that an id would keep apart"
_NO_HOT_RESTART: Final = "belongs to hot restart, which this version does not do"

PROXY_FLAGS: Final = (
    Flag("--config-path", "bootstrap file: .yaml, .json, .pb or .pb_text, anything else is tried as YAML", short="-c"),
    Flag("--config-yaml", "bootstrap as text, merged over --config-path"),
    Flag("--mode", "serve; validate the configuration and exit; or start, wait until initialised and exit",
         "serve", choices=("serve", "validate", "init_only")),
    Flag("--concurrency", "worker threads; 0 = one per usable hardware thread", 0, "uint"),
    Flag("--service-cluster", "node.cluster, unless the bootstrap has it"),
    Flag("--service-node", "node.id, unless the bootstrap has it"),
    Flag("--service-zone", "node.locality.zone, unless the bootstrap has it"),
    Flag("--log-level", "level of the process's own log", "info", short="-l",
         choices=("trace", "debug", "info", "warning", "warn", "error", "critical", "off")),
    Flag("--component-log-level", "levels of single components: upstream:debug,config:trace"),
    Flag("--log-format", "line format of the process's own log, in spdlog's syntax"),
    Flag("--log-format-escaped", "escape C-style sequences in log messages", False, "switch"),
    Flag("--log-path", "write the process's own log to this file instead of stderr"),
    Flag("--drain-time-s", "at most so long do connections get to end, when a listener goes or the process stops (when "
         "not given, a stopping process waits 5 s)", 600, "uint"),
    Flag("--drain-strategy", "ask connections to end one after the other over the drain time, or all at once",
         "gradual", choices=("gradual", "immediate")),
    Flag("--parent-shutdown-time-s", "when the old process of a hot restart ends", 900, "uint"),
    Flag("--restart-epoch", "0; higher numbers are hot restarts", 0, "uint"),
    Flag("--base-id", "shown by the admin interface", 0, "uint"),
    Flag("--base-id-path", "file to write the base id to"),
    Flag("--admin-address-path", "file to write the admin address to, once bound"),
    Flag("--local-address-ip-version", "family of the address reported as local", "v4", choices=("v4", "v6")),
    Flag("--file-flush-interval-msec", "access logs reach their files at least so often", 10000, "uint"),
    Flag("--file-flush-min-size-kb", "... and whenever so much has gathered", 64, "uint"),
    Flag("--busy-poll-us", "a worker polls so long before it sleeps: lone answers come sooner, for up to "
         "twice the CPU time at moderate load (0: never; tidegate only)", 0, "uint"),
    Flag("--allow-unknown-static-fields", "warn about unknown bootstrap fields instead of refusing", False, "switch"),
    Flag("--allow-unknown-fields", "the older name of --allow-unknown-static-fields", False, "switch"),
    Flag("--reject-unknown-dynamic-fields", "refuse resources with unknown fields", False, "switch"),
    Flag("--ignore-unknown-dynamic-fields", "do not even warn about unknown fields in resources", False, "switch"),
    Flag("--skip-deprecated-logs", "do not warn about deprecated fields", False, "switch"),
    Flag("--enable-core-dump", "lift the core file limit", False, "switch"),
    Flag("--hot-restart-version", "print the hot restart compatibility version and exit", False, "switch"),
    Flag("--version", "print the version and exit", False, "switch"),
    Flag("--help", "this page", False, "switch", short="-h"),
    Flag("--disable-hot-restart", "", False, "switch", unused=_NO_HOT_RESTART),
    Flag("--use-dynamic-base-id", "", False, "switch", unused=_NO_SHARED_MEMORY),
    Flag("--skip-hot-restart-parent-stats", "", False, "switch", unused=_NO_HOT_RESTART),
    Flag("--skip-hot-restart-on-no-parent", "", False, "switch", unused=_NO_HOT_RESTART),
    Flag("--socket-path", "", unused=_NO_HOT_RESTART),
    Flag("--socket-mode", "", unused=_NO_HOT_RESTART),
    Flag("--cpuset-threads", "", False, "switch", unused="the default number of workers always honours the cpuset"),
    Flag("--enable-mutex-tracing", "", False, "switch", unused="workers share no lock to be traced"),
    Flag("--enable-fine-grain-logging", "", False, "switch", unused="levels are kept per component, not per file"),
    Flag("--log-stacktrace-single-entry", "", False, "switch", unused="a crash is one entry anyway"),
    Flag("--max-obj-name-len", "", 60, "uint", unused="an Istio 1.0 flag; names have no length limit"),
    Flag("--max-stats", "", 16384, "uint", unused="an Istio 0.x flag; statistics have no fixed table"),
    Flag("--v2-config-only", "", False, "switch", unused="an Istio 1.0 flag; v1 configuration was never understood"),
    Flag("--bootstrap-version", "", 3, "uint", unused="v2 and v3 bootstraps are told apart by their content"),
    Flag("--disable-extensions", "", rejected="extensions cannot be switched off"),
    Flag("--stats-tag", "", kind="list", rejected="fixed stat tags are not supported"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What `tidegate proxy` was asked for."""

    config_path: str
    config_yaml: str
    mode: Mode
    concurrency: int
    service_cluster: str
    service_node: str
    service_zone: str
    log_level: str
    component_log_level: str
    log_format: str
    log_format_escaped: bool
    log_path: str
    drain_time_s: int
    stop_drain_s: float
    drain_strategy: Literal["gradual", "immediate"]
    parent_shutdown_time_s: int
    base_id: int
    base_id_path: str
    admin_address_path: str
    local_address_ip_version: Literal["v4", "v6"]
    file_flush_interval_msec: int
    file_flush_min_size_kb: int
    busy_poll_us: int
    allow_unknown_static_fields: bool
    reject_unknown_dynamic_fields: bool
    ignore_unknown_dynamic_fields: bool
    skip_deprecated_logs: bool
    disable_hot_restart: bool
    enable_core_dump: bool


# How long a process that was told to stop waits for connections when no --drain-time-s said otherwise. Envoy's
# default of 600 s is meant for hot restarts; a pod has 30 s to end, and Istio's agent gives its proxy 5.
_STOP_DRAIN_S: Final = 5.0


def proxy_help() -> str:
    return help_text(
        "tidegate proxy -c FILE [flags]   (also installed as tidegate-proxy)",
        "The data plane. Takes Envoy's command line and bootstrap, v3 or the v2 of Istio 1.0.",
        PROXY_FLAGS,
    )


def proxy_settings(argv: Sequence[str]) -> ProxySettings | str:
    """The settings, or the text to print when the line only asks for one (`--help`, `--version`, ...)."""
    parsed = parse(PROXY_FLAGS, argv, repeated=False)
    if parsed.switch("help"):
        return proxy_help()
    if parsed.switch("version"):
        return "version"
    if parsed.switch("hot-restart-version"):
        return "disabled\n"
    if parsed.positional:
        raise UsageError(parsed.positional[0], "not a flag, and there are no arguments")
    if not (parsed.text("config-path") or parsed.text("config-yaml")):
        raise UsageError("", "at least one of --config-path or --config-yaml should be non-empty")
    if parsed.number("restart-epoch") > 0:
        raise UsageError("--restart-epoch", "hot restart is not supported; only epoch 0 can be started")
    drain = parsed.number("drain-time-s")
    return ProxySettings(
        config_path=parsed.text("config-path"),
        config_yaml=parsed.text("config-yaml"),
        mode=_mode(parsed.text("mode")),
        concurrency=parsed.number("concurrency"),
        service_cluster=parsed.text("service-cluster"),
        service_node=parsed.text("service-node"),
        service_zone=parsed.text("service-zone"),
        log_level=parsed.text("log-level").replace("warning", "warn").replace("warn", "warning"),
        component_log_level=parsed.text("component-log-level"),
        log_format=parsed.text("log-format"),
        log_format_escaped=parsed.switch("log-format-escaped"),
        log_path=parsed.text("log-path"),
        drain_time_s=drain,
        stop_drain_s=float(drain) if "drain-time-s" in parsed.given else _STOP_DRAIN_S,
        drain_strategy="immediate" if parsed.text("drain-strategy") == "immediate" else "gradual",
        parent_shutdown_time_s=parsed.number("parent-shutdown-time-s"),
        base_id=parsed.number("base-id"),
        base_id_path=parsed.text("base-id-path"),
        admin_address_path=parsed.text("admin-address-path"),
        local_address_ip_version="v6" if parsed.text("local-address-ip-version") == "v6" else "v4",
        file_flush_interval_msec=parsed.number("file-flush-interval-msec"),
        file_flush_min_size_kb=parsed.number("file-flush-min-size-kb"),
        busy_poll_us=parsed.number("busy-poll-us"),
        allow_unknown_static_fields=parsed.switch("allow-unknown-static-fields")
        or parsed.switch("allow-unknown-fields"),
        reject_unknown_dynamic_fields=parsed.switch("reject-unknown-dynamic-fields"),
        ignore_unknown_dynamic_fields=parsed.switch("ignore-unknown-dynamic-fields"),
        skip_deprecated_logs=parsed.switch("skip-deprecated-logs"),
        disable_hot_restart=parsed.switch("disable-hot-restart"),
        enable_core_dump=parsed.switch("enable-core-dump"),
    )


def _mode(text: str) -> Mode:
    if text == "validate":
        return "validate"
    return "init_only" if text == "init_only" else "serve"


# --- tidegate agent --------------------------------------------------------------------------------------------------

_NO_TEMPLATES: Final = "Go templates are not supported; give a finished bootstrap with --customConfigFile"

AGENT_FLAGS: Final = (
    Flag("--serviceregistry", "platform, decides the defaults of --ip, --id and --domain", "Kubernetes",
         choices=("Kubernetes", "Consul", "CloudFoundry", "Mock", "Config")),
    Flag("--ip", "proxy IP address; else the address towards the discovery service", env="INSTANCE_IP"),
    Flag("--id", "proxy unique ID; else ${POD_NAME}.${POD_NAMESPACE}"),
    Flag("--domain", "DNS domain suffix; else ${POD_NAMESPACE}.svc.cluster.local"),
    Flag("--statusPort", "serve /healthz/ready on this port; 0 = off", 0, "port"),
    Flag("--applicationPorts", "ready only once one of these ports has an inbound listener", (), "list"),
    Flag("--configPath", "directory for the generated bootstrap", "/etc/istio/proxy"),
    Flag("--binaryPath", "the proxy to run; ours when not given, Envoy just as well"),
    Flag("--serviceCluster", "service cluster", "istio-proxy"),
    Flag("--availabilityZone", "availability zone"),
    Flag("--drainDuration", "how long connections get to end", 2.0, "seconds"),
    Flag("--parentShutdownDuration", "when the old process of a hot restart ends", 3.0, "seconds"),
    Flag("--discoveryAddress", "discovery service, host:port; Istio 1.0's HTTP ports 15003, 15007 and 8080 stand "
         "for its gRPC port 15010", "istio-pilot:15007"),
    Flag("--discoveryRefreshDelay", "written into the bootstrap; a stream is never polled", 1.0, "seconds"),
    Flag("--zipkinAddress", "zipkin, host:port; tracing is configured only when given"),
    Flag("--connectTimeout", "time to connect to the discovery service", 1.0, "seconds"),
    Flag("--statsdUdpAddress", "statsd, host:port; the sink is configured only when given"),
    Flag("--proxyAdminPort", "port of the proxy's admin interface, on 127.0.0.1", 15000, "port"),
    Flag("--controlPlaneAuthPolicy", "authentication towards the discovery service", "NONE",
         choices=("NONE", "MUTUAL_TLS")),
    Flag("--customConfigFile", "run the proxy with this bootstrap instead of a generated one"),
    Flag("--proxyLogLevel", "log level of the proxy", "warn",
         choices=("trace", "debug", "info", "warn", "warning", "err", "error", "critical", "off")),
    Flag("--proxyComponentLogLevel", "log levels of the proxy's components"),
    Flag("--concurrency", "worker threads of the proxy; 0 = one per hardware thread", 0, "uint"),
    Flag("--help", "this page", False, "switch", short="-h"),
    Flag("--bootstrapv2", "", True, "switch", unused="every bootstrap is v3; v1 is gone"),
    Flag("--disableInternalTelemetry", "", False, "switch", unused="only templates asked for it"),
    Flag("--log_output_level", "", unused="the agent writes one line per event of the proxy's life"),
    Flag("--templateFile", "", rejected=_NO_TEMPLATES),
)  # fmt: skip

# Istio 1.0's discovery service answered HTTP on these ports and gRPC on 15010; its agent replaced the port silently.
_HTTP_DISCOVERY_PORTS: Final = frozenset({"8080", "15003", "15007"})


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What `tidegate agent proxy` was asked for; all the bootstrap is made of this."""

    role: Role
    ip: str  # "" = find out
    id: str  # "" = from the address
    domain: str
    registry: str
    status_port: int
    application_ports: tuple[int, ...]
    config_path: str
    binary_path: str  # "" = ours
    service_cluster: str
    availability_zone: str
    drain_s: float
    parent_shutdown_s: float
    discovery_host: str
    discovery_port: int
    discovery_refresh_s: float
    zipkin: tuple[str, int] | None
    connect_timeout_s: float
    statsd: tuple[str, int] | None
    admin_port: int
    custom_config_file: str
    proxy_log_level: str
    proxy_component_log_level: str
    concurrency: int
    metadata: tuple[tuple[str, str], ...]  # ISTIO_META_*, prefix taken off, plus what the pod's variables say
    metadata_json: tuple[tuple[str, str], ...]  # ISTIO_METAJSON_*: variable, JSON object

    @property
    def node_id(self) -> str:
        return f"{self.role}~{self.ip}~{self.id}~{self.domain}"

    def with_ip(self, ip: str) -> AgentSettings:
        """The same settings once the pod's address is known; an id that is made of it is made now."""
        return replace(self, ip=ip, id=self.id or (f"{ip}.service.consul" if self.registry == "Consul" else ip))


def agent_help() -> str:
    return help_text(
        "tidegate agent proxy sidecar|router [flags]",
        "Writes the proxy's bootstrap, starts the proxy, starts it again when it dies, forwards signals and exits with "
        "it. Node metadata comes from ISTIO_META_* and ISTIO_METAJSON_* variables.",
        AGENT_FLAGS,
    )


def agent_settings(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> AgentSettings | str:
    """The settings, or the help text when that is what the line asks for."""
    environ = os.environ if environ is None else environ
    parsed = parse(AGENT_FLAGS, argv, environ)
    if parsed.switch("help"):
        return agent_help()
    role = _role(parsed.positional)
    if parsed.text("controlPlaneAuthPolicy") == "MUTUAL_TLS":
        raise UsageError(
            "--controlPlaneAuthPolicy", "MUTUAL_TLS towards the discovery service is not supported; use NONE"
        )
    namespace = environ.get("POD_NAMESPACE", "")
    host, port = _host_port("--discoveryAddress", parsed.text("discoveryAddress"))
    if str(port) in _HTTP_DISCOVERY_PORTS:
        port = 15010
    registry = parsed.text("serviceregistry")
    return AgentSettings(
        role=role,
        ip=parsed.text("ip"),
        id=parsed.text("id") or _default_id(registry, environ.get("POD_NAME", ""), namespace),
        domain=parsed.text("domain") or _default_domain(registry, namespace),
        registry=registry,
        status_port=parsed.number("statusPort"),
        application_ports=tuple(_port("--applicationPorts", text) for text in parsed.items("applicationPorts")),
        config_path=parsed.text("configPath"),
        binary_path=parsed.text("binaryPath"),
        service_cluster=parsed.text("serviceCluster"),
        availability_zone=parsed.text("availabilityZone"),
        drain_s=_whole_seconds(parsed, "drainDuration"),
        parent_shutdown_s=_whole_seconds(parsed, "parentShutdownDuration"),
        discovery_host=host,
        discovery_port=port,
        discovery_refresh_s=parsed.seconds("discoveryRefreshDelay"),
        zipkin=_optional_host_port(parsed, "zipkinAddress"),
        connect_timeout_s=parsed.seconds("connectTimeout"),
        statsd=_optional_host_port(parsed, "statsdUdpAddress"),
        admin_port=parsed.number("proxyAdminPort"),
        custom_config_file=parsed.text("customConfigFile"),
        proxy_log_level={"err": "error"}.get(parsed.text("proxyLogLevel"), parsed.text("proxyLogLevel")),
        proxy_component_log_level=parsed.text("proxyComponentLogLevel"),
        concurrency=parsed.number("concurrency"),
        metadata=_metadata(environ),
        metadata_json=_prefixed(environ, "ISTIO_METAJSON_"),
    )


def _role(positional: Sequence[str]) -> Role:
    if not positional:
        return "sidecar"
    if len(positional) > 1:
        raise UsageError(positional[1], "one role only, before the flags")
    if positional[0] == "sidecar":
        return "sidecar"
    if positional[0] == "router":
        return "router"
    raise UsageError(positional[0], "the role is sidecar or router")


def _whole_seconds(parsed: Parsed, key: str) -> float:
    """The proxy takes these in whole seconds; a fraction would be cut off silently."""
    value = parsed.seconds(key)
    if value != int(value):
        raise UsageError(f"--{key}", "whole seconds only")
    return value


def _default_id(registry: str, pod: str, namespace: str) -> str:
    """ "" when it has to wait for the address."""
    return f"{pod}.{namespace}" if registry == "Kubernetes" and (pod or namespace) else ""


def _default_domain(registry: str, namespace: str) -> str:
    if registry == "Kubernetes":
        return f"{namespace or 'default'}.svc.cluster.local"
    return "service.consul" if registry == "Consul" else ""


def _prefixed(environ: Mapping[str, str], prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name[len(prefix) :], value) for name, value in environ.items() if name.startswith(prefix)))


def _metadata(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found = dict(_prefixed(environ, "ISTIO_META_"))
    if environ.get("POD_NAME"):
        found.setdefault("POD_NAME", environ["POD_NAME"])
    return tuple(sorted(found.items()))


def _optional_host_port(parsed: Parsed, key: str) -> tuple[str, int] | None:
    return _host_port(f"--{key}", parsed.text(key)) if parsed.text(key) else None


def _host_port(name: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise UsageError(name, f"{text!r} is not host:port")
    return host.strip("[]"), _port(name, port)


def _port(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise UsageError(name, f"{text!r} is not a port")
    return int(text)


# --- tidegate iptables -----------------------------------------------------------------------------------------------

_NO_DNS_PROXY: Final = "there is no DNS proxy that captured queries could be sent to"
_ALWAYS_ATOMIC: Final = "every run replaces what an earlier one left, in one transaction per table"

IPTABLES_FLAGS: Final = (
    Flag("--envoy-port", "port that outbound traffic is redirected to", "15001", short="-p", env="ENVOY_PORT"),
    Flag("--inbound-capture-port", "port that inbound traffic is redirected to; as in Istio 1.0 the port of -p when "
         "not given", short="-z", env="INBOUND_CAPTURE_PORT"),
    Flag("--inbound-tunnel-port", "port that is never redirected; 15008 when -z is given, else none", short="-e",
         env="INBOUND_TUNNEL_PORT"),
    Flag("--proxy-uid", "users whose traffic is not redirected: the proxy's", "1337", short="-u", env="PROXY_UID"),
    Flag("--proxy-gid", "groups whose traffic is not redirected; the numbers of -u when not given", short="-g",
         env="PROXY_GID", optional_value=True),
    Flag("--istio-inbound-interception-mode", "how inbound connections reach the proxy", "REDIRECT", short="-m",
         env="ISTIO_INBOUND_INTERCEPTION_MODE", choices=("REDIRECT", "TPROXY")),
    Flag("--istio-inbound-ports", "inbound ports to redirect; * = all, none = no inbound redirection", short="-b",
         env="ISTIO_INBOUND_PORTS", optional_value=True),
    Flag("--istio-local-exclude-ports", "inbound ports left alone, with -b '*'", short="-d",
         env="ISTIO_LOCAL_EXCLUDE_PORTS", optional_value=True),
    Flag("--istio-exclude-interfaces", "interfaces whose traffic is left alone", short="-c",
         env="ISTIO_EXCLUDE_INTERFACES", optional_value=True),
    Flag("--istio-service-cidr", "outbound destinations to redirect; * = all, none = no outbound redirection",
         short="-i", env="ISTIO_SERVICE_CIDR", optional_value=True),
    Flag("--istio-service-exclude-cidr", "outbound destinations left alone, with -i '*'", short="-x",
         env="ISTIO_SERVICE_EXCLUDE_CIDR", optional_value=True),
    Flag("--istio-outbound-ports", "outbound ports that are redirected whatever the destination", short="-q",
         env="ISTIO_OUTBOUND_PORTS", optional_value=True),
    Flag("--istio-local-outbound-ports-exclude", "outbound ports left alone", short="-o",
         env="ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", optional_value=True),
    Flag("--kube-virt-interfaces", "interfaces of virtual machines: what comes in from them counts as outbound",
         short="-k", env="KUBE_VIRT_INTERFACES", optional_value=True),
    Flag("--istio-inbound-tproxy-mark", "mark of packets sent to the proxy by TPROXY", "1337", short="-t",
         env="ISTIO_INBOUND_TPROXY_MARK"),
    Flag("--istio-inbound-tproxy-route-table", "routing table of marked packets", "133", short="-r",
         env="ISTIO_INBOUND_TPROXY_ROUTE_TABLE"),
    Flag("--drop-invalid", "drop packets that connection tracking calls invalid", False, "switch", env="INVALID_DROP"),
    Flag("--dual-stack", "redirect IPv6 even when no interface has a global IPv6 address yet", False, "switch",
         env="DUAL_STACK"),
    Flag("--network-namespace", "path of the network namespace to work in; else our own", env="NETWORK_NAMESPACE"),
    Flag("--dry-run", "print the rules and change nothing", False, "switch", short="-n", env="DRY_RUN"),
    Flag("--cleanup-only", "remove what an earlier run made and exit", False, "switch", env="CLEANUP_ONLY"),
    Flag("--help", "this page", False, "switch", short="-h"),
    Flag("--reconcile", "", False, "switch", unused=_ALWAYS_ATOMIC),
    Flag("--force-apply", "", False, "switch", unused=_ALWAYS_ATOMIC),
    Flag("--log_output_level", "", unused="there is nothing to tell but the rules"),
    Flag("--redirect-dns", "", False, "switch", rejected=_NO_DNS_PROXY),
    Flag("--capture-all-dns", "", False, "switch", rejected=_NO_DNS_PROXY),
    Flag("--native-nftables", "", False, "switch", rejected="rules are made with iptables only (iptables-nft will do)"),
    Flag("--force-iptables-binary", "", rejected="the iptables-restore found on PATH is used"),
    Flag("--skip-rule-apply", "", False, "switch", rejected="use --dry-run"),
    Flag("--run-validation", "", False, "switch", rejected="validation by probe is not supported"),
    Flag("--iptables-probe-port", "", rejected="validation by probe is not supported"),
    Flag("--probe-timeout", "", rejected="validation by probe is not supported"),
    Flag("--cni-mode", "", False, "switch", rejected="there is no CNI plug-in; use --network-namespace"),
    Flag("--iptables-trace-logging", "", False, "switch", rejected="trace rules are not supported"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class IptablesSettings:
    """What `tidegate iptables` was asked for, as it was written; `tidegate.iptables.rules` judges ports and ranges."""

    proxy_port: str
    inbound_port: str
    tunnel_port: str  # "" = none
    leave_ssh: bool  # Istio 1.0 never redirected port 22
    uids: tuple[str, ...]
    gids: tuple[str, ...]
    mode: Literal["REDIRECT", "TPROXY"]
    inbound_ports: tuple[str, ...]
    inbound_ports_exclude: tuple[str, ...]
    interfaces_exclude: tuple[str, ...]
    outbound_ranges: tuple[str, ...]
    outbound_ranges_exclude: tuple[str, ...]
    outbound_ports: tuple[str, ...]
    outbound_ports_exclude: tuple[str, ...]
    virtual_interfaces: tuple[str, ...]
    tproxy_mark: str
    tproxy_route_table: str
    drop_invalid: bool
    dual_stack: bool
    network_namespace: str
    dry_run: bool
    cleanup_only: bool


def iptables_help() -> str:
    return help_text(
        "tidegate iptables [flags]",
        "Redirects a pod's traffic to its proxy, as istio-iptables does, with the chains of the same names. Running it "
        "again changes nothing. Needs NET_ADMIN and NET_RAW.",
        IPTABLES_FLAGS,
    )


def iptables_settings(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> IptablesSettings | str:
    """The settings, or the help text when that is what the line asks for."""
    # `istio-iptables.sh clean` was Istio 1.0's way to say --cleanup-only.
    argv = ["--cleanup-only", *argv[1:]] if argv[:1] == ["clean"] else argv
    parsed = parse(IPTABLES_FLAGS, argv, os.environ if environ is None else environ)
    if parsed.switch("help"):
        return iptables_help()
    if parsed.positional:
        raise UsageError(parsed.positional[0], "not a flag, and there are no arguments")
    # -z is the watershed: Istio 1.0 had one port for both directions, later ones a port each and a tunnel.
    split = bool(parsed.text("inbound-capture-port"))
    uids = _split(parsed.text("proxy-uid")) or ("1337",)
    return IptablesSettings(
        proxy_port=parsed.text("envoy-port"),
        inbound_port=parsed.text("inbound-capture-port") or parsed.text("envoy-port"),
        tunnel_port=parsed.text("inbound-tunnel-port") or ("15008" if split else ""),
        leave_ssh=not split,
        uids=uids,
        gids=_split(parsed.text("proxy-gid")) or uids,
        mode="TPROXY" if parsed.text("istio-inbound-interception-mode") == "TPROXY" else "REDIRECT",
        inbound_ports=_split(parsed.text("istio-inbound-ports")),
        inbound_ports_exclude=_split(parsed.text("istio-local-exclude-ports")),
        interfaces_exclude=_split(parsed.text("istio-exclude-interfaces")),
        outbound_ranges=_split(parsed.text("istio-service-cidr")),
        outbound_ranges_exclude=_split(parsed.text("istio-service-exclude-cidr")),
        outbound_ports=_split(parsed.text("istio-outbound-ports")),
        outbound_ports_exclude=_split(parsed.text("istio-local-outbound-ports-exclude")),
        virtual_interfaces=_split(parsed.text("kube-virt-interfaces")),
        tproxy_mark=parsed.text("istio-inbound-tproxy-mark"),
        tproxy_route_table=parsed.text("istio-inbound-tproxy-route-table"),
        drop_invalid=parsed.switch("drop-invalid"),
        dual_stack=parsed.switch("dual-stack"),
        network_namespace=parsed.text("network-namespace"),
        dry_run=parsed.switch("dry-run"),
        cleanup_only=parsed.switch("cleanup-only"),
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)
