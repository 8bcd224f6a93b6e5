"""The document as one page: complete in itself, no scripts, plots as inline SVG, light and dark."""

from __future__ import annotations

import math
import re
import statistics
from datetime import UTC, datetime
from html import escape
from typing import Any

from tidegate.bench.report import svg
from tidegate.bench.report.style import STYLE
from tidegate.bench.report.table import number
from tidegate.bench.scenarios import METRICS

_ORDER = ("direct", "tidegate", "envoy", "haproxy", "nginx")
_TABLE = re.compile(r"(vhosts|routes)-(\d+)-(.+)")
_PERCENTILES = ((50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9"))


def page(doc: dict[str, Any]) -> str:
    cases: dict[str, Any] = doc["cases"]
    plain = {name: case for name, case in cases.items() if not _TABLE.fullmatch(name)}
    sections = [
        _section("CPU per operation", "CPU time of all threads of the proxy, in microseconds. Shorter is better. The "
                 "whisker is the span of all bursts; × is the peer's cost over tidegate's.",
                 [_bars(name, case, case["headline"]) for name, case in plain.items() if case["headline"] == "cpu_us"]),
        _section("Latency", "By percentile, in microseconds, logarithmic. Lower and flatter is better. Under full load "
                 "latency is mostly the queue before the busiest core; the fixed rate shows what a proxy adds.",
                 [_curve(name, plain[name]) for name in sorted(plain, key=lambda name: name != "latency")
                  if _has_curve(plain[name])]),
        _section("Cost against table size", "CPU per request in microseconds over the number of entries. A flat line "
                 "means that a large mesh costs no more than a small one.", _sizes(cases)),
        _section("Latency added, memory and start", "What the proxy adds at a fixed rate, what an idle connection "
                 "holds, and what a large configuration takes.",
                 [_bars(name, case, metric) for name, case in plain.items() if case["headline"] != "cpu_us"
                  for metric in _shown(case)]),
    ]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>tidegate bench</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<style>{STYLE}</style></head><body><main>{_head(doc)}{''.join(sections)}{_figures(cases)}</main></body></html>\n"
    )


def _head(doc: dict[str, Any]) -> str:
    machine = doc["machine"]
    when = datetime.fromtimestamp(machine.get("begun", 0), UTC).strftime("%Y-%m-%d %H:%M UTC")
    peers = [peer for peer in _ORDER if any(peer in case["peers"] for case in doc["cases"].values())]
    legend = "".join(f'<span><i class="swatch c-{peer}"></i>{peer}</span>' for peer in peers)
    facts = (
        f"{when} · {machine['cpus']} CPUs · Linux {escape(str(machine['kernel']))} · "
        f"{machine.get('repeats', '?')} × {machine.get('duration', '?')} s per peer, in turns · "
        f"{escape(machine['network'])}"
    )
    return (
        f"<header><h1>tidegate bench</h1><p class='facts'>{facts}</p>{_tiles(doc['cases'])}"
        f"<div class='legend'>{legend}</div></header>"
    )


def _tiles(cases: dict[str, Any]) -> str:
    tiles = []
    for peer in ("envoy", "haproxy", "nginx"):
        ratios = [
            case["times_better_than"][peer]
            for case in cases.values()
            if case["headline"] == "cpu_us" and case["times_better_than"].get(peer, 0) > 0
        ]
        if ratios:
            mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))
            span = f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} cases"
            tiles.append(
                f"<div class='tile'><b>{mean:.2f}×</b><span>CPU of <em class='t-{peer}'>{peer}</em> over tidegate's"
                f"</span><small>geometric mean; {span}</small></div>"
            )
    return f"<div class='tiles'>{''.join(tiles)}</div>" if tiles else ""


def _section(title: str, text: str, cards: list[str]) -> str:
    cards = [card for card in cards if card]
    if not cards:
        return ""
    return f"<section><h2>{title}</h2><p>{text}</p><div class='cards'>{''.join(cards)}</div></section>"


def _card(name: str, summary: str, plot: str, note: str = "") -> str:
    foot = f"<footer>{note}</footer>" if note else ""
    return f"<article><h3>{escape(name)}</h3><p>{escape(summary)}</p>{plot}{foot}</article>" if plot else ""


def _peers(case: dict[str, Any], metric: str) -> list[str]:
    found = [peer for peer in case["peers"] if metric in case["peers"][peer]]
    return sorted(found, key=lambda peer: _ORDER.index(peer) if peer in _ORDER else len(_ORDER))


def _bars(name: str, case: dict[str, Any], metric: str) -> str:
    peers = _peers(case, metric)
    ours = case["peers"].get("tidegate", {}).get(metric, {}).get("median", 0)
    rows = []
    for peer in peers:
        figure = case["peers"][peer][metric]
        note = f"{figure['median'] / ours:.2f}×" if ours > 0 and peer != "tidegate" else ""
        rows.append(svg.Bar(peer, figure["min"], figure["median"], figure["max"], note))
    label, unit = METRICS[metric]
    notes = [f"{label}, {unit}"]
    if limited := [peer for peer in peers if case["peers"][peer]["load_was_the_limit"]]:
        notes.append(f"load generator and backend were the limit for {', '.join(limited)}")
    sleepy = [peer for peer in peers if metric == "cpu_us" and case["peers"][peer]["pays_for_waking"]]
    if sleepy and len(sleepy) < len(peers):
        notes.append(f"includes waking a backend that sleeps: {', '.join(sleepy)}")
    if errors := [
        f"{case['peers'][peer]['errors']} failed ({peer})" for peer in peers if case["peers"][peer]["errors"]
    ]:
        notes.append(f"<strong>{escape(', '.join(errors))}</strong>")
    # Their first line says what is wrong; the whole story is in the JSON.
    notes += [f"{escape(peer)}: {escape(why.splitlines()[0][:90])}" for peer, why in case["missing"].items()]
    return _card(name, case["summary"], svg.bars(rows, unit) if rows else "<p>no figures</p>", " · ".join(notes))


def _shown(case: dict[str, Any]) -> list[str]:
    """The metrics of a case that has no CPU time as its headline."""
    wanted = case["columns"] if "memory_mb" not in case["columns"] else case["guards"]
    return [metric for metric in wanted[:2] if not metric.startswith("anon")]


def _has_curve(case: dict[str, Any]) -> bool:
    return any("curve_us" in row for row in case["peers"].values())


def _curve(name: str, case: dict[str, Any]) -> str:
    series = [
        svg.Line(peer, [(percent, micros) for percent, micros in case["peers"][peer]["curve_us"]])
        for peer in _peers(case, "curve_us")
    ]

    def place(percent: float) -> float:
        """p50 at the left, p99.9 at the right, each nine as wide as the one before."""
        return math.log((100 - 50) / (100 - percent)) / math.log((100 - 50) / (100 - 99.9))

    return _card(name, case["summary"], svg.lines(series, _PERCENTILES, place, log=True), "us")


def _sizes(cases: dict[str, Any]) -> list[str]:
    groups: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for name, case in cases.items():
        if found := _TABLE.fullmatch(name):
            groups.setdefault((found[1], found[3]), {})[int(found[2])] = case
    cards = []
    for (table, kind), by_size in groups.items():
        sizes = sorted(by_size)
        if len(sizes) < 2:
            continue
        peers = [peer for peer in _ORDER if any("cpu_us" in c["peers"].get(peer, {}) for c in by_size.values())]
        series = [
            svg.Line(peer, [(float(size), by_size[size]["peers"][peer]["cpu_us"]["median"]) for size in sizes
                            if "cpu_us" in by_size[size]["peers"].get(peer, {})])
            for peer in peers
        ]  # fmt: skip
        top = math.log10(sizes[-1])
        ticks = [(float(size), f"{size:,}") for size in sizes]
        plot = svg.lines(series, ticks, lambda size, top=top: math.log10(size) / top, log=False)  # type: ignore[misc]
        added = ", ".join(
            f"{line.peer} {line.points[-1][1] - line.points[0][1]:+.1f}" for line in series if len(line.points) > 1
        )
        title = f"{'virtual hosts' if table == 'vhosts' else 'routes'} by {kind.replace('-', ', ')}"
        cards.append(_card(title, f"us per request over {sizes[-1]:,} entries", plot, f"added us: {added}"))
    return cards


def _figures(cases: dict[str, Any]) -> str:
    rows = []
    for name, case in cases.items():
        for peer in case["peers"]:
            row = case["peers"][peer]
            cells = "".join(
                f"<td>{number(row[metric]['median'])}<small> {METRICS[metric][1]}</small></td>" if metric in row
                else "<td></td>" for metric in case["columns"][:4]
            )  # fmt: skip
            ratio = case["times_better_than"].get(peer)
            rows.append(f"<tr><th>{escape(name)}</th><td class='peer'><i class='swatch c-{escape(peer)}'></i>"
                        f"{escape(peer)}</td><td>{f'{ratio:.2f} ×' if ratio else ''}</td>{cells}"
                        f"<td>{row['errors'] or ''}</td></tr>")  # fmt: skip
    head = (
        "<tr><th>case</th><th>peer</th><th>over tidegate</th><th colspan='4'>medians, headline first</th>"
        "<th>failed</th></tr>"
    )
    table = f"<div class='scroll'><table>{head}{''.join(rows)}</table></div>"
    return f"<details><summary>All figures</summary>{table}</details>"
