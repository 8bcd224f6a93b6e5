"""The three kinds of plot, as SVG text: bars of the peers, lines over table sizes, latency curves.

Colours are classes (`c-envoy`), so that the page's style decides for light and dark. Knows no document, only figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from tidegate.bench.report.table import number

WIDTH = 380


@dataclass(frozen=True)
class Bar:
    """One peer's figure; `low` and `high` are drawn as a whisker, `note` stands behind the value."""

    peer: str
    low: float
    value: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class Line:
    peer: str
    points: Sequence[tuple[float, float]]


def bars(rows: Sequence[Bar], unit: str) -> str:
    """Horizontal bars from zero, one scale."""
    step, left, right = 26, 66, 112
    height = step * len(rows) + 4
    top = max([row.high for row in rows] + [1e-9])
    scale = (WIDTH - left - right) / top
    parts = []
    for index, row in enumerate(rows):
        y = index * step + 4
        width = max(row.value * scale, 1.5)
        middle, end = y + 8, left + max(row.high, row.value) * scale
        title = f"{row.peer}: {number(row.low)} / {number(row.value)} / {number(row.high)} {unit}"
        parts.append(f"<g><title>{escape(title)}</title>")
        parts.append(f'<text x="{left - 8}" y="{middle + 4}" class="name" text-anchor="end">{escape(row.peer)}</text>')
        parts.append(
            f'<rect x="{left}" y="{y}" width="{width:.1f}" height="16" rx="3" class="fill c-{escape(row.peer)}"/>'
        )
        if row.high - row.low > top * 0.01:
            low, high = left + max(row.low, 0) * scale, left + row.high * scale
            parts.append(f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 3}v6M{high:.1f} {middle - 3}v6"'
                         ' class="whisker"/>')  # fmt: skip
        note = f'<tspan class="note" dx="6">{escape(row.note)}</tspan>' if row.note else ""
        parts.append(f'<text x="{end + 6:.1f}" y="{middle + 4}" class="value">{number(row.value)}{note}</text></g>')
    return _svg(height, "".join(parts))


def lines(series: Sequence[Line], ticks: Sequence[tuple[float, str]], x: Callable[[float], float], *, log: bool) -> str:
    """Lines over named places of the x axis; `x` brings a place to 0..1. The y axis is from zero, or logarithmic."""
    left, right, top, bottom, height = 46, 12, 8, 24, 210
    values = [value for line in series for _, value in line.points if value > 0]
    if not values:
        return ""
    floor, ceiling, marks = _log_scale(values) if log else _scale(values)

    def across(place: float) -> float:
        return left + x(place) * (WIDTH - left - right)

    def up(value: float) -> float:
        if log:
            share = math.log(max(value, floor) / floor) / math.log(ceiling / floor)
        else:
            share = (value - floor) / (ceiling - floor)
        return height - bottom - share * (height - bottom - top)

    parts = []
    for mark in marks:
        y = up(mark)
        parts.append(f'<path d="M{left} {y:.1f}H{WIDTH - right}" class="grid"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{_short(mark)}</text>')
    for index, (place, label) in enumerate(ticks):
        anchor = "end" if index == len(ticks) - 1 else "middle" if index else "start"
        parts.append(
            f'<text x="{across(place):.1f}" y="{height - 6}" class="tick" text-anchor="{anchor}">{label}</text>'
        )
    # Ours last, on top.
    for line in sorted(series, key=lambda line: line.peer == "tidegate"):
        path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in line.points)
        parts.append(f'<polyline points="{path}" class="line c-{escape(line.peer)}"/>')
        if len(line.points) <= 4:
            for a, b in line.points:
                parts.append(
                    f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="3.5" class="fill c-{escape(line.peer)}">'
                    f"<title>{escape(line.peer)}: {number(b)}</title></circle>"
                )
    return _svg(height, "".join(parts))


def _scale(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """From zero to a round number, with four or five marks."""
    rough = max(values) / 4
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough)
    count = math.ceil(max(values) / step)
    return 0.0, count * step, [step * i for i in range(count + 1)]


def _log_scale(values: Sequence[float]) -> tuple[float, float, list[float]]:
    """Whole powers of ten would waste space: 1, 2 and 5 of each, as few as hold the values."""
    all_marks = [m * 10**e for e in range(-3, 9) for m in (1, 2, 5)]
    low = max([m for m in all_marks if m <= min(values)] or [min(values)])
    high = min([m for m in all_marks if m >= max(values)] or [max(values)])
    marks = [m for m in all_marks if low <= m <= high]
    if len(marks) > 7:
        marks = [m for m in marks if f"{m:e}".startswith("1")] or marks
    return low, high if high > low else low * 10, marks


def _short(value: float) -> str:
    if value >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:g}"


def _svg(height: float, body: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{body}</svg>'
