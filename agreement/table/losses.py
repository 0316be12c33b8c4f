"""The rows of the losses."""

from collections.abc import Callable
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.measures import Array
from agreement.mutants.operations import mutants_of
from agreement.table.draw import Draw
from agreement.table.row import PRODUCTS, Accuracy, Example, Kinks, Row, from_above, from_below

REDUCTIONS = ("mean", "sum", "none", "mean")
# Where nothing cancels, each element is as good as exp makes it, be it ever so small.
LABELS = Accuracy(
    "element", 64, "exp turns the rounding of x - max(x), up to 20 u, into a relative error; no p - 1 cancels"
)
YES_OR_NO = Accuracy("element", 16, "a sigmoid and some products: for targets of 0 and 1 nothing cancels")


def criterion(
    name: str, tensors: dict[str, Array | None], keywords: dict[str, Any]
) -> tuple[nn.Module, Callable[[], Any]]:
    """Return the loss of that name of ours, and what makes PyTorch's; ``tensors`` are arguments, too."""

    def theirs() -> Any:
        import torch

        arguments = {k: None if v is None else torch.from_numpy(v) for k, v in tensors.items()}
        return getattr(torch.nn, name)(**arguments, **keywords)

    return getattr(nn, name)(**tensors, **keywords), theirs


def _scores_shape(draw: Draw) -> tuple[tuple[int, ...], int]:
    """Return the shape of scores and the axis of its classes: (N, C, ...), or (C,) when drawing edges."""
    if draw.batch is not None:
        return (draw.batch, draw.integer(3, 6)), 1
    if draw.edges:
        classes = draw.integer(2, 6)
        shape = draw.choice(((classes,), (4, classes), (3, classes, 2), (2, classes, 3, 2), (1, classes)))
        return shape, min(1, len(shape) - 1)
    return (draw.first(3, 5), draw.size(3, 6), *(draw.size(2, 4) for _ in range(draw.integer(0, 2)))), 1


def _labels(draw: Draw, name: str) -> Example:
    """A loss over classes: weights, ignored labels, further axes; some items with a score that is sure."""
    shape, axis = _scores_shape(draw)
    classes = shape[axis]
    target = draw.rng.integers(0, classes, shape[:axis] + shape[axis + 1 :])
    keywords: dict[str, Any] = {"reduction": draw.choice(REDUCTIONS)}
    keywords["ignore_index"] = draw.choice((-100, draw.integer(0, classes - 1)))
    if not target.ndim:
        keywords["ignore_index"] = -100
    elif (target == keywords["ignore_index"]).sum() > target.size - 2:  # at least two count
        target.flat[:2] = (keywords["ignore_index"] + 1) % classes
    if name == "CrossEntropyLoss":
        # Never 1.0: on ties its gradient is exactly zero, and rounding is all there is.
        keywords["label_smoothing"] = draw.choice((0.0, 0.0, 0.1, 0.9))
    weight = draw.spread(classes, 0.2, 3.0) if draw.flag() else None
    x = draw.values(shape)
    if name == "NLLLoss":
        x = -np.abs(x)  # log-probabilities; of both signs, their sum can be nothing but rounding
    if name == "CrossEntropyLoss" and target.size > 2:  # p - 1 is then some 1e-5
        sure = tuple(draw.integer(0, n - 1) for n in target.shape)
        where = (*sure[:axis], int(target[sure]) % classes, *sure[axis:])
        x[where] = x.max() + 12
    ours, theirs = criterion(name, {"weight": weight}, keywords)
    float32 = LABELS if keywords.get("label_smoothing") == 0.0 else None
    return Example(ours, theirs, (x, target), draw.seed, float32=float32)


def _probabilities(draw: Draw) -> Example:
    shape, axis = _scores_shape(draw)
    target = np.exp(draw.rng.normal(size=shape))
    target /= target.sum(axis, keepdims=True)
    keywords = {"reduction": draw.choice(REDUCTIONS), "label_smoothing": draw.choice((0.0, 0.0, 0.1, 0.9))}
    weight = draw.spread(shape[axis], 0.2, 3.0) if draw.flag() else None
    ours, theirs = criterion("CrossEntropyLoss", {"weight": weight}, keywords)
    return Example(ours, theirs, (draw.values(shape), target), draw.seed)


def _difference(draw: Draw, name: str) -> Example:
    shape = draw.shape()
    ours, theirs = criterion(name, {}, {"reduction": draw.choice(REDUCTIONS)})
    return Example(ours, theirs, (draw.values(shape), draw.values(shape)), draw.seed)


def _binary(draw: Draw) -> Example:
    shape = draw.shape()
    tensors: dict[str, Array | None] = {
        name: draw.spread(shape[-1], 0.2, 3.0) if draw.flag() else None for name in ("weight", "pos_weight")
    }
    hard = draw.flag()
    target = draw.rng.integers(0, 2, shape).astype(float) if hard else draw.spread(shape, 0.0, 1.0)
    ours, theirs = criterion("BCEWithLogitsLoss", tensors, {"reduction": draw.choice(REDUCTIONS)})
    x = draw.values(shape)
    if hard and x.size > 2:  # one that is sure, and right: sigmoid(x) - t would have no digit left
        i = draw.integer(0, x.size - 1)
        x.flat[i], target.flat[i] = 14.0, 1.0
    float32 = YES_OR_NO if hard else None
    return Example(ours, theirs, (x, target), draw.seed, float32=float32)


def _row(name: str, make: Callable[[Draw], Example], arguments: str, float32: Accuracy, **rest: Any) -> Row:
    return Row(name, make, arguments, float32, sums=True, mutants=mutants_of(name), **rest)


_SUM = "a rounding each for difference, product and mean"

LOSSES = (
    _row(
        "CrossEntropyLoss",
        lambda draw: _labels(draw, "CrossEntropyLoss"),
        "reduction, weight, ignore_index, label_smoothing; further axes",
        Accuracy(
            "tensor", 64, f"{LABELS.reason}, unless labels are smoothed: without, it holds for each element"
        ),
        domain="integer labels",
    ),
    _row(
        "CrossEntropyLoss-probabilities",
        _probabilities,
        "reduction, weight, label_smoothing; further axes",
        Accuracy("tensor", 64, "as for labels, but two terms cancel where p is near the target"),
        domain="targets that sum to 1",
    ),
    _row(
        "NLLLoss",
        lambda draw: _labels(draw, "NLLLoss"),
        "reduction, weight, ignore_index; further axes",
        PRODUCTS,
        domain="integer labels",
    ),
    _row("MSELoss", lambda draw: _difference(draw, "MSELoss"), "reduction", Accuracy("element", 8, _SUM)),
    _row(
        "L1Loss",
        lambda draw: _difference(draw, "L1Loss"),
        "reduction",
        Accuracy("element", 8, _SUM),
        smooth=False,
        kinks=Kinks("x = target", "the middle: 0", (from_below, from_above)),
    ),
    _row(
        "BCEWithLogitsLoss",
        _binary,
        "reduction, weight, pos_weight",
        Accuracy("tensor", 16, "between 0 and 1 the terms of both answers cancel"),
        domain="targets from 0 to 1",
    ),
)
