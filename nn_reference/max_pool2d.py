"""Max pooling: each window is replaced by its largest pixel."""

import numpy as np

from nn_reference._arrays import Array, refuse
from nn_reference._windows import Size, Windows, pair, pooling_windows
from nn_reference.layer import Layer

Cache = tuple[tuple[int, ...], Array, Windows]


def forward(x: Array, windows: Windows) -> tuple[Array, Cache]:
    """Compute ``y[.., r, c] = max over (i, j) of x[.., r stride + i dilation, c stride + j dilation]``.

        x  (N, C, H, W) or (C, H, W), as if surrounded by minus infinity
        y  (N, C, H', W') or (C, H', W')

    Complex numbers are compared by their real part.
    """
    padded = windows.pad(x, -np.inf)
    slices = [padded[window] for _, _, window in windows.slices(padded.shape)]
    y = slices[0].copy(order="K")  # x's order in memory
    for pixels in slices[1:]:
        np.maximum(y, pixels, out=y)
    inside = windows.pad(np.ones(x.shape[-2:], bool), False)
    later = np.ones_like(y, bool)  # whether the winner comes after the slices seen so far
    winner = np.zeros_like(y, np.min_scalar_type(len(slices) - 1))  # the number of its slice
    for pixels, (_, _, window) in zip(slices[:-1], windows.slices(inside.shape), strict=False):
        smaller = pixels != y
        later &= smaller if inside.all() else smaller | ~inside[window]  # never the border, even at -inf
        winner += later
    if np.isnan(y).any():  # which equals nothing; the last one wins
        for k, pixels in enumerate(slices):
            winner[np.isnan(pixels)] = k
    return y, (padded.shape, winner, windows)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x``: each element of grad_y goes to the pixel that won its window.

    A small change of the largest pixel changes y by as much, of any other pixel not at all. A pixel that wins
    several windows gets the sum of their gradients. Where two are equally large there is a kink; like PyTorch
    we give all to the first in reading order. Source: Goodfellow, Bengio and Courville (2016), section 9.3.
    """
    padded_shape, winner, windows = cache
    grad_padded = np.zeros_like(winner, grad_y.dtype, shape=padded_shape)
    grad = np.empty_like(winner, grad_y.dtype)  # in the order in memory of all the others
    grad[...] = grad_y
    finite = np.isfinite(grad).all()  # then the product, which is ten times faster, has no 0 inf = nan
    for k, (_, _, window) in enumerate(windows.slices(padded_shape)):
        won, pixels = winner == k, grad_padded[window]
        if finite and windows.apart():  # no pixel has a gradient yet
            np.multiply(grad, won, out=pixels)
        else:
            pixels += grad * won if finite else np.where(won, grad, 0)
    return windows.crop(grad_padded)


class MaxPool2d(Layer):
    """``torch.nn.MaxPool2d``; ``stride`` is the kernel size if None."""

    _shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        refuse("MaxPool2d", return_indices=return_indices)
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode
        self._windows = Windows(
            pair("MaxPool2d", "kernel_size", kernel_size),
            pair("MaxPool2d", "stride", self.stride),
            pair("MaxPool2d", "dilation", dilation),
        )
        self._padding = pair("MaxPool2d", "padding", padding, 0)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        return forward(x, pooling_windows("MaxPool2d", x, self._windows, self._padding, self.ceil_mode))

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
