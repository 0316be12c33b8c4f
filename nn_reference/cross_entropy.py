"""Cross-entropy: how many nats the true class was worth, given the scores."""

from typing import Any, NamedTuple

import numpy as np

from nn_reference._arrays import Array
from nn_reference.loss import reduce, spread
from nn_reference.nll import NLLLoss, class_axis, weigh
from nn_reference.softmax import exponentials


class Cache(NamedTuple):
    """What backward needs. C is the number of classes, on axis ``axis``; * stands for the other axes of x."""

    probabilities: Array  # (*, C, *), the softmax of the scores
    labels: Array | None  # (*, 1, *), when targets are class indices
    row_weight: Array | None  # (*, 1, *), the weight of each item's label, 0 where ignored
    soft: Array | None  # (*, C, *), weighted class probabilities, or the part that label smoothing adds
    axis: int
    reduction: str
    divisor: Any  # what "mean" divides by


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

    For the label k the loss is ``-weight_k log p_k``, with p = softmax(x); for probabilities q it is
    ``-sum_j weight_j q_j log p_j``. Label smoothing eps moves the target to ``(1 - eps) q + eps / C``. "mean"
    divides by the sum of the weights of the labels that are not ignored, or for probabilities by the number
    of items.
    """
    axis = class_axis(x)
    shifted, p, rest = exponentials(x, axis)
    p /= 1 + rest
    minus_log_p = np.log1p(rest) - shifted
    class_weight = np.ones(x.shape[axis], x.dtype) if weight is None else weight.astype(x.dtype)
    class_weight = class_weight.reshape(-1, *(1,) * (x.ndim - 1 - axis))  # (C, 1, ...)
    smooth = label_smoothing / x.shape[axis]

    if np.issubdtype(target.dtype, np.inexact):
        soft = (target * (1 - label_smoothing) + smooth) * class_weight
        losses = (soft * minus_log_p).sum(axis)
        return reduce(losses, reduction), Cache(p, None, None, soft, axis, reduction, losses.size)

    labels, row_weight = weigh(x, target, weight, ignore_index)
    divisor = row_weight.sum()
    row_weight *= 1 - label_smoothing
    losses = row_weight * np.take_along_axis(minus_log_p, labels, axis)
    soft = None
    if label_smoothing:
        soft = smooth * class_weight * np.expand_dims(target != ignore_index, axis)
        losses += (soft * minus_log_p).sum(axis, keepdims=True)
    cache = Cache(p, labels, row_weight, soft, axis, reduction, divisor)
    return reduce(losses.squeeze(axis), reduction, divisor), cache


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
    p, labels, row_weight, soft, axis, reduction, divisor = cache
    grad = np.zeros_like(p) if labels is None else p.copy()
    if labels is not None:
        np.put_along_axis(grad, labels, 0, axis)
        np.put_along_axis(grad, labels, -grad.sum(axis, keepdims=True), axis)
        grad *= row_weight
    if soft is not None:
        grad += p * soft.sum(axis, keepdims=True) - soft
    per_item = spread(grad_loss, reduction, divisor)
    grad *= np.expand_dims(per_item, axis) if reduction == "none" else per_item
    return grad


class CrossEntropyLoss(NLLLoss):
    """``torch.nn.CrossEntropyLoss``: class indices or class probabilities, weights, label smoothing."""

    def __init__(
        self,
        weight: Array | None = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction)
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"CrossEntropyLoss: label_smoothing={label_smoothing}, expected 0 to 1")
        self.label_smoothing = label_smoothing

    def _forward(self, x: Array, target: Array) -> tuple[Array, Cache]:
        self._check(x, target)
        return forward(x, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)

    def _check(self, x: Array, target: Array) -> None:
        if isinstance(target, np.ndarray) and np.issubdtype(target.dtype, np.inexact):
            self._check_same(x, target)
            target = np.zeros(target.shape[: class_axis(x)] + target.shape[class_axis(x) + 1 :], int)
        super()._check(x, target)
