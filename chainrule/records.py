"""What a run says of itself: config.json, summary.json, the comparison of its engines, its pictures."""

import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

import nn_reference
from agreement import FLOAT64_LIMIT, TensorAgreement, compare_networks
from chainrule import calibration
from chainrule.datasets import Dataset
from chainrule.metrics import most_confused, per_class
from chainrule.recipe import Recipe
from chainrule.runs import RunFolder
from chainrule.training import Trained, confusion_matrix

COMPARED_IMAGES = 64


def config(
    recipe: Recipe, engines: list[str], data: Dataset, device: str, threads: int, workers: int = 1
) -> dict[str, Any]:
    """Return what is needed to repeat the run; the recipe is the one that was trained, with all options."""
    return {
        "command": ["chainrule", *sys.argv[1:]],
        "recipe": asdict(recipe),
        "engine": "both" if len(engines) > 1 else engines[0],
        "device": device,
        "threads": threads,
        "workers": workers,
        "dataset": data.name,
        "dataset_folder": str(data.folder),
        "dataset_sha256": data.sha256,
        "versions": versions(engines),
        "platform": platform.platform(),
    }


def versions(engines: list[str]) -> dict[str, str]:
    """Return the versions of what computes."""
    packages = ["chainrule", "numpy", *(["torch"] if "torch" in engines else [])]
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def compare(recipe: Recipe, data: Dataset, state: dict[str, np.ndarray]) -> list[TensorAgreement]:
    """Compare the two engines with the trained weights, in float64, on the first test images.

    Both are in eval mode: Dropout lets everything through, and BatchNorm uses its running statistics. (With
    those of the batch the gradient of a bias before it is zero but for rounding, and a comparison of rounding
    errors relative to their largest tells nothing.)

    For a network with max pooling each pixel is given a random fraction of a grey level: on the blank paper
    of an image whole windows have one value but for the order of a sum, so that rounding decides which
    element is the largest, and with it where the gradient goes.
    """
    import torch

    reference, autograd = recipe.build(nn_reference).eval(), recipe.build(torch.nn).eval()
    reference.load_state_dict(state)
    images = recipe.examples(data.test_images[:COMPARED_IMAGES]).astype(np.float64)
    if any(layer.type == "MaxPool2d" for layer in recipe.layers):
        images += np.random.default_rng(0).random(images.shape)
    images = (images / 255 - recipe.mean) / recipe.std
    labels = data.test_labels[:COMPARED_IMAGES].astype(np.int64)
    criteria = recipe.build_loss(nn_reference), recipe.build_loss(torch.nn)
    return compare_networks(reference, criteria[0], autograd, criteria[1], images, labels).rows


def summary(
    recipe: Recipe,
    data: Dataset,
    results: list[Trained],
    comparison: list[TensorAgreement] | None,
    kept: dict[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> dict[str, Any]:
    """Return what was reached: the first engine's figures at the top, and each engine's under ``engines``.

    Test figures are those after the last epoch; ``best`` has those of the best epoch by validation.
    ``kept`` has each engine's outputs on the validation images with their labels, where there are any.
    """
    engines = {
        result.engine: {
            "epochs": result.epochs,
            "train_accuracy": result.train_accuracy,
            "train_loss": result.train_loss,
            "test_accuracy": result.test_accuracy,
            "test_loss": result.test_loss,
            **({} if result.best is None else {"best": asdict(result.best)}),
            "seconds": round(result.seconds, 3),
            **_by_class(result.outputs, data),
            "calibration": calibration.of_engine(
                result.outputs, data.test_labels, (kept or {}).get(result.engine)
            ),
        }
        for result in results
    }
    first = results[0].engine
    return {
        "recipe": recipe.name,
        "engine": "both" if len(results) > 1 else first,
        "dataset": data.name,
        "batch_size": recipe.batch_size,
        "seed": recipe.seed,
        "parameters": sum(recipe.parameter_counts()),
        **engines[first],
        "dataset_sha256": data.sha256,
        "engines": engines,
        **({} if comparison is None else {"agreement": _agreement(comparison)}),
    }


def _by_class(outputs: np.ndarray, data: Dataset) -> dict[str, Any]:
    matrix = confusion_matrix(outputs, data.test_labels, len(data.class_names))
    classes = per_class(matrix, data.class_names)
    return {
        "per_class_accuracy": {name: row["recall"] for name, row in classes.items()},
        "per_class": classes,
        "most_confused": most_confused(matrix, data.class_names),
    }


def _agreement(rows: list[TensorAgreement]) -> dict[str, Any]:
    return {
        "dtype": "float64",
        "mode": "eval",
        "images": COMPARED_IMAGES,
        "error": "largest difference / largest value",
        "limit": FLOAT64_LIMIT,
        "largest_error": max(row.error for row in rows),
        "agrees": all(row.agrees for row in rows),
        "tensors": {row.name: _finite({**asdict(row), "error": row.error}) for row in rows},
    }


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with None for what JSON has no number for: infinity and NaN."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}


def draw(
    folder: RunFolder,
    metrics: list[dict[str, Any]],
    data: Dataset,
    first: Trained,
    recipe: Recipe,
    state: dict[str, np.ndarray],
    calibrated: dict[str, Any],
) -> None:
    """Write the pictures of a run; those of single images are of its first engine and its ``state``.

    ``calibrated`` is what the summary says of that engine's calibration.
    """
    from chainrule import pictures

    for name, picture in pictures.of_run(metrics, data, first, recipe, state, calibrated).items():
        folder.write(name, picture)
