"""Makes this checkout importable in its own `.venv` and writes the two commands.

What `maturin develop` would do, less the second compilation: the Makefile has already built the native module
into `python/tidegate/`. Must not know anything about tidegate but its entry points.
"""

from __future__ import annotations

import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    Path(sysconfig.get_path("purelib"), "tidegate.pth").write_text(f"{ROOT / 'python'}\n")
    for name, target in project["scripts"].items():
        module, function = target.split(":")
        script = Path(sysconfig.get_path("scripts"), name)
        script.write_text(
            f"#!{sys.executable}\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        )
        script.chmod(0o755)


if __name__ == "__main__":
    main()
