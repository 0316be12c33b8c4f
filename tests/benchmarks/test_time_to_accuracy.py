"""The rule that ends a run of benchmarks/time_to_accuracy.py, on the embedded digits."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from chainrule import datasets, recipe

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("time_to_accuracy", ROOT / "benchmarks/time_to_accuracy.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)
ALL = [(target, name) for target, names in benchmark.RECIPES.items() for name in names]
SMALL = """
summary = "784-16-10"
layers = [
    { name = "flatten", type = "Flatten" },
    { name = "fc1", type = "Linear", out_features = 16 },
    { name = "relu1", type = "ReLU" },
    { name = "fc2", type = "Linear", out_features = 10 },
]
[input]
shape = [28, 28]
mean = 0.0
std = 1.0
[training]
loss = { type = "CrossEntropyLoss" }
optimizer = { type = "Adam", lr = 1e-2 }
batch_size = 50
epochs = 4
seed = 0
validation = 500
"""


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits", ROOT / "data")


@pytest.fixture
def small(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/small.toml").write_text(SMALL)
    monkeypatch.setattr(benchmark, "HERE", tmp_path)
    return "small"


def test_a_run_that_falls_short_takes_all_epochs_and_is_said_to(small, digits):
    run = benchmark.train(101.0, small, "numpy", 1, 3, digits)
    assert (run["epochs"], run["reached"]) == (4, False)
    assert "NOT REACHED" in benchmark.line(run)
    assert "0 of 1" in benchmark.table([run])
    assert "**inf**" in benchmark.table([run])


def test_a_run_ends_at_the_first_check_that_reaches_the_target(small, digits):
    accuracies = benchmark.train(101.0, small, "numpy", 1, 3, digits)["validation_accuracy"]
    assert accuracies[0] < accuracies[1]
    run = benchmark.train(100 * accuracies[1], small, "numpy", 1, 3, digits)
    assert (run["validation_accuracy"], run["reached"]) == (accuracies[:2], True)


def test_the_test_images_decide_nothing(small, digits):
    wrong = dataclasses.replace(digits, test_labels=(digits.test_labels + 1) % 10)
    runs = [benchmark.train(85.0, small, "numpy", 1, 3, data) for data in (digits, wrong)]
    assert runs[0]["test_accuracy"] > 0.5 > runs[1]["test_accuracy"]
    assert runs[0]["validation_accuracy"] == runs[1]["validation_accuracy"]


@pytest.mark.parametrize(("target", "name"), ALL)
def test_each_recipe_keeps_10_000_images_back(target, name):
    plan = recipe.load(str(ROOT / f"benchmarks/recipes/{name}.toml"))
    assert plan.validation == 10_000
    assert name.endswith(f"-{target:g}")
