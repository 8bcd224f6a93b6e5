"""The command line: `tidegate COMMAND ...`, and `tidegate-proxy` for whoever expects an Envoy binary.

Finds the command, imports it and nothing else, calls its `main(argv)`, and shows an error once. Knows no command's
flags.
"""

from __future__ import annotations

import sys

from tidegate.errors import TidegateError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

__all__ = ["main", "proxy_main"]

# command -> (module whose main(argv) runs it, one line about it)
_COMMANDS: Final = {
    "proxy": ("tidegate.proxy.app", "the data plane; takes Envoy's command line and bootstrap"),
    "agent": ("tidegate.agent.app", "writes the bootstrap, starts and supervises the data plane"),
    "iptables": ("tidegate.iptables.app", "redirects a pod's traffic to its proxy"),
    "discovery": ("tidegate.pilot.app", "the control plane: registries and routing rules in, xDS out"),
    "demo": ("tidegate.demo.app", "a whole mesh on this machine: tidegate demo bookinfo"),
    "bench": ("tidegate.bench.app", "latency and CPU per request, side by side with Envoy, HAProxy and nginx"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The `tidegate` entry point."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_usage())
        return 0 if words else 1
    if words[0] in ("--version", "version"):
        from tidegate import __version__

        sys.stdout.write(f"tidegate {__version__}\n")
        return 0
    if words[0] not in _COMMANDS:
        sys.stderr.write(f"tidegate: no command {words[0]!r}\n\n{_usage()}")
        return 1
    return _run(words[0], words[1:])


def proxy_main() -> int:
    """The `tidegate-proxy` entry point: `tidegate proxy` under a name that --binaryPath can take."""
    return _run("proxy", sys.argv[1:])


def _run(command: str, argv: Sequence[str]) -> int:
    module = _COMMANDS[command][0]
    try:
        __import__(module)
        code = sys.modules[module].main(list(argv))
    except UsageError as error:
        sys.stderr.write(f"tidegate {command}: {error}\nSee tidegate {command} --help.\n")
        return error.exit_code
    except TidegateError as error:
        sys.stderr.write(f"tidegate {command}: {error}\n")
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", "tidegate"):
            raise
        sys.stderr.write(f"tidegate {command}: no module {error.name}: pip install 'tidegate[mesh]'\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return int(code or 0)


def _usage() -> str:
    width = max(map(len, _COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {about}" for name, (_, about) in _COMMANDS.items())
    more = "tidegate COMMAND --help tells a command's flags; tidegate --version the version."
    return f"usage: tidegate COMMAND [flags]\n\ncommands:\n{commands}\n\n{more}\n"


if __name__ == "__main__":
    sys.exit(main())
