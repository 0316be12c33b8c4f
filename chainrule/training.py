"""The training loop, the same for both engines, and what a run records."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.datasets import Dataset
from chainrule.engines import Engine
from chainrule.errors import ChainruleError
from chainrule.recipe import Recipe


@dataclass(frozen=True)
class Progress:
    """Where an epoch stands. Loss and accuracy are the means since its start, fetched only when asked for."""

    epoch: int
    engine: str
    batch: int
    batches: int
    means: Callable[[], tuple[float, float]]


@dataclass
class Trained:
    """What one engine reached. ``seconds`` is training alone, without evaluation."""

    engine: str
    seconds: float = 0.0
    test_loss: float = float("nan")
    test_accuracy: float = float("nan")
    outputs: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (N, classes), on the test images


def batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Give the indices of each batch: every example once, in an order that seed and epoch decide."""
    order = np.random.default_rng([seed, 1, epoch]).permutation(count)
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]


def train_epoch(
    engine: Engine,
    data: Any,
    count: int,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    report: Callable[[Progress], None],
) -> tuple[float, float, float]:
    """Send every example through ``engine.train_step`` once.

    Returns the mean loss and accuracy over the epoch, each batch weighted by its size and measured before it
    was learnt from, and the seconds it took.
    """
    started = time.perf_counter()
    total_loss: Any = 0.0
    total_correct: Any = 0
    seen = 0

    def means() -> tuple[float, float]:
        return float(total_loss) / seen, float(total_correct) / seen

    number_of_batches = -(-count // batch_size)
    for number, batch in enumerate(batches(count, batch_size, seed, epoch), start=1):
        # A loss that grows beyond all numbers is reported below, in words.
        with np.errstate(over="ignore", invalid="ignore"):
            loss, correct = engine.train_step(data, batch)
        total_loss = total_loss + loss * len(batch)
        total_correct = total_correct + correct
        seen += len(batch)
        report(Progress(epoch, engine.name, number, number_of_batches, means))
    mean_loss, accuracy = means()
    if not np.isfinite(mean_loss):
        raise ChainruleError(
            f"the loss of the {engine.name} engine became {mean_loss} in epoch {epoch}: "
            "the learning rate is too high for this network"
        )
    return mean_loss, accuracy, time.perf_counter() - started


def train(
    engines: list[Engine],
    recipe: Recipe,
    dataset: Dataset,
    *,
    report: Callable[[Progress], None],
    after_epoch: Callable[[Engine, list[dict[str, Any]]], None],
) -> list[Trained]:
    """Train every engine on the same batches in the same order, epoch by epoch in turn.

    ``after_epoch`` gets the engine that has finished an epoch, and the metrics so far: a row for each epoch,
    engine and split. Returns what each engine reached on the test images, which decide nothing here.
    """
    normalisation = (recipe.mean, recipe.std)
    train_images, test_images = recipe.examples(dataset.train_images), recipe.examples(dataset.test_images)
    learn = [engine.put(train_images, dataset.train_labels, *normalisation) for engine in engines]
    test = [engine.put(test_images, dataset.test_labels, *normalisation) for engine in engines]
    results = [Trained(engine.name) for engine in engines]
    rate = recipe.optimizer.arguments.get("lr")
    metrics: list[dict[str, Any]] = []
    for epoch in range(1, recipe.epochs + 1):
        for engine, data, test_data, result in zip(engines, learn, test, results, strict=True):
            loss, accuracy, seconds = train_epoch(
                engine,
                data,
                len(dataset.train_labels),
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                epoch=epoch,
                report=report,
            )
            result.seconds += seconds
            result.test_loss, result.outputs = engine.evaluate(test_data)
            result.test_accuracy = float(np.mean(result.outputs.argmax(1) == dataset.test_labels))
            row = {"epoch": epoch, "engine": engine.name, "learning_rate": rate, "seconds": round(seconds, 3)}
            metrics.append({**row, "split": "train", "loss": loss, "accuracy": accuracy})
            metrics.append(
                {**row, "split": "test", "loss": result.test_loss, "accuracy": result.test_accuracy}
            )
            after_epoch(engine, metrics)
    return results


def per_class_accuracy(
    outputs: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, float | None]:
    """Return, for each class, the share of its examples that were read correctly (None where it has none)."""
    right = outputs.argmax(1) == labels
    return {
        name: float(right[labels == index].mean()) if np.any(labels == index) else None
        for index, name in enumerate(class_names)
    }


def confusion_matrix(outputs: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return counts (classes, classes): row = the true class, column = what the network said."""
    return np.bincount(labels.astype(np.int64) * classes + outputs.argmax(1), minlength=classes**2).reshape(
        classes, classes
    )
