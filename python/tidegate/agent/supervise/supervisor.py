"""One proxy process, kept running. One thread, one wait: for a signal, or for the time of the next step.

        start            exit 0, killed by a stop
    +----------> RUNNING ----------------------------> done
    |               |  \\ SIGTERM, SIGINT
    |  exit != 0    |   v
    +-- WAITING <---+  STOPPING --(time is over)--> SIGKILL
        back-off

The proxy is spawned, never forked. SIGTERM and SIGINT stop it gracefully, a second one at once; SIGHUP and SIGUSR1 are
passed on. Back-off as in pilot-agent: 200 ms, doubled up to ten times, then the agent gives up with the proxy's exit
code. Unlike there, a proxy that ran for a while earns a fresh budget: one crash a day is not a crash loop.
"""

from __future__ import annotations

import os
import signal
import time

from tidegate.agent import log
from tidegate.errors import ProxyFailedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

__all__ = ["Retry", "Supervisor", "active_connections"]

_HANDLED: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_FOREVER: Final = 3600.0


class Retry:
    """How often and when a dead proxy is started again. Not a dataclass: that import outweighs the whole supervisor."""

    __slots__ = ("budget", "earned_after_s", "initial_s")

    def __init__(self, initial_s: float = 0.2, budget: int = 10, earned_after_s: float = 5.0) -> None:
        self.initial_s = initial_s
        self.budget = budget
        self.earned_after_s = earned_after_s

    def delay(self, failures: int) -> float:
        """Before the next start, after so many failures in a row (at least one)."""
        return self.initial_s * 2.0 ** (failures - 1)


class Supervisor:
    """Runs `command` until it ends for good; `run` returns the agent's exit code.

    Signals are held back from the moment it is made. Make it before any thread is started: a thread that did not
    inherit that would be handed the signals `run` waits for, and SIGCHLD would be lost there without a trace.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        drain_s: float,
        drains_on_sigterm: bool,
        admin_port: int,
        retry: Retry | None = None,
        kill_after_s: float = 5.0,
    ) -> None:
        self._command = list(command)
        self._drain_s = drain_s
        self._drains_on_sigterm = drains_on_sigterm
        self._admin_port = admin_port
        self._retry = retry or Retry()
        self._kill_after_s = kill_after_s
        self._pid = 0
        self._started = 0.0
        self._failures = 0
        self._next_start: float | None = None
        self._stopping = False
        self._terminated = False  # SIGTERM has been sent
        self._deadline: float | None = None  # of the present step of stopping
        self._exit_code: int | None = None
        # A parent that ignores SIGCHLD passes that on, and then nobody learns of a death.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)

    def run(self) -> int:
        """Start the proxy and stay until it, or the agent, is told to end. Raises ProxyFailedError."""
        self._start()
        while self._exit_code is None:
            found = signal.sigtimedwait(_HANDLED, self._timeout())
            if found is not None:
                self._signalled(found.si_signo)
            self._clock()
        return self._exit_code

    def _start(self) -> None:
        self._next_start = None
        self._started = time.monotonic()
        try:
            # Nothing of our signal handling is inherited: the proxy starts as if from a shell.
            self._pid = os.posix_spawn(
                self._command[0],
                self._command,
                os.environ,  # noqa: TID251 - passed on, not read
                setsigmask=(),
                setsigdef=_HANDLED,
            )
        except OSError as error:
            raise ProxyFailedError(f"cannot start {self._command[0]}: {error}", 1) from error
        log.info(f"Epoch 0 starting: {' '.join(self._command)} (pid {self._pid})")

    # --- what happened -----------------------------------------------------------------------------------------------

    def _signalled(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number in (signal.SIGTERM, signal.SIGINT):
            if self._stopping:
                log.warning("told to stop twice: killing the proxy")
                self._kill(signal.SIGKILL)
            else:
                self._stop(number)
        else:
            self._kill(number)

    def _reap(self) -> None:
        """Every child that has ended: as process 1 of a container we also inherit those of others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._pid = 0
                self._exited(os.waitstatus_to_exitcode(status))

    def _exited(self, code: int) -> None:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if self._stopping:
            log.info(f"Epoch 0 terminated ({how})")
            self._exit_code = 0
        elif code == 0:
            log.info("Epoch 0 exited normally")
            self._exit_code = 0
        else:
            log.warning(f"Epoch 0 terminated with an error: {how}")
            if time.monotonic() - self._started >= self._retry.earned_after_s:
                self._failures = 0
            self._failures += 1
            if self._failures > self._retry.budget:
                reason = f"the proxy died {self._failures} times in a row, the last time with {how}; giving up"
                raise ProxyFailedError(reason, 128 - code if code < 0 else code)
            delay = self._retry.delay(self._failures)
            self._next_start = time.monotonic() + delay
            log.info(f"Epoch 0: set retry delay to {delay:g}s, budget to {self._retry.budget - self._failures}")

    # --- what is due -------------------------------------------------------------------------------------------------

    def _timeout(self) -> float:
        due = [moment for moment in (self._next_start, self._deadline) if moment is not None]
        if not due:
            return _FOREVER
        # While an Envoy drains, its connections are counted four times a second.
        most = 0.25 if self._stopping and not self._terminated else _FOREVER
        return max(0.0, min(min(due) - time.monotonic(), most))

    def _clock(self) -> None:
        now = time.monotonic()
        if self._next_start is not None and now >= self._next_start and not self._stopping:
            self._start()
        if self._exit_code is not None or self._deadline is None:
            return
        if self._terminated:
            if now >= self._deadline:
                log.warning("the proxy did not end in time: killing it")
                self._kill(signal.SIGKILL)
                self._deadline = None
        elif now >= self._deadline or active_connections(self._admin_port) == 0:
            self._terminate(signal.SIGTERM, self._kill_after_s)

    # --- stopping ----------------------------------------------------------------------------------------------------

    def _stop(self, number: int) -> None:
        self._stopping = True
        self._next_start = None
        if not self._pid:
            self._exit_code = 0
            return
        log.info("Agent draining proxy for termination")
        if self._drains_on_sigterm:
            self._terminate(number, self._drain_s + self._kill_after_s)
            return
        from tidegate.agent.admin import AdminError, request

        try:
            request(self._admin_port, "/drain_listeners?graceful", "POST")
        except AdminError as error:
            log.warning(f"cannot drain the proxy: {error}")
            self._terminate(number, self._kill_after_s)
        else:
            self._deadline = time.monotonic() + self._drain_s

    def _terminate(self, number: int, patience_s: float) -> None:
        self._terminated = True
        self._deadline = time.monotonic() + patience_s
        self._kill(number)

    def _kill(self, number: int) -> None:
        if self._pid:
            os.kill(self._pid, number)


def active_connections(admin_port: int) -> int | None:
    """Downstream connections of the proxy's listeners, the admin's own not counted; None = it does not say."""
    from tidegate.agent.admin import AdminError, request

    try:
        status, body = request(admin_port, "/stats?usedonly&filter=downstream_cx_active$")
    except AdminError:
        return None
    if status != 200:
        return None
    total = 0
    for line in body.splitlines():
        name, _, value = line.partition(":")
        # Per-worker counters and the http.* ones count the same connections again.
        if name.startswith("listener.") and not name.startswith("listener.admin.") and ".worker_" not in name:
            total += int(value) if value.strip().isdigit() else 0
    return total
