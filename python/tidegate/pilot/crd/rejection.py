"""Why a resource was refused: always the file, the line, the field and the reason."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.errors import ConfigError


@dataclass(frozen=True)
class Rejection:
    """One refused field. `str()` is the line an operator reads."""

    file: str
    line: int
    field: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}"
        return f"{where}: {self.field}: {self.reason}" if self.field else f"{where}: {self.reason}"


class ResourceRejectedError(ConfigError):
    """Raised while a document is read; carries the `Rejection`."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(f"{rejection.file}:{rejection.line}", rejection.field, rejection.reason)
        self.rejection = rejection
