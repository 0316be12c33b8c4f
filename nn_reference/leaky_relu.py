"""The leaky rectified linear unit: a small slope instead of 0 below zero."""

import numpy as np

from nn_reference._arrays import Array, plain, refuse
from nn_reference.layer import Layer

Cache = tuple[Array, float]


def forward(x: Array, negative_slope: float = 0.01) -> tuple[Array, Cache]:
    """Compute ``y = x`` where x > 0, else ``negative_slope x``; x, y (*), any shape.

    Complex numbers are compared by their real part."""
    positive = x > 0
    return np.where(positive, x, negative_slope * x), (positive, negative_slope)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x``: ``grad_y`` where x > 0, else ``negative_slope grad_y``.

    On either side of 0, y is x times a constant, which is the derivative.
    At the kink x = 0 PyTorch and we take the slope from below. Source: Maas, Hannun and Ng (2013).
    """
    positive, negative_slope = cache
    return np.where(positive, grad_y, negative_slope * grad_y)


class LeakyReLU(Layer):
    """``torch.nn.LeakyReLU``."""

    _shown = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        refuse("LeakyReLU", inplace=inplace)
        self.negative_slope = plain(negative_slope)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        return forward(x, self.negative_slope)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
