"""The logistic sigmoid, from any number to a probability."""

import numpy as np

from nn_reference._arrays import Array
from nn_reference.layer import Layer


def forward(x: Array) -> tuple[Array, Array]:
    """Compute ``y = 1 / (1 + exp(-x))``, x and y (*), any shape; the cache is y.

    For x < 0 it is written ``exp(x) / (1 + exp(x))``, so that no exponential overflows and small values of y
    are accurate too.
    """
    negative = x.real < 0
    e = np.exp(np.where(negative, x, -x))  # exp(-|x|)
    y = np.where(negative, e, 1) / (1 + e)
    return y, y


def backward(cache: Array, grad_y: Array) -> Array:
    """Return ``grad_x = grad_y y (1 - y)``.

    With ``y = (1 + exp(-x))^-1``, the chain rule gives ``dy/dx = exp(-x) / (1 + exp(-x))^2``: the product
    of y and of ``exp(-x) / (1 + exp(-x)) = 1 - y``. It is at most 1/4, at x = 0. Source: Goodfellow, Bengio
    and Courville (2016), section 3.10.
    """
    return grad_y * (1 - cache) * cache


class Sigmoid(Layer):
    """``torch.nn.Sigmoid``."""

    def _forward(self, x: Array) -> tuple[Array, Array]:
        return forward(x)

    def _backward(self, cache: Array, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
