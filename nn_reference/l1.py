"""Mean absolute error."""

import numpy as np

from nn_reference._arrays import Array
from nn_reference.loss import Loss, reduce, spread

Cache = tuple[Array, str]


def forward(x: Array, target: Array, reduction: str = "mean") -> tuple[Array, Cache]:
    """Compute ``|x - target|``, reduced; x and target (*) have one shape."""
    d = x - target
    sign = np.sign(d.real)
    return reduce(d * sign, reduction), (sign, reduction)


def backward(cache: Cache, grad_loss: Array) -> Array:
    """Return ``grad_x = sign(x - target) grad_loss``, divided by the number of elements for "mean".

    |d| = d sign(d), and the sign is constant on either side of the kink d = 0; there, like PyTorch, we take
    0. Source: Boyd and Vandenberghe (2004), section 6.1.2, for the penalty.
    """
    sign, reduction = cache
    return sign * spread(grad_loss, reduction, sign.size)


class L1Loss(Loss):
    """``torch.nn.L1Loss``; input and target must have the same shape."""

    def _forward(self, x: Array, target: Array) -> tuple[Array, Cache]:
        self._check_same(x, target)
        return forward(x, target, self.reduction)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
