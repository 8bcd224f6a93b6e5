"""The data plane as the rest of the process sees it. The one importer of the native module, and the one place where its
errors become ours.

Thin on purpose: converts settings to arguments and native objects to plain values, decides nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from tidegate import _native
from tidegate.errors import ConfigError, DecodeError, EngineError
from tidegate.proxy.ads.delta import DeltaRequest, DeltaResponse
from tidegate.proxy.ads.protocol import Outcome, Response, Wanted
from tidegate.proxy.filesystem import FileSubscription

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tidegate.proxy.ads.protocol import Request, Update
    from tidegate.settings import ProxySettings

    Format = Literal["yaml", "json", "pb", "pb_text"]
    GrpcTarget = _native.GrpcTarget

__all__ = ["DataPlane", "OwnStream", "Subscriptions", "format_of", "version"]

_FORMATS: Final[dict[str, Format]] = {"json": "json", "pb": "pb", "pb_text": "pb_text"}


def format_of(path: str) -> Format:
    """By the file's ending, as Envoy has it; what ends otherwise is YAML, of which JSON is a part."""
    return _FORMATS.get(path.rpartition(".")[2], "yaml")


def version() -> str:
    return _native.version()


class OwnStream(NamedTuple):
    """Something that comes by a stream of its own."""

    target: _native.GrpcTarget
    origin: str
    wanted: Wanted


class Subscriptions(NamedTuple):
    """What the data plane wants now, by where it comes from."""

    ads: list[Wanted]
    streams: list[OwnStream]
    files: list[FileSubscription]
    directories: list[str]  # in which files are replaced that secrets refer to


class DataPlane:
    """Worker threads, admin and statistics, behind plain values. Making one validates; `start` brings it up."""

    def __init__(self, settings: ProxySettings, bootstrap: bytes) -> None:
        try:
            self._engine = _native.Engine(
                bootstrap,
                format_of(settings.config_path),
                config_path=settings.config_path,
                config_yaml=settings.config_yaml,
                concurrency=settings.concurrency,
                service_cluster=settings.service_cluster,
                service_node=settings.service_node,
                service_zone=settings.service_zone,
                restart_epoch=0,
                base_id=settings.base_id,
                disable_hot_restart=settings.disable_hot_restart,
                drain_time_s=settings.drain_time_s,
                drain_strategy=settings.drain_strategy,
                parent_shutdown_time_s=settings.parent_shutdown_time_s,
                mode="validate" if settings.mode == "validate" else "serve",
                log_level=settings.log_level,
                component_log_level=settings.component_log_level,
                log_format=settings.log_format,
                log_format_escaped=settings.log_format_escaped,
                log_path=settings.log_path,
                file_flush_interval_msec=settings.file_flush_interval_msec,
                file_flush_min_size_kb=settings.file_flush_min_size_kb,
                busy_poll_us=settings.busy_poll_us,
                admin_address_path=settings.admin_address_path,
                local_address_ip_version=settings.local_address_ip_version,
                allow_unknown_static_fields=settings.allow_unknown_static_fields,
                reject_unknown_dynamic_fields=settings.reject_unknown_dynamic_fields,
                ignore_unknown_dynamic_fields=settings.ignore_unknown_dynamic_fields,
                skip_deprecated_logs=settings.skip_deprecated_logs,
            )
        except _native.ConfigError as error:
            raise _config_error(error) from error
        except _native.EngineError as error:
            raise EngineError(str(error)) from error
        self.info = self._engine.bootstrap_info()

    # --- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        try:
            self._engine.start()
        except _native.EngineError as error:
            raise EngineError(str(error)) from error

    def event_fd(self) -> int:
        return self._engine.event_fd()

    def take_events(self) -> list[str]:
        return self._engine.take_events()

    def drain(self, seconds: float) -> None:
        self._engine.drain(seconds)

    def shutdown(self) -> None:
        self._engine.shutdown()

    def reopen_logs(self) -> None:
        self._engine.reopen_logs()

    def release_unused(self) -> None:
        self._engine.release_unused()

    def log(self, level: str, component: str, message: str) -> None:
        known: dict[str, Literal["debug", "info", "warning", "error", "critical"]] = {
            "debug": "debug",
            "warning": "warning",
            "error": "error",
            "critical": "critical",
        }
        self._engine.log(known.get(level, "info"), component, message)

    def count(self, name: str) -> None:
        self._engine.count(name)

    # --- configuration -----------------------------------------------------------------------------------------------

    def subscriptions(self) -> Subscriptions:
        """All that is wanted now, by where it comes from."""
        found = Subscriptions([], [], [], self._engine.watched_directories())
        for each in self._engine.subscriptions():
            wanted = Wanted(each.type_url, tuple(each.names), each.initial_fetch_timeout)
            if each.source == "path":
                found.files.append(FileSubscription(each.type_url, each.path, each.watched_directory, each.origin))
            elif each.grpc is not None:
                found.streams.append(OwnStream(each.grpc, each.origin, wanted))
            else:
                found.ads.append(wanted)
        return found

    def apply(self, update: Update, origin: str = "") -> Outcome:
        type_url, version, resources, removed, versions = update
        if removed is None:
            result = self._engine.apply(type_url, version, resources, origin)
        else:
            result = self._engine.apply_delta(type_url, version, resources, versions, removed, origin)
        return Outcome(result.accepted, [name for name, _, _ in result.rejected], result.detail)

    def paused(self) -> list[str]:
        return self._engine.paused()

    def update_failed(self, type_url: str, names: Sequence[str], *, timed_out: bool, origin: str = "") -> None:
        self._engine.update_failed(type_url, names, "fetch_timeout" if timed_out else "connection", origin)

    def update_rejected(self, type_url: str, reason: str, origin: str = "") -> None:
        self._engine.update_rejected(type_url, reason, origin)

    def directory_changed(self, directory: str) -> None:
        self._engine.directory_changed(directory)

    def ads_connected(self, connected: bool) -> None:
        self._engine.ads_connected(connected)

    def control_plane_identifier(self, identifier: str) -> None:
        self._engine.control_plane_identifier(identifier)

    # --- messages ----------------------------------------------------------------------------------------------------

    def encode_request(self, request: Request | DeltaRequest, node: bytes) -> bytes:
        if isinstance(request, DeltaRequest):
            return _native.encode_delta_discovery_request(
                type_url=request.type_url,
                nonce=request.nonce,
                subscribe=request.subscribe,
                unsubscribe=request.unsubscribe,
                initial_versions=request.initial_versions,
                node=node,
                error_message=request.error_message,
            )
        return _native.encode_discovery_request(
            type_url=request.type_url,
            version=request.version,
            nonce=request.nonce,
            names=request.names,
            node=node,
            error_message=request.error_message,
        )

    def decode_response(self, data: bytes) -> Response:
        try:
            return _response(_native.decode_discovery_response(data))
        except _native.DecodeError as error:
            raise DecodeError(str(error)) from error

    def decode_delta_response(self, data: bytes) -> DeltaResponse:
        try:
            found = _native.decode_delta_discovery_response(data)
        except _native.DecodeError as error:
            raise DecodeError(str(error)) from error
        return DeltaResponse(
            found.type_url,
            found.version,
            found.nonce,
            found.resources,
            found.versions,
            found.removed,
            found.control_plane,
        )

    def decode_file(self, data: bytes, path: str, type_url: str) -> Response:
        try:
            return _response(_native.decode_discovery_file(data, format_of(path), type_url))
        except _native.ConfigError as error:
            raise _config_error(error) from error


def _response(found: _native.DiscoveryResponse) -> Response:
    return Response(found.type_url, found.version, found.nonce, found.resources, found.control_plane)


def _config_error(error: _native.ConfigError) -> ConfigError:
    name, path, reason = (*map(str, error.args), "", "", "")[:3]
    return ConfigError(name, path, reason) if len(error.args) == 3 else ConfigError("", "", str(error))
