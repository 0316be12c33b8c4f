"""Several processes on one network: what they learn is what one process learns."""

import json
import os
import signal

import numpy as np
import pytest

from chainrule import datasets, engines, recipe, training
from chainrule.cli import run
from chainrule.errors import ChainruleError
from chainrule.workers import WorkersEngine


@pytest.fixture
def digits():
    return datasets.load("digits", None)


@pytest.fixture
def made():
    """Make engines whose processes end with the test."""
    engines_made = []

    def make(plan, workers):
        engines_made.append(engines.build(plan, "numpy", seed=3, workers=workers))
        return engines_made[-1]

    yield make
    for engine in engines_made:
        if isinstance(engine, WorkersEngine):
            engine.close()


def steps(engine, plan, data, count, first=0, batch=50):
    """Take ``count`` steps and return their losses, correct answers and norms."""
    found = []
    order = np.random.default_rng(0).permutation(len(data.labels))
    for step in range(first, first + count):
        found.append(engine.train_step(data, order[step * batch : (step + 1) * batch]))
    return found


def put(engine, plan, digits):
    return engine.put(plan.examples(digits.train_images), digits.train_labels, plan.mean, plan.std)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("name", ["simplenet", "ann", "cnn"])
def test_they_learn_what_one_process_learns(name, workers, digits, made):
    plan = recipe.load(name, {"training.batch_size": 50})
    one, several = made(plan, 1), made(plan, workers)
    expected, found = (steps(engine, plan, put(engine, plan, digits), 12) for engine in (one, several))
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    for key, value in one.state_dict().items():
        # Adam divides by the root of a small square: near zero it makes much of little
        assert np.abs(several.state_dict()[key] - value).max() <= 2e-4, key


def test_with_sgd_a_step_differs_by_rounding_alone(digits, made, tmp_path):
    plan = recipe.load(
        "simplenet", {"training.optimizer": {"type": "SGD", "lr": 0.1}, "training.batch_size": 50}
    )
    one, several = made(plan, 1), made(plan, 2)
    for engine in (one, several):
        steps(engine, plan, put(engine, plan, digits), 1)
    for key, value in one.state_dict().items():
        np.testing.assert_allclose(several.state_dict()[key], value, atol=1e-7)


def test_a_batch_smaller_than_the_number_of_workers(digits, made):
    plan = recipe.load("simplenet", {"training.batch_size": 50})
    one, several = made(plan, 1), made(plan, 3)
    expected, found = (
        steps(engine, plan, put(engine, plan, digits), 3, batch=2) for engine in (one, several)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_rate_of_a_schedule_reaches_every_worker(digits, made):
    plan = recipe.load(
        "simplenet", {"training.optimizer": {"type": "SGD", "lr": 0.1}, "training.batch_size": 50}
    )
    engine = made(plan, 2)
    data = put(engine, plan, digits)
    steps(engine, plan, data, 1)
    before = engine.state_dict()
    engine.optimizer.param_groups[0]["lr"] = 0.0
    steps(engine, plan, data, 2)
    for key, value in engine.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_it_goes_on_to_the_same_bits(digits, made):
    plan = recipe.load("mlp", {"training.batch_size": 50})  # with Dropout: each worker has a generator
    unbroken, broken, resumed = (made(plan, 2) for _ in range(3))
    data = [put(engine, plan, digits) for engine in (unbroken, broken, resumed)]
    steps(unbroken, plan, data[0], 6)
    steps(broken, plan, data[1], 3)
    resumed.load_training_state(json_keys(broken.training_state()))
    steps(resumed, plan, data[2], 3, first=3)
    for key, value in unbroken.state_dict().items():
        np.testing.assert_array_equal(resumed.state_dict()[key], value, err_msg=key)


def json_keys(state):
    """Turn every key into text, as a checkpoint does."""
    return {str(k): json_keys(v) for k, v in state.items()} if isinstance(state, dict) else state


def test_other_data_and_data_of_another_size(digits, made):
    plan = recipe.load("mlp", {"training.batch_size": 50})
    unbroken, engine = made(plan, 2), made(plan, 2)
    all_of_it, again = (put(unbroken, plan, digits) for _ in range(2))
    few = engines.Data(all_of_it.images[:400], all_of_it.labels[:400])
    order = np.arange(50)
    for first, second, third in ((all_of_it,) * 3, (all_of_it, again, few)):
        chosen = unbroken if third is all_of_it else engine
        for data in (first, second, third):
            chosen.train_step(data, order)
    for key, value in unbroken.state_dict().items():
        np.testing.assert_array_equal(engine.state_dict()[key], value, err_msg=key)


def test_batch_normalisation_is_refused():
    with pytest.raises(ChainruleError, match=r"--workers 2: .*mlp-bn.* has BatchNorm1d, whose mean"):
        engines.build(recipe.load("mlp-bn"), "numpy", seed=0, workers=2)


def test_a_worker_that_is_killed_ends_the_training_in_one_line(digits, made):
    plan = recipe.load("simplenet", {"training.batch_size": 50})
    engine = made(plan, 2)
    data = put(engine, plan, digits)
    steps(engine, plan, data, 1)
    os.kill(engine._others[0][0].pid, signal.SIGKILL)
    with pytest.raises(ChainruleError, match=r"worker 1 has ended, with exit status -9"):
        steps(engine, plan, data, 1)


def test_the_command_line(tmp_path):
    out = tmp_path / "run"
    options = [
        "--engine",
        "numpy",
        "--dataset",
        "digits",
        "--epochs",
        "1",
        "--workers",
        "2",
        "--out",
        str(out),
    ]
    assert run(["train", "simplenet", *options]) == 0
    assert json.loads((out / "config.json").read_text())["workers"] == 2


def test_validation_and_schedules_work_as_with_one(digits, made):
    plan = recipe.load("mlp", {"training.epochs": 1, "training.validation": 300, "training.batch_size": 50})
    engine = made(plan, 2)
    course = training.begin(engine, plan, digits)
    (trained,) = training.train([course], plan, report=lambda _: None, after_epoch=lambda *_: None)
    assert trained.best is not None
    assert trained.test_accuracy > 0.5
