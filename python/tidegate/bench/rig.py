"""Runs one case against every peer, interleaved, and measures what the proxy's process spent on it.

The proxy has CPU 0 to itself; the load generator, the backend and this process share CPU 1. CPU time is that of all
threads of the proxy's process tree (schedstat, nanoseconds), taken just before and after the load. Everything is
bounded in time and ends with the run. Must not know how results are shown (`report`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidegate.bench import network, peers
from tidegate.bench.peers.site import REDIRECT_ADDRESS, REDIRECT_PORT
from tidegate.bench.processes import (
    LOAD_CPU,
    PROXY_CPU,
    BenchError,
    await_answer,
    await_port,
    cpu_ns,
    free_port,
    memory,
    process,
    said,
    sleeps,
)
from tidegate.bench.scenarios import TLS_NAME, VHOST, Case
from tidegate.peer import PeerMissing

if TYPE_CHECKING:
    from tidegate.bench.storm import Storm

#: Who sends the load of the `redirect` cases: anybody but the proxy, whose traffic the rules leave alone.
_NOBODY = 65534
_WARM_SECONDS = 0.3
#: What the load generator runs before it counts; the proxy's CPU time includes it, and so do its operations.
_WARMUP = 0.2


@dataclass(frozen=True)
class Sample:
    """One measured burst of load (or start, or heap of connections): metrics by the names of `scenarios.METRICS`.

    `load_busy` is the share of CPU 1 that load generator and backend used: near 1, they were the limit. `curve` is the
    latency by percentile, (percent, microseconds).
    """

    metrics: dict[str, float]
    errors: int = 0
    first_error: str = ""
    load_busy: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()


@dataclass
class Outcome:
    """`missing`: why a peer has no samples; `skipped`: here, no peer can have any."""

    case: Case
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    skipped: bool = False


@dataclass(frozen=True)
class Target:
    """Something that load can be sent to; `pid` is None for the backend itself."""

    address: str
    pid: int | None = None
    logs: tuple[Path, ...] = ()
    user: int | None = None
    storm: Storm | None = None


def order(names: list[str], turn: int) -> list[str]:
    """Who comes after whom in a turn.

    Every second turn is the one before it backwards: nobody always has the same neighbour before him, and a drift
    within a turn cancels out. Then the next one begins.
    """
    first = turn // 2 % max(1, len(names))
    turned = names[first:] + names[:first]
    return turned[::-1] if turn % 2 else turned


class Rig:
    """The backend and, per case, the processes of its peers."""

    def __init__(
        self,
        names: list[str],
        *,
        duration: float,
        repeats: int,
        progress: Callable[[str], None],
        private_network: bool = False,
    ) -> None:
        self.names, self.duration, self.repeats, self.progress = names, duration, repeats, progress
        self.private_network = private_network
        self._stack = contextlib.ExitStack()
        self._count = 0

    def __enter__(self) -> Rig:
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-bench-")))
        # A copy that every user may execute.
        self._directory.chmod(0o755)
        self._load = self._directory / "tg-load"
        shutil.copyfile(peers.native_tool("tg-load"), self._load)
        self._load.chmod(0o755)
        usual = os.sched_getaffinity(0)
        self._stack.callback(os.sched_setaffinity, 0, usual)
        os.sched_setaffinity(0, {LOAD_CPU})
        backend = self._stack.enter_context(
            process(
                (peers.native_tool("tg-backend"), "--max-seconds", "7200"), LOAD_CPU, self._directory / "backend.err",
                stdout=subprocess.PIPE, stdin=subprocess.PIPE,
            )
        )  # fmt: skip
        assert backend.stdout is not None
        self.backend_pid = backend.pid
        self.ports: dict[str, int] = json.loads(backend.stdout.readline())
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def measure(self, case: Case) -> Outcome:
        """`repeats` figures per peer, in turns. A peer that fails is named in `missing`; the others go on."""
        outcome = Outcome(case)
        names = [name for name in self.names if peers.can(name, case)]
        if case.kind in ("load", "storm"):
            self._side_by_side(case, names, outcome)
        elif case.kind == "redirect":
            if not self.private_network:
                outcome.skipped = True
                outcome.missing = dict.fromkeys(names, "needs root and a network namespace of its own")
                return outcome
            with network.redirection(os.geteuid()):
                self._one_at_a_time(case, names, outcome, self._redirected)
        elif case.kind == "idle":
            self._one_at_a_time(case, names, outcome, self._idle)
        else:
            self._one_at_a_time(case, names, outcome, self._startup)
        return outcome

    def measure_own(self, case: Case, start: Callable[[str], peers.Launch], address: str) -> Outcome:
        """As `measure`, for proxies that are all configured for the same `address`: one at a time, then."""
        outcome = Outcome(case)

        def one(name: str) -> Sample:
            with self._run(case, name, start(name), address) as target:
                self._burst(case, target, _WARM_SECONDS)
                return self._burst(case, target, self.duration)

        self._one_at_a_time(case, self.names, outcome, lambda _case, name: one(name))
        return outcome

    # The two orders of a run.

    def _side_by_side(self, case: Case, names: list[str], outcome: Outcome) -> None:
        """All proxies stay up; bursts go to them in turns."""
        with contextlib.ExitStack() as stack:
            targets: dict[str, Target] = {}
            for name in names:
                with _noting(outcome, name):
                    targets[name] = self._started(stack, case, name)
            for name in list(targets):
                self.progress(f"{case.name}: warming {name}")
                with _noting(outcome, name):
                    self._burst(case, targets[name], _WARM_SECONDS)
            for turn in range(self.repeats):
                for name in [name for name in order(list(targets), turn) if name not in outcome.missing]:
                    self.progress(f"{case.name}: {turn + 1}/{self.repeats} {name}")
                    with _noting(outcome, name):
                        if case.kind == "storm":
                            sample = self._stormy(case, targets[name])
                        else:
                            sample = self._burst(case, targets[name], self.duration)
                        outcome.samples.setdefault(name, []).append(sample)

    def _one_at_a_time(
        self, case: Case, names: list[str], outcome: Outcome, sample: Callable[[Case, str], Sample]
    ) -> None:
        """A fresh process for every figure."""
        for turn in range(self.repeats):
            for name in [name for name in order(names, turn) if name not in outcome.missing]:
                self.progress(f"{case.name}: {turn + 1}/{self.repeats} {name}")
                with _noting(outcome, name):
                    outcome.samples.setdefault(name, []).append(sample(case, name))

    # One figure of each kind.

    def _burst(self, case: Case, target: Target, duration: float) -> Sample:
        slept = sleeps(self.backend_pid)
        before, backend_before = (cpu_ns(target.pid) if target.pid else 0), cpu_ns(self.backend_pid)
        result = self._send(case, target, duration)
        after, backend_after = (cpu_ns(target.pid) if target.pid else 0), cpu_ns(self.backend_pid)
        for log in target.logs:
            with contextlib.suppress(OSError):
                os.truncate(log, 0)
        ops, seconds = result["ops"] + result["warmup_ops"], result["seconds"]
        bulk = case.load[0].startswith("tcp-bulk")
        if not result["ops"] and not bulk:
            raise BenchError(f"{target.address}: no operation came to an end: {result['first_error']}")
        if bulk:
            # The CPU time includes the warming up, the bytes do not: they come at the same rate.
            ops = result["bytes"] / 2**20 * (1 + _WARMUP / seconds)
        slept = sleeps(self.backend_pid) - slept
        metrics = {"rate": result["ops"] / seconds, "backend_sleeps": slept / ops if ops else 0.0}
        if target.pid and ops:
            metrics["cpu_us"] = (after - before) / 1e3 / ops
        curve: tuple[tuple[float, float], ...] = ()
        if not bulk:
            metrics |= {key: result[key] for key in ("p50_us", "p99_us", "p999_us")}
            curve = tuple((percent, micros) for percent, micros in result["curve_us"])
        busy = (result["cpu_seconds"] + (backend_after - backend_before) / 1e9) / (seconds + _WARMUP)
        return Sample(metrics, result["errors"], result["first_error"] or "", busy, curve)

    def _send(self, case: Case, target: Target, duration: float) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if target.user is not None:
            options = {"user": target.user, "group": target.user, "extra_groups": []}
        run = subprocess.run(
            ["taskset", "-c", str(LOAD_CPU), str(self._load), *case.load, "--address", target.address,
             "--duration", str(duration), "--warmup", str(_WARMUP)],
            capture_output=True, timeout=duration + 30, check=False, **options,
        )  # fmt: skip
        if run.returncode != 0:
            raise BenchError(f"load against {target.address} failed: {run.stderr.decode(errors='replace')[-1000:]}")
        result: dict[str, Any] = json.loads(run.stdout)
        return result

    def _stormy(self, case: Case, target: Target) -> Sample:
        """A burst in peace and one under updates."""
        assert target.storm is not None
        quiet = self._burst(case, target, self.duration)
        with target.storm.blowing() as updates:
            sample = self._burst(case, target, self.duration)
        for metric in ("p99_us", "cpu_us"):
            sample.metrics[f"quiet_{metric}"] = quiet.metrics[metric]
        sample.metrics["updates"] = updates[0]
        return sample

    def _redirected(self, case: Case, name: str) -> Sample:
        if name == "direct":
            target = Target(f"127.0.0.1:{self.ports[case.backend]}")
            self._burst(case, target, _WARM_SECONDS)
            return self._burst(case, target, self.duration)
        site = self._site(case, name)
        address = f"{REDIRECT_ADDRESS}:{REDIRECT_PORT}"
        with self._run(case, name, peers.launch(name, case, site), "127.0.0.1:15001", user=_NOBODY, to=address) as to:
            self._burst(case, to, _WARM_SECONDS)
            return self._burst(case, to, self.duration)

    def _idle(self, case: Case, name: str) -> Sample:
        """What a heap of idle connections adds to the resident memory of a warmed-up process, per connection."""
        site = self._site(case, name)
        address = f"127.0.0.1:{site.listen}"
        with self._run(case, name, peers.launch(name, case, site), address) as target:
            assert target.pid is not None
            streams = int(case.load[case.load.index("--streams") + 1]) if "--streams" in case.load else 0
            if case.protocol == "http":
                # `h2_echo` wants gRPC.
                mode = "grpc" if streams else "h2" if case.http2_client else "http"
                warm = (mode, "--path", "/100", *(("--body", "64") if streams else ()))
            else:
                warm = ("tcp-pingpong",)
            self._send(_with_load(case, (*warm, "--connections", "8")), target, _WARM_SECONDS)
            time.sleep(0.2)
            before = memory(target.pid)
            with process(
                (str(self._load), *case.load, "--address", address), LOAD_CPU, site.directory / "load",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            ) as load:  # fmt: skip
                assert load.stdin is not None
                assert load.stdout is not None
                opened = load.stdout.readline()
                if not opened:
                    raise BenchError(f"idle connections to {name}: {said(site.directory / 'load')}")
                count = json.loads(opened)["connections"]
                time.sleep(0.3)
                after = memory(target.pid)
                load.stdin.close()
                alive = json.loads(load.stdout.readline())["alive"]
        per, of = ("stream", count * streams) if streams else ("connection", count)
        metrics = {
            f"bytes_per_{per}": (after.total - before.total) / of,
            f"anon_bytes_per_{per}": (after.anonymous - before.anonymous) / of,
        }
        return Sample(metrics, errors=count - alive, first_error="closed while idle" if alive < count else "")

    def _startup(self, case: Case, name: str) -> Sample:
        """From exec to the first answer by the last entry, and the memory then."""
        assert case.table is not None
        site = self._site(case, name)
        launch = self._written(peers.launch(name, case, site))
        output = site.directory / "output"
        begin = time.monotonic()
        with process(launch.argv, PROXY_CPU, output) as started:
            await_answer(site.listen, VHOST.format(n=case.table.size - 1), started, output, 60)
            seconds = time.monotonic() - begin
            time.sleep(0.2)
            used = memory(started.pid)
        return Sample({"load_seconds": seconds, "memory_mb": used.total / 1e6, "anon_mb": used.anonymous / 1e6})

    # Starting.

    def _site(self, case: Case, name: str) -> peers.Site:
        self._count += 1
        directory = self._directory / f"{self._count}-{case.name}-{name}"
        directory.mkdir()
        certificate = self._certificate() if case.tls else Path()
        return peers.Site(free_port(), self.ports[case.backend], free_port(), directory, certificate=certificate)

    def _certificate(self) -> Path:
        """The directory of the run's certificate, made when it is first wanted: the same for every peer."""
        directory = self._directory / "certificate"
        if not directory.exists():
            directory.mkdir()
            made = subprocess.run(
                [str(self._load), "certificate", "--name", TLS_NAME, "--directory", str(directory)],
                capture_output=True, timeout=30, check=False,
            )  # fmt: skip
            if made.returncode != 0:
                raise BenchError(f"no certificate: {made.stderr.decode(errors='replace')}")
        return directory

    def _written(self, launch: peers.Launch) -> peers.Launch:
        for path, text in launch.files.items():
            path.write_text(text)
        return launch

    def _started(self, stack: contextlib.ExitStack, case: Case, name: str) -> Target:
        if name == "direct":
            return Target(f"127.0.0.1:{self.ports[case.backend]}")
        site, storm = self._site(case, name), None
        if case.kind == "storm":
            storm = _storm_class()(site.listen, (self.ports["http"], self.ports["http_other"]))
            stack.callback(storm.stop)
            site = replace(site, ads=storm.port)
        launch = peers.launch(name, case, site)
        try:
            return stack.enter_context(self._run(case, name, launch, f"127.0.0.1:{site.listen}", storm=storm))
        except BenchError:
            if storm:
                storm.check()
            raise

    @contextlib.contextmanager
    def _run(
        self,
        case: Case,
        name: str,
        launch: peers.Launch,
        address: str,
        *,
        to: str = "",
        user: int | None = None,
        storm: Storm | None = None,
    ) -> Iterator[Target]:
        """The proxy up and listening at `address`; load goes there, or `to` where it is redirected from."""
        self._count += 1
        self._written(launch)
        output = self._directory / f"{self._count}-{case.name}-{name}.output"
        with process(launch.argv, PROXY_CPU, output) as started:
            host, _, port = address.rpartition(":")
            await_port(int(port), started, output, host.strip("[]"))
            yield Target(to or address, started.pid, launch.logs, user, storm)


def _storm_class() -> type[Storm]:
    """Imported when it is wanted: it needs protobuf, which a plain `pip install tidegate` does not bring."""
    try:
        from tidegate.bench.storm import Storm
    except ModuleNotFoundError as error:
        raise BenchError(f"no module {error.name}: pip install 'tidegate[mesh]'") from None
    return Storm


def _with_load(case: Case, load: tuple[str, ...]) -> Case:
    return replace(case, load=load)


@contextlib.contextmanager
def _noting(outcome: Outcome, name: str) -> Iterator[None]:
    """A peer that is not there or fails must not end the run: its words become the result."""
    try:
        yield
    except (PeerMissing, BenchError) as error:
        outcome.missing[name] = str(error)
