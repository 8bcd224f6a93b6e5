"""`tidegate agent proxy sidecar|router`: have the plan made, start the proxy, stay with it.

This is the half that lives as long as the pod, so it imports next to nothing: no flag, no JSON and no dataclass is
known here. `plan` knows them, in a process that ends.
"""

from __future__ import annotations

import os
import sys

from tidegate.agent import log
from tidegate.agent.supervise.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    if argv and argv[0] == "plan":
        from tidegate.agent.plan import write_plan

        return write_plan(argv[1:])
    code, data = _have_planned(argv)
    if not data:
        return code
    drain, drains, admin, status, ports, *command = data.decode("utf-8", "surrogateescape").split("\0")
    supervisor = Supervisor(command, drain_s=float(drain), drains_on_sigterm=drains == "1", admin_port=int(admin))
    if int(status):
        # Imported late: sockets and threads stay out of an agent that nobody asks.
        from tidegate.agent.status import StatusServer

        log.info(f"Opening status port {status}")
        StatusServer(int(status), int(admin), [int(port) for port in ports.split(",") if port]).start()
    return supervisor.run()


def _have_planned(argv: Sequence[str]) -> tuple[int, bytes]:
    """Run `tidegate agent plan`: (its exit code, the plan; nothing when it printed help or an error)."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    # -P: a directory called `tidegate` where the agent happens to be started is not the package.
    words = [sys.executable, "-P", "-m", "tidegate", "agent", "plan", str(writing), *argv]
    pid = os.posix_spawn(sys.executable, words, os.environ)  # noqa: TID251 - passed on, not read
    os.close(writing)
    with open(reading, "rb") as pipe:
        data = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), data
