"""What a mistake does: to a gradient, and to a training."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from settings import BATCH, EPOCHS, Array, Setting, build_optimizer

from agreement.mutants import Mutant
from agreement.running import run_reference
from agreement.table import ROWS
from agreement.tracing import ReferenceEngine

Tensors = dict[str, Array]


class _Clipper:
    """What `ReferenceEngine.clip` looks at; the mistakes in clipping are planted there."""

    def __init__(self, network: Any, max_norm: float | None) -> None:
        self.network, self.max_norm = network, max_norm


@dataclass
class Curve:
    """Training loss and test accuracy after each epoch; ``stopped`` is the error that ended it."""

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    stopped: str = ""


@dataclass
class Training:
    """One network on its way."""

    setting: Setting
    seed: int = 0

    def __post_init__(self) -> None:
        self.network = self.setting.network(np.random.default_rng([self.seed, 0]))
        self.criterion = self.setting.loss()
        self.optimizer, self.scheduler = build_optimizer(self.setting, self.network)
        self.clipper = _Clipper(self.network, self.setting.clip)
        # What grows with maximize is the loss with its sign turned.
        self.sign = np.float32(-1 if self.setting.options.get("maximize") else 1)

    def gradients(self, images: Array, targets: Array, input_grad: bool = False) -> tuple[float, Any]:
        """Run forward and backward."""
        self.network.train()
        self.optimizer.zero_grad()
        loss = float(self.criterion(self.network(images), targets))
        return loss, self.network.backward(self.sign * self.criterion.backward(), input_grad=input_grad)

    def step(self) -> None:
        """Clip, and change the parameters."""
        ReferenceEngine.clip(self.clipper)  # type: ignore[arg-type]
        self.optimizer.step()


def batches(count: int, seed: int, epoch: int) -> Iterator[Array]:
    """Give the indices of each batch."""
    order = np.random.default_rng([seed, 1, epoch]).permutation(count)
    return iter(np.array_split(order, count // BATCH))


def train(setting: Setting, mutant: Mutant | None = None, seed: int = 0) -> Curve:
    """Train with the mistake, or without one."""
    learn, targets, test, labels = setting.data()
    curve = Curve()
    with mutant.planted() if mutant else nullcontext(), np.errstate(all="ignore"):
        try:
            training = Training(setting, seed)
            for epoch in range(EPOCHS):
                losses = []
                for batch in batches(len(learn), seed, epoch):
                    losses.append(training.gradients(learn[batch], targets[batch])[0])
                    training.step()
                if training.scheduler is not None:
                    training.scheduler.step()
                curve.loss.append(float(np.mean(losses)))
                training.network.eval()
                answers = training.network(test).argmax(1)
                curve.accuracy.append(float(np.mean(answers == labels)))
        except Exception as error:  # a wrong shape, most often: that is what this mistake does
            curve.stopped = f"{type(error).__name__}: {error}"
    return curve


@dataclass
class Shown:
    """A tensor as it should be and as the mistake makes it; ``where`` says of what."""

    name: str
    where: str
    right: Array
    wrong: Array


def show(setting: Setting, mutant: Mutant) -> Shown | None:
    """Find a tensor in which the mistake shows: in the first steps on digits, else on the table's example.

    None if it raises. The digits are taken as they are; the examples have zeros and ties planted in them.
    """
    try:
        right, wrong = list(_record(setting)), None
        with mutant.planted(), np.errstate(all="ignore"):
            wrong = list(_record(setting))
    except Exception:
        return _on_an_example(mutant)
    for (where, before), (_, after) in zip(right, wrong, strict=True):
        name = _most_changed(before, after)
        if name:
            return Shown(name, where, before[name], after[name])
    return _on_an_example(mutant)


def _record(setting: Setting) -> Iterator[tuple[str, Tensors]]:
    """Give gradients, updates and buffers of the first steps, in the order in which they come."""
    learn, targets, _, _ = setting.data()
    training = Training(setting)
    named = list(training.network.named_parameters())
    epochs = iter(batches(len(learn), 0, 0))
    first = next(epochs)
    start = {name: p.data.copy() for name, p in named}
    _, grad_x = training.gradients(learn[first], targets[first], input_grad=True)
    yield "in the first step", _copies({name: p.grad for name, p in named}, "dL/d ") | _images(grad_x)
    training.step()
    yield "after the first step", _change(named, start)
    yield "after the first step", _buffers(training)
    for number, batch in enumerate(epochs, start=2):
        _, grad_x = training.gradients(learn[batch], targets[batch], input_grad=number == 2)
        yield f"in step {number}", _copies({name: p.grad for name, p in named}, "dL/d ") | _images(grad_x)
        training.step()
        if training.scheduler is not None:
            training.scheduler.step()
        yield f"after {number} steps", _change(named, start) | _buffers(training)
        if number == 8:
            return


def _copies(tensors: dict[str, Any], prefix: str) -> Tensors:
    return {prefix + name: np.array(a, np.float64) for name, a in tensors.items() if a is not None}


def _images(grad_x: Array | None) -> Tensors:
    if grad_x is None:
        return {}
    side = int(grad_x[0].size ** 0.5)
    return {"dL/d images": np.array(grad_x, np.float64).reshape(-1, side, side)}


def _change(named: list[Any], start: Tensors) -> Tensors:
    return {f"change of {name}": np.asarray(p.data - start[name], np.float64) for name, p in named}


def _buffers(training: Training) -> Tensors:
    return _copies(dict(training.network.named_buffers()), "")


def _most_changed(before: Tensors, after: Tensors) -> str | None:
    """Return the name of the tensor with the largest relative change: rounding in float32 does not count."""
    changes = {}
    for name, right in before.items():
        wrong = after.get(name)
        if wrong is None or wrong.shape != right.shape:
            wrong = np.zeros_like(right)
            after[name] = wrong
        largest = np.abs(right).max(initial=0.0)
        change = np.abs(wrong - right).max(initial=0.0) / largest if largest else float(np.any(wrong))
        if not np.isfinite(wrong).all() or change > 1e-5:
            changes[name] = (round(min(change, 1.0), 1), right.ndim == 2, right.size)
    return max(changes, key=changes.__getitem__) if changes else None


def _on_an_example(mutant: Mutant) -> Shown | None:
    """Return what shows on an example of the table of operations, the first of twenty on which it does."""
    if mutant.operation not in ROWS:
        return None
    row = ROWS[mutant.operation]
    dtype = np.float64 if "float64" in mutant.shows_in else np.float32
    batch = None if "float32" in mutant.shows_in or dtype is np.float64 else 4096
    for seed in range(20):
        example = row.example(seed, batch=batch)
        try:
            right = run_reference(example, dtype)
            with mutant.planted(), np.errstate(all="ignore"):
                wrong = run_reference(example, dtype)
        except Exception:
            return None
        pairs = {name: (a, wrong.tensors[name]) for name, a in right.tensors.items()}
        pairs |= wrong.kept | wrong.added
        for name, (before, after) in pairs.items():
            if before.shape == after.shape and not np.array_equal(before, after, equal_nan=True):
                where = "on an example with planted zeros and ties"
                if batch:
                    where = f"over a batch of {batch:,}"
                name = name.replace("grad of ", "dL/d ", 1)
                return Shown(name, where, np.asarray(before, np.float64), np.asarray(after, np.float64))
    return None
