"""A stand-in for `tidegate._native`: the same surface, messages as JSON, and a diary instead of a data plane.

The bootstrap is JSON: {"targets": [...], "subscriptions": [...], "fail": {"take_events": 1}, "drains": true}. Calls
leave their lines in the file named by "diary".
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from types import ModuleType
from typing import Any


class ConfigError(Exception):
    pass


class DecodeError(Exception):
    pass


class EngineError(Exception):
    pass


class Bag:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Engine:
    def __init__(self, bootstrap: bytes, format: str, **options: Any) -> None:
        try:
            self.config = json.loads(bootstrap)
        except ValueError as error:
            raise ConfigError("", "admin.address", str(error)) from error
        self.options = options
        self.fd = os.eventfd(1, os.EFD_NONBLOCK)
        self.events = ["subscriptions"]

    def write(self, *words: object) -> None:
        with open(self.config["diary"], "a", encoding="utf-8") as diary:
            diary.write(" ".join(map(str, words)) + "\n")

    def push(self, event: str) -> None:
        self.events.append(event)
        os.eventfd_write(self.fd, 1)

    def fail(self, what: str) -> None:
        if self.config.get("fail", {}).get(what, 0) > 0:
            self.config["fail"][what] -= 1
            raise RuntimeError(f"a bug in {what}")

    def bootstrap_info(self) -> Bag:
        targets = self.config.get("targets", [])
        ads = Bag(
            cluster="xds-grpc",
            targets=targets,
            delta=False,
            authority="",
            initial_metadata=[],
            connect_timeout=1.0,
            tcp_keepalive=(0, 300, 0),
            http2_keepalive=None,
            retry_back_off=(0.05, 0.2),
        )
        return Bag(
            node=b"node",
            ads=ads if targets else None,
        )

    def start(self) -> None:
        if self.config.get("bind") == "refused":
            raise EngineError("cannot bind 127.0.0.1:80: permission denied")
        self.write("start")
        if self.config.get("ready"):
            self.push("initialized")

    def event_fd(self) -> int:
        return self.fd

    def take_events(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        found, self.events = self.events, []
        self.fail("take_events")
        return found

    def subscriptions(self) -> list[Bag]:
        return [
            Bag(path="", watched_directory="", origin="", grpc=None, **each)
            for each in self.config.get("subscriptions", [])
        ]

    def apply(self, type_url: str, version: str, resources: list[tuple[str, bytes]], origin: str = "") -> Bag:
        self.fail("apply")
        self.write("apply", type_url, version, *(name for name, _ in resources))
        return Bag(accepted=[name for name, _ in resources], rejected=[], detail="")

    def watched_directories(self) -> list[str]:
        return []

    def paused(self) -> list[str]:
        return []

    def update_failed(self, type_url: str, names: list[str], reason: str, origin: str = "") -> None:
        self.write("update_failed", type_url, reason)

    def update_rejected(self, type_url: str, reason: str, origin: str = "") -> None:
        self.write("update_rejected", type_url, reason)

    def ads_connected(self, connected: bool) -> None:
        self.write("ads_connected", connected)

    def control_plane_identifier(self, identifier: str) -> None:
        pass

    def drain(self, seconds: float) -> None:
        self.write("drain", seconds)
        if self.config.get("drains"):
            self.push("drained")

    def shutdown(self) -> None:
        self.write("shutdown")

    def reopen_logs(self) -> None:
        self.fail("reopen_logs")
        self.write("reopen_logs")

    def release_unused(self) -> None:
        self.write("release_unused")

    def log(self, level: str, component: str, message: str) -> None:
        self.write("log", level, message)

    def count(self, name: str, amount: int = 1) -> None:
        self.write("count", name)


def encode_discovery_request(*, node: bytes = b"", names: Any = (), **values: Any) -> bytes:
    return json.dumps({**values, "names": list(names), "node": node.decode()}).encode()


def decode_discovery_response(data: bytes) -> Bag:
    try:
        type_url, version, nonce, names = json.loads(data)
    except ValueError as error:
        raise DecodeError(str(error)) from error
    resources = [(name, b"") for name in names]
    return Bag(type_url=type_url, version=version, nonce=nonce, resources=resources, control_plane="")


def decode_discovery_file(data: bytes, format: str, type_url: str) -> Bag:
    return decode_discovery_response(data)


def version() -> str:
    return "dev/0.1.0/Clean/DEBUG/tidegate"


def install() -> None:
    """Put this module where the native one would be."""
    import tidegate

    module = ModuleType("tidegate._native")
    module.__dict__.update({name: value for name, value in globals().items() if not name.startswith("__")})
    sys.modules["tidegate._native"] = module
    tidegate._native = module  # type: ignore[attr-defined]


if __name__ == "__main__":
    install()
    from tidegate.cli import proxy_main

    sys.exit(proxy_main())
