"""The page's style sheet. Light is the rule, dark follows the reader's system."""

from __future__ import annotations

STYLE = """
:root { --bg: #f7f7f5; --card: #ffffff; --ink: #1c1b19; --soft: #6b6862; --rule: #e5e3dd; --shade: rgba(30,25,10,.05);
  --tidegate: #0d8f83; --envoy: #c8387e; --haproxy: #3b6fd6; --nginx: #d08415; --direct: #a09c93; }
@media (prefers-color-scheme: dark) { :root { --bg: #141416; --card: #1d1e21; --ink: #ececea; --soft: #9d9b96;
  --rule: #303136; --shade: rgba(0,0,0,.3);
  --tidegate: #2fc4b4; --envoy: #f06ca8; --haproxy: #7aa5f8; --nginx: #f0ac48; --direct: #77746d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 40px 28px 64px; }
h1 { font-size: 30px; margin: 0; letter-spacing: -.02em; }
h2 { font-size: 20px; margin: 44px 0 4px; letter-spacing: -.01em; }
h3 { font: 600 14px/1.3 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: 0; }
p { margin: 0 0 14px; color: var(--soft); max-width: 78ch; }
.facts { font-size: 13px; margin: 4px 0 20px; max-width: none; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 14px; }
.tile, article { background: var(--card); border: 1px solid var(--rule); border-radius: 12px;
  box-shadow: 0 1px 3px var(--shade); }
.tile { padding: 16px 20px; } .tile b { font-size: 34px; letter-spacing: -.03em; margin-right: 8px; }
.tile em { font-style: normal; font-weight: 600; } .tile small { display: block; color: var(--soft); }
.legend { position: sticky; top: 0; display: flex; flex-wrap: wrap; gap: 18px; padding: 14px 0 10px; font-size: 13px;
  background: var(--bg); }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 14px; }
article { padding: 14px 16px 12px; display: flex; flex-direction: column; }
article p { font-size: 12.5px; line-height: 1.4; margin: 2px 0 10px; }
article footer { font-size: 11.5px; color: var(--soft); margin-top: auto; padding-top: 8px; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
svg text { fill: var(--ink); font-size: 12px; } svg .tick, svg .note { fill: var(--soft); font-size: 11px; }
svg .value { font-weight: 600; font-variant-numeric: tabular-nums; } svg .note { font-weight: 400; }
svg .grid { stroke: var(--rule); fill: none; } svg .whisker { stroke: var(--ink); opacity: .55; fill: none; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
details { margin-top: 44px; } summary { font-weight: 600; cursor: pointer; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin-top: 12px; font-variant-numeric: tabular-nums; }
td, th { padding: 4px 14px 4px 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th, td.peer { text-align: left; font-weight: 400; } td small { color: var(--soft); }
""" + "".join(
    f".fill.c-{peer} {{ fill: var(--{peer}); }} .line.c-{peer} {{ stroke: var(--{peer}); }}"
    f" .swatch.c-{peer} {{ background: var(--{peer}); }} .t-{peer} {{ color: var(--{peer}); }}\n"
    for peer in ("direct", "tidegate", "envoy", "haproxy", "nginx")
)
