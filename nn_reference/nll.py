"""Negative log-likelihood: cross-entropy for a network whose last layer is LogSoftmax."""

from typing import Any, NamedTuple

import numpy as np

from nn_reference._arrays import Array
from nn_reference.cross_entropy import check_target, check_weight
from nn_reference.loss import Loss, reduce, spread


class Cache(NamedTuple):
    """What backward needs; shapes as in `cross_entropy.Cache`."""

    shape: tuple[int, ...]
    labels: Array
    row_weight: Array
    axis: int
    reduction: str
    count: Any


def forward(
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Array, Cache]:
    """Compute ``-weight_k x_k`` for the label k of each item.

        x       (N, C, d1, ...) or (C,), log-probabilities
        target  (N, d1, ...) or (), integers in [0, C)
        weight  (C,), a factor for each class
        loss    a scalar of x's dtype, or with reduction "none" an array (N, d1, ...)

    "mean" divides by the sum of the weights of the labels that are not ignored.
    """
    axis = min(1, x.ndim - 1)
    kept = np.expand_dims(target != ignore_index, axis)
    labels = np.where(kept, np.expand_dims(target, axis), 0)
    class_weight = np.ones(x.shape[axis], x.dtype) if weight is None else weight.astype(x.dtype)
    row_weight = class_weight[labels] * kept
    losses = (-row_weight * np.take_along_axis(x, labels, axis)).squeeze(axis)
    cache = Cache(x.shape, labels, row_weight, axis, reduction, row_weight.sum())
    return reduce(losses, reduction, cache.count), cache


def backward(cache: Cache, grad_loss: Array) -> Array:
    """Return ``grad_x``: ``-weight_k`` (over the count, for "mean") at the label, 0 at every other class.

    Together with LogSoftmax's backward that is the gradient of cross-entropy, p - [j = k]; see
    `cross_entropy` for the way to compute it without cancellation, which two separate steps cannot use.
    """
    shape, labels, row_weight, axis, reduction, count = cache
    per_item = spread(grad_loss, reduction, count)
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
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def _forward(self, x: Array, target: Array) -> tuple[Array, Cache]:
        if x.ndim == 0:
            raise ValueError("NLLLoss: input has shape (), expected (N, C, ...) or (C,)")
        target = np.asarray(target)
        if not np.issubdtype(target.dtype, np.integer):
            raise TypeError(f"NLLLoss: target is {target.dtype}, expected integers")
        check_weight(self, x)
        check_target("NLLLoss", x, target, self.ignore_index)
        return forward(x, target, self.weight, self.ignore_index, self.reduction)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
