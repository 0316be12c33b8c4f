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
    learning_rate: float
    images_per_second: float
    means: Callable[[], tuple[float, float]]


@dataclass(frozen=True)
class Best:
    """The epoch with the highest accuracy on the validation images (of several: the lowest loss)."""

    epoch: int
    validation_loss: float
    validation_accuracy: float
    test_loss: float
    test_accuracy: float


@dataclass
class Trained:
    """What one engine has reached after ``epochs``. ``seconds`` is training alone, without evaluation."""

    engine: str
    epochs: int = 0
    seconds: float = 0.0
    train_loss: float = float("nan")
    train_accuracy: float = float("nan")
    test_loss: float = float("nan")
    test_accuracy: float = float("nan")
    best: Best | None = None  # without a validation split there is none
    outputs: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))  # (N, classes), on the test images


@dataclass
class Running:
    """Where an epoch stands: the batches learnt from so far, and what has been summed up over them.

    Loss, correct answers and the gradient's norm may be scalars on the engine's device.
    """

    batches: int = 0
    images: int = 0
    loss: Any = 0.0  # each batch's mean times its size
    correct: Any = 0
    norm: Any = 0.0
    seconds: float = 0.0

    def means(self) -> tuple[float, float]:
        """Return the mean loss and the accuracy over the images so far."""
        return float(self.loss) / self.images, float(self.correct) / self.images


@dataclass
class Course:
    """One engine's way through a training: the engine, its data, its schedule, and what it has reached.

    ``learn``, ``validation`` and ``test`` are each what ``engine.put`` returned with the labels as an array.
    """

    engine: Engine
    learn: tuple[Any, np.ndarray]
    validation: tuple[Any, np.ndarray] | None
    test: tuple[Any, np.ndarray]
    scheduler: Any  # of nn_reference.optim.lr_scheduler or torch.optim.lr_scheduler, or None
    trained: Trained
    running: Running = field(default_factory=Running)  # of the epoch after ``trained.epochs``


def _nothing() -> None:
    pass


def train(
    courses: list[Course],
    recipe: Recipe,
    *,
    report: Callable[[Progress], None],
    after_epoch: Callable[[Course, list[dict[str, Any]], bool], None],
    between_batches: Callable[[], None] = _nothing,
) -> list[Trained]:
    """Train every engine on the same batches in the same order, epoch by epoch in turn.

    Each course goes on from where it stands, which `begin` puts at the start and `chainrule.checkpoints`
    anywhere. ``after_epoch`` gets the course that has finished an epoch, the epoch's metrics (a row for each
    split), and whether this was the best epoch so far by validation. ``between_batches`` is called before
    each batch, when the courses are all that the rest of the training depends on. Returns what each engine
    reached. The test images decide nothing here; the validation images, where the recipe wants some, do.
    """
    for epoch in range(1, recipe.epochs + 1):
        for course in courses:
            if course.trained.epochs < epoch and not stops_early(course.trained, recipe):
                rows = one_epoch(course, recipe, epoch, report, between_batches)
                after_epoch(
                    course, rows, course.trained.best is not None and course.trained.best.epoch == epoch
                )
    return [course.trained for course in courses]


def begin(engine: Engine, recipe: Recipe, dataset: Dataset) -> Course:
    """Give an engine its data, with the validation images kept back, and a schedule of the right length."""

    def put(images: np.ndarray, labels: np.ndarray) -> tuple[Any, np.ndarray]:
        return engine.put(recipe.examples(images), labels, recipe.mean, recipe.std), labels

    images, labels = dataset.train_images, dataset.train_labels
    learn, kept = split(len(labels), recipe.validation, recipe.seed)
    return Course(
        engine=engine,
        learn=put(images[learn], labels[learn]),
        validation=put(images[kept], labels[kept]) if recipe.validation else None,
        test=put(dataset.test_images, dataset.test_labels),
        scheduler=recipe.build_scheduler(
            engine.optim, engine.optimizer, steps_per_epoch(len(labels), recipe)
        ),
        trained=Trained(engine.name),
    )


def split(count: int, validation: int, seed: int) -> tuple[np.ndarray | slice, np.ndarray]:
    """Return the indices to learn from, and the ``validation`` of ``count`` that the seed keeps back."""
    if not validation:
        return slice(None), np.empty(0, int)
    order = np.random.default_rng([seed, 3]).permutation(count)
    return np.sort(order[validation:]), np.sort(order[:validation])


def steps_per_epoch(count: int, recipe: Recipe) -> int:
    """Return the number of batches that ``count`` training images give, the last one as small as it is."""
    return -(-(count - recipe.validation) // recipe.batch_size)


def batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Give the indices of each batch: every example once, in the order of the epoch."""
    order = epoch_order(count, seed, epoch)
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """Return the indices (count,) of the examples in the order of an epoch, which seed and epoch decide."""
    return np.random.default_rng([seed, 1, epoch]).permutation(count)


def one_epoch(
    course: Course,
    recipe: Recipe,
    epoch: int,
    report: Callable[[Progress], None],
    between_batches: Callable[[], None] = _nothing,
) -> list[dict[str, Any]]:
    """Train for an epoch, evaluate, and move the schedule on; returns the metrics, a row for each split."""
    engine, trained = course.engine, course.trained
    learnt = train_epoch(course, recipe, epoch, report, between_batches)
    course.running = Running()
    trained.epochs = epoch
    trained.seconds += learnt["seconds"]
    trained.train_loss, trained.train_accuracy = learnt["loss"], learnt["accuracy"]
    trained.test_loss, trained.test_accuracy, trained.outputs = evaluate(engine, *course.test)
    where = {"epoch": epoch, "engine": engine.name}
    rows = [{**where, "split": "train", **learnt}]
    if course.validation is not None:
        loss, accuracy, _ = evaluate(engine, *course.validation)
        rows.append({**where, "split": "validation", "loss": loss, "accuracy": accuracy})
        best = trained.best
        if best is None or (accuracy, -loss) > (best.validation_accuracy, -best.validation_loss):
            trained.best = Best(epoch, loss, accuracy, trained.test_loss, trained.test_accuracy)
    if recipe.waits_for_plateau:
        course.scheduler.step(rows[-1]["loss"])  # the validation loss, or without such images the training's
    elif course.scheduler is not None and recipe.interval == "epoch":
        course.scheduler.step()
    rows.append({**where, "split": "test", "loss": trained.test_loss, "accuracy": trained.test_accuracy})
    return rows


def train_epoch(
    course: Course,
    recipe: Recipe,
    epoch: int,
    report: Callable[[Progress], None],
    between_batches: Callable[[], None] = _nothing,
) -> dict[str, float]:
    """Send every training example through ``engine.train_step`` once, but those that it has seen already.

    Returns the mean loss and accuracy over the epoch, each batch weighted by its size and measured before it
    was learnt from; the learning rate of the last step; the mean over the steps of the gradient's norm; and
    the seconds it took. Raises ChainruleError if the loss is no longer a number.
    """
    engine, running, (data, labels) = course.engine, course.running, course.learn
    total_batches = -(-len(labels) // recipe.batch_size)
    rate = float("nan")
    started = time.perf_counter() - running.seconds
    order = engine.indices(epoch_order(len(labels), recipe.seed, epoch))
    for start in range(running.batches * recipe.batch_size, len(labels), recipe.batch_size):
        between_batches()
        batch = order[start : start + recipe.batch_size]
        rate = engine.optimizer.param_groups[0]["lr"]
        # A loss that grows beyond all numbers is reported below, in words.
        with np.errstate(over="ignore", invalid="ignore"):
            loss, correct, norm = engine.train_step(data, batch)
        if course.scheduler is not None and recipe.interval == "step":
            course.scheduler.step()
        running.batches += 1
        running.images += len(batch)
        running.loss = running.loss + loss * len(batch)
        running.correct = running.correct + correct
        running.norm = running.norm + norm
        running.seconds = time.perf_counter() - started
        speed = running.images / running.seconds
        report(Progress(epoch, engine.name, running.batches, total_batches, rate, speed, running.means))
    mean_loss, accuracy = running.means()
    if not np.isfinite(mean_loss):
        raise ChainruleError(
            f"the loss of the {engine.name} engine became {mean_loss} in epoch {epoch}: "
            "the learning rate is too high for this network"
        )
    return {
        "loss": mean_loss,
        "accuracy": accuracy,
        "learning_rate": rate,
        "gradient_norm": float(running.norm) / total_batches,
        "seconds": round(time.perf_counter() - started, 3),
    }


def evaluate(engine: Engine, data: Any, labels: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Return mean loss, accuracy and outputs (N, classes) in eval mode, which changes nothing."""
    loss, outputs = engine.evaluate(data)
    return loss, float(np.mean(outputs.argmax(1) == labels)), outputs


def stops_early(trained: Trained, recipe: Recipe) -> bool:
    """Tell whether the last ``early_stopping`` epochs brought nothing better on the validation images."""
    if recipe.early_stopping is None or trained.best is None:
        return False
    return trained.epochs - trained.best.epoch >= recipe.early_stopping


def confusion_matrix(outputs: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return counts (classes, classes): row = the true class, column = what the network said."""
    return np.bincount(labels.astype(np.int64) * classes + outputs.argmax(1), minlength=classes**2).reshape(
        classes, classes
    )
