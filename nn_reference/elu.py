"""The exponential linear unit."""

import numpy as np

from nn_reference._arrays import Array, plain, refuse
from nn_reference.layer import Layer

Cache = tuple[Array, float]


def forward(x: Array, alpha: float = 1.0) -> tuple[Array, Cache]:
    """Compute ``y = x`` where x > 0, else ``alpha (exp(x) - 1)``; x, y (*), any shape.

    Complex numbers are compared by their real part."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))), (x, alpha)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x``: ``grad_y`` where x > 0, else ``grad_y alpha exp(x)``.

    dy/dx is 1 on one side, and on the other ``alpha d(exp(x) - 1)/dx = alpha exp(x)``.
    At x = 0 the slopes from both sides are 1 and alpha; unless they are equal it is a kink, where PyTorch
    and we take alpha. Source: Clevert, Unterthiner and Hochreiter (2016).
    """
    x, alpha = cache
    return np.where(x > 0, grad_y, grad_y * (alpha * np.exp(np.minimum(x, 0))))


class ELU(Layer):
    """``torch.nn.ELU``."""

    _shown = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        refuse("ELU", inplace=inplace)
        self.alpha = plain(alpha)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        return forward(x, self.alpha)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
