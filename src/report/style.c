#include "style.h"

#include <stddef.h>

/* The seven colours of Okabe and Ito (2008) that stand out from white, told apart with any kind of
 * colour vision; on dark their lighter shades. */
static const char colors[] =
    ":root{color-scheme:light dark;--page:#fff;--text:#1b1f24;--faint:#5c6570;--rule:#d9dee4;"
    "--stripe:#f5f7f9;"
    "--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0568f;--c4:#b97f00;--c5:#2f97d0;--c6:#4d4d4d}\n"
    "@media (prefers-color-scheme:dark){:root{--page:#14171b;--text:#e6e9ed;--faint:#9aa4af;"
    "--rule:#333a42;--stripe:#1b2026;"
    "--c0:#4fa9e6;--c1:#ff8a3d;--c2:#2fc99a;--c3:#e39cc8;--c4:#f0b63c;--c5:#9cd3ff;--c6:#c4c9cf}}"
    "\n";

static const char page[] =
    "body{margin:0 auto;max-width:1120px;padding:24px 20px 48px;background:var(--page);"
    "color:var(--text);font:15px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\","
    "sans-serif}\n"
    "h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:36px 0 4px}"
    "p{margin:4px 0 12px;color:var(--faint);max-width:75ch}\n"
    ".wide{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}"
    "th,td{padding:6px 8px;text-align:right;white-space:nowrap;"
    "border-bottom:1px solid var(--rule)}"
    "th{color:var(--faint);font-weight:600;font-size:13px;vertical-align:bottom}"
    "th[scope=row]{color:var(--text);font-size:15px}"
    "th:first-child,td.text,th.text{text-align:left}"
    "tbody tr:nth-child(even){background:var(--stripe)}"
    ".unfinished{color:var(--c1);font-weight:600}\n"
    "figure{margin:16px 0 0;padding:0}figcaption{font-weight:600}"
    ".panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));"
    "gap:8px 24px}\n"
    ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 20px;margin:4px 0;padding:0;"
    "font-size:14px}.legend li{display:flex;align-items:center;gap:8px}\n";

static const char plots[] =
    ".plot{display:block;max-width:100%;height:auto}"
    ".axis path{stroke:var(--faint);fill:none}.axis path.grid{stroke:var(--rule)}"
    ".axis text{fill:var(--text);font-size:13px;font-variant-numeric:tabular-nums}"
    ".x text,.axis .name{text-anchor:middle}.y text{text-anchor:end;dominant-baseline:central}"
    ".axis .name{fill:var(--faint);text-anchor:middle}\n"
    ".line{fill:none;stroke:var(--color);stroke-width:2;stroke-linejoin:round}"
    ".marker{fill:var(--color);stroke:var(--color);stroke-width:1.5}"
    ".marker.hollow{fill:var(--page)}\n"
    ".c0{--color:var(--c0)}.c1{--color:var(--c1)}.c2{--color:var(--c2)}.c3{--color:var(--c3)}"
    ".c4{--color:var(--c4)}.c5{--color:var(--c5)}.c6{--color:var(--c6)}\n"
    ".d1 .line{stroke-dasharray:7 4}.d2 .line{stroke-dasharray:2 3}"
    ".d3 .line{stroke-dasharray:10 3 2 3}.d4 .line{stroke-dasharray:14 5}\n"
    "@media print{body{max-width:none}figure,tr{break-inside:avoid}}\n";

const char *const report_style[] = {colors, page, plots, NULL};
