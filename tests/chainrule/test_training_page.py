"""docs/training.md has the keys that recipes have: none is missing, none is invented, defaults are right."""

import inspect
import re
import tomllib
from pathlib import Path

import pytest

import nn_reference
from chainrule import recipe
from chainrule.recipe_changes import OPTIONAL, REQUIRED
from chainrule.recipe_parts import _COMPUTED, _OURS, _OURS_OF, LAYERS
from nn_reference import optim

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
# Arguments that are there for the sake of torch.nn's signatures, and have one possible value in a recipe.
FIXED = {"inplace", "return_indices", "padding_mode", "weight"}


def table(heading):
    """The rows below a heading, as lists of cells; the first two lines are the table's head."""
    section = PAGE.split(f"\n{heading}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_keys():
    sections = {section: REQUIRED[section] | OPTIONAL.get(section, set()) for section in REQUIRED}
    expected = sections.pop("") - sections.keys() | {
        f"{section}.{key}" for section, keys in sections.items() for key in keys
    }
    rows = {row[0].strip("`"): row for row in table("## Every key")}
    assert rows.keys() == expected - {"init", "input", "training"}
    for key, (_, _, default, _) in rows.items():
        section, _, last = key.rpartition(".")
        assert (default == "required") == (last in REQUIRED[section] and section != "init"), key


def arguments(of, kind, skip):
    names = dict(list(inspect.signature(of).parameters.items())[skip:])
    if of is optim.AdamW:
        names = dict(list(inspect.signature(optim.Adam).parameters.items())[skip:]) | names
        del names["decoupled_weight_decay"]
    hidden = _OURS | _OURS_OF.get(kind, set()) | FIXED
    varying = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {n: p.default for n, p in names.items() if n not in hidden and p.kind not in varying}


SECTIONS = [
    ("### Types of layers", LAYERS, nn_reference, "{}", 0),
    ("### Losses", recipe._LOSSES, nn_reference, "{}", 0),
    ("### Optimizers", recipe._OPTIMIZERS, optim, "{}", 1),
    ("### Schedulers", recipe._SCHEDULERS, optim.lr_scheduler, "{}", 1),
    (
        "### Initialisers",
        tuple(dict.fromkeys(recipe._WEIGHT_INITS + recipe._BIAS_INITS)),
        nn_reference.init,
        "{}_",
        1,
    ),
]


@pytest.mark.parametrize(
    ("heading", "kinds", "library", "name", "skip"), SECTIONS, ids=[s[0] for s in SECTIONS]
)
def test_the_types_and_their_arguments(heading, kinds, library, name, skip):
    rows = {row[0].strip("`"): row[-1] for row in table(heading)}
    assert set(rows) == set(kinds)
    for kind, said in rows.items():
        expected = arguments(getattr(library, name.format(kind)), kind, skip)
        if kind == "Flatten":
            expected = {}  # it takes none in a recipe
        shown = dict(re.findall(r"`(\w+)`(?: \(([^()]*)\))?", said.split(";")[0]))
        assert shown.keys() == expected.keys(), kind
        for argument, default in shown.items():
            value = expected[argument]
            if default in ("computed", "kernel_size", "the whole training"):
                assert value in (None, inspect.Parameter.empty), (kind, argument)
                assert default != "computed" or _COMPUTED[kind][0] == argument
            elif not default:
                assert value is inspect.Parameter.empty or (argument == "dim" and value is None), (
                    kind,
                    argument,
                )
            elif default == "none":
                assert value is None
            elif isinstance(value, str):
                assert default.split(",")[0] == f'"{value}"'
            elif isinstance(value, bool):
                assert default == str(value).lower()
            elif isinstance(value, tuple):
                assert tomllib.loads(f"x = {default}")["x"] == list(value)
            else:
                numerator, _, denominator = default.partition("/")
                assert float(numerator) / float(denominator or 1) == pytest.approx(value), (kind, argument)


def test_the_recipe_shown_is_one():
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    plan = recipe.parse(text, name="mine", source="mine.toml")
    assert plan.summary == "784-64-10, tanh, falling rate"


@pytest.mark.parametrize(("kind", "intervals"), [
    (row[0].strip("`"), row[1]) for row in table("### Schedulers")
])  # fmt: skip
def test_what_a_scheduler_counts(kind, intervals):
    for interval in ("epoch", "step"):
        given = {
            "type": kind,
            "interval": interval,
            "max_lr": 0.1,
            "step_size": 1,
            "milestones": [1],
            "gamma": 0.5,
        }
        names = arguments(getattr(optim.lr_scheduler, kind), kind, 1)
        given = {key: value for key, value in given.items() if key in names or key in ("type", "interval")}
        try:
            recipe.load("simplenet", {"training.scheduler": given})
            accepted = True
        except recipe.ChainruleError:
            accepted = False
        assert accepted == (interval in intervals), (kind, interval)


def test_the_files_of_a_run():
    from chainrule.runs import _FILES

    named = set(
        re.findall(r"`([\w*-]+(?:\.\w+|/))`", "".join(row[0] for row in table("## What a run leaves")))
    )
    names = {f.replace("model*", "model").replace("best*", "best") for f in _FILES}
    exported = {"model.pth", "best.pth", "model.onnx", "best.onnx"}
    assert named == {f.split("/")[0] + "/" if "/" in f else f for f in names} - exported
