"""Average pooling: each window is replaced by the mean of its pixels."""

import numpy as np

from nn_reference._arrays import Array
from nn_reference._windows import Size, Windows, pair, pooling_windows
from nn_reference.layer import Layer

Cache = tuple[tuple[int, ...], Array, Windows]


def window_sums(padded: Array, windows: Windows) -> Array:
    """Return the sum of each window of (..., H, W), as (..., H', W')."""
    total = np.zeros_like(padded, shape=(*padded.shape[:-2], *windows.count(padded.shape)))
    for _, _, window in windows.slices(padded.shape):
        total += padded[window]
    return total


def forward(x: Array, windows: Windows, divisor: Array) -> tuple[Array, Cache]:
    """Compute ``y[.., r, c] = sum over (i, j) of x[.., r stride + i, c stride + j] / divisor[r, c]``.

    x        (N, C, H, W) or (C, H, W), as if surrounded by zeros
    divisor  (H', W') or one number: how many pixels each window counts
    y        (N, C, H', W') or (C, H', W')
    """
    padded = windows.pad(x)
    divisor = divisor.astype(x.dtype)
    return window_sums(padded, windows) / divisor, (padded.shape, divisor, windows)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x``: every pixel of a window gets ``grad_y / divisor``.

    y is linear in x with the same coefficient 1 / divisor for each pixel that the window sees; a pixel that
    several windows see gets the sum. Source: Goodfellow, Bengio and Courville (2016), section 9.3.
    """
    padded_shape, divisor, windows = cache
    share = grad_y / divisor
    grad_padded = np.zeros_like(share, shape=padded_shape)
    for _, _, window in windows.slices(padded_shape):
        grad_padded[window] += share
    return windows.crop(grad_padded)


class AvgPool2d(Layer):
    """``torch.nn.AvgPool2d``; ``stride`` is the kernel size if None."""

    _shown = ("kernel_size", "stride", "padding")

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        if divisor_override == 0:
            raise ValueError("AvgPool2d: divisor_override=0, expected another number or None")
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override
        kernel = pair("AvgPool2d", "kernel_size", kernel_size)
        self._windows = Windows(kernel, pair("AvgPool2d", "stride", self.stride))
        self._padding = pair("AvgPool2d", "padding", padding, 0)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        windows = pooling_windows("AvgPool2d", x, self._windows, self._padding, self.ceil_mode)
        return forward(x, windows, self._divisor(x, windows))

    def _divisor(self, x: Array, windows: Windows) -> Array:
        if self.divisor_override is not None:
            return np.array(self.divisor_override)
        counted = windows.pad(np.ones(x.shape[-2:]))
        if self.count_include_pad:  # but not what ceil_mode added below and to the right
            rows, columns = self._padding
            counted[: x.shape[-2] + 2 * rows, : x.shape[-1] + 2 * columns] = 1
        return window_sums(counted, windows)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
