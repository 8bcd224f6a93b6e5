"""The document as a table for a terminal: the headline with its spread, then the medians of the rest."""

from __future__ import annotations

from typing import Any

from tidegate.bench.scenarios import METRICS


def table(doc: dict[str, Any]) -> str:
    lines, limited, waking = [f"in {doc['machine']['network']}"], False, False
    for name, case in doc["cases"].items():
        columns = case["columns"]
        heads = [" ".join(METRICS[metric]).strip() for metric in columns]
        lines.append(f"\n{name}: {case['summary']}")
        first = f"{heads[0]} (min/median/max)"
        lines.append(f"  {'peer':<10}{first:>36}" + "".join(f"{head:>18}" for head in heads[1:]) + "  peer/tidegate")
        for peer, row in case["peers"].items():
            spread = row.get(columns[0])
            cells = "/".join(number(spread[k]) for k in ("min", "median", "max")) if spread else "-"
            rest = "".join(f"{number(row[m]['median']) if m in row else '-':>18}" for m in columns[1:])
            ratio = case["times_better_than"].get(peer)
            marks = (
                (" *" if row["load_was_the_limit"] else "")
                + (" ~" if row["pays_for_waking"] else "")
                + (f"  {row['errors']} FAILED ({row['first_error']})" if row["errors"] else "")
            )
            limited |= row["load_was_the_limit"]
            waking |= row["pays_for_waking"]
            lines.append(f"  {peer:<10}{cells:>36}{rest}{f'{ratio:>11.2f} x' if ratio else ' ' * 13}{marks}".rstrip())
        lines += [f"  {peer:<10}{why}" for peer, why in case["missing"].items()]
    if limited:
        lines.append(
            "\n* load generator and backend were the limit: the rate is a lower bound, CPU per operation holds"
        )
    if waking:
        lines.append(
            "~ the backend slept between operations, and the figure includes waking it: beside a peer without this"
            "\n  mark the ratio is too large (bench/README.md)"
        )
    return "\n".join(lines)


def number(value: float) -> str:
    """Three significant digits, thousands apart."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
