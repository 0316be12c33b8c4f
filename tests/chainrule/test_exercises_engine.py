"""The engine passes every exercise, and its mutants fail with their own names: through the whole grader.

`engine_as_learner/` has for each exercise the engine behind the functions that a learner writes.
"""

from pathlib import Path

import pytest

from agreement import mutants
from chainrule.exercises import catalogue
from chainrule.exercises.grading import grade

ENGINE = Path(__file__).parent / "engine_as_learner"
NAMES = [name for name, exercise in catalogue.exercises().items() if exercise.subject]

# What each exercise is made of: the operations and modules whose mutants are planted.
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
    "used-twice": ["Parameter", "Tanh", "Linear"],
    "dropout": ["Dropout"],
    "batchnorm": ["BatchNorm1d"],
    "conv2d": ["Conv2d"],
    "max-pool2d": ["MaxPool2d"],
    "sgd-momentum": ["SGD"],
    "adam": ["Adam"],
    "cnn-step": ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear", "CrossEntropyLoss"],
}


def planted(name):
    return [m for m in mutants.ALL if m.operation in MADE_OF[name]]


def as_learner(exercise, folder, mutant=""):
    """Write the learner's file, with the engine inside, and a mistake in the engine."""
    plant = (
        "from agreement import mutants as _mutants\n"
        f"_planted = next(m for m in _mutants.ALL if m.name == {mutant!r}).planted()\n"
        "_planted.__enter__()\n\n"
    )
    file = folder / exercise.file_name
    text = (ENGINE / exercise.file_name).read_text("utf-8")
    file.write_text((plant if mutant else "") + text, "utf-8")
    return file


@pytest.mark.parametrize("name", NAMES)
def test_the_engine_has_all_points(name, tmp_path):
    exercise = catalogue.find(name)
    graded = grade(exercise, as_learner(exercise, tmp_path))
    assert graded.full, str(graded)
    assert graded.mistakes == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_has_no_points(name, tmp_path):
    exercise = catalogue.find(name)
    file = tmp_path / exercise.file_name
    file.write_text(exercise.file_text(), "utf-8")
    graded = grade(exercise, file)
    assert graded.points == 0
    assert "write" in graded.parts[0].reason
