"""Convolution of images: the same small weighted sum at every place."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nn_reference import init
from nn_reference._arrays import Array, check_choice, floating, refuse
from nn_reference._windows import Pair, Size, Windows, pair
from nn_reference.layer import Layer
from nn_reference.module import Parameter


class Cache(NamedTuple):
    """What backward needs. G groups, of I input and O output channels each; * is N, or nothing."""

    x_shape: tuple[int, ...]  # (*, G I, H, W)
    padded: Array  # (*, G, I, H + border, W + border)
    kernels: Array  # (kernel height, kernel width, G, O, I), C-contiguous
    windows: Windows


def forward(
    x: Array, weight: Array, bias: Array | None, windows: Windows, groups: int = 1
) -> tuple[Array, Cache]:
    """Compute what is called convolution in this field (a cross-correlation: the kernel is not flipped).

        x       (N, G I, H, W) or (G I, H, W)
        weight  (G O, I, kernel height, kernel width)
        bias    (G O,)
        y       (N, G O, H', W') or (G O, H', W')

    Within a group, where x is padded with zeros::

        y[n, o, r, c] = bias[o] + sum over k, i, j of
                        weight[o, k, i, j] x[n, k, r stride + i dilation, c stride + j dilation]

    For one position (i, j) of the kernel this is a matrix (O, I) times a slice of x with all its pixels in a
    row (I, H' W'), and y is the sum of these products, one for each position.
    """
    images, (out_channels, in_channels, *kernel) = x.shape[:-3], weight.shape
    padded = windows.pad(x)
    padded = padded.reshape(*images, groups, in_channels, *padded.shape[-2:])
    rows, columns = windows.count(padded.shape)
    kernels = weight.reshape(groups, out_channels // groups, in_channels, *kernel)
    kernels = np.ascontiguousarray(kernels.transpose(3, 4, 0, 1, 2))
    y = np.zeros((*images, groups, out_channels // groups, rows * columns), x.dtype)
    for i, j, window in windows.slices(padded.shape):
        y += kernels[i, j] @ padded[window].reshape(*images, groups, in_channels, rows * columns)
    y = y.reshape(*images, out_channels, rows, columns)
    if bias is not None:
        y += bias[:, None, None]
    return y, Cache(x.shape, padded, kernels, windows)


def backward(cache: Cache, grad_y: Array, need_grad_x: bool = True) -> tuple[Array | None, Array, Array]:
    """Return ``grad_x, grad_weight, grad_bias``; the first is None if not ``need_grad_x``.

    For each position (i, j) of the kernel, forward added ``W x_ij`` to y, with W = weight[:, :, i, j] and the
    slice x_ij, pixels in a row. As in `linear`, that product gives

        grad_weight[:, :, i, j] = sum over images of grad_y x_ij.T      (O, I) = (O, H' W') (H' W', I)
        gradient of x_ij        = W.T grad_y                            (I, H' W') = (I, O) (O, H' W')

    and a pixel of x belongs to several slices, so its gradient is the sum of theirs: each is added at the
    place from which the slice was taken. What falls on the border is dropped, since the zeros there were not
    x. ``grad_bias`` is the sum over images and pixels. Source: Dumoulin and Visin (2016), chapter 4.
    """
    x_shape, padded, kernels, windows = cache
    images, (*_, groups, out_channels, in_channels) = x_shape[:-3], kernels.shape
    over_images = tuple(range(len(images)))
    grad_bias = grad_y.sum((*over_images, -2, -1))
    pixels = grad_y.shape[-2] * grad_y.shape[-1]
    grad_rows = grad_y.reshape(*images, groups, out_channels, pixels)
    grad_kernels = np.empty_like(kernels, grad_y.dtype)
    grad_padded = np.zeros_like(padded, grad_y.dtype) if need_grad_x else None
    for i, j, window in windows.slices(padded.shape):
        x_ij = padded[window].reshape(*images, groups, in_channels, pixels)
        (grad_rows @ x_ij.swapaxes(-1, -2)).sum(over_images, out=grad_kernels[i, j])
        if grad_padded is not None:
            grad_x_ij = kernels[i, j].swapaxes(-1, -2) @ grad_rows
            grad_padded[window] += grad_x_ij.reshape(padded[window].shape)
    grad_weight = grad_kernels.transpose(2, 3, 4, 0, 1).reshape(
        groups * out_channels, in_channels, *windows.kernel
    )
    grad_x = None if grad_padded is None else windows.crop(grad_padded).reshape(x_shape)
    return grad_x, grad_weight, grad_bias


class Conv2d(Layer):
    """``torch.nn.Conv2d`` with zero padding: (N, C, H, W) or (C, H, W)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        device: None = None,
        dtype: npt.DTypeLike | None = None,
        generator: init.Generator | None = None,
    ) -> None:
        refuse("Conv2d", padding_mode=padding_mode if padding_mode != "zeros" else None, device=device)
        dtype = floating("Conv2d", dtype)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: {groups=} does not divide both {in_channels=} and {out_channels=}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size)
        self.stride = pair("Conv2d", "stride", stride)
        self.dilation = pair("Conv2d", "dilation", dilation)
        self.padding = padding if isinstance(padding, str) else pair("Conv2d", "padding", padding, 0)
        self._windows = Windows(self.kernel_size, self.stride, self.dilation, self._border())
        self.weight = Parameter(np.empty((out_channels, in_channels // groups, *self.kernel_size), dtype))
        self.bias = Parameter(np.empty(out_channels, dtype)) if bias else None
        init.reset_affine(self.weight, self.bias, generator)

    def _border(self) -> tuple[Pair, Pair]:
        """Return the rows and columns of zeros; "same" puts the odd one below and to the right."""
        if not isinstance(self.padding, str):
            rows, columns = self.padding
            return (rows, rows), (columns, columns)
        check_choice("Conv2d", "padding", self.padding, ("same", "valid"))
        if self.padding == "valid":
            return (0, 0), (0, 0)
        if self.stride != (1, 1):
            raise ValueError(f"Conv2d: padding='same' needs stride 1, found {self.stride}")
        rows, columns = (d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True))
        return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        if x.ndim not in (3, 4) or x.shape[-3] != self.in_channels:
            one = f"({self.in_channels}, H, W)"
            raise ValueError(f"Conv2d: input has shape {x.shape}, expected (N, {one[1:]} or {one}")
        bias = None if self.bias is None else self.bias.data
        return forward(x, self.weight.data, bias, self._windows, self.groups)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array | None:
        grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x)
        self._accumulate(weight=grad_weight, bias=grad_bias)
        return grad_x

    def extra_repr(self) -> str:
        """Return the arguments as torch shows them."""
        shown = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        shown += f", padding={self.padding}" if self.padding != (0, 0) else ""
        shown += f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        shown += f", groups={self.groups}" if self.groups != 1 else ""
        return shown + (", bias=False" if self.bias is None else "")
