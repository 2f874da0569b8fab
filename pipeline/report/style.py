"""The page's style sheet: sober, printable, the same on a wide screen and on a phone."""

from __future__ import annotations

STYLE_SHEET = """
:root { --ink: #1c2228; --soft: #5b6670; --line: #d9dee3; --paper: #ffffff; --tint: #f5f7f9; --accent: #0b5c8f; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1100px; padding: 28px 24px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 44px 0 10px; padding-top: 14px; border-top: 2px solid var(--ink); }
h3 { font-size: 16px; margin: 26px 0 6px; }
p { margin: 8px 0; max-width: 92ch; }
a { color: var(--accent); }
code, pre { font: 12.5px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { background: var(--tint); border: 1px solid var(--line); padding: 12px; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.note, figcaption { color: var(--soft); font-size: 13px; max-width: 110ch; }
.missing { background: var(--tint); border-left: 4px solid var(--soft); padding: 8px 12px; }
.banner { margin: 14px 0; padding: 10px 14px; border-radius: 4px; border: 1px solid; font-weight: 400;
  overflow-wrap: anywhere; }
.banner.bad { background: #fbe9e7; border-color: #b3261e; color: #7a1a14; }
.banner.good { background: #e8f3ec; border-color: #2e7d4f; color: #1f5636; }
.banner.neutral { background: var(--tint); border-color: var(--soft); }
span.bad { color: #a3211a; font-weight: 600; }
span.good { color: #22693f; font-weight: 600; }
.waived { color: #8a5a00; font-weight: 600; }
nav { margin: 14px 0 0; font-size: 13.5px; }
nav a { margin-right: 14px; white-space: nowrap; text-decoration: none; }
dl.identity { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 14px 0; font-size: 13.5px; }
dl.identity dt { color: var(--soft); }
dl.identity dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 10px; margin: 18px 0; }
.card { border: 1px solid var(--line); border-radius: 4px; padding: 10px 12px; background: var(--tint); }
.card b { display: block; font-size: 21px; line-height: 1.25; font-variant-numeric: tabular-nums; white-space: nowrap; }
.card span { display: block; color: var(--soft); font-size: 12.5px; line-height: 1.35; }
.scroll { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); font-size: 13px; padding: 0 0 6px; }
th, td { padding: 4px 14px 4px 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; border-bottom: 1.5px solid var(--ink); vertical-align: bottom; }
th.text, td.text { text-align: left; }
tr.total td { font-weight: 600; border-top: 1.5px solid var(--ink); }
figure { margin: 18px 0; }
figure img { width: 100%; height: auto; display: block; }
figcaption { margin-top: 6px; }
.gallery { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 22px 24px; margin: 16px 0; }
.pair { break-inside: avoid; }
.stamps { display: grid; grid-template-columns: repeat(4, 1fr); gap: 4px; }
.stamps img { width: 100%; display: block; image-rendering: pixelated; background: #000; }
.stamps span { color: var(--soft); font-size: 12px; text-align: center; }
.facts { font-size: 12.5px; margin-top: 3px; font-variant-numeric: tabular-nums; }
details { margin: 12px 0; }
summary { cursor: pointer; color: var(--accent); }
@media (max-width: 720px) {
  body { padding: 16px 14px 40px; font-size: 14.5px; }
  .gallery { grid-template-columns: 1fr; }
  dl.identity { grid-template-columns: 1fr; }
  dl.identity dt { margin-top: 4px; }
  figure { overflow-x: auto; }
  figure img { min-width: 620px; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  nav { display: none; }
  figure, table, .pair, .card { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
}
"""
