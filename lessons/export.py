"""Export the lessons: each as one HTML page that needs no network, and as a notebook for Jupyter.

    python lessons/export.py                     all of them into build/lessons
    python lessons/export.py 03 07 --out pages   two of them

Why not `marimo export html`: its page fetches the scripts that show it (20 MB in 700 files) from a CDN, and
stays blank without a network. Here the page is plain HTML. A slider still moves: the cells that depend on it
are run for each of its values, and the page holds all of the outputs.
"""

import argparse
import ast
import base64
import html
import importlib.util
import io
import itertools
import json
import os
import pprint
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# What is multiplied here is small, and threads that wait for each other are slow. NumPy reads this when
# it is loaded.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import marimo as mo
import nbformat
from latex2mathml.converter import convert as mathml
from marimo._ast.app import InternalApp
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

HERE = Path(__file__).resolve().parent
CSS = (HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (HERE / "page.js").read_text(encoding="utf-8")
MOST_FRAMES = 64
STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.figsize": (6.2, 3.2),
    "font.size": 10,
    "grid.alpha": 0.25,
    "image.cmap": "gray_r",
    "savefig.facecolor": "white",
    "svg.hashsalt": "chainrule",  # the same figure gives the same bytes
}


@dataclass
class Control:
    """A slider or a dropdown: the values that it can have, and the place of the one that it has."""

    name: str
    label: str
    values: list[Any]
    shown: list[str]
    at: int
    slides: bool = True  # a slider, not a list


@dataclass
class Cell:
    """A cell that has run. ``frames`` holds its output for each choice of the ``controls`` it depends on."""

    code: str
    hidden: bool
    output: Any
    own: list[Control] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    frames: dict[tuple[int, ...], str] = field(default_factory=dict)
    picture: bytes | None = None  # PNG, for Jupyter

    @property
    def markdown(self) -> str | None:
        """The text of a cell that is nothing but ``mo.md(...)`` of a constant; else None."""
        match ast.parse(self.code).body:
            case [ast.Expr(ast.Call(ast.Attribute(attr="md"), [ast.Constant(str(text))]))]:
                return textwrap.dedent(text).strip()
        return None


def load(path: Path) -> mo.App:
    """Return the app that the lesson's file defines."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


def run(app: mo.App) -> tuple[list[Cell], dict[str, Any]]:
    """Run a lesson; returns its cells in the order of the file, and everything that they define."""
    inside = InternalApp(app)
    values: dict[str, Any] = {}
    depends: dict[str, tuple[Control, ...]] = {}  # the controls behind each name
    cells: dict[Any, Cell] = {}
    upstream: dict[str, Any] = {}  # the cell that defines a name that depends on a control
    for cell_id in inside.execution_order:
        data = inside.cell_manager.cell_data_at(cell_id)
        compiled = data.cell
        assert compiled is not None, data.code
        output, defined = compiled.run(**{name: values[name] for name in compiled.refs if name in values})
        values |= defined
        cell = cells[cell_id] = Cell(data.code, data.config.hide_code, output)
        own = [name for name, value in defined.items() if is_control(value)]
        cell.own = [control(name, defined[name]) for name in sorted(own, key=data.code.index)]
        behind = dict.fromkeys(c.name for name in compiled.refs for c in depends.get(name, ()))
        by_name = {c.name: c for name in compiled.refs for c in depends.get(name, ())}
        cell.controls = [by_name[name] for name in behind]
        depends |= {c.name: (c,) for c in cell.own}
        if cell.controls:
            depends |= {name: tuple(cell.controls) for name in defined}
            upstream |= dict.fromkeys(defined, compiled)
        cell.frames = dict(frames(cell, compiled, values, upstream)) if not own else {(): ""}
        if isinstance(output, Figure):
            cell.picture = saved(output, "png")
        plt.close("all")
    order = list(inside.cell_manager.cell_ids())
    return [cells[cell_id] for cell_id in order if cell_id in cells], values


def is_control(value: Any) -> bool:
    """Whether a page can show this to be moved."""
    return isinstance(value, mo.ui.slider | mo.ui.dropdown)


def control(name: str, element: Any) -> Control:
    """Return what the page needs of a slider or dropdown."""
    label = element._args.label or name
    if isinstance(element, mo.ui.dropdown):
        keys = list(element.options)
        return Control(
            name, label, list(element.options.values()), keys, keys.index(element.selected_key), False
        )
    if element.steps:
        values = list(element.steps)
    else:
        step = element.step or 1
        count = round((element.stop - element.start) / step)
        values = [round(element.start + i * step, 10) for i in range(count + 1)]
    return Control(name, label, values, [f"{value:g}" for value in values], values.index(element.value))


def frames(
    cell: Cell, compiled: Any, values: dict[str, Any], upstream: dict[str, Any]
) -> Iterator[tuple[tuple[int, ...], str]]:
    """Give the output, as HTML, for each choice of the controls that a cell depends on."""
    if not cell.controls:
        yield (), shown(cell.output)
        return
    choices = list(itertools.product(*(range(len(c.values)) for c in cell.controls)))
    if len(choices) > MOST_FRAMES:
        names = ", ".join(c.name for c in cell.controls)
        raise SystemExit(f"{names}: {len(choices)} choices in one cell, expected at most {MOST_FRAMES}")
    for choice in choices:
        moved = {
            c.name: SimpleNamespace(value=c.values[i]) for c, i in zip(cell.controls, choice, strict=True)
        }
        output, _ = rerun(compiled, values, upstream, moved)
        yield choice, shown(output)
        plt.close("all")


def rerun(
    compiled: Any, values: dict[str, Any], upstream: dict[str, Any], moved: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Run a cell, and before it the cells between it and the controls, with the controls ``moved``."""
    given = {}
    for name in compiled.refs & values.keys():
        if name in moved:
            given[name] = moved[name]
        elif name in upstream:
            given |= {name: rerun(upstream[name], values, upstream, moved)[1][name]}
        else:
            given[name] = values[name]
    return compiled.run(**given)


# -- HTML -----------------------------------------------------------------------------------------


def shown(output: Any) -> str:
    """Return an output as HTML."""
    if output is None or is_control(output):
        return ""
    if isinstance(output, Figure):
        source = base64.b64encode(saved(output, "svg")).decode()
        width = round(output.get_figwidth() * 100)
        alt = html.escape(described(output))
        return f'<img src="data:image/svg+xml;base64,{source}" width="{width}" alt="{alt}">'
    if isinstance(output, mo.Html):
        return formulas(output.text)
    text = output if isinstance(output, str) else pprint.pformat(output, width=100, sort_dicts=False)
    return f'<pre tabindex="0">{html.escape(text)}</pre>'


def saved(figure: Figure, form: str) -> bytes:
    """Return the bytes of a figure as "svg" or "png"."""
    file = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(file, format=form, dpi=110, metadata=metadata)
    return file.getvalue()


def described(figure: Figure) -> str:
    """Return what a screen reader says of a figure: its titles, and what its axes show."""
    parts = [figure.get_suptitle()]
    for axes in figure.axes:
        names = [axes.get_title(), axes.get_title(loc="left")]
        across, up = axes.get_xlabel(), axes.get_ylabel()
        names += [f"{up or 'values'} over {across}"] if across else []
        legend = axes.get_legend()
        names += [", ".join(text.get_text() for text in legend.get_texts())] if legend else []
        parts.append(": ".join(name for name in names if name))
    return "; ".join(part.replace("\n", " ") for part in parts if part) or "Figure"


def formulas(text: str) -> str:
    """Turn marimo's marks for LaTeX into MathML, which browsers show without a script."""
    text = text.replace("<table>", '<div class="wide" tabindex="0"><table>').replace(
        "</table>", "</table></div>"
    )
    text = re.sub(r"<marimo-tex[^>]*>\|\|\((.*?)\|\|\)</marimo-tex>", inline, text, flags=re.DOTALL)
    return re.sub(r"<marimo-tex[^>]*>\|\|\[(.*?)\|\|\]</marimo-tex>", block, text, flags=re.DOTALL)


def inline(match: re.Match[str]) -> str:
    """Return one formula within a line."""
    return mathml(spaced(match[1]))


def block(match: re.Match[str]) -> str:
    """Return one formula on lines of its own."""
    formula = mathml(spaced(match[1]), display="block")
    return f'<div class="formula" tabindex="0">{formula}</div>'


def spaced(latex: str) -> str:
    """Put a thin space behind a function's name, as TeX does and latex2mathml does not."""
    functions = r"(\\(?:log|exp|tanh|max|min)(?:\^\w)?)\s*(?=[\w\\])"
    return re.sub(functions, r"\1\\,", html.unescape(latex).strip())


def page(title: str, cells: list[Cell], before: Path | None = None, after: Path | None = None) -> str:
    """Return a lesson as one HTML document, with links to its neighbours."""
    formatter = HtmlFormatter(style="xcode", wrapcode=True)
    ways = [
        f'<a href="{path.stem}.html">{label}</a>' if path else "<span></span>"
        for path, label in ((before, "← the lesson before"), (after, "the next lesson →"))
    ]
    nav = f'<nav aria-label="Lessons">{ways[0]}<a href="index.html">All lessons</a>{ways[1]}</nav>'
    body = "\n".join(part for cell in cells for part in parts(cell, formatter))
    styles = CSS + formatter.get_style_defs([".highlight", ".codehilite"])
    return document(
        title, f"{nav}\n<main>\n{body}\n</main>\n{nav.replace('Lessons', 'Lessons, again')}", styles
    )


def document(title: str, body: str, styles: str = CSS) -> str:
    """Return an HTML document that needs no other file."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{styles}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def parts(cell: Cell, formatter: Any) -> Iterator[str]:
    """Give a cell's code (folded if it only draws), its controls and its output."""
    code = highlight(cell.code, PythonLexer(), formatter).replace("<pre>", "<pre tabindex=0>")
    if not cell.hidden:
        yield f'<div class="code">{code}</div>'
    for own in cell.own:
        yield moving(own)
    text = framed(cell)
    if text:
        yield text if cell.markdown is not None else f'<div class="out">{text}</div>'
    if cell.hidden and cell.picture:
        yield f'<details class="listing"><summary>The code of this picture</summary>{code}</details>'


def framed(cell: Cell) -> str:
    """Return the output, for each choice of its controls; all but the present one are hidden."""
    if not any(cell.frames.values()):
        return ""
    if not cell.controls:
        return cell.frames[()]
    now = tuple(c.at for c in cell.controls)
    inside = "".join(
        f'<div data-key="{"-".join(map(str, key))}"{"" if key == now else " hidden"}>{text}</div>'
        for key, text in cell.frames.items()
    )
    return f'<div data-frames="{" ".join(c.name for c in cell.controls)}">{inside}</div>'


def moving(own: Control) -> str:
    """Return the slider or list of a control."""
    label = f'<label for="{own.name}">{formulas(mo.md(own.label).text)}</label>'
    if own.slides:
        texts = html.escape(json.dumps(own.shown))
        return (
            f'<div class="control">{label}<input type="range" id="{own.name}" data-control="{own.name}" '
            f'min="0" max="{len(own.values) - 1}" value="{own.at}" autocomplete="off">'
            f'<output for="{own.name}" data-shown="{texts}">{html.escape(own.shown[own.at])}</output></div>'
        )
    options = "".join(
        f'<option value="{i}"{" selected" if i == own.at else ""}>{html.escape(text)}</option>'
        for i, text in enumerate(own.shown)
    )
    return (
        f'<div class="control">{label}<select id="{own.name}" data-control="{own.name}" autocomplete="off">'
        f"{options}</select></div>"
    )


def index(titles: dict[Path, str]) -> str:
    """Return the page that lists the lessons."""
    items = "\n".join(
        f'<li><a href="{path.stem}.html">{html.escape(title.split(". ", 1)[-1])}</a> '
        f'(<a href="{path.stem}.ipynb">notebook</a>)</li>'
        for path, title in titles.items()
    )
    return document("chainrule: lessons", f"<main>\n<h1>Lessons</h1>\n<ol>\n{items}\n</ol>\n</main>")


# -- Jupyter --------------------------------------------------------------------------------------

SETUP = """This notebook needs `chainrule` with its `lessons` and `torch` extras. In a checkout: `make setup`,
then start Jupyter from its `.venv`. On Colab: upload or clone the checkout, then run
`%pip install './chainrule[lessons,torch]'`. The sliders move only in marimo (`marimo edit lessons/...py`) and
on the HTML pages; here, change the `value=` of a slider and run the cells below it."""


def notebook(cells: list[Cell]) -> str:
    """Return a lesson as a Jupyter notebook with its outputs."""
    made = [nbformat.v4.new_markdown_cell(SETUP)]
    for cell in cells:
        if cell.markdown is not None:
            made.append(nbformat.v4.new_markdown_cell(in_jupyter(cell.markdown)))
            continue
        outputs = []
        if cell.picture:
            data = {"image/png": base64.b64encode(cell.picture).decode(), "text/plain": "Figure"}
            outputs = [nbformat.v4.new_output("display_data", data)]
        elif text := cell.frames.get(tuple(c.at for c in cell.controls)):
            outputs = [nbformat.v4.new_output("display_data", {"text/html": text, "text/plain": ""})]
        made.append(nbformat.v4.new_code_cell(cell.code, outputs=outputs))
    for number, cell in enumerate(made):
        cell["id"] = f"cell-{number}"  # else random
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made_of = nbformat.v4.new_notebook(cells=made, metadata=kernel)
    nbformat.validate(made_of)
    return nbformat.writes(made_of) + "\n"


def in_jupyter(text: str) -> str:
    """Write marimo's blocks as the HTML that Jupyter understands."""
    return re.sub(
        r"^/// details \| (.*?)\n(.*?)^///$",
        r"<details><summary>\1</summary>\n\n\2\n</details>",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


# -- the command ----------------------------------------------------------------------------------


def title_of(cells: list[Cell]) -> str:
    """Return the first heading of a lesson."""
    texts = (cell.markdown for cell in cells if cell.markdown)
    return next(line[2:] for text in texts for line in text.splitlines() if line.startswith("# "))


def heading(path: Path) -> str:
    """Return the first heading of a lesson's file, without running it."""
    match = re.search(r"^    # (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None, path
    return match[1]


def lessons() -> list[Path]:
    """Return the lessons' files in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def export(path: Path, out: Path) -> tuple[list[Cell], dict[str, Any]]:
    """Write a lesson's page and notebook into ``out``; returns what `run` does."""
    everything = lessons()
    place = everything.index(path) if path in everything else 0
    before = everything[place - 1] if place > 0 else None
    after = everything[place + 1] if place + 1 < len(everything) else None
    with plt.rc_context(STYLE):
        cells, values = run(load(path))
    (out / f"{path.stem}.html").write_text(page(title_of(cells), cells, before, after), encoding="utf-8")
    (out / f"{path.stem}.ipynb").write_text(notebook(cells), encoding="utf-8")
    return cells, values


def main() -> None:
    """Export what the command line names."""
    parser = argparse.ArgumentParser(description="Export the lessons to HTML and to Jupyter notebooks.")
    parser.add_argument("names", nargs="*", help="how the names begin, e.g. 03 (all if none)")
    parser.add_argument("--out", type=Path, default=Path("build/lessons"))
    arguments = parser.parse_args()
    chosen = [path for path in lessons() if path.name.startswith(tuple(arguments.names or [""]))]
    if not chosen:
        parser.error(f"no lesson is called {' or '.join(arguments.names)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in chosen:
        export(path, arguments.out)
        print(f"{arguments.out / path.stem}.html, .ipynb")
    (arguments.out / "index.html").write_text(index({p: heading(p) for p in lessons()}), encoding="utf-8")


if __name__ == "__main__":
    main()
