"""The hyperbolic tangent."""

import numpy as np

from nn_reference._arrays import Array
from nn_reference.layer import Layer


def forward(x: Array) -> tuple[Array, Array]:
    """Compute ``y = tanh(x)``, x and y (*), any shape; the cache is y."""
    y = np.tanh(x)
    return y, y


def backward(cache: Array, grad_y: Array) -> Array:
    """Return ``grad_x = grad_y (1 - y^2)``.

    ``tanh = sinh / cosh``, so by the quotient rule ``dy/dx = (cosh^2 - sinh^2) / cosh^2 = 1 - y^2``.
    Source: Goodfellow, Bengio and Courville (2016), section 6.3.2.
    """
    return grad_y * (1 - cache * cache)


class Tanh(Layer):
    """``torch.nn.Tanh``."""

    def _forward(self, x: Array) -> tuple[Array, Array]:
        return forward(x)

    def _backward(self, cache: Array, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
