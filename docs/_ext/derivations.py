"""Docstrings in the API reference: their blocks of formulas and shapes as tables, formulas as mathematics.

A docstring is written to be read in an editor. An indented block in it is one of

- formulas, with a note after two spaces or more: each formula becomes MathML, aligned at its first "=";
- the shapes of arguments, ``x  (N, C)``: a table of two columns;
- anything else, such as code: shown as it stands.
"""

import re
from html import escape
from typing import Any

from docutils import nodes
from formula import NotAFormula, latex
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_LITERAL = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)
_EMPHASIS = re.compile(r"\*([A-Za-z][^*]*[\w.!?])\*(?![\w*])")
_BRACKETS = r"\[(?:[^\[\]]|\[(?:[^\[\]]|\[[^\[\]]*\])*\])*\]"  # nested up to three deep
_NAMES = re.compile(r"[A-Za-z_]\w*(?:, [A-Za-z_]\w*)*")


class Derivation(SphinxDirective):
    """``.. derivation::``: lines of formulas and notes."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a table of left side, right side and note."""
        rows = "".join(
            f'<tr><td class="left">{_math(left)}</td><td class="right">{_math(right)}</td>'
            f'<td class="note">{_note(note)}</td></tr>\n'
            for left, right, note in formulas(list(self.content))
        )
        table = f'<div class="derivation" tabindex="0"><table role="presentation">\n{rows}</table></div>\n'
        return [nodes.raw("", table, format="html")]


class Shapes(SphinxDirective):
    """``.. shapes::``: names, and what they are."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a table of names and their shapes."""
        rows = "".join(
            f"<tr><th scope=row><code>{escape(name)}</code></th><td>{escape(shape)}</td></tr>\n"
            for name, shape in map(_split_shape, self.content)
        )
        return [nodes.raw("", f'<div class="shapes"><table>\n{rows}</table></div>\n', format="html")]


def formulas(lines: list[str]) -> list[tuple[str, str, str]]:
    """Return (left, right, note) of each line, both sides as LaTeX; the left may be empty.

    Raises NotAFormula.
    """
    rows: list[tuple[str, str, str]] = []
    whole: list[str] = []
    for line in lines:
        goes_on = whole and not re.search(r"\s(=|<-)\s|^(=|<-)\s", line.lstrip())
        if goes_on and whole[-1].rstrip().endswith((" of", "+", "-", "*", ",")):
            whole[-1] = f"{whole[-1].rstrip()} {line.strip()}"
        elif line.strip():
            whole.append(line)
    for line in whole:
        first, *pieces = re.split(r"\s{2,}", line.strip())
        formula, notes = first, []
        for piece in pieces:
            if not notes and re.match(r"(=|<-)\s", piece):
                formula += f" {piece}"
            else:
                notes.append(piece)
        sides = re.split(r"(?:^|\s)(=|<-)\s", formula, maxsplit=1)
        if len(sides) != 3:
            raise NotAFormula(line)
        left, sign, right = sides
        rows.append((latex(left), latex(f"{sign} {right}"), " ".join(notes)))
    if not rows:
        raise NotAFormula("nothing")
    return rows


def _math(source: str) -> str:
    return convert(source).replace("<math ", '<math displaystyle="true" ', 1) if source else ""


def _note(text: str) -> str:
    return escape(text)


def _split_shape(line: str) -> tuple[str, str]:
    name, _, shape = line.strip().partition("  ")
    return name, shape.strip()


def _is_shapes(lines: list[str]) -> bool:
    """Tell whether every line is names, two spaces, and a shape or a kind."""
    return all(
        re.fullmatch(rf"{_NAMES.pattern} {{2,}}\S.*", line.strip()) and " = " not in line for line in lines
    )


def _block(lines: list[str]) -> list[str]:
    """Return an indented block as reStructuredText."""
    indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    lines = [line[indent:] for line in lines]
    kept = [line for line in lines if line.strip()]
    if _is_shapes(kept):
        return [".. shapes::", "", *(f"   {line}" for line in kept), ""]
    try:
        formulas(kept)
    except NotAFormula:
        return ["::", "", *(f"   {line}" for line in lines), ""]
    return [".. derivation::", "", *(f"   {line}" for line in kept), ""]


def _text(line: str) -> str:
    """Return prose: what reStructuredText would take for markup is escaped, formulas are formulas."""
    parts = _LITERAL.split(line)
    parts[::2] = [_escape(part) for part in parts[::2]]
    parts[1::2] = [_literal(part) for part in parts[1::2]]
    return "".join(parts)


def _escape(text: str) -> str:
    parts = _EMPHASIS.split(text)
    parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
    parts[::2] = [re.sub(r"_(?=\W|$)", r"\\_", part) for part in parts[::2]]
    return "".join(part if at % 2 == 0 else f"*{part}*" for at, part in enumerate(parts))


def _literal(text: str) -> str:
    inner = text.strip("`")
    if text.startswith("``") and (" = " in inner or re.search(r"\^| / ", inner)):
        try:
            return f":math:`{latex(' '.join(inner.split()))}`"
        except NotAFormula:
            pass
    return text


def docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring, in place, before it is read as reStructuredText."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            deep = line.startswith("    ")
            before = paragraphs[-1]
            if (
                before
                and before[-1].strip()
                and before[-1].startswith("    ") != deep
                and not _is_list(before[0])
            ):
                paragraphs.append([])
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    made: list[str] = []
    for paragraph in filter(None, paragraphs):
        if paragraph[0].startswith(">>>"):
            made += [*paragraph, ""]
        elif paragraph[0].startswith("    "):
            made += ["", *_block(paragraph)]
        else:
            text = re.sub(r"(?<=\S)::$", ":", "\n".join(paragraph))  # what follows is looked at anew
            made += [] if text == "::" else [*_text(text).split("\n"), ""]
    lines[:] = _joined(made)


def _is_list(line: str) -> bool:
    return bool(re.match(r"\s*(-|\d+\.)\s", line))


def _joined(made: list[str]) -> list[str]:
    """Drop the empty lines that follow others."""
    return [line for at, line in enumerate(made) if line.strip() or (at and made[at - 1].strip())]


def signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str | None, str | None] | None:
    """Say Array for what NumPy's types spell out."""
    if arguments is None:
        return None
    return _shorter(arguments), None if returns is None else _shorter(returns)


def _shorter(text: str) -> str:
    text = re.sub(rf"~?(?:numpy\.)?ndarray{_BRACKETS}", "Array", text)
    text = re.sub(r"type\[Any\] \| ~?\S*dtype\[Any\].*?_DTypeDict \| str( \| None)?", "DTypeLike", text)
    return re.sub(r"~?\b(?:typing|collections\.abc|pathlib|numpy|nn_reference\._arrays)\.", "", text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives, and what makes docstrings use them."""
    app.add_directive("derivation", Derivation)
    app.add_directive("shapes", Shapes)
    app.connect("autodoc-process-docstring", docstring)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
