"""Formulas of docstrings as LaTeX, and what is left as it is written."""

import importlib
import sys
from pathlib import Path

import pytest

pytest.importorskip("latex2mathml", reason="needs chainrule[docs]: runs where it is installed")
FOLDER = Path(__file__).parents[2] / "docs" / "_ext"


@pytest.fixture
def formula(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("formula")
    sys.modules.pop("formula", None)


@pytest.fixture
def derivations(formula):
    pytest.importorskip("sphinx", reason="needs chainrule[docs]: runs where it is installed")
    yield importlib.import_module("derivations")
    sys.modules.pop("derivations", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = x weight.T + bias", r"y=x\,\mathrm{weight}^{\top}+\mathrm{bias}"),
        ("dL/dx[n, i]", r"\frac{\partial L}{\partial x_{n,i}}"),
        ("dy[n, j]/dweight[j, i]", r"\frac{\partial y_{n,j}}{\partial \mathrm{weight}_{j,i}}"),
        ("sum_j grad_y[n, j] weight[j, i]", r"\sum_{j}\,\mathrm{grad\_y}_{n,j}\,\mathrm{weight}_{j,i}"),
        ("p_j (sum over i != j of t_i)", r"p_{j}\,(\sum_{i\ne j}t_{i})"),
        ("m^ / (sqrt(v^) + eps)", r"\hat{m}/(\sqrt{\hat{v}}+\varepsilon )"),
        ("1 - beta1^t", r"1-\beta_{1}^{t}"),
        ("(1 + exp(-x))^-1", r"(1+\exp(-x))^{-1}"),
        ("y_i ([i = j] - y_j)", r"y_{i}\,([i=j]-y_{j})"),
        ("x[n, k, r stride + i dilation]", r"x_{n,k,r\,\mathrm{stride}+i\,\mathrm{dilation}}"),
    ],
)
def test_formulas(formula, text, expected):
    assert formula.latex(text) == expected


@pytest.mark.parametrize("text", ['tape["fc1"].output', "f(x", "a)", "rng = random.Generator(101)", "a; b"])
def test_what_is_no_formula_is_refused(formula, text):
    with pytest.raises(formula.NotAFormula):
        formula.latex(text)


def test_a_docstring(derivations):
    lines = """Return ``grad_x``.

    y       (N, *)
    grad_y  (N, *)

With ``y = x^2`` (any *) as in *Deep Learning*:

    grad_x = 2 x grad_y      (N, *), row by row
           = dL/dx

And code::

    with nn.Tape(network) as tape:
        pass

Done.""".splitlines()
    derivations.docstring(None, "function", "f", None, None, lines)
    text = "\n".join(lines)
    assert ".. shapes::\n\n   y       (N, *)" in text
    assert r"With :math:`y=x^{2}` (any \*) as in *Deep Learning*:" in text
    assert ".. derivation::\n\n   grad_x = 2 x grad_y      (N, *), row by row\n          = dL/dx" in text
    assert "And code:\n\n::\n\n   with nn.Tape(network) as tape:\n       pass" in text
    rows = derivations.formulas(["grad_x = 2 x grad_y      (N, *), row by row", "       = dL/dx"])
    assert [row[0] for row in rows] == [r"\mathrm{grad\_x}", ""]
    assert [row[2] for row in rows] == ["(N, *), row by row", ""]


def test_most_blocks_of_the_engine_are_understood(derivations):
    """What is not is shown as it is written, which is no mistake, but should be rare."""
    import ast

    found = {"derivation": 0, "shapes": 0, "literal": 0}
    for path in sorted((FOLDER.parents[1] / "nn_reference").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node):
                lines = (ast.get_docstring(node) or "").splitlines()
                derivations.docstring(None, "", "", None, None, lines)
                for kind in ("derivation", "shapes"):
                    found[kind] += lines.count(f".. {kind}::")
                found["literal"] += lines.count("::")
    assert found["derivation"] >= 10
    assert found["literal"] <= 4, found
