"""Grading a training: the learner's network, on real digits, against a share of unseen images."""

import base64
from pathlib import Path
from typing import Any

import numpy as np

from agreement.diagnosis import Limits
from agreement.diagnosis.apart import run_apart
from agreement.diagnosis.diagnosing import problems_of
from chainrule import datasets
from chainrule.errors import WrongUsage
from chainrule.exercises.catalogue import Exercise
from chainrule.exercises.grading import Grade, Mistake, PartGrade, mistake_of, printable

RUNS = "runs in time"
_MEMORY = 4 * 2**30
_SEED = 0


def grade_training(
    exercise: Exercise, path: Path, *, seconds: float | None, dataset: str, root: Path | None
) -> Grade:
    """Let the file train and predict apart, and give points for the share of the test images it reads.

    The learner's process is handed the training set and the test images, never the test labels.

    Raises:
        WrongUsage: the exercise has no goals for this data set.
    """
    data = datasets.load(dataset, root)
    if data.name not in exercise.goals:
        raise WrongUsage(f"{exercise.name} has goals for {' and '.join(exercise.goals)}, found '{data.name}'")
    goal = exercise.goals[data.name]
    limits = Limits(goal.seconds if seconds is None else seconds, _MEMORY)
    probe = {
        "images": _encoded(data.train_images),
        "labels": _encoded(data.train_labels.astype(np.int64)),
        "unseen": _encoded(data.test_images),
        "seed": _SEED,
    }
    job = {"kind": "recognition", "names": ["train"], "roles": {}, "probes": [probe]}
    answer = run_apart(path.read_bytes(), path.name, path.parent.resolve(), job, limits)
    problems = problems_of(answer, limits)
    found = next((message for message in answer.messages if "labels" in message), None)
    if found is None:
        words = printable(problems[0].words) if problems else "nothing came back"
        mistakes = tuple(map(mistake_of, problems))
        return Grade(exercise.name, str(path), _nothing(exercise, words), mistakes, words)

    labels, used = _decoded(found["labels"]), f"{found['seconds']:.0f} of {limits.seconds:g} seconds"
    if labels is None or labels.shape != data.test_labels.shape:
        shape = "no array" if labels is None else f"an array of shape {labels.shape}"
        words = f"predict gave {shape}, expected {data.test_labels.shape}, a label for each image"
        return Grade(
            exercise.name, str(path), _nothing(exercise, words), (Mistake("wrong shape", words),), words
        )
    share = float((labels == data.test_labels).mean())
    reached = f"{share:.2%} of {len(labels):,} unseen images of {data.title} read rightly"
    parts = []
    for name, points in exercise.points.items():
        if name == RUNS:
            parts.append(PartGrade(name, points, points, used))
        elif share >= goal.shares[name]:
            parts.append(PartGrade(name, points, points, reached))
        else:
            parts.append(PartGrade(name, 0, points, f"{reached}, {goal.shares[name]:.0%} are asked for"))
    missed = [part.name for part in parts if not part.points]
    words = f"{reached}, after {used}"
    mistakes = (Mistake(f"not there: {missed[0]}", words),) if missed else ()
    return Grade(exercise.name, str(path), tuple(parts), mistakes, words)


def _nothing(exercise: Exercise, words: str) -> tuple[PartGrade, ...]:
    return tuple(PartGrade(name, 0, points, words) for name, points in exercise.points.items())


def _encoded(array: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"array": data, "dtype": array.dtype.str, "shape": list(array.shape)}


def _decoded(value: Any) -> np.ndarray | None:
    if not isinstance(value, dict) or "array" not in value:
        return None
    return np.frombuffer(base64.b64decode(value["array"]), value["dtype"]).reshape(value["shape"])
