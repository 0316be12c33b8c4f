"""Softmax: scores to probabilities."""

import numpy as np

from nn_reference._arrays import Array
from nn_reference.layer import Layer

Cache = tuple[Array, int]


def exponentials(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Return ``x - max(x)``, its exponentials ``e``, and ``rest``, where ``sum(e) = 1 + rest``.

    Subtracting the maximum changes no probability, since exp(x - m) / sum exp(x - m) = exp(x) / sum exp(x),
    and no exponential overflows. The largest term is then exactly 1, and ``rest`` is the sum of all the
    others. Kept apart, it stays accurate when it is far below the rounding error of 1: log(sum(e)) is
    ``log1p(rest)``, and the probability of all but the likeliest class is ``rest / (1 + rest)``. If the
    maximum is infinite or nan, so are (as nan) all three, along the axis.
    """
    if not x.shape[axis]:
        return x.copy(), x.copy(), x.sum(axis, keepdims=True)
    shifted = x - np.max(x, axis, keepdims=True)
    e = np.exp(shifted)
    top = shifted == 0  # e is 1 there; several classes may share the maximum
    rest = (e - top).sum(axis, keepdims=True)
    rest += np.count_nonzero(top, axis, keepdims=True) - 1
    return shifted, e, rest


def forward(x: Array, dim: int) -> tuple[Array, Cache]:
    """Compute ``y_i = exp(x_i) / sum_j exp(x_j)`` along ``dim``; x, y (*), any shape."""
    _, y, rest = exponentials(x, dim)
    y /= 1 + rest
    return y, (y, dim)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x = y * (grad_y - sum_i grad_y_i y_i)``.

    By the quotient rule ``dy_i/dx_j = y_i ([i = j] - y_j)``: every output depends on every input, so

        dL/dx_j = sum_i grad_y_i y_i ([i = j] - y_j) = y_j (grad_y_j - sum_i grad_y_i y_i)

    The probabilities sum to 1, so adding the same number to each grad_y_i changes nothing: an upstream
    gradient of ones gives zero. Source: Bridle (1990).
    """
    y, dim = cache
    return y * (grad_y - (grad_y * y).sum(dim, keepdims=True))


class Softmax(Layer):
    """``torch.nn.Softmax``; ``dim`` must be given."""

    _shown = ("dim",)

    def __init__(self, dim: int | None = None) -> None:
        if dim is None:
            name = type(self).__name__
            raise ValueError(f"{name}: dim=None is not supported, name the axis of the classes")
        self.dim = dim

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        return forward(x, self.dim)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)

    def _check_input(self, x: Array) -> None:
        super()._check_input(x)
        if not -x.ndim <= self.dim < x.ndim:
            name = type(self).__name__
            raise ValueError(f"{name}: input has shape {x.shape}, which has no dimension {self.dim}")
