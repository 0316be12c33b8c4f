"""The sigmoid linear unit, also called swish."""

from nn_reference import sigmoid
from nn_reference._arrays import Array, refuse
from nn_reference.layer import Layer

Cache = tuple[Array, Array]


def forward(x: Array) -> tuple[Array, Cache]:
    """Compute ``y = x s``, x and y (*), any shape, with ``s = sigmoid(x)``."""
    s, _ = sigmoid.forward(x)
    return x * s, (x, s)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x = grad_y s (1 + x (1 - s))``.

    By the product rule ``dy/dx = s + x ds/dx``, and ``ds/dx = s (1 - s)``. Source: Hendrycks and Gimpel
    (2016).
    """
    x, s = cache
    return grad_y * (s * (1 + x * (1 - s)))


class SiLU(Layer):
    """``torch.nn.SiLU``."""

    def __init__(self, inplace: bool = False) -> None:
        refuse("SiLU", inplace=inplace)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        return forward(x)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
