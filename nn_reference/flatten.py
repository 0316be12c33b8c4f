"""Layers that move numbers without changing them: Flatten and Identity."""

import math

from nn_reference._arrays import Array
from nn_reference.layer import Layer


def forward(x: Array, start_dim: int = 1, end_dim: int = -1) -> tuple[Array, tuple[int, ...]]:
    """Merge the dimensions ``start_dim`` to ``end_dim`` into one; the cache is the shape of x.

    x  (A..., B..., C...), where B are the dimensions to merge
    y  (A..., product of B, C...), a view of x where that is possible
    """
    if x.ndim == 0:
        return x.reshape(1), x.shape
    start, end = start_dim % x.ndim, end_dim % x.ndim
    return x.reshape(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]), x.shape


def backward(cache: tuple[int, ...], grad_y: Array) -> Array:
    """Return ``grad_x``: each element of y is one element of x, so its gradient is too, in x's shape.

    The Jacobian is the identity once both are written as vectors. Source: PyTorch's ``torch.flatten``.
    """
    return grad_y.reshape(cache)


class Flatten(Layer):
    """``torch.nn.Flatten``: by default (N, *) to (N, product of *)."""

    _shown = ("start_dim", "end_dim")

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def _forward(self, x: Array) -> tuple[Array, tuple[int, ...]]:
        rank = max(x.ndim, 1)
        for dim in (self.start_dim, self.end_dim):
            if not -rank <= dim < rank:
                raise ValueError(f"Flatten: input has shape {x.shape}, which has no dimension {dim}")
        if self.start_dim % rank > self.end_dim % rank:
            dims = f"start_dim={self.start_dim} comes after end_dim={self.end_dim}"
            raise ValueError(f"Flatten: {dims} for shape {x.shape}")
        return forward(x, self.start_dim, self.end_dim)

    def _backward(self, cache: tuple[int, ...], grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)


class Identity(Layer):
    """``torch.nn.Identity``: y = x. A place where a `Tape` can read a value and its gradient."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def _forward(self, x: Array) -> tuple[Array, None]:
        return x, None

    def _backward(self, cache: None, grad_y: Array, need_grad_x: bool) -> Array:
        return grad_y
