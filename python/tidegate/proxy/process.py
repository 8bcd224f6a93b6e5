"""The running proxy, on the Python side: one thread, one loop.

Brings configuration in and reacts to signals until told to end. A callback that fails is logged and counted; the loop
goes on, and traffic never noticed.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Final

from tidegate.proxy.filesystem import Filesystem
from tidegate.proxy.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidegate.proxy.ads.client import XdsClient
    from tidegate.proxy.engine import DataPlane
    from tidegate.settings import ProxySettings

__all__ = ["ProxyProcess", "run"]

# After the drain time the data plane closes what is left; this much later the process ends even if it never says so.
_DRAIN_GRACE_S: Final = 2.0
_RESTART_PAUSE_S: Final = 1.0
# So long after the first configuration its stream is quiet: what importing and decoding have freed goes back.
_SETTLED_S: Final = 1.0


def run(settings: ProxySettings, plane: DataPlane) -> int:
    """Serve until told to end; returns the exit code.

    uvloop where there is a stream to drive; the plain loop costs less memory where there is none.
    """
    process = ProxyProcess(settings, plane)
    if plane.info.ads is not None:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(process.serve())
    with asyncio.Runner() as runner:
        return runner.run(process.serve())


class ProxyProcess:
    """The running process: configuration sources, signals, events of the data plane, and the end."""

    def __init__(self, settings: ProxySettings, plane: DataPlane) -> None:
        self._settings = settings
        self._plane = plane
        self._ads: XdsClient | None = None
        self._streams = Streams(plane, self._events, self._guarded)
        self._files = Filesystem(plane, _inotify)
        self._watching_files = False
        self._draining = False
        self._exit_code = 0
        self._done: asyncio.Event | None = None

    async def serve(self) -> int:
        """Until SIGTERM, SIGINT or /quitquitquit; returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._callback_failed)
        self._done = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, number)
        loop.add_signal_handler(signal.SIGUSR1, self._plane.reopen_logs)
        loop.add_signal_handler(signal.SIGHUP, self._ignore_hangup)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        loop.add_reader(self._plane.event_fd(), self._events)
        if self._plane.info.ads is not None:
            self._ads = self._streams.open("ADS", self._plane.info.ads)
        # Through the loop, so that a failure here is a failed callback as well.
        loop.call_soon(self._subscribe)
        loop.call_soon(self._events)
        try:
            await self._done.wait()
        finally:
            await self._streams.close()
            loop.remove_reader(self._plane.event_fd())
            self._plane.shutdown()
        return self._exit_code

    # --- configuration -----------------------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        wanted = self._plane.subscriptions()
        if self._ads is not None:
            self._ads.subscribe(wanted.ads, self._plane.paused())
        self._streams.follow(wanted.streams)
        self._files.subscribe(wanted.files, wanted.directories)
        if self._files.watcher is not None and not self._watching_files:
            self._watching_files = True
            asyncio.get_running_loop().add_reader(self._files.watcher, self._files_changed)

    def _files_changed(self) -> None:
        self._files.changed()

    # --- what happens ------------------------------------------------------------------------------------------------

    def _events(self) -> None:
        for event in self._plane.take_events():
            if event == "subscriptions":
                self._subscribe()
            elif event == "initialized":
                self._plane.log("info", "main", "all dependencies initialized. starting workers")
                asyncio.get_running_loop().call_later(_SETTLED_S, self._plane.release_unused)
                if self._settings.mode == "init_only":
                    self._finish(0)
            elif event in ("shutdown", "drained"):
                self._finish(0)
            elif event == "fatal":
                self._plane.log("critical", "main", "a worker thread has died")
                self._finish(1)

    def _told_to_stop(self, number: signal.Signals) -> None:
        self._plane.log("warning", "main", f"caught {number.name}")
        if self._draining:
            self._finish(0)
            return
        self._draining = True
        seconds = self._settings.stop_drain_s
        self._plane.log("info", "main", f"draining for at most {seconds:g}s; a second signal ends at once")
        # Set first: whatever the drain does, the process ends.
        asyncio.get_running_loop().call_later(seconds + _DRAIN_GRACE_S, self._finish, 0)
        self._plane.drain(seconds)

    def _ignore_hangup(self) -> None:
        self._plane.log("warning", "main", "caught and eating SIGHUP")

    def _finish(self, code: int) -> None:
        if self._done is not None and not self._done.is_set():
            self._exit_code = code
            self._plane.log("info", "main", "exiting")
            self._done.set()

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    async def _guarded(self, name: str, run: Callable[[], Any]) -> None:
        """Run a task for ever: what it raises is logged and counted, and it is started again."""
        while True:
            try:
                await run()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._failed(f"{name} task", error)
            await asyncio.sleep(_RESTART_PAUSE_S)

    def _callback_failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._failed(str(context.get("message", "callback")), context.get("exception"))

    def _failed(self, what: str, error: BaseException | None) -> None:
        self._plane.count("tidegate.callback_failures")
        self._plane.log("error", "main", f"{what}: {type(error).__name__}: {error}")


def _inotify() -> Any:
    from tidegate.proxy.inotify import Inotify

    return Inotify()
