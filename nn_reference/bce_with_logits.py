"""Binary cross-entropy of a score: one yes-or-no question per element."""

from typing import NamedTuple

import numpy as np

from nn_reference import sigmoid
from nn_reference._arrays import Array
from nn_reference.loss import Loss, reduce, spread


class Cache(NamedTuple):
    """What backward needs, all in the shape of x."""

    x: Array
    yes: Array  # what -log sigmoid(x) counts for: weight pos_weight target
    no: Array  # what -log sigmoid(-x) counts for: weight (1 - target)
    reduction: str


def softplus(x: Array) -> Array:
    """Return ``log(1 + exp(x)) = -log sigmoid(-x)``.

    It is written ``max(x, 0) + log(1 + exp(-|x|))``, so that nothing overflows.
    """
    largest = np.maximum(x, 0)
    return largest + np.log1p(np.exp(x - 2 * largest))


def forward(
    x: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> tuple[Array, Cache]:
    """Compute ``-weight (pos_weight t log sigmoid(x) + (1 - t) log sigmoid(-x))``, reduced.

    x and the targets t, from 0 to 1, have one shape, to which ``weight`` and ``pos_weight`` broadcast.
    """
    yes = target.astype(x.dtype, copy=False)
    no = 1 - yes
    if pos_weight is not None:
        yes = yes * pos_weight.astype(x.dtype)
    if weight is not None:
        yes, no = yes * weight.astype(x.dtype), no * weight.astype(x.dtype)
    return reduce(yes * softplus(-x) + no * softplus(x), reduction), Cache(x, yes, no, reduction)


def backward(cache: Cache, grad_loss: Array) -> Array:
    """Return ``grad_x = (no sigmoid(x) - yes sigmoid(-x)) grad_loss``, for "mean" over the number of x.

    The derivative of ``softplus(x) = log(1 + exp(x))`` is ``exp(x) / (1 + exp(x)) = sigmoid(x)``, hence that
    of ``softplus(-x)`` is ``-sigmoid(-x)``. Without weights it equals ``sigmoid(x) - t``, but that form
    cancels when the network is right, as p - 1 does in `cross_entropy`; here one of the two terms is then
    exactly 0. Source: Bishop (2006), section 4.3.2.
    """
    x, yes, no, reduction = cache
    slope = no * sigmoid.forward(x)[0] - yes * sigmoid.forward(-x)[0]
    return slope * spread(grad_loss, reduction, x.size)


class BCEWithLogitsLoss(Loss):
    """``torch.nn.BCEWithLogitsLoss``; input and target must have the same shape."""

    weight: Array | None
    pos_weight: Array | None

    def __init__(
        self, weight: Array | None = None, *, reduction: str = "mean", pos_weight: Array | None = None
    ) -> None:
        super().__init__(reduction)
        self._register("weight", weight)
        self._register("pos_weight", pos_weight)

    def _forward(self, x: Array, target: Array) -> tuple[Array, Cache]:
        self._check_same(x, target)
        for name in self._buffers:
            factor = getattr(self, name)
            if factor is not None and not _broadcasts(factor.shape, x.shape):
                raise ValueError(f"BCEWithLogitsLoss: {name} has shape {factor.shape}, the input {x.shape}")
        return forward(x, target, self.weight, self.reduction, self.pos_weight)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))
