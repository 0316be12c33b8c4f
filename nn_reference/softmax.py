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
    top = np.expand_dims(x.argmax(axis), axis)
    shifted = x - np.take_along_axis(x, top, axis)
    e = np.exp(shifted)
    largest = np.take_along_axis(e, top, axis)  # 1, or nan
    np.put_along_axis(e, top, 0, axis)
    rest = e.sum(axis, keepdims=True) + (largest - 1)
    np.put_along_axis(e, top, largest, axis)
    return shifted, e, rest


def others(a: Array, axis: int) -> Array:
    """Return for each a_j >= 0 the sum of all a_i but itself, along the axis, in the shape of a.

    For the largest a_j it is added up. For any other, ``sum(a) - a_j`` is as good: at least half is left.
    """
    top = np.expand_dims(a.argmax(axis), axis)
    rest = a.copy()
    np.put_along_axis(rest, top, 0, axis)
    result = a.sum(axis, keepdims=True) - a
    np.put_along_axis(result, top, rest.sum(axis, keepdims=True), axis)
    return result


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
