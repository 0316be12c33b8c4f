"""Negative log-likelihood: cross-entropy for a network whose last layer is LogSoftmax."""

from typing import Any, NamedTuple

import numpy as np

from nn_reference._arrays import Array
from nn_reference.loss import Loss, reduce, spread


class Cache(NamedTuple):
    """What backward needs. C is the number of classes, on axis ``axis``; * stands for the other axes of x."""

    shape: tuple[int, ...]  # (*, C, *)
    labels: Array  # (*, 1, *)
    row_weight: Array  # (*, 1, *), the weight of each item's label, 0 where ignored
    axis: int
    reduction: str
    divisor: Any  # what "mean" divides by


def class_axis(x: Array) -> int:
    """Return the axis of the classes: 1 of (N, C, ...), 0 of (C,)."""
    return min(1, x.ndim - 1)


def weigh(x: Array, target: Array, weight: Array | None, ignore_index: int) -> tuple[Array, Array]:
    """Return labels and their weights (0 where ignored), both with an axis of 1 for the classes."""
    axis = class_axis(x)
    kept = np.expand_dims(target != ignore_index, axis)
    labels = np.where(kept, np.expand_dims(target, axis), 0)
    class_weight = np.ones(x.shape[axis], x.dtype) if weight is None else weight.astype(x.dtype)
    return labels, class_weight[labels] * kept


def forward(
    x: Array, target: Array, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> tuple[Array, Cache]:
    """Compute ``-weight_k x_k`` for the label k of each item.

        x       (N, C, d1, ...) or (C,), log-probabilities
        target  (N, d1, ...) or (), integers in [0, C)
        weight  (C,), a factor for each class
        loss    a scalar of x's dtype, or with reduction "none" an array (N, d1, ...)

    "mean" divides by the sum of the weights of the labels that are not ignored.
    """
    axis = class_axis(x)
    labels, row_weight = weigh(x, target, weight, ignore_index)
    log_p = np.where(row_weight == 0, 0, np.take_along_axis(x, labels, axis))  # an ignored one may be -inf
    losses = (-row_weight * log_p).squeeze(axis)
    cache = Cache(x.shape, labels, row_weight, axis, reduction, row_weight.sum())
    return reduce(losses, reduction, cache.divisor), cache


def backward(cache: Cache, grad_loss: Array) -> Array:
    """Return ``grad_x``: ``-weight_k`` (over the divisor, for "mean") at the label, 0 at every other class.

    Together with LogSoftmax's backward that is the gradient of cross-entropy, p - [j = k]; see
    `cross_entropy` for the way to compute it without cancellation, which two separate steps cannot use.
    Source: Bishop (2006), section 4.3.4.
    """
    shape, labels, row_weight, axis, reduction, divisor = cache
    per_item = spread(grad_loss, reduction, divisor)
    if reduction == "none":
        per_item = np.expand_dims(per_item, axis)
    grad = np.zeros(shape, row_weight.dtype)
    np.put_along_axis(grad, labels, -row_weight * per_item, axis)
    return grad


class NLLLoss(Loss):
    """``torch.nn.NLLLoss``."""

    weight: Array | None

    def __init__(
        self, weight: Array | None = None, *, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self._register("weight", weight)
        self.ignore_index = ignore_index

    def _forward(self, x: Array, target: Array) -> tuple[Array, Any]:
        self._check(x, target)
        return forward(x, target, self.weight, self.ignore_index, self.reduction)

    def _backward(self, cache: Any, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)

    def _check(self, x: Array, target: Array) -> None:
        """Raise unless there is a class for each item of x, and a weight for each class."""
        name, axis = type(self).__name__, class_axis(x)
        if x.ndim == 0 or not x.shape[axis]:
            raise ValueError(f"{name}: input has shape {x.shape}, expected (N, C, ...) or (C,)")
        if self.weight is not None and self.weight.shape != (x.shape[axis],):
            raise ValueError(f"{name}: weight has shape {self.weight.shape}, expected ({x.shape[axis]},)")
        if not isinstance(target, np.ndarray | np.integer) or not np.issubdtype(target.dtype, np.integer):
            found = getattr(target, "dtype", type(target).__name__)
            raise TypeError(f"{name}: target is {found}, expected an array of integers")
        expected = x.shape[:axis] + x.shape[axis + 1 :]
        if target.shape != expected:
            raise ValueError(f"{name}: target has shape {target.shape}, expected {expected} for {x.shape}")
        outside = target[(target != self.ignore_index) & ((target < 0) | (target >= x.shape[axis]))]
        if outside.size:
            classes = f"a class from 0 to {x.shape[axis] - 1} or ignore_index={self.ignore_index}"
            raise ValueError(f"{name}: target holds {outside.flat[0]}, expected {classes}")
