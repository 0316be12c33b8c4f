"""Dropout: a random part of the elements set to zero while training."""

import numpy as np
import numpy.typing as npt

from nn_reference._arrays import Array, plain, refuse
from nn_reference.layer import Layer


def draw_mask(
    shape: tuple[int, ...], p: float, dtype: npt.DTypeLike, generator: np.random.Generator
) -> Array:
    """Return an array that is 0 with probability p and else 1 / (1 - p), so that its mean is 1.

    The draws are the same for every dtype.
    """
    kept = generator.random(shape, dtype=np.float32) >= p
    return kept.astype(dtype) * (1 / (1 - p) if p < 1 else 0.0)


def forward(x: Array, mask: Array, out: Array | None = None) -> tuple[Array, Array]:
    """Compute ``y = x mask``, all (*), any shape; the cache is the mask."""
    return np.multiply(x, mask, out=out), mask


def backward(cache: Array, grad_y: Array, out: Array | None = None) -> Array:
    """Return ``grad_x = grad_y mask``: given the mask, y is linear in x.

    As the mask has mean 1, so have output and gradient the mean that they would have without dropout, and
    nothing needs to be scaled in evaluation. Source: Srivastava et al. (2014), there scaled in evaluation.
    """
    return np.multiply(grad_y, cache, out=out)


class Dropout(Layer):
    """``torch.nn.Dropout``; the mask is drawn from ``generator`` (a new unseeded one if None)."""

    _shown = ("p", "inplace")
    inplace = False

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, generator: np.random.Generator | None = None
    ) -> None:
        refuse("Dropout", inplace=inplace)
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p={p}, expected a probability from 0 to 1")
        self.p = plain(p)
        self.generator = generator or np.random.default_rng()

    def _forward(self, x: Array) -> tuple[Array, Array | None]:
        if not self.training or self.p == 0:
            return x, None
        return forward(x, draw_mask(x.shape, self.p, x.dtype, self.generator))

    def _backward(self, cache: Array | None, grad_y: Array, need_grad_x: bool) -> Array:
        return grad_y if cache is None else backward(cache, grad_y)
