"""Cross-entropy: how many nats the true class was worth, given the scores."""

from typing import Any, NamedTuple

import numpy as np

from nn_reference._arrays import Array, check_floating
from nn_reference.loss import Loss, reduce, spread
from nn_reference.softmax import exponentials


class Cache(NamedTuple):
    """What backward needs. C is the number of classes, on axis ``axis``; * stands for the other axes of x."""

    probabilities: Array  # (*, C, *) softmax of the scores
    labels: Array | None  # (*, 1, *) the label of each item, when targets are class indices
    row_weight: Array | None  # (*, 1, *) the weight of each item's label, 0 where ignored
    soft: Array | None  # (*, C, *) weighted class probabilities, or the part that label smoothing adds
    axis: int
    reduction: str
    count: Any  # what "mean" divides by


def forward(
    x: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Array, Cache]:
    """Compute the cross-entropy of ``softmax(x)`` relative to ``target``.

        x       (N, C, d1, ...) or (C,), the scores (logits)
        target  (N, d1, ...) or (), integers in [0, C), or probabilities of x's shape
        weight  (C,), a factor for each class
        loss    a scalar of x's dtype, or with reduction "none" an array (N, d1, ...)

    For the label k the loss is ``-weight_k log p_k``, with p = softmax(x); for probabilities q it is ``-sum_j
    weight_j q_j log p_j``. Label smoothing eps moves the target to ``(1 - eps) q + eps / C``. "mean" divides
    by the sum of the weights of the labels that are not ignored, or for probabilities by the number of items.
    """
    axis = min(1, x.ndim - 1)
    classes = x.shape[axis]
    class_weight = np.ones(classes, x.dtype) if weight is None else weight.astype(x.dtype)
    class_weight = class_weight.reshape(-1, *(1,) * (x.ndim - 1 - axis))  # (C, 1, ...)
    shifted, e, rest = exponentials(x, axis)
    log_sum = np.log1p(rest)
    e /= 1 + rest

    if np.issubdtype(target.dtype, np.inexact):
        soft = (target * (1 - label_smoothing) + label_smoothing / classes) * class_weight
        losses = (soft * (log_sum - shifted)).sum(axis)
        cache = Cache(e, None, None, soft, axis, reduction, losses.size)
        return reduce(losses, reduction, cache.count), cache

    kept = np.expand_dims(target != ignore_index, axis)
    labels = np.where(kept, np.expand_dims(target, axis), 0)
    row_weight = class_weight.reshape(-1)[labels] * kept
    count = row_weight.sum()
    losses = row_weight * (log_sum - np.take_along_axis(shifted, labels, axis))
    soft = None
    if label_smoothing:
        row_weight = row_weight * (1 - label_smoothing)
        soft = label_smoothing / classes * class_weight * kept
        losses = losses * (1 - label_smoothing) + (soft * (log_sum - shifted)).sum(axis, keepdims=True)
    cache = Cache(e, labels, row_weight, soft, axis, reduction, count)
    return reduce(losses.squeeze(axis), reduction, count), cache


def backward(cache: Cache, grad_loss: Array) -> Array:
    """Return ``grad_x``, in the shape of x.

    For one item with label k, ``loss = log(sum_j exp(x_j)) - x_k``, so

        dloss/dx_j = p_j - [j = k]

    Written like this, the entry of the label is p_k - 1, and in floating point that is wrong as soon as the
    network is good: p_k is rounded to a multiple of u near 1 (u = 2^-24 in float32), so a true value of -1e-6
    comes out with a relative error of up to 6 %, and one of -1e-8 as 0. But the probabilities sum to 1, so

        dloss/dx_k = p_k - 1 = -sum of p_j over j != k

    which has no cancellation: every term has the same sign and is accurate. That is what is computed here. It
    is not needed for soft targets t (with T their sum), where ``dloss/dx_j = T p_j - t_j`` is zero at a
    minimum inside. Source: Bishop (2006), section 4.3.4, for the derivative.
    """
    p, labels, row_weight, soft, axis, reduction, count = cache
    grad = np.zeros_like(p)
    if labels is not None:
        grad += p
        np.put_along_axis(grad, labels, 0, axis)
        np.put_along_axis(grad, labels, -grad.sum(axis, keepdims=True), axis)
        grad *= row_weight
    if soft is not None:
        grad += p * soft.sum(axis, keepdims=True) - soft
    per_item = spread(grad_loss, reduction, count)
    grad *= np.expand_dims(per_item, axis) if reduction == "none" else per_item
    return grad


def check_target(owner: str, x: Array, target: Array, ignore_index: int) -> None:
    """Raise ValueError unless ``target`` holds a class, or ``ignore_index``, for each item of ``x``."""
    axis = min(1, x.ndim - 1)
    expected = x.shape[:axis] + x.shape[axis + 1 :]
    if target.shape != expected:
        raise ValueError(f"{owner}: target has shape {target.shape}, expected {expected} for input {x.shape}")
    outside = (target != ignore_index) & ((target < 0) | (target >= x.shape[axis]))
    if outside.any():
        where = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(
            f"{owner}: target{list(where)} is {target[where]}, expected a class from 0 to {x.shape[axis] - 1}"
            f" or ignore_index={ignore_index}"
        )


class CrossEntropyLoss(Loss):
    """``torch.nn.CrossEntropyLoss``: class indices or class probabilities, weights, label smoothing."""

    weight: Array | None

    def __init__(
        self,
        weight: Array | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"CrossEntropyLoss: label_smoothing={label_smoothing}, expected 0 to 1")
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def _forward(self, x: Array, target: Array) -> tuple[Array, Cache]:
        if x.ndim == 0:
            raise ValueError("CrossEntropyLoss: input has shape (), expected (N, C, ...) or (C,)")
        check_weight(self, x)
        if np.issubdtype(np.asarray(target).dtype, np.inexact):
            check_floating("CrossEntropyLoss", "target", target)
            self._check_same(x, target)
        else:
            target = np.asarray(target)
            check_target("CrossEntropyLoss", x, target, self.ignore_index)
        return forward(x, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)


def check_weight(criterion: "Loss", x: Array) -> None:
    """Raise ValueError unless ``criterion.weight`` is None or has one element per class."""
    weight = getattr(criterion, "weight", None)
    classes = x.shape[min(1, x.ndim - 1)]
    if weight is not None and weight.shape != (classes,):
        raise ValueError(
            f"{type(criterion).__name__}: weight has shape {weight.shape}, expected ({classes},)"
        )
