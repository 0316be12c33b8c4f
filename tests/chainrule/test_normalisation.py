"""Mean and standard deviation are exact, and those in the recipes are those of the data."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from chainrule import datasets, normalisation, recipe
from chainrule.cli import run
from chainrule.normalisation import pixel_statistics


@given(arrays(np.uint8, array_shapes(max_dims=3)), st.integers(1, 20))
def test_the_sums_are_exact(images, at_once):
    before, normalisation._AT_ONCE = normalisation._AT_ONCE, at_once
    try:
        found = pixel_statistics(images)
    finally:
        normalisation._AT_ONCE = before
    values = [int(value) for value in images.ravel()]
    assert found.count == len(values)
    assert (found.sum, found.sum_of_squares) == (sum(values), sum(value**2 for value in values))
    assert found.mean == pytest.approx((images / 255).mean(), abs=1e-15)
    assert found.std == pytest.approx((images / 255).std(), abs=1e-14)


def test_one_value_has_no_deviation_at_all():
    assert pixel_statistics(np.full((1000, 7, 7), 201, np.uint8)).std == 0


def test_what_normalises_gives_mean_0_and_variance_1():
    images = datasets.load("digits").train_images
    found = pixel_statistics(images)
    normalised = (images / 255 - found.mean) / found.std
    assert abs(normalised.mean()) < 1e-12
    assert abs(normalised.var() - 1) < 1e-12


@pytest.mark.parametrize("images", [np.zeros((2, 3)), np.zeros((0, 28, 28), np.uint8)])
def test_what_are_no_pixels(images):
    with pytest.raises(ValueError, match="expected pixels of uint8, found "):
        pixel_statistics(images)


@pytest.mark.parametrize(
    ("name", "mean", "std"), [("mnist", "0.1307", "0.3081"), ("fashion-mnist", "0.2860", "0.3530")]
)
def test_the_published_figures(name, mean, std, shared):
    found = pixel_statistics(datasets.load(name, shared).train_images)
    assert (f"{found.mean:.4f}", f"{found.std:.4f}") == (mean, std)


def test_the_recipes_have_the_figures_of_mnist(shared):
    found = pixel_statistics(datasets.load("mnist", shared).train_images)
    plans = [recipe.load(name) for name in recipe.known()]
    normalised = {plan.name: (plan.mean, plan.std) for plan in plans if plan.mean not in (0, 0.5)}
    assert normalised.keys() >= {"fcn", "mlp", "mlp-bn", "cnn-same"}
    assert set(normalised.values()) == {(round(found.mean, 4), round(found.std, 4))}


def test_the_command_shows_them(capsys):
    assert run(["datasets", "show", "digits"]) == 0
    shown = capsys.readouterr().out
    assert "Training pixels / 255: mean 0.1573, standard deviation 0.2940" in shown
    assert "in a recipe: mean = 0.1573, std = 0.2940 under [input]" in shown
    assert run(["datasets", "show", "digits", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["images"] == {"train": 1500, "test": 297}
    assert record["classes"]["0"] == {"train": 149, "test": 29}
    for half in ("train", "test"):
        assert sum(counts[half] for counts in record["classes"].values()) == record["images"][half]
    assert record["training_pixels"]["count"] == 1500 * 28 * 28


def test_class_names_are_shown(shared, capsys):
    assert run(["datasets", "show", "fashion-mnist", "--root", str(shared)]) == 0
    assert "T-shirt/top     6,000   1,000" in capsys.readouterr().out


def test_wrong_usage_is_one_line(capsys):
    assert run(["datasets", "show", "mnits"]) == 2
    captured = capsys.readouterr()
    assert "unknown data set 'mnits'" in captured.err
    assert captured.err.count("\n") == 1
    assert run(["datasets", "show", "--help"]) == 0
    assert "Example: chainrule datasets show fashion-mnist" in capsys.readouterr().out
