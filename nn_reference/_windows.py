"""The windows that convolution and pooling slide over an image.

An output pixel (r, c) sees the input pixels (r stride + i dilation, c stride + j dilation) for each position
(i, j) of the kernel. Turned round: for one (i, j), all the output pixels together see one regularly spaced
slice of the input. There are only a few positions, so we loop over these and work on whole slices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from types import EllipsisType

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from nn_reference._arrays import Array

Pair = tuple[int, int]
Slice = tuple[EllipsisType, slice, slice]
Size = int | Pair  # as in torch: one number for both axes, or (vertical, horizontal)


def pair(owner: str, name: str, value: Size, least: int = 1) -> Pair:
    """Return ``value`` for both axes; ValueError unless it is one or two integers of at least ``least``."""
    values = (value, value) if isinstance(value, int | Integral) else tuple(value)
    if len(values) != 2 or not all(isinstance(v, Integral) and v >= least for v in values):
        raise ValueError(f"{owner}: {name}={value!r}, expected one or two integers of at least {least}")
    return int(values[0]), int(values[1])


@dataclass(frozen=True)
class Windows:
    """Where the windows lie on an image that has been given a border."""

    kernel: Pair
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    border: tuple[Pair, Pair] = ((0, 0), (0, 0))  # ((above, below), (left, right))

    def pad(self, x: Array, value: float = 0.0) -> Array:
        """Return x (..., H, W) with the border filled with ``value``, or x itself if there is none."""
        if self.border == ((0, 0), (0, 0)):
            return x
        height, width = (n + sum(b) for n, b in zip(x.shape[-2:], self.border, strict=True))
        padded = np.full_like(x, value, shape=(*x.shape[:-2], height, width))  # x's order in memory
        self.crop(padded)[...] = x
        return padded

    def crop(self, padded: Array) -> Array:
        """Return the view without the border."""
        (above, below), (left, right) = self.border
        return padded[..., above : padded.shape[-2] - below, left : padded.shape[-1] - right]

    def _spans(self) -> Pair:
        (height, width), (down, across) = self.kernel, self.dilation
        return (height - 1) * down + 1, (width - 1) * across + 1

    def apart(self) -> bool:
        """Tell whether no pixel is seen by two windows, as far as the sizes show it."""
        return all(span <= stride for span, stride in zip(self._spans(), self.stride, strict=True))

    def count(self, padded_shape: tuple[int, ...]) -> Pair:
        """Return (H', W'), how many windows fit along each axis; ValueError if none does."""
        height, width = padded_shape[-2:]
        spans = self._spans()
        if height < spans[0] or width < spans[1]:
            raise ValueError(f"the kernel spans {spans} pixels, the padded input has only {(height, width)}")
        return (height - spans[0]) // self.stride[0] + 1, (width - spans[1]) // self.stride[1] + 1

    def slices(self, padded_shape: tuple[int, ...]) -> Iterator[tuple[int, int, Slice]]:
        """Yield i, j and the slice (..., H', W') of the padded image that the kernel's (i, j) meets."""
        rows, columns = self.count(padded_shape)
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                top, left = i * self.dilation[0], j * self.dilation[1]
                down = slice(top, top + (rows - 1) * self.stride[0] + 1, self.stride[0])
                across = slice(left, left + (columns - 1) * self.stride[1] + 1, self.stride[1])
                yield i, j, (..., down, across)

    def patches(self, padded: Array) -> Array:
        """Return the view (I, kernel height, kernel width, H', W', N) of (I, H, W, N): what each window sees.

        Pixels that several windows see appear in it several times, but only once for each (i, j).
        """
        self.count(padded.shape[1:3])  # raises if no window fits
        seen = sliding_window_view(padded, self._spans(), axis=(1, 2), writeable=True)
        (down, across), (row, column) = self.stride, self.dilation
        return seen[:, ::down, ::across, :, ::row, ::column].transpose(0, 4, 5, 1, 2, 3)


def blocks(y: Array, size: int = 2048) -> Iterator[tuple[EllipsisType, slice, slice, slice]]:
    """Cut (..., H', W', N) into blocks (..., h, w, N): whole rows or a part of one, h w N at most ``size``.

    At least one pixel, of all N images. Such a block's pixels lie in one piece of memory.
    """
    rows, columns, images = y.shape[-3:]
    width = min(columns, size // max(images, 1) or 1)
    height = size // max(columns * images, 1) or 1
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            yield ..., slice(top, top + height), slice(left, left + width), slice(None)


def batch_last(x: Array) -> Array:
    """Return the view (C, H, W, N) of images (N, C, H, W), or (C, H, W, 1) of an image (C, H, W)."""
    return np.moveaxis(x, 0, -1) if x.ndim == 4 else x[..., None]


def batch_first(x: Array, rank: int) -> Array:
    """Return the view of (C, H, W, N) as images of this rank: the inverse of `batch_last`."""
    return np.moveaxis(x, -1, 0) if rank == 4 else x[..., 0]


def pooling_windows(owner: str, x: Array, windows: Windows, padding: Pair, ceil_mode: bool) -> Windows:
    """Return ``windows`` with the border that pooling puts round the images x (..., H, W).

    With ``ceil_mode`` it is wide enough, below and to the right, for one more window if that starts within
    the image or the padding before it. Raises ValueError for an input that is not images, and for a padding
    of more than half the kernel, for then a window could lie wholly within it.
    """
    if x.ndim not in (3, 4):
        raise ValueError(f"{owner}: input has shape {x.shape}, expected (N, C, H, W) or (C, H, W)")
    border = []
    for axis, p in enumerate(padding):
        size, stride = x.shape[axis - 2], windows.stride[axis]
        span = (windows.kernel[axis] - 1) * windows.dilation[axis] + 1
        if 2 * p > span:
            raise ValueError(f"{owner}: padding={p}, expected at most half the kernel's {span}")
        count, beyond = divmod(size + 2 * p - span, stride)
        one_more = ceil_mode and beyond > 0 and (count + 1) * stride < size + p
        border.append((p, p + (stride - beyond if one_more else 0)))
    return Windows(windows.kernel, windows.stride, windows.dilation, (border[0], border[1]))
