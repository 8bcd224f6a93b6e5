"""Where a proxy under test stands, and how it is started. Knows no proxy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: In the `redirect` cases: what the load connects to, and where iptables sends it.
REDIRECT_ADDRESS, REDIRECT_PORT, CAPTURE_PORT = "10.254.0.2", 80, 15001


@dataclass(frozen=True)
class Site:
    """Ports on 127.0.0.1, and a directory of its own. `ads` is 0 without a management server; `certificate` is the
    directory of the run's certificate, for the cases with TLS."""

    listen: int
    upstream: int
    admin: int
    directory: Path
    ads: int = 0
    certificate: Path = Path()

    @property
    def cert(self) -> Path:
        return self.certificate / "cert.pem"

    @property
    def key(self) -> Path:
        return self.certificate / "key.pem"

    @property
    def cert_and_key(self) -> Path:
        return self.certificate / "both.pem"


@dataclass(frozen=True)
class Launch:
    """A command line, the files it reads (path -> text), and the logs it writes, emptied after each burst."""

    argv: tuple[str, ...]
    files: dict[Path, str]
    logs: tuple[Path, ...] = ()
