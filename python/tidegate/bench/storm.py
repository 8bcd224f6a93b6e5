"""A control plane in a hurry: 10 EDS, 2 RDS and 1 LDS updates a second over a real ADS stream, for one proxy.

Every update changes something: endpoints come and go (requests on their way to one that goes must not fail), the route
configuration gets and loses a virtual host, the listener changes the prefix of its statistics.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from tidegate import xdsapi
from tidegate.bench.ads_server import AdsServer
from tidegate.bench.peers import envoy
from tidegate.bench.processes import BenchError

#: Clusters besides the one that carries the load.
_CLUSTERS = 20
#: What is updated in a second, evenly spread.
_SECOND = ("eds", "eds", "rds", "eds", "eds", "eds", "lds", "eds", "eds", "rds", "eds", "eds", "eds")


class Storm:
    """The management server of one proxy; `port` is its ADS port."""

    def __init__(self, listen: int, upstreams: tuple[int, int]) -> None:
        self._listen, self._upstreams = listen, upstreams
        self._turns = {"eds": 0, "rds": 0, "lds": 0}
        self._server = AdsServer().start()
        self.port = self._server.port
        names = [envoy.NAME, *(f"cluster-{n}" for n in range(_CLUSTERS))]
        self._names = names
        self._server.set(xdsapi.CLUSTER, {name: envoy.eds_cluster(name) for name in names})
        for kind in self._turns:
            self._update(kind)

    def stop(self) -> None:
        self._server.stop()

    @contextlib.contextmanager
    def blowing(self) -> Iterator[list[int]]:
        """Updates go out for the while; at the end the list holds their number. `BenchError` if one was rejected."""
        stop, count = threading.Event(), [0]

        def blow() -> None:
            begin = time.monotonic()
            while not stop.wait(max(0.0, begin + count[0] / len(_SECOND) - time.monotonic())):
                self._update(_SECOND[count[0] % len(_SECOND)])
                count[0] += 1

        thread = threading.Thread(target=blow, name="storm", daemon=True)
        thread.start()
        try:
            yield count
        finally:
            stop.set()
            thread.join(10)
        self.check()

    def check(self) -> None:
        """`BenchError` if the proxy rejected something."""
        if rejected := [seen.error for seen in self._server.seen if seen.error]:
            raise BenchError(f"the proxy rejected an update: {rejected[0]}")

    def _update(self, kind: str) -> None:
        self._turns[kind] += 1
        turn = self._turns[kind]
        if kind == "eds":
            first, second = self._upstreams
            ports = ([first, second], [second], [second, first], [first])[turn % 4]
            self._server.set(
                xdsapi.CLUSTER_LOAD_ASSIGNMENT, {name: envoy.endpoints(name, ports) for name in self._names}
            )
        elif kind == "rds":
            document = envoy.routes(None)
            if turn % 2:
                extra = {"name": "extra", "domains": ["extra.bench.example"], "routes": []}
                document["virtual_hosts"].append(extra)
            self._server.set(xdsapi.ROUTE_CONFIGURATION, {envoy.NAME: document})
        else:
            chain = envoy.connection_manager(envoy.rds(), stat_prefix=f"bench-{turn % 2}")
            self._server.set(xdsapi.LISTENER, {envoy.NAME: envoy.listener(self._listen, chain)})
