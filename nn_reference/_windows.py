"""The windows that convolution and pooling slide over an image.

An output pixel (r, c) sees the input pixels (r stride + i dilation, c stride + j dilation) for each position
(i, j) of the kernel. Turned round: for one (i, j), all the output pixels together see one regularly spaced
slice of the input. There are only a few positions, so we loop over these and work on whole slices.
"""

from collections.abc import Iterator
from types import EllipsisType
from typing import TypeAlias

import numpy as np

from nn_reference._arrays import Array

Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = tuple[Pair, Pair]  # ((above, below), (left, right))


def pair(owner: str, name: str, value: int | Pair, least: int = 1) -> Pair:
    """Return ``value`` for both axes; ValueError unless it is one or two integers of at least ``least``."""
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or not all(isinstance(v, int) and v >= least for v in values):
        raise ValueError(f"{owner}: {name}={value!r}, expected one or two integers of at least {least}")
    return values


def pad(x: Array, padding: Padding, value: float = 0.0) -> Array:
    """Return x (..., H, W) with a border of ``value``, or x itself if the border is empty."""
    if padding == ((0, 0), (0, 0)):
        return x
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + list(padding), constant_values=value)


def crop(x: Array, padding: Padding) -> Array:
    """Return the view of x without the border that `pad` added."""
    (above, below), (left, right) = padding
    return x[..., above : x.shape[-2] - below, left : x.shape[-1] - right]


def output_size(
    owner: str, padded_shape: tuple[int, ...], kernel: Pair, stride: Pair, dilation: Pair
) -> Pair:
    """Return how many windows fit along both axes; ValueError if none does."""
    height, width = padded_shape[-2:]
    spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if height < spans[0] or width < spans[1]:
        raise ValueError(f"{owner}: the kernel spans {spans} pixels, the padded input {(height, width)}")
    return (height - spans[0]) // stride[0] + 1, (width - spans[1]) // stride[1] + 1


def slices(
    kernel: Pair, stride: Pair, dilation: Pair, out: Pair
) -> Iterator[tuple[int, int, tuple[EllipsisType, slice, slice]]]:
    """Yield i, j and the slice of the padded input that the kernel's position (i, j) meets, row by row."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (out[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(left, left + (out[1] - 1) * stride[1] + 1, stride[1])
            yield i, j, (..., rows, columns)


def pooling_border(
    owner: str,
    shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
) -> Padding:
    """Return the border that pooling puts round an image (..., H, W).

    With ``ceil_mode`` it is wide enough, below and to the right, for one more window if that starts within
    the image or the padding before it. Raises ValueError for an input without images, and for a padding of
    more than half the kernel, for then a window could lie wholly within it.
    """
    if len(shape) not in (3, 4):
        raise ValueError(f"{owner}: input has shape {shape}, expected (N, C, H, W) or (C, H, W)")
    border = []
    for size, k, s, p, d in zip(shape[-2:], kernel, stride, padding, dilation, strict=True):
        span = (k - 1) * d + 1
        if 2 * p > span:
            raise ValueError(f"{owner}: padding={p}, expected at most half the kernel's {span}")
        windows, beyond = divmod(size + 2 * p - span, s)
        one_more = ceil_mode and beyond > 0 and (windows + 1) * s < size + p
        border.append((p, p + (s - beyond if one_more else 0)))
    return border[0], border[1]
