"""The control plane's certificate and the authority of its clients: files as Istio mounts them, which change.

Clients must have a certificate of the authority, as with Pilot. Nothing here knows what is served.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import grpc

_log: Final = logging.getLogger(__name__)
_KEY: Final = "key.pem"
_CHAIN: Final = "cert-chain.pem"
_ROOT: Final = "root-cert.pem"
_BEGIN: Final = b"-----BEGIN "


class CertificateError(Exception):
    """A file is not there, or is nothing of the kind."""


class Certificates:
    """The files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stamps: tuple[tuple[int, int, int], ...] = ()

    def credentials(self) -> grpc.ServerCredentials:
        """For a server that looks at the files before each handshake; `CertificateError` when they are not there."""
        self._stamps = self._look()
        return grpc.dynamic_ssl_server_credentials(self._read(), self._fetch, require_client_authentication=True)

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        # Kubernetes replaces a link above the files, so that all of them are new at once.
        try:
            found = [self._path(name).stat() for name in (_KEY, _CHAIN, _ROOT)]
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from error
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        contents = []
        for name in (_KEY, _CHAIN, _ROOT):
            try:
                content = self._path(name).read_bytes()
            except OSError as error:
                raise CertificateError(f"{error.filename}: {error.strerror}") from error
            if _BEGIN not in content:
                raise CertificateError(f"{self._path(name)}: not in PEM")
            contents.append(content)
        key, chain, root = contents
        return grpc.ssl_server_certificate_configuration([(key, chain)], root)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by grpc before a handshake, on a thread of its own; `None`: as before."""
        try:
            stamps = self._look()
            if stamps == self._stamps:
                return None
            configuration = self._read()
        except CertificateError as error:
            _log.warning("the last good certificates stay in force: %s", error)
            return None
        self._stamps = stamps
        _log.info("new certificates from %s", self._directory)
        return configuration
