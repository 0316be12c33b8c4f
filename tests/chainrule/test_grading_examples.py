"""The examples for nbgrader and otter-grader give the points that the grader gives.

Neither is needed: nbgrader's cells are run as it runs them, and otter's decorator has a stand-in where it is
not installed. docs/grading.md has what both gave when they were run.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest

from chainrule.exercises import catalogue

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LINEAR = catalogue.find("linear")
RIGHT = (
    "def forward(x, weight, bias):\n    return x @ weight.T + bias, (x, weight)\n\n\n"
    "def backward(cache, grad_y):\n    x, weight = cache\n"
    "    return grad_y @ weight, grad_y.T @ x, grad_y.sum(0)\n"
)
WRONG = RIGHT.replace("grad_y.T @ x", "grad_y.T @ x / len(x)")


def cells(notebook):
    return json.loads(notebook.read_text("utf-8"))["cells"]


@pytest.fixture
def nbgrader():
    found = cells(EXAMPLES / "nbgrader" / "source" / "backpropagation" / "linear.ipynb")
    return {
        cell["metadata"]["nbgrader"]["grade_id"]: cell for cell in found if "nbgrader" in cell["metadata"]
    }


@pytest.mark.parametrize(("text", "points"), [(None, 7), (RIGHT, 7), (WRONG, 5)])
def test_nbgraders_cell_ends_with_the_points(nbgrader, text, points, tmp_path, monkeypatch, capsys):
    """Without a text it is the teacher's own solution, which is the engine."""
    if text is None:
        magic, text = "".join(nbgrader["linear"]["source"]).split("\n", 1)
        assert magic == "%%writefile linear.py"
    (tmp_path / "linear.py").write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    *before, last = "".join(nbgrader["linear-points"]["source"]).splitlines()
    namespace = {}
    exec("\n".join(before), namespace)
    assert eval(last, namespace) == points
    assert capsys.readouterr().err == ""  # nbgrader gives no points to a cell that writes there


def test_nbgraders_notebook_agrees_with_the_exercise(nbgrader):
    assert nbgrader["linear-points"]["metadata"]["nbgrader"]["points"] == LINEAR.total
    assert LINEAR.task in "".join(nbgrader["task"]["source"])
    stub = "".join(nbgrader["linear"]["source"])
    assert all(line in stub for line in LINEAR.stub.splitlines() if "def " in line or '"""' in line)


@pytest.fixture
def otter(monkeypatch):
    """The test cases of the example, by name, with their points and functions."""
    if importlib.util.find_spec("otter") is None:
        stand_in = types.ModuleType("otter.test_files")
        stand_in.test_case = lambda **fields: lambda f: types.SimpleNamespace(test_func=f, **fields)
        monkeypatch.setitem(sys.modules, "otter", types.ModuleType("otter"))
        monkeypatch.setitem(sys.modules, "otter.test_files", stand_in)
    namespace = {}
    exec((EXAMPLES / "otter" / "tests" / "linear.py").read_text("utf-8"), namespace)
    return {case.name: case for case in namespace.values() if hasattr(case, "test_func")}


def test_otters_cases_are_the_exercises_parts(otter):
    assert {name: case.points for name, case in otter.items()} == LINEAR.points
    source = "".join(cells(EXAMPLES / "otter" / "linear.ipynb")[1]["source"])
    assert source == LINEAR.stub


@pytest.mark.parametrize(("text", "failing"), [(RIGHT, []), (WRONG, ["grad of weight"])])
def test_otters_cases_fail_with_the_reason(otter, text, failing):
    namespace = {}
    exec(text, namespace)
    failed = []
    for name, case in otter.items():
        try:
            case.test_func(namespace["forward"], namespace["backward"])
        except AssertionError as error:
            failed.append((name, "it looks like 'Linear: one over n too many'" in str(error)))
    assert failed == [(name, True) for name in failing]
