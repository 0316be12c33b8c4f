"""The rectified linear unit, ``max(x, 0)``."""

import numpy as np

from nn_reference._arrays import Array, refuse
from nn_reference.layer import Layer


def forward(x: Array, out: Array | None = None) -> tuple[Array, Array]:
    """Compute ``y = max(x, 0)``, x and y (*), any shape; the cache is y.

    Complex numbers are compared by their real part, which is what a complex step needs.
    """
    y = np.maximum(x, 0, out=out)
    return y, y


def backward(cache: Array, grad_y: Array, out: Array | None = None) -> Array:
    """Return ``grad_x``: ``grad_y`` where x > 0, else 0.

    dy/dx is 1 for x > 0 and 0 for x < 0. At the kink x = 0 there is no derivative, and any number between 0
    and 1 is a subgradient; like PyTorch we take 0. As ``y > 0`` exactly where ``x > 0``, the output is
    enough, and x need not be kept. Source: Nair and Hinton (2010).

    ``out``, if given, receives grad_x; it must not overlap grad_y.
    """
    grad_x = np.greater(cache, 0, out=np.empty_like(grad_y) if out is None else out)  # 1 or 0, in their dtype
    with np.errstate(invalid="ignore"):
        grad_x *= grad_y
        if np.isnan(grad_x.sum()):  # 0 inf is nan, where it should be 0
            grad_x[cache <= 0] = 0
    return grad_x


class ReLU(Layer):
    """``torch.nn.ReLU``."""

    def __init__(self, inplace: bool = False) -> None:
        refuse("ReLU", inplace=inplace)

    def _forward(self, x: Array) -> tuple[Array, Array]:
        return forward(x)

    def _backward(self, cache: Array, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
