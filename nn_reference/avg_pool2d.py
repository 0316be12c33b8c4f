"""Average pooling: each window is replaced by the mean of its pixels."""

from typing import NamedTuple

import numpy as np

from nn_reference._arrays import Array
from nn_reference._windows import Padding, Pair, crop, output_size, pad, pair, pooling_border, slices
from nn_reference.module import Layer


class Cache(NamedTuple):
    """What backward needs."""

    padded_shape: tuple[int, ...]
    divisor: Array  # (H', W'), or one number
    kernel: Pair
    stride: Pair
    padding: Padding


def forward(x: Array, kernel: Pair, stride: Pair, padding: Padding, divisor: Array) -> tuple[Array, Cache]:
    """Compute ``y[.., r, c] = sum over (i, j) of x[.., r stride + i, c stride + j] / divisor[r, c]``.

    x        (N, C, H, W) or (C, H, W), as if surrounded by zeros
    divisor  (H', W') or one number: how many pixels each window counts
    y        (N, C, H', W') or (C, H', W')
    """
    padded = pad(x, padding)
    divisor = divisor.astype(x.dtype)
    y = _sums(padded, kernel, stride)
    y /= divisor
    return y, Cache(padded.shape, divisor, kernel, stride, padding)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x``: every pixel of a window gets ``grad_y / divisor``.

    y is linear in x with the same coefficient 1 / divisor for each pixel that the window sees; a pixel that
    several windows see gets the sum. Source: Goodfellow, Bengio and Courville (2016), section 9.3.
    """
    padded_shape, divisor, kernel, stride, padding = cache
    grad_padded = np.zeros(padded_shape, grad_y.dtype)
    share = grad_y / divisor
    for _, _, window in slices(kernel, stride, (1, 1), (grad_y.shape[-2], grad_y.shape[-1])):
        grad_padded[window] += share
    return crop(grad_padded, padding)


def _sums(padded: Array, kernel: Pair, stride: Pair) -> Array:
    """Return the sum of each window, (*, H', W')."""
    out = output_size("AvgPool2d", padded.shape, kernel, stride, (1, 1))
    total = np.zeros((*padded.shape[:-2], *out), padded.dtype)
    for _, _, window in slices(kernel, stride, (1, 1), out):
        total += padded[window]
    return total


def counted(size: Pair, kernel: Pair, stride: Pair, border: Padding, include: Pair) -> Array:
    """Return how many pixels each window counts, (H', W'): those of the image and ``include`` around it."""
    (above, below), (left, right) = border
    rows, columns = include
    counts = pad(np.ones(size), ((rows, rows), (columns, columns)), 1.0)
    rest = ((above - rows, below - rows), (left - columns, right - columns))
    return _sums(pad(counts, rest), kernel, stride)


class AvgPool2d(Layer):
    """``torch.nn.AvgPool2d``; ``stride`` is the kernel size if None."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        stride = kernel_size if stride is None else stride
        if divisor_override == 0:
            raise ValueError("AvgPool2d: divisor_override=0, expected another number or None")
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override
        self._kernel = pair("AvgPool2d", "kernel_size", kernel_size)
        self._stride = pair("AvgPool2d", "stride", stride)
        self._padding = pair("AvgPool2d", "padding", padding, 0)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        border = pooling_border(
            "AvgPool2d", x.shape, self._kernel, self._stride, self._padding, (1, 1), self.ceil_mode
        )
        if self.divisor_override is not None:
            divisor = np.array(self.divisor_override)
        else:
            include = self._padding if self.count_include_pad else (0, 0)
            divisor = counted((x.shape[-2], x.shape[-1]), self._kernel, self._stride, border, include)
        return forward(x, self._kernel, self._stride, border, divisor)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)

    def extra_repr(self) -> str:
        """Return the arguments as torch shows them."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
