"""A report as one HTML file: nothing to fetch, nothing to run, and readable without colour."""

import math
from collections.abc import Mapping
from html import escape

from agreement.measures import TensorAgreement
from agreement.report import Report

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 2rem auto;
       max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; }
.verdict { font-size: 1.15rem; font-weight: 600; border-left: .4rem solid; padding: .3rem .8rem;
           margin: 1rem 0; }
.agree { border-color: #0072b2; } .disagree { border-color: #d55e00; background: #fff4ec; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dt { color: #555; } dd { margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; width: 100%; }
th, td { padding: .16rem .5rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #333; vertical-align: bottom; font-weight: 600; }
td { border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child, td.left, th.left { text-align: left; }
td.plot, th.plot { padding: 0 .3rem; text-align: center; }
tr.wrong td { background: #fff4ec; font-weight: 600; }
li.wrong { font-weight: 600; } code { font-size: .95em; }
.key span { margin-right: 1.4rem; } .key svg { vertical-align: middle; }
"""

# The plots' axis: decimal logarithms, and the width in pixels.
_FROM, _TO, _WIDTH, _HEIGHT = -20, 1, 155, 18


def to_html(report: Report, details: Mapping[str, str] | None = None) -> str:
    """Return the whole page; ``details`` are lines at its top, as data set and seed."""
    first, second = map(escape, report.names)
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in (details or {}).items())
    truth = any(row.reference_error is not None for row in report.rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(report.title)}</h1>
<p class="verdict {"agree" if report.agrees else "disagree"}">{escape(report.verdict())}</p>
<dl>{facts}</dl>
{_findings(report)}
<p class="key">{_key(first, second, truth)}</p>
<div class="scroll">
<table>
<thead><tr><th>tensor</th><th>shape</th><th>largest<br>value</th><th>error</th><th>limit</th>
<th class="plot">logarithmic<br>{_axis()}</th><th>ulps</th>
<th>cosine</th><th>{first}<br>own error</th><th>{second}<br>own error</th><th class="left">worst at</th>
<th class="left">verdict</th></tr></thead>
<tbody>
{"".join(_row(row) for row in report.rows)}</tbody>
</table>
</div>
<p>Error: the largest difference over the largest value of the tensor. Own error: that engine's distance from
a higher precision, on the same scale. Ulps: how many representable numbers lie between, where most do
(next to zero thousands are harmless).</p>
</body>
</html>
"""


def _findings(report: Report) -> str:
    items = []
    for row in report.wrong:
        at = "" if row.worst is None else f" at {list(row.worst)}"
        cause = report.remarks.get(row.name, "")
        both = zip(report.names, (row.reference_value, row.autograd_value), strict=True)
        text = f"{row.name}{at}: " + ", ".join(f"{name} {value:.10g}" for name, value in both)
        text += f"; likely cause: {cause}" if cause else ""
        items.append(f'<li class="wrong">Wrong: {escape(text)}</li>')
    items += [f'<li class="wrong">Wrong: {escape(problem)}</li>' for problem in report.problems]
    items += [
        f"<li>{escape(row.name)}: {escape(report.remarks[row.name])}</li>"
        for row in report.rows
        if row.agrees and row.name in report.remarks
    ]
    items += [f"<li>{escape(note)}</li>" for note in report.notes]
    if report.repeat:
        items.append(f"<li>To repeat: <code>{escape(report.repeat)}</code></li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _row(row: TensorAgreement) -> str:
    shape = "×".join(map(str, row.shape)) or "scalar"
    worst = "" if row.worst is None else str(list(row.worst))
    cells = [
        f"<td>{escape(row.name)}</td><td>{shape}</td><td>{row.largest_value:.1e}</td><td>{row.error:.1e}</td>",
        f'<td>{row.limit:.1e}</td><td class="plot">{_plot(row)}</td>',
        f"<td>{row.ulps:.3g}</td><td>{row.cosine:.6f}</td>",
        f"<td>{_number(row.reference_error)}</td><td>{_number(row.autograd_error)}</td>",
        f'<td class="left">{worst}</td><td class="left">{"agrees" if row.agrees else "TOO FAR APART"}</td>',
    ]
    start = "<tr>" if row.agrees else '<tr class="wrong">'
    return f"{start}{''.join(cells)}</tr>\n"


def _plot(row: TensorAgreement) -> str:
    """The error (a disc), both own errors (triangle and square) and the limit (a line), by size."""
    words = f"error {row.error:.1e}, limit {row.limit:.1e}"
    marks = [_square(row.autograd_error), _triangle(row.reference_error), _disc(row.error), _line(row.limit)]
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{words}"><title>{words}</title>'
        f'<path d="M0 9H{_WIDTH}" stroke="#ccc"/>{"".join(marks)}</svg>'
    )


def _axis() -> str:
    ticks = range(_FROM + 2, _TO, 6)
    marks = "".join(
        f'<path d="M{_x(10.0**t):.0f} 14v4" stroke="#333"/><text x="{_x(10.0**t):.0f}" y="11" font-size="10" '
        f'text-anchor="middle">1e{t}</text>'
        for t in ticks
    )
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" aria-hidden="true">{marks}</svg>'


def _key(first: str, second: str, truth: bool) -> str:
    def sample(mark: str) -> str:
        return f'<svg width="16" height="{_HEIGHT}" aria-hidden="true">{mark}</svg>'

    entries = [f"<span>{sample(_disc_at(8))} error</span>", f"<span>{sample(_line_at(8))} limit</span>"]
    if truth:
        entries.append(f"<span>{sample(_triangle_at(8))} {first}: own error</span>")
        entries.append(f"<span>{sample(_square_at(8))} {second}: own error</span>")
    return "".join(entries)


def _x(value: float) -> float:
    """Where a value lies on the axis; zero and what is smaller is at the left end, NaN at the right."""
    if math.isnan(value):
        return _WIDTH - 5
    power = math.log10(value) if value > 0 else _FROM
    return 5 + (min(max(power, _FROM), _TO) - _FROM) / (_TO - _FROM) * (_WIDTH - 10)


def _disc(value: float) -> str:
    return _disc_at(_x(value))


def _disc_at(x: float) -> str:
    return f'<circle cx="{x:.1f}" cy="9" r="4" fill="#111"/>'


def _line(value: float) -> str:
    return _line_at(_x(value))


def _line_at(x: float) -> str:
    return f'<path d="M{x:.1f} 1v16" stroke="#d55e00" stroke-width="2"/>'


def _triangle(value: float | None) -> str:
    return "" if value is None else _triangle_at(_x(value))


def _triangle_at(x: float) -> str:
    return f'<path d="M{x:.1f} 3l5 10h-10z" fill="none" stroke="#0072b2" stroke-width="1.5"/>'


def _square(value: float | None) -> str:
    return "" if value is None else _square_at(_x(value))


def _square_at(x: float) -> str:
    pen = 'fill="none" stroke="#7a4b00" stroke-width="1.5"'
    return f'<rect x="{x - 4.5:.1f}" y="4.5" width="9" height="9" {pen}/>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
