"""The native module: the whole contract between the Python process and the data plane.

One object, ``Engine``, is the data plane; Python decides *when* (streams, files, signals), the engine decides *what*
(decode, warm, publish, count). Python hands in bytes and strings and gets strings and numbers back; it never sees
protobuf, and no call here ever runs for a connection or a request.

Rules that hold for every call:

* anything that may take longer than some microseconds runs with the GIL released;
* no call raises on bad *remote* input: a bad resource is an entry of ``ApplyResult.rejected``;
* the only exceptions are ``ConfigError`` (bad bootstrap, bad file), ``DecodeError`` (bytes that are no protobuf
  message) and ``EngineError`` (the operating system refused something, or a call out of order);
* all calls are made from one Python thread.
"""

from collections.abc import Sequence
from typing import Literal, final

__all__ = [
    "ApplyResult",
    "BootstrapInfo",
    "ConfigError",
    "DecodeError",
    "DeltaDiscoveryResponse",
    "DiscoveryResponse",
    "Engine",
    "EngineError",
    "GrpcTarget",
    "Matcher",
    "RouteMatch",
    "Subscription",
    "decode_delta_discovery_response",
    "decode_discovery_file",
    "decode_discovery_response",
    "encode_delta_discovery_request",
    "encode_discovery_request",
    "version",
]

class ConfigError(Exception):
    """A bootstrap (or a resource file) that cannot be honoured. ``args == (name, path, reason)``.

    ``name`` is the resource at fault ("" for the document itself), ``path`` the field path from the root of the
    document (``static_resources.listeners[0].filter_chains[1].filters[0].typed_config.route_config``), ``reason`` a
    sentence. ``str()`` joins them as the operator should read it.
    """

class DecodeError(Exception):
    """Bytes that are not the protobuf message they should be. ``args == (reason,)``."""

class EngineError(Exception):
    """The operating system refused (bind, thread, file), or a call came out of order. ``args == (reason,)``."""

@final
class DiscoveryResponse:
    """What a discovery response holds, in either transport (gRPC or file)."""

    @property
    def type_url(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def nonce(self) -> str: ...
    @property
    def control_plane(self) -> str:
        """``control_plane.identifier``; "" when absent."""

    @property
    def resources(self) -> list[tuple[str, bytes]]:
        """``(name, Any.value bytes)`` in wire order, ``envoy.service.discovery.v3.Resource`` wrappers taken off.

        The name is the resource's own (``name``, for ClusterLoadAssignment ``cluster_name``). A resource whose type URL
        is not the response's, or whose name cannot be read, is kept with the name "" so that ``apply`` rejects it.
        """

@final
class DeltaDiscoveryResponse:
    """What an incremental discovery response holds."""

    @property
    def type_url(self) -> str: ...
    @property
    def version(self) -> str:
        """``system_version_info``."""

    @property
    def nonce(self) -> str: ...
    @property
    def control_plane(self) -> str:
        """``control_plane.identifier``; "" when absent."""

    @property
    def resources(self) -> list[tuple[str, bytes]]:
        """``(name, Any.value bytes)`` in wire order, named as in ``DiscoveryResponse``."""

    @property
    def versions(self) -> list[tuple[str, str]]:
        """``(Resource.name, Resource.version)`` of each, those without a resource (still alive) included."""

    @property
    def removed(self) -> list[str]: ...

@final
class Subscription:
    """One thing the engine wants to hear about now. Compares and hashes by value."""

    @property
    def type_url(self) -> str: ...
    @property
    def source(self) -> Literal["ads", "path", "grpc"]:
        """ "grpc": a stream of its own, of the type's own service (secrets)."""

    @property
    def origin(self) -> str:
        """What updates of this source say as ``origin``; "" for ADS."""

    @property
    def grpc(self) -> GrpcTarget | None:
        """The stream, for source "grpc"; else None."""

    @property
    def path(self) -> str:
        """The file, for source "path"; else ""."""

    @property
    def watched_directory(self) -> str:
        """``path_config_source.watched_directory``; "" = watch the file's own directory."""

    @property
    def names(self) -> list[str]:
        """Sorted and unique. Empty for CDS and LDS, which are wildcard subscriptions."""

    @property
    def initial_fetch_timeout(self) -> float:
        """Seconds; 0.0 = wait for ever. Envoy's default, 15, is filled in by the engine."""

@final
class GrpcTarget:
    """Where a discovery stream goes. Compares and hashes by value."""

    @property
    def cluster(self) -> str: ...
    @property
    def delta(self) -> bool:
        """``api_type: DELTA_GRPC``: incremental, else state of the world."""

    @property
    def targets(self) -> list[str]:
        """gRPC targets in order: ``dns:host:port``, ``ipv4:1.2.3.4:5``, ``ipv6:[::1]:5`` or ``unix:/path``."""

    @property
    def authority(self) -> str:
        """``:authority`` to send; the cluster's name, as Envoy does, unless ``envoy_grpc.authority`` is set."""

    @property
    def initial_metadata(self) -> list[tuple[str, str]]: ...
    @property
    def connect_timeout(self) -> float:
        """Seconds, from the cluster's ``connect_timeout`` (Envoy's default 5)."""

    @property
    def tcp_keepalive(self) -> tuple[int, int, int] | None:
        """``(probes, time_s, interval_s)`` of ``upstream_connection_options.tcp_keepalive``; 0 = the system's; None =
        off."""

    @property
    def http2_keepalive(self) -> tuple[float, float] | None:
        """``(interval_s, timeout_s)`` of ``http2_protocol_options.connection_keepalive``; None = off."""

    @property
    def retry_back_off(self) -> tuple[float, float]:
        """``(base_s, max_s)`` of ``envoy_grpc.retry_policy.retry_back_off``; Envoy's defaults 0.5 and 30 (10 x base
        when only the base is given) are filled in."""

@final
class BootstrapInfo:
    """What Python has to know of the bootstrap to open its streams."""

    @property
    def node(self) -> bytes:
        """The encoded ``envoy.config.core.v3.Node``, flags and user agent merged in, for the first request of a
        stream."""

    @property
    def node_id(self) -> str: ...
    @property
    def node_cluster(self) -> str: ...
    @property
    def ads(self) -> GrpcTarget | None:
        """The stream of ``dynamic_resources.ads_config``; None = there is no ADS."""

    @property
    def admin_address(self) -> str:
        """``ip:port`` as bound (after ``start()``), "" when there is no admin."""

@final
class ApplyResult:
    """What became of one update."""

    @property
    def accepted(self) -> list[str]:
        """Names now serving (or warming) with this update's content, unchanged ones included."""

    @property
    def changed(self) -> list[str]:
        """The part of ``accepted`` whose content differs from before."""

    @property
    def removed(self) -> list[str]:
        """Names that served before and are gone (CDS and LDS only)."""

    @property
    def rejected(self) -> list[tuple[str, str, str]]:
        """``(name, path, reason)``. Not empty = NACK; the last good version of each of these keeps serving."""

    @property
    def detail(self) -> str:
        """All rejections in one text, as Envoy words its ``error_detail``; "" when nothing was rejected."""

@final
class Engine:
    """The data plane: worker threads, admin, statistics, configuration.

    Constructing validates: the bootstrap is decoded, merged and compiled, but no socket is opened and no thread started
    (that is all of ``--mode validate``). ``start()`` brings it up.
    """

    def __new__(
        cls,
        bootstrap: bytes,
        format: Literal["yaml", "json", "pb", "pb_text"],
        *,
        config_path: str = "",
        config_yaml: str = "",
        concurrency: int = 0,
        service_cluster: str = "",
        service_node: str = "",
        service_zone: str = "",
        restart_epoch: int = 0,
        base_id: int = 0,
        disable_hot_restart: bool = False,
        drain_time_s: int = 600,
        drain_strategy: Literal["gradual", "immediate"] = "gradual",
        parent_shutdown_time_s: int = 900,
        mode: Literal["serve", "validate"] = "serve",
        log_level: str = "info",
        component_log_level: str = "",
        log_format: str = "",
        log_format_escaped: bool = False,
        log_path: str = "",
        file_flush_interval_msec: int = 10000,
        busy_poll_us: int = 0,
        file_flush_min_size_kb: int = 64,
        admin_address_path: str = "",
        local_address_ip_version: Literal["v4", "v6"] = "v4",
        allow_unknown_static_fields: bool = False,
        reject_unknown_dynamic_fields: bool = False,
        ignore_unknown_dynamic_fields: bool = False,
        skip_deprecated_logs: bool = False,
    ) -> Engine:
        """``config_yaml`` is merged over ``bootstrap`` as a protobuf merge (repeated fields are appended), as Envoy
        does.

        ``concurrency`` 0 = one worker per usable hardware thread. ``log_format`` "" = Envoy's default format. The
        options are also what ``/server_info`` prints as ``command_line_options``. Raises ``ConfigError``.
        """

    def bootstrap_info(self) -> BootstrapInfo: ...
    def start(self) -> None:
        """Open the admin socket and the log files, start the threads, begin warming. Raises ``EngineError``.

        Workers accept only once everything that must be warm is warm (Envoy's init manager); ``/ready`` says so.
        """

    # --- configuration -----------------------------------------------------------------------------------------------

    def subscriptions(self) -> list[Subscription]:
        """All that is wanted now, in the order in which it should be asked for: CDS, EDS, LDS, RDS, SDS.

        The engine owns the order of warming: LDS appears in the list only once the clusters have initialised (CDS
        answered or timed out, and EDS of its clusters too); a name leaves the list when nothing refers to it any more.
        At most one entry per (type URL, source, path), but for secrets: by ADS one per ``initial_fetch_timeout``,
        elsewhere one per name.
        """

    def apply(
        self, type_url: str, version: str, resources: Sequence[tuple[str, bytes]], origin: str = ""
    ) -> ApplyResult:
        """Decode, compile and publish one response; when this returns, every new connection sees the result.

        State of the world: for CDS and LDS a name that is absent is removed; for EDS and RDS an absent name is left
        alone. Unchanged content touches nothing. A name given twice is rejected as a duplicate. Counts
        ``update_attempt``, ``update_success``, ``update_rejected`` and ``version`` of the right scope itself.
        """

    def apply_delta(
        self,
        type_url: str,
        version: str,
        resources: Sequence[tuple[str, bytes]],
        versions: Sequence[tuple[str, str]],
        removed: Sequence[str],
        origin: str = "",
    ) -> ApplyResult:
        """``apply`` for an incremental response: what is not mentioned stays.

        ``removed``: clusters and listeners go; of endpoints, routes and secrets the last ones serve on for as long as
        something refers to them, but nothing waits for them any more. ``version`` is ``system_version_info``,
        ``versions`` says ``(name, version)`` of each resource.
        """

    def paused(self) -> list[str]:
        """The type URLs about which no request may be sent now: clusters, while any is warming.

        After a change of the answer comes the event ``subscriptions``.
        """

    def update_failed(
        self,
        type_url: str,
        names: Sequence[str],
        reason: Literal["connection", "fetch_timeout"],
        origin: str = "",
    ) -> None:
        """No answer: the stream failed ("connection": counted only, [] = all names), or ``initial_fetch_timeout`` went
        by.

        After "fetch_timeout" the engine stops waiting for these names ([] = the wildcard subscription itself): a
        cluster initialises without endpoints, a listener without its routes, and ``init_fetch_timeout`` is counted.
        """

    def update_rejected(self, type_url: str, reason: str, origin: str = "") -> None:
        """An update that never reached ``apply`` (a file that cannot be read or parsed): counted and shown in
        config_dump."""

    def watched_directories(self) -> list[str]:
        """The directories in which a rename may replace a file that a secret refers to."""

    def directory_changed(self, directory: str) -> None:
        """Something was renamed into one of them: secrets that refer to files there are read again; one that cannot be
        used is counted as ``key_rotation_failed``, and the last good one serves on."""

    def ads_connected(self, connected: bool) -> None:
        """``control_plane.connected_state``."""

    def control_plane_identifier(self, identifier: str) -> None:
        """``control_plane.identifier`` text readout."""

    # --- events ------------------------------------------------------------------------------------------------------

    def event_fd(self) -> int:
        """A file descriptor that is readable while ``take_events()`` would return something. Owned by the engine."""

    def take_events(self) -> list[str]:
        """What happened since the last call, each kind at most once, the descriptor reset:

        ``subscriptions``: ``subscriptions()``, ``paused()`` or ``watched_directories()`` may differ now.
        ``initialized``: everything is warm and the workers accept. ``shutdown``: POST /quitquitquit (or the end of a
        POST /drain_listeners that asked for exit). ``drained``: after ``drain()``, no downstream connection is left or
        its time is over. ``fatal``: a worker thread has died.
        """

    # --- life --------------------------------------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Stop accepting and let connections end: HTTP/1 answers carry ``connection: close``, idle ones close at once.

        At the latest after ``seconds`` what is left is closed; then the event ``drained`` comes. Idempotent.
        """

    def shutdown(self) -> None:
        """Stop and join every thread, flush every log. After it only destruction is allowed. Idempotent."""

    def reopen_logs(self) -> None:
        """SIGUSR1 and /reopen_logs: every log file is opened anew under its path."""

    def release_unused(self) -> None:
        """Give memory that the process has freed back to the system. Milliseconds per 100 MiB of heap."""

    def log(
        self,
        level: Literal["trace", "debug", "info", "warning", "error", "critical"],
        component: str,
        message: str,
    ) -> None:
        """One line of the process's own log, through the same writer, levels and format as the native threads'
        lines."""

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter that belongs to the Python side (``tidegate.callback_failures`` and the like)."""

@final
class RouteMatch:
    """Where a request would go."""

    @property
    def virtual_host(self) -> str: ...
    @property
    def route(self) -> str: ...
    @property
    def index(self) -> int:
        """Position of the route in its virtual host."""

    @property
    def cluster(self) -> str:
        """The cluster, or the first of the weighted ones; "" for a redirect or a direct response."""

@final
class Matcher:
    """The data path's own matching over one compiled snapshot, without traffic: for micro-benchmarks and explanations.

    ``repeat`` runs the match so many times natively (the GIL released) and returns the last result.
    """

    def __new__(cls, bootstrap: bytes, format: Literal["yaml", "json", "pb", "pb_text"]) -> Matcher: ...
    def original_dst(self, virtual_listener: str, address: str, port: int, repeat: int = 1) -> str | None:
        """The listener that a ``use_original_dst`` listener hands a connection to; None = it keeps it."""

    def filter_chain(
        self,
        listener: str,
        destination_ip: str,
        destination_port: int,
        source_ip: str = "127.0.0.1",
        repeat: int = 1,
        *,
        source_port: int = 0,
        server_name: str = "",
        transport_protocol: str = "raw_buffer",
        application_protocols: Sequence[str] = (),
    ) -> str | None:
        """Name of the matching filter chain (its index as text when it has no name); None = no match.

        ``server_name``, ``transport_protocol`` and ``application_protocols``: what listener filters would have found
        out.
        """

    def route(
        self,
        route_config: str,
        authority: str,
        path: str,
        method: str = "GET",
        headers: Sequence[tuple[str, str]] = (),
        repeat: int = 1,
    ) -> RouteMatch | None: ...

def encode_discovery_request(
    *,
    type_url: str,
    version: str,
    nonce: str,
    names: Sequence[str],
    node: bytes = b"",
    error_message: str = "",
) -> bytes:
    """An encoded ``envoy.service.discovery.v3.DiscoveryRequest``.

    ``node`` (encoded Node) is left out when empty, ``error_detail`` (with Envoy's code, 13) when ``error_message`` is.
    """

def encode_delta_discovery_request(
    *,
    type_url: str,
    nonce: str,
    subscribe: Sequence[str],
    unsubscribe: Sequence[str],
    initial_versions: Sequence[tuple[str, str]],
    node: bytes = b"",
    error_message: str = "",
) -> bytes:
    """An encoded ``envoy.service.discovery.v3.DeltaDiscoveryRequest``; what is left out, as above."""

def decode_delta_discovery_response(data: bytes) -> DeltaDiscoveryResponse:
    """Raises ``DecodeError``."""

def decode_discovery_response(data: bytes) -> DiscoveryResponse:
    """Raises ``DecodeError``."""

def decode_discovery_file(
    data: bytes, format: Literal["yaml", "json", "pb", "pb_text"], type_url: str
) -> DiscoveryResponse:
    """The file of a ``path_config_source``: a DiscoveryResponse in text or binary form. Raises ``ConfigError``."""

def version() -> str:
    """``<commit or "dev">/<package version>/<Clean|Modified>/<RELEASE|DEBUG>/tidegate``, the shape of Envoy's."""
