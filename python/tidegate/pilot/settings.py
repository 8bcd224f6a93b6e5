"""The flags of `tidegate discovery` (pilot-discovery's, where it had them) and the mesh configuration file."""

from __future__ import annotations

from collections import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tidegate.errors import UsageError
from tidegate.flags import Flag, Parsed, help_text, parse
from tidegate.pilot.crd.reader import Mapping, Value, documents
from tidegate.pilot.translate.settings import MeshSettings

_NO_KUBE: Final = "only files are read; a Kubernetes registry comes later"
_LEVELS: Final = ("debug", "info", "warn", "error", "none")

DISCOVERY_FLAGS: Final = (
    Flag("--configDir", "directory of YAML files: the registry and the rules, watched for changes"),
    Flag("--grpcAddr", "address of the xDS service", ":15010"),
    Flag("--secureGrpcAddr", "address of the xDS service over mutual TLS, once certificates are there; empty = off"),
    Flag("--secureGRPCAddr", "the later name of --secureGrpcAddr"),
    Flag("--certDir", "directory of cert-chain.pem, key.pem and root-cert.pem, which may change",
         "/etc/certs", env="PILOT_CERT_DIR"),
    Flag("--httpAddr", "address of the debug pages and readiness; empty = off", ":8080"),
    Flag("--monitoringAddr", "address of the metrics, and of the debug pages as well; empty = off", ":9093"),
    Flag("--domain", "DNS domain suffix of Kubernetes services", "cluster.local"),
    Flag("--meshConfig", "file with the mesh configuration"),
    Flag("--registries", "registries to read", ("Config",), "list"),
    Flag("--debounceAfter", "quiet time after a change before it is pushed", 0.1, "seconds"),
    Flag("--debounceMax", "longest time that changes in a row hold up a push", 10.0, "seconds"),
    Flag("--pollInterval", "how often the files are looked at", 0.1, "seconds"),
    Flag("--log_output_level", "debug, info, warn, error or none; of scope:level the scope is ignored", "info"),
    Flag("--help", "this page", False, "switch", short="-h"),
    Flag("--discovery_cache", "", True, "switch", unused="what proxies share is always generated once"),
    Flag("--plugins", "", (), "list", unused="there are no plug-ins"),
    Flag("--namespace", "", short="-n", unused="the control plane itself reads nothing from a namespace"),
    Flag("--ctrlz_port", "", unused="the debug pages show what ControlZ did"),
    Flag("--ctrlz_address", "", unused="the debug pages show what ControlZ did"),
    Flag("--profile", "", True, "switch", unused="there is no Go runtime to profile"),
    Flag("--resync", "", unused="files are looked at every --pollInterval"),
    Flag("--kubeconfig", "", rejected=_NO_KUBE),
    Flag("--appNamespace", "", short="-a", rejected=_NO_KUBE),
    Flag("--consulserverURL", "", rejected="only files are read; a Consul registry comes later"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """What `tidegate discovery` was asked for."""

    config_dir: Path
    grpc_address: str
    #: Empty: there is none.
    secure_grpc_address: str
    cert_dir: Path
    http_address: tuple[str, int] | None
    monitoring_address: tuple[str, int] | None
    domain: str
    mesh: MeshSettings
    debounce_after: float
    debounce_max: float
    poll_interval: float
    log_level: str


def discovery_help() -> str:
    return help_text(
        "tidegate discovery --configDir DIR [flags]",
        "The control plane: reads services and routing rules from a directory, and serves them to proxies over xDS.",
        DISCOVERY_FLAGS,
    )


def discovery_settings(argv: Sequence[str], environ: abc.Mapping[str, str] | None = None) -> DiscoverySettings | str:
    """The settings, or the help text when that is what the line asks for."""
    parsed = parse(DISCOVERY_FLAGS, argv, environ)
    if parsed.switch("help"):
        return discovery_help()
    # pilot-discovery has commands of its own; `discovery` is the one that serves.
    if [word for word in parsed.positional if word != "discovery"]:
        raise UsageError(parsed.positional[0], "not a flag, and there are no arguments")
    for registry in parsed.items("registries"):
        if registry not in ("Config", "Mock", ""):
            raise UsageError("--registries", f"{registry}: {_NO_KUBE}")
    directory = Path(parsed.text("configDir"))
    if not parsed.text("configDir"):
        raise UsageError("--configDir", "is required")
    if not directory.is_dir():
        raise UsageError("--configDir", f"{directory} is not a directory")
    return DiscoverySettings(
        config_dir=directory,
        grpc_address=_grpc_address(parsed, "grpcAddr"),
        secure_grpc_address=_secure_grpc_address(parsed),
        cert_dir=Path(parsed.text("certDir")),
        http_address=_address(parsed, "httpAddr"),
        monitoring_address=_address(parsed, "monitoringAddr"),
        domain=parsed.text("domain"),
        mesh=_mesh(parsed.text("meshConfig")),
        debounce_after=parsed.seconds("debounceAfter"),
        debounce_max=parsed.seconds("debounceMax"),
        poll_interval=max(parsed.seconds("pollInterval"), 0.01),
        log_level=_level(parsed.text("log_output_level")),
    )


def _address(parsed: Parsed, name: str) -> tuple[str, int] | None:
    text = parsed.text(name)
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--{name}", f"{text!r} is not host:port or :port")
    return host.strip("[]"), int(port)


def _secure_grpc_address(parsed: Parsed) -> str:
    name = next((name for name in ("secureGrpcAddr", "secureGRPCAddr") if parsed.text(name)), None)
    return _grpc_address(parsed, name) if name is not None else ""


def _grpc_address(parsed: Parsed, name: str) -> str:
    address = _address(parsed, name)
    if address is None:
        raise UsageError(f"--{name}", "must not be empty")
    host, port = address
    host = host or "::"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _level(text: str) -> str:
    # Istio's form is "default:info,ads:debug": the default, or the first, decides.
    levels = dict(part.rpartition(":")[::2] for part in text.split(",") if part)
    level = levels.get("default", levels.get("", next(iter(levels.values()), "info")))
    if level not in _LEVELS:
        raise UsageError("--log_output_level", f"{level!r} is not one of {', '.join(_LEVELS)}")
    return level


def _mesh(path: str) -> MeshSettings:
    """A MeshConfig file, as far as it decides anything here; other fields are refused by name."""
    settings = MeshSettings()
    if not path:
        return settings
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError("--meshConfig", f"{path}: {error.strerror}") from error
    for document in documents(text, path):
        settings = read_mesh(document.mapping(), settings)
    return settings


def read_mesh(mesh: Mapping, settings: MeshSettings) -> MeshSettings:
    policy = mesh.take("outboundTrafficPolicy")
    if policy is not None:
        fields = policy.mapping()
        mode = fields.need("mode").one_of(("REGISTRY_ONLY", "ALLOW_ANY"))
        fields.finish()
        settings = replace(settings, outbound_traffic_policy=mode)
    settings = replace(
        settings,
        connect_timeout=mesh.read("connectTimeout", Value.duration, settings.connect_timeout),
        access_log_file=mesh.read("accessLogFile", Value.string, settings.access_log_file),
        enable_tracing=mesh.read("enableTracing", Value.boolean, settings.enable_tracing),
        h2_upgrade_policy=mesh.read(
            "h2UpgradePolicy", lambda v: v.one_of(("DO_NOT_UPGRADE", "UPGRADE")), settings.h2_upgrade_policy
        ),
        proxy_http_port=mesh.read("proxyHttpPort", Value.port, settings.proxy_http_port),
    )
    mesh.finish()
    return settings
