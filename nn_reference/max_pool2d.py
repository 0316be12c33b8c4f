"""Max pooling: each window is replaced by its largest pixel."""

from typing import NamedTuple

import numpy as np

from nn_reference._arrays import Array, refuse
from nn_reference._windows import Padding, Pair, crop, output_size, pad, pair, pooling_border, slices
from nn_reference.module import Layer


class Cache(NamedTuple):
    """What backward needs."""

    winner: Array  # in the shape of y: the position in the window of its largest pixel, counted row by row
    padded_shape: tuple[int, ...]
    kernel: Pair
    stride: Pair
    padding: Padding
    dilation: Pair


def forward(
    x: Array,
    kernel: Pair,
    stride: Pair,
    padding: Padding = ((0, 0), (0, 0)),
    dilation: Pair = (1, 1),
) -> tuple[Array, Cache]:
    """Compute ``y[.., r, c] = max over (i, j) of x[.., r stride + i dilation, c stride + j dilation]``.

        x  (N, C, H, W) or (C, H, W), as if surrounded by minus infinity
        y  (N, C, H', W') or (C, H', W')

    Complex numbers are compared by their real part.
    """
    padded = pad(x, padding, -np.inf)
    out = output_size("MaxPool2d", padded.shape, kernel, stride, dilation)
    windows = [padded[window] for _, _, window in slices(kernel, stride, dilation, out)]
    y = windows[0].copy()
    winner = np.zeros(y.shape, np.min_scalar_type(len(windows) - 1))
    for k, pixels in enumerate(windows[1:], 1):
        winner[pixels > y] = k  # the first of equal pixels stays
        np.maximum(y, pixels, out=y)
    return y, Cache(winner, padded.shape, kernel, stride, padding, dilation)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x``: each element of grad_y goes to the pixel that won its window.

    A small change of the largest pixel changes y by as much, of any other pixel not at all. A pixel that wins
    several windows gets the sum of their gradients. Where two are equally large there is a kink; like PyTorch
    we give all to the first in reading order. Source: Goodfellow, Bengio and Courville (2016), section 9.3.
    """
    winner, padded_shape, kernel, stride, padding, dilation = cache
    out = (grad_y.shape[-2], grad_y.shape[-1])
    grad_padded = np.zeros(padded_shape, grad_y.dtype)
    for k, (_, _, window) in enumerate(slices(kernel, stride, dilation, out)):
        grad_padded[window] += grad_y * (winner == k)
    return crop(grad_padded, padding)


class MaxPool2d(Layer):
    """``torch.nn.MaxPool2d``; ``stride`` is the kernel size if None."""

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        refuse("MaxPool2d", return_indices=return_indices)
        stride = kernel_size if stride is None else stride
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode
        self._kernel = pair("MaxPool2d", "kernel_size", kernel_size)
        self._stride = pair("MaxPool2d", "stride", stride)
        self._padding = pair("MaxPool2d", "padding", padding, 0)
        self._dilation = pair("MaxPool2d", "dilation", dilation)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        border = pooling_border(
            "MaxPool2d", x.shape, self._kernel, self._stride, self._padding, self._dilation, self.ceil_mode
        )
        return forward(x, self._kernel, self._stride, border, self._dilation)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)

    def extra_repr(self) -> str:
        """Return the arguments as torch shows them."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )
