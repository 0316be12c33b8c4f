"""The engine passes every exercise, and its mutants fail with their own names.

`engine_as_learner/` has for each exercise the engine behind the functions that a learner writes.
"""

import functools
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

from agreement import mutants
from chainrule.exercises import catalogue
from chainrule.exercises.grading import grade, grade_functions

ENGINE = Path(__file__).parent / "engine_as_learner"
NAMES = [name for name, exercise in catalogue.exercises().items() if exercise.subject]

# What each exercise is made of: the operations whose mutants are planted; and further mutants, by name.
MADE_OF = {
    "neuron": ["Sigmoid"],
    "sigmoid": ["Sigmoid"],
    "tanh": ["Tanh"],
    "relu": ["ReLU"],
    "linear-one": ["Linear"],
    "linear": ["Linear"],
    "broadcast-bias": ["Linear"],
    "mse": ["MSELoss"],
    "softmax": ["Softmax"],
    "cross-entropy": ["NLLLoss"],
    "log-softmax-cross-entropy": ["CrossEntropyLoss"],
    "mlp": ["Linear", "ReLU"],
    "used-twice": ["Linear", "Tanh"],
    "dropout": ["Dropout"],
    "batchnorm": ["BatchNorm1d"],
    "conv2d": ["Conv2d"],
    "max-pool2d": ["MaxPool2d"],
    "sgd-momentum": [],
    "adam": [],
    "cnn-step": ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear", "CrossEntropyLoss"],
}
FURTHER = {
    "used-twice": ["accumulate-overwrites", "accumulate-twice"],
    "dropout": ["dropout-not-scaled"],
    "sgd-momentum": ["sgd-momentum-dampened", "sgd-velocity-unused", "sgd-rate-inside-velocity"],
    "adam": [
        "adam-eps-inside-root",
        "adam-eps-before-correction",
        "adam-no-bias-correction",
        "adam-second-uncorrected",
        "adam-powers-off-by-one",
        "adam-betas-swapped",
        "adam-not-squared",
    ],
    "cnn-step": ["update-before-input-gradient", "softmax-twice"],
}

# They lie in a module's bookkeeping, and only a second backward or step shows them.
OF_MODULES = {"gradient not added", "first layer does not learn", "bias moved by backward"}
# Mutants that cannot show in an exercise, with why.
NOT_HERE = {
    # One sample: a mean over the batch is its sum, and its only row is any row.
    "linear-one": {"one over n too many", "mean for sum in the bias", "bias of one row"},
    # Only the gradients of x and bias are returned, and the weight is the identity, which is symmetric.
    "broadcast-bias": {
        "transposed weight",
        "transposed delta",
        "one over n too many",
        "weight gets no gradient",
    },
    # Neither class weights, ignored labels nor label smoothing are asked for.
    "cross-entropy": {"weights not in the mean", "ignored labels count"},
    "log-softmax-cross-entropy": {
        "smoothing in the forward only",
        "weights not in the normaliser",
        "class weights forgotten",
    },
    # What is changed in place, or assumed of the order in memory, is between the layers.
    "mlp": {"upstream changed in place", "order in memory assumed"},
    # There is no bias.
    "used-twice": {"mean for sum in the bias", "bias not summed", "bias of one row"},
    # Neither evaluation, dilation nor the padding of pools is asked for.
    "batchnorm": {"running statistics taken for the batchs", "biased running variance"},
    "conv2d": {"dilation forgotten"},
    "max-pool2d": {"border cut at the end"},
    # The image's gradient is not asked for; pools lie side by side; and which of equal pixels won makes no
    # difference to the kernel.
    "cnn-step": {
        "kernel not flipped",
        "moved by a pixel",
        "stride forgotten",
        "dilation forgotten",
        "padding forgotten",
        "overwritten where windows overlap",
        "shared among ties",
        "maximum overwritten",
        "border cut at the end",
        "upstream changed in place",
        "smoothing in the forward only",
        "weights not in the normaliser",
        "class weights forgotten",
    },
}
# Two names for the same numbers: in some exercises a mistake has a name of its own.
SAME = {
    ("linear-one", "bias not summed"): "another shape",
    ("broadcast-bias", "input gradient in reverse"): "reversed",
    ("broadcast-bias", "bias not summed"): "not summed",
    ("used-twice", "one over n too many"): "divided by the batch size",
    ("used-twice", "weight gets no gradient"): "no gradient at all",
    ("used-twice", "tanh taken twice"): "no known mistake",  # nobody has suspected it there yet
    ("used-twice", "input gradient in reverse"): "no known mistake",
}


def short(mutant):
    return mutant.name.split(": ")[-1]


def planted(name):
    """The mutants of an exercise. Lost digits are no mistake in a learner's formula."""
    of_operations = [
        m
        for m in mutants.ALL
        if m.operation in MADE_OF[name]
        and m.kind not in (mutants.Kind.PRECISION, mutants.Kind.NETWORK)
        and short(m) not in OF_MODULES
    ]
    return of_operations + [m for m in mutants.ALL if m.name in FURTHER.get(name, ())]


PLANTED = [pytest.param(name, m, id=f"{name}: {m}") for name in NAMES for m in planted(name)]


def functions_of(exercise):
    """The functions that the exercise asks for, with the engine inside."""
    spec = importlib.util.spec_from_file_location(exercise.file_name[:-3], ENGINE / exercise.file_name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = ["step"] if hasattr(module, "step") else ["forward", "backward"]
    return [getattr(module, name) for name in names]


def while_planted(function, mutant):
    """The function, with the mistake in the engine while it runs, and only then."""

    @functools.wraps(function)
    def wrong(*args, **kwargs):
        with mutant.planted():
            return function(*args, **kwargs)

    wrong.__signature__ = inspect.signature(function)
    return wrong


def as_learner(exercise, folder, mutant=""):
    """Write the learner's file, with the engine inside, and a mistake in the engine."""
    plant = (
        "from agreement import mutants as _mutants\n"
        f"_planted = next(m for m in _mutants.ALL if m.name == {mutant!r}).planted()\n"
        "_planted.__enter__()\n\n"
    )
    file = folder / exercise.file_name
    file.write_text((plant if mutant else "") + (ENGINE / exercise.file_name).read_text("utf-8"), "utf-8")
    return file


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_has_all_points(name, tmp_path):
    exercise = catalogue.find(name)
    graded = grade(exercise, as_learner(exercise, tmp_path))
    assert graded.full, str(graded)
    assert graded.mistakes == ()
    assert "nn_reference" in graded.notes[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_has_no_points(name, tmp_path):
    exercise = catalogue.find(name)
    file = tmp_path / exercise.file_name
    file.write_text(exercise.file_text(), "utf-8")
    graded = grade(exercise, file)
    assert graded.points == 0
    assert "write" in graded.parts[0].reason


@pytest.mark.parametrize(("name", "mutant"), PLANTED)
def test_a_mutant_fails_with_its_own_name(name, mutant):
    exercise = catalogue.find(name)
    graded = grade_functions(exercise, *(while_planted(f, mutant) for f in functions_of(exercise)))
    if short(mutant) in NOT_HERE.get(name, ()):
        assert graded.full, "it shows: take it out of NOT_HERE"
        return
    assert graded.points < graded.out_of
    named = graded.mistakes[0].name.split(": ")[-1].removesuffix(", in every layer")
    assert named in (short(mutant), SAME.get((name, short(mutant)))), str(graded)
    wrong = [part for part in graded.parts if not part.points]
    assert all(part.reason for part in wrong)


@pytest.mark.parametrize("name", ["linear", "used-twice", "adam"])
def test_a_mutant_is_named_through_a_file_too(name, tmp_path):
    exercise = catalogue.find(name)
    mutant = planted(name)[0]
    graded = grade(exercise, as_learner(exercise, tmp_path, mutant.name))
    assert graded.mistakes[0].name == mutant.name


def test_the_engine_trains_to_the_goal(tmp_path):
    exercise = catalogue.find("mnist")
    graded = grade(exercise, as_learner(exercise, tmp_path), dataset="digits")
    assert graded.full, str(graded)


def test_a_file_may_import_the_others_of_its_folder(tmp_path):
    (tmp_path / "my_linear.py").write_text((ENGINE / "linear.py").read_text("utf-8"), "utf-8")
    file = tmp_path / "linear.py"
    file.write_text("from my_linear import backward, forward\n", "utf-8")
    assert grade("linear", file).full


RIGHT = (
    "def forward(x):\n    return np.maximum(x, 0), x > 0\n\n\n"
    "def backward(cache, grad_y):\n    return grad_y * cache\n"
)


@pytest.mark.parametrize(
    ("text", "name", "points"),
    [
        ("while True:\n    pass\n", "never ends", 0),
        (RIGHT.replace("return grad_y", "while True: pass\n    return grad_y"), "never ends", 0),
        (
            RIGHT.replace("return np.max", "z = bytearray(10**11)\n    return np.max"),
            "takes too much memory",
            0,
        ),
        ("import sys\nsys.exit()\n", "exits", 0),
        ("import os\nos._exit(0)\n", "crashes Python", 0),
        ("def forward(x:\n", "cannot be read", 0),
        (RIGHT.replace("grad_y * cache", "grad_y * unknown"), "raises NameError", 0),
        ("import os\nos.remove(__file__)\n" + RIGHT, None, 4),
        ("print('x' * 1_000_000)\n" + RIGHT, None, 4),
        (RIGHT.replace("    return grad_y * cache", "    grad_y *= cache\n    return grad_y"), "", 3),
    ],
)
def test_a_hostile_file_is_one_clear_line(text, name, points, tmp_path):
    file = tmp_path / "relu.py"
    file.write_text("import numpy as np\n\n\n" + text, "utf-8")
    graded = grade("relu", file, seconds=0.5 if name == "never ends" else None)
    assert graded.points == points, str(graded)
    assert file.exists()
    if name is None:
        assert graded.mistakes == ()
    else:
        assert graded.mistakes[0].name.startswith(name)
        assert "\n" not in graded.mistakes[0].words
        missing = [part for part in graded.parts if not part.points]
        assert all(part.reason and "\n" not in part.reason for part in missing)


TRAINING = (
    "import numpy as np\n\n\ndef train(images, labels, rng):\n    return 0\n\n\n"
    "def predict(parameters, images):\n    return np.zeros(len(images), int)\n"
)


@pytest.mark.parametrize(
    ("text", "points", "reason"),
    [
        (TRAINING, 1, "of 297 unseen images of"),
        (TRAINING.replace("len(images), int", "3"), 0, r"an array of shape \(3,\), expected \(297,\)"),
        (TRAINING.replace("np.zeros(len(images), int)", "'seven'"), 0, "predict gave no array"),
        (TRAINING.replace("return 0", "while True: pass"), 0, "it was stopped after"),
        (TRAINING.replace("return 0", "raise KeyError"), 0, "train raises KeyError, in line 5"),
        (TRAINING.replace("def predict", "def guess"), 0, "there is no function predict"),
        (TRAINING.replace("    return 0", "    import sys\n    sys.exit()"), 0, "ends Python by sys.exit"),
    ],
)
def test_a_training_that_learns_nothing_is_one_clear_line(text, points, reason, tmp_path):
    file = tmp_path / "mnist.py"
    file.write_text(text, "utf-8")
    graded = grade("mnist", file, seconds=0.5 if "while" in text else None, dataset="digits")
    assert graded.points == points
    assert re.search(reason, graded.parts[1].reason), graded.parts[1].reason
    assert graded.mistakes
    assert "\n" not in graded.parts[1].reason


def test_real_mnist_has_the_goal_of_97_percent(shared, tmp_path):
    exercise = catalogue.find("mnist")
    file = tmp_path / "mnist.py"
    file.write_text(TRAINING, "utf-8")
    graded = grade(exercise, file, root=shared)
    assert graded.parts[-1].reason == "9.80% of 10,000 unseen images of MNIST read rightly, 97% are asked for"
