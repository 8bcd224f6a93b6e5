"""Fails when a wheel lacks what only a build can put there: maturin leaves out in silence what it does not find.

usage: check_wheel.py WHEEL. The standard library only: the Dockerfile runs it without an environment.
"""

from __future__ import annotations

import sys
import zipfile

TOOLS = tuple(f"tidegate/bench/bin/{name}" for name in ("tg-load", "tg-backend", "tg-forward"))
NEEDED = ("tidegate/_native.abi3.so", "tidegate/data/xds.binpb", "tidegate/py.typed", *TOOLS)


def complaints(wheel: str) -> list[str]:
    """What is wrong with it, in words; nothing when it is complete."""
    with zipfile.ZipFile(wheel) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    missing = [f"{name} is missing" for name in NEEDED if name not in modes]
    return missing + [f"{name} is not executable" for name in TOOLS if name in modes and not modes[name] & 0o100]


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    found = complaints(argv[0])
    for line in found:
        print(f"{argv[0]}: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
