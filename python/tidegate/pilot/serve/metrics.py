"""Pilot's metrics under Istio's names, in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tidegate.pilot.translate.generate import CDS, EDS, LDS, RDS

SHORT: Final = {CDS: "cds", EDS: "eds", LDS: "lds", RDS: "rds"}
_BUCKETS: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0)


@dataclass
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))
    total: float = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(_BUCKETS, value)] += 1
        self.total += value


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Metrics:
    """Counters that last as long as the process; gauges are given when asked."""

    def __init__(self) -> None:
        self.pushes: Counter[str] = Counter()
        self.rejects: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.config_updates = 0
        self.bad_nodes = 0
        self._push_time: dict[str, _Histogram] = {kind: _Histogram() for kind in SHORT}

    def observe_push(self, kind: str, seconds: float) -> None:
        """The time from a response to its answer."""
        self._push_time[kind].observe(seconds)

    def render(self, gauges: dict[str, tuple[str, float]], rejecting: list[tuple[str, str, str]]) -> str:
        """The page. `gauges`: name -> (help, value); `rejecting`: (type, node, reason) of resources now refused."""
        lines: list[str] = []

        def family(name: str, kind: str, about: str) -> None:
            lines.extend((f"# HELP {name} {about}", f"# TYPE {name} {kind}"))

        for name, (about, value) in gauges.items():
            family(name, "gauge", about)
            lines.append(f"{name} {value:g}")
        family("pilot_xds_pushes", "counter", "Responses sent, by type.")
        lines += [f'pilot_xds_pushes{{type="{short}"}} {self.pushes[kind]}' for kind, short in SHORT.items()]
        family("pilot_total_xds_rejects", "counter", "Responses that proxies refused, by type.")
        lines += [f'pilot_total_xds_rejects{{type="{short}"}} {self.rejects[kind]}' for kind, short in SHORT.items()]
        for kind, short in SHORT.items():
            family(f"pilot_xds_{short}_reject", "gauge", f"Proxies that refuse what they were last sent of {short}.")
            lines += [
                f'pilot_xds_{short}_reject{{node="{_escaped(node)}",err="{_escaped(reason)}"}} 1'
                for found, node, reason in rejecting
                if found == kind
            ]
        family("pilot_inbound_updates", "counter", "Changes of the registry or the rules that were taken up.")
        lines.append(f'pilot_inbound_updates{{type="config"}} {self.config_updates}')
        family("pilot_xds_node_rejects", "counter", "Streams closed for a node id that cannot be read.")
        lines.append(f"pilot_xds_node_rejects {self.bad_nodes}")
        family("pilot_xds_push_time", "histogram", "Seconds from a response to the proxy's answer, by type.")
        for kind, short in SHORT.items():
            lines += self._buckets(short, self._push_time[kind])
        return "\n".join(lines) + "\n"

    @staticmethod
    def _buckets(short: str, histogram: _Histogram) -> list[str]:
        lines, running = [], 0
        for bound, count in zip((*_BUCKETS, float("inf")), histogram.counts, strict=True):
            running += count
            edge = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f'pilot_xds_push_time_bucket{{type="{short}",le="{edge}"}} {running}')
        lines.append(f'pilot_xds_push_time_sum{{type="{short}"}} {histogram.total:g}')
        lines.append(f'pilot_xds_push_time_count{{type="{short}"}} {running}')
        return lines
