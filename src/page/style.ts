/** The page's own style. Colours are chosen for a contrast of at least 4.5 to 1 for text, 3 to 1 for what is drawn, light and dark. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --paper: #f6f7f9; --card: #ffffff; --ink: #1a1f27; --soft: #566070; --line: #dfe3e9;
  --well: #0f7b43; --impaired: #965a00; --failing: #bf2020; --unknown: #5a5fc7;
  --on-time: #2f7fd6; --late: #c47d0e; --failed: #cf3d3d; --waiting: #8a94a3; --untracked: #b9c0ca;
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #11151b; --card: #1a2029; --ink: #e9edf2; --soft: #a2adbb; --line: #303946;
    --well: #4cc483; --impaired: #e5a53c; --failing: #ff7b72; --unknown: #a5a9ff;
    --on-time: #5ba3f0; --late: #dd9f35; --failed: #f0655c; --waiting: #8792a2; --untracked: #565f6d;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); }
.page { max-width: 74rem; margin: 0 auto; padding: 1rem clamp(.75rem, 2.5vw, 2rem) 2rem; }
h1, h2, h3, p, dl, dd, figure, ul { margin: 0; padding: 0; }
h1 { font-size: 1rem; font-weight: 600; color: var(--soft); }
h2 { font-size: 1.05rem; font-weight: 650; }
h3 { font-size: .95rem; font-weight: 600; }
a { color: inherit; }
:focus-visible { outline: 3px solid var(--on-time); outline-offset: 2px; border-radius: 4px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .5rem 1rem; z-index: 1; }
.top { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .25rem 1rem; align-items: baseline; margin-bottom: .75rem; }
.soft, .top p { color: var(--soft); font-size: .875rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.15rem; min-width: 0; }
.verdict { border-left: 8px solid var(--level); padding: 1.1rem 1.25rem; margin-bottom: .75rem; }
.verdict .says { font-size: clamp(1.35rem, 4.2vw, 2rem); line-height: 1.2; font-weight: 700; letter-spacing: -.01em; color: var(--level); }
.verdict .because { font-size: 1.05rem; margin-top: .35rem; }
.verdict ul { list-style: none; margin-top: .6rem; display: grid; gap: .35rem; }
.verdict li { padding-left: 1.5rem; position: relative; }
.verdict li::before { content: ""; position: absolute; left: .2rem; top: .45em; width: .65rem; height: .65rem; border-radius: 50%; background: var(--level); }
.well { --level: var(--well); } .impaired { --level: var(--impaired); } .failing { --level: var(--failing); } .unknown { --level: var(--unknown); }
.notes { display: grid; gap: .35rem; margin-bottom: .75rem; }
.notes p { border-left: 4px solid var(--line); padding: .1rem .75rem; color: var(--soft); font-size: .9rem; }
.stale { background: var(--failing); color: var(--paper); padding: .5rem 1rem; border-radius: 8px; margin-bottom: .75rem; }
.two, .three { display: grid; gap: .75rem; margin-bottom: .75rem; }
@media (min-width: 56rem) { .two { grid-template-columns: 1fr 1fr; } .three { grid-template-columns: 1fr 1fr 1fr; } }
@media (min-width: 56rem) { .two > .kind:last-child:nth-child(odd):not(:first-child) { grid-column: 1 / -1; grid-template-columns: 1fr 1fr; grid-auto-flow: dense; } .two > .kind:last-child:nth-child(odd):not(:first-child) > :first-child { grid-column: 1 / -1; } .two > .kind:last-child:nth-child(odd):not(:first-child) > .scroll { grid-row: span 3; } }
.kind { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; align-content: start; }
.head { display: flex; align-items: center; gap: .9rem; margin-top: .35rem; }
.head .soft { display: block; }
small { font-weight: 400; color: var(--soft); font-size: .8em; }
.big { white-space: nowrap; font-size: 2.4rem; font-weight: 700; line-height: 1; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; padding-bottom: .35rem; font-weight: 600; font-size: .95rem; }
th, td { padding: .24rem .35rem; text-align: right; border-top: 1px solid var(--line); font-variant-numeric: tabular-nums; white-space: nowrap; }
thead th, thead td { border-top: 0; color: var(--soft); font-weight: 500; font-size: .8rem; vertical-align: bottom; white-space: normal; }
th[scope=row] { text-align: left; font-weight: 400; white-space: normal; padding-left: 0; }
tr.main th, tr.main td { font-weight: 650; }
td small { display: block; font-size: .78rem; } th small { display: block; }
@media (hover: hover) { [title]:is(th, dt, li) { text-decoration: underline dotted var(--soft); text-underline-offset: .25em; cursor: help; } }
.meanings { margin-bottom: .75rem; } .meanings dl { grid-template-columns: minmax(7rem, auto) 1fr; } .meanings dd { text-align: left; }
.verdict li a { white-space: nowrap; }
.zero { color: var(--soft); }
figure svg { display: block; width: 100%; height: auto; margin-top: .35rem; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .8rem; color: var(--soft); }
.legend li::before { content: ""; display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; margin-right: .35rem; background: var(--mark); vertical-align: -.05rem; }
.legend .line::before { height: .2rem; vertical-align: .2rem; border-radius: 0; }
.on_time { --mark: var(--on-time); } .late { --mark: var(--late); } .undelivered { --mark: var(--failed); }
.waiting { --mark: var(--waiting); } .untracked { --mark: var(--untracked); } .p50 { --mark: var(--on-time); } .p95 { --mark: var(--late); }
svg text { font-size: 11px; fill: var(--soft); }
svg rect { fill: var(--mark); } svg .hit { fill: transparent; }
svg polyline { fill: none; stroke: var(--mark); stroke-width: 2; stroke-linejoin: round; } svg circle { fill: var(--mark); }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .goal { stroke: var(--soft); stroke-dasharray: 4 3; }
summary { cursor: pointer; color: var(--soft); font-size: .85rem; padding: .2rem 0; width: fit-content; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .3rem 1rem; font-size: .9rem; margin-top: .5rem; }
dt { color: var(--soft); } dd { text-align: right; font-variant-numeric: tabular-nums; }
footer { color: var(--soft); font-size: .85rem; }
footer a { margin-right: 1rem; }
@media (max-width: 30rem) { .card { padding: .9rem .8rem; } table { font-size: .84rem; } th, td { padding-inline: .25rem; } svg text { font-size: 14px; } }
@media (prefers-reduced-motion: no-preference) { .verdict { transition: border-color .3s; } }
`;
