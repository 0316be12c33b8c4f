"""Cross-entropy: how many nats the true class was worth, given the scores."""

from typing import Any, NamedTuple

import numpy as np

from nn_reference._arrays import Array, plain
from nn_reference.loss import reduce, spread
from nn_reference.nll import NLLLoss, class_axis, weigh
from nn_reference.softmax import exponentials


class Cache(NamedTuple):
    """What backward needs. C is the number of classes, on axis ``axis``; * stands for the other axes of x."""

    probabilities: Array  # (*, C, *), the softmax of the scores
    target: Array  # (*, C, *), how much -log p of each class counts: smoothed, weighted, 0 where ignored
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
    smooth = label_smoothing / x.shape[axis] * class_weight

    if np.issubdtype(target.dtype, np.inexact):
        t = target.astype(x.dtype, copy=False) * (1 - label_smoothing) * class_weight + smooth
        divisor: Any = t.size // x.shape[axis]
    else:
        labels, row_weight = weigh(x, target, weight, ignore_index)
        classes = np.arange(x.shape[axis]).reshape(class_weight.shape)
        t = (classes == labels) * (row_weight * (1 - label_smoothing))
        if label_smoothing:
            t += smooth * np.expand_dims(target != ignore_index, axis)
        divisor = row_weight.sum()
    losses = np.multiply(t, minus_log_p, out=np.zeros_like(x), where=t != 0)  # 0 log 0 is 0
    return reduce(losses.sum(axis), reduction, divisor), Cache(p, t, axis, reduction, divisor)


def backward(cache: Cache, grad_loss: Array) -> Array:
    """Return ``grad_x``.

        grad_loss  a scalar, or with reduction "none" (N, d1, ...)
        grad_x     (N, C, d1, ...) or (C,)

    For one item with the target t (weights and smoothing included; for a label k it is 0 but at k) and its
    sum T, ``loss = sum_i t_i (log(sum_j exp(x_j)) - x_i)``, so

        dloss/dx_j = T p_j - t_j            (p_j - [j = k] for a label without weight)

    Written like this, the entry of the label is p_k - 1, and in floating point that is wrong as soon as the
    network is good: p_k is rounded to a multiple of u below 1 (u = 2^-24 in float32), by at most u / 2, so a
    true value of -1e-6 comes out with a relative error of up to 3 %, and one of -1e-8 as 0. But the
    probabilities sum to 1, so ``t_j = t_j p_j + t_j sum over i != j of p_i``, and

        dloss/dx_j = p_j (sum over i != j of t_i) - t_j (sum over i != j of p_i)

    For a label k the first term is 0 and the second has no cancellation: minus the sum of the other
    probabilities. That form is taken for the class that has more than half of T, if there is one. For every
    other one ``T p_j`` and ``t_j`` are close only near ``p_j = t_j / T``, where the gradient is zero indeed.
    Source: Bishop (2006), section 4.3.4, for the derivative.
    """
    p, t, axis, reduction, divisor = cache
    total = t.sum(axis, keepdims=True)
    most = t > total / 2  # at most one class of each item
    other_p, other_t = ((a * ~most).sum(axis, keepdims=True) for a in (p, t))
    grad = np.where(most, p * other_t - t * other_p, p * total - t)
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
        self.label_smoothing = plain(label_smoothing)

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
