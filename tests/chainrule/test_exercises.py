"""The exercises' texts: complete, consistent, runnable; and the command that hands them out."""

import ast
import json
import re
from pathlib import Path

import pytest

from chainrule.cli import run
from chainrule.errors import ChainruleError
from chainrule.exercises import catalogue

NAMES = list(catalogue.exercises())
TEXTS = Path(__file__).parents[2] / "lessons" / "exercises"


def test_the_issues_list_is_covered_in_order():
    assert " ".join(NAMES) == (
        "neuron sigmoid tanh relu linear-one linear broadcast-bias mse softmax cross-entropy "
        "log-softmax-cross-entropy mlp used-twice dropout batchnorm conv2d max-pool2d sgd-momentum adam "
        "cnn-step mnist"
    )
    assert [exercise.number for exercise in catalogue.exercises().values()] == list(range(1, len(NAMES) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_text_is_complete(name):
    exercise = catalogue.find(name)
    assert len(exercise.hints) >= 3
    assert "\\" not in exercise.file_text()  # its docstring is no raw string
    assert '"""' not in exercise.text()
    shapes = re.findall(r"\((?:[A-Z*]|in,|out,)[^)]*\)|\(\)", exercise.task)
    assert shapes, "a task gives the shapes of its arrays"


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_runs_says_its_task_and_is_not_yet_written(name):
    exercise = catalogue.find(name)
    namespace = {}
    exec(compile(exercise.file_text(), exercise.file_name, "exec"), namespace)
    assert exercise.task in namespace["__doc__"]
    assert namespace.get("SUBJECT", "") == exercise.subject
    functions = [node for node in ast.parse(exercise.stub).body if isinstance(node, ast.FunctionDef)]
    expected = {"mnist": ["train", "predict"], "adam": ["step"], "sgd-momentum": ["step"]}
    assert [f.name for f in functions] == expected.get(name, ["forward", "backward"])
    for function in functions:
        with pytest.raises(NotImplementedError, match=function.name):
            namespace[function.name](*function.args.args)
        assert "->" in (ast.get_docstring(function) or "")


@pytest.mark.parametrize("name", NAMES)
def test_no_hint_is_code_that_solves_it(name):
    """A hint may name a function of NumPy, or how to index; it assigns no gradient and returns nothing."""
    for hint in catalogue.find(name).hints:
        assert not re.search(r"grad_\w+ = |return |lambda|@ ?\w+\.T|\w+\.T @", hint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("## Hints", "## Clues"),
            r"found the sections .*'Clues'.*expected .*'Hints'",
        ),
        (lambda text: text.replace("[points]", "[point]"), "'points'"),
        (lambda text: text.replace("= 2", "= -2"), "expected positive integers"),
        (lambda text: text.replace("= 2", "="), "Invalid value"),
        (lambda text: text.replace('subject = "linear"', ""), "expected either a subject or goals"),
        (lambda text: text.replace("```python", ""), "expected one block of code"),
    ],
)
def test_a_damaged_text_is_one_line_that_names_the_file(tmp_path, change, message):
    path = tmp_path / "06-linear.md"
    path.write_text(change((TEXTS / "06-linear.md").read_text("utf-8")), "utf-8")
    with pytest.raises(ChainruleError, match=message) as caught:
        catalogue.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_the_list_has_every_exercise(capsys):
    assert run(["exercises"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[: len(NAMES)]] == NAMES


def test_stubs_go_into_a_folder_and_never_over_a_learners_work(tmp_path, capsys):
    folder = tmp_path / "my" / "work"
    assert run(["exercises", "linear-one", "--out", str(folder)]) == 0
    file = folder / "linear_one.py"
    assert capsys.readouterr().out.strip() == str(file)
    file.write_text("mine")
    assert run(["exercises", "--out", str(folder)]) == 1
    assert "is there already, and is left as it is" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["linear_one.py"]
    assert file.read_text() == "mine"
    file.unlink()
    assert run(["exercises", "--out", str(folder)]) == 0
    assert len(list(folder.iterdir())) == len(NAMES)


def test_hints_come_in_steps(capsys):
    hints = catalogue.find("linear").hints
    assert run(["exercises", "linear", "--hint", "2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert hints[0] in shown
    assert hints[1] in shown
    assert hints[2] not in shown
    assert "--hint 3" in shown
    assert run(["exercises", "linear", "--hint", str(len(hints))]) == 0
    assert "There are" not in capsys.readouterr().out
    assert run(["exercises", "linear", "--hint", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hints"] == [hints[0]]


@pytest.mark.parametrize("name", ["linear_one", "Linear-One"])
def test_an_exercise_is_found_by_its_files_name_too(name):
    assert catalogue.find(name).name == "linear-one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["exercises", "liner"],
            "there is no exercise 'liner': `chainrule exercises` lists them. Did you mean",
        ),
        (["exercises", "linear", "--hint", "9"], "--hint must be from 1 to 4 for 'linear', found 9"),
        (["exercises", "--hint", "1"], "--hint is for one exercise"),
        (["exercises", "--help"], ""),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, capsys):
    assert run(arguments) == (2 if message else 0)
    assert message in capsys.readouterr().err


def test_the_documentation_lists_every_exercise_with_its_points():
    rows = re.findall(
        r"^\| (\d+) \| `([\w-]+)` \| [^|]+ \| (\d+) \|",
        (TEXTS.parents[1] / "docs" / "exercises.md").read_text("utf-8"),
        re.MULTILINE,
    )
    assert [(int(n), name, int(points)) for n, name, points in rows] == [
        (e.number, e.name, e.total) for e in catalogue.exercises().values()
    ]
