"""Convolution of images: the same small weighted sum at every place."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nn_reference import init
from nn_reference._arrays import Array, check_choice, floating, refuse
from nn_reference._windows import Pair, Size, Windows, batch_first, batch_last, blocks, pair
from nn_reference.layer import Layer
from nn_reference.module import Parameter


class Cache(NamedTuple):
    """What backward needs. G groups, of I input and O output channels each."""

    padded: Array  # (G I, H + border, W + border, N)
    kernels: Array  # (G, O, I kernel height kernel width)
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

    With the K = I kernel height kernel width numbers that a window sees in a column, and P output pixels side
    by side, this is one product::

        y = weight patches + bias       (O, P) = (O, K) (K, P)

    ``patches`` repeats the pixels of x, as often as windows see them. So it is made for a block of output
    pixels at a time, small enough to stay in the processor's cache. In memory the images lie innermost,
    (C, H, W, N): then a row of a block is one piece of x. Source of the product: Chellapilla, Puri and Simard
    (2006).
    """
    padded = np.ascontiguousarray(batch_last(windows.pad(x)))
    patches = windows.patches(padded)  # (G I, kernel height, kernel width, H', W', N)
    kernels = weight.reshape(groups, len(weight) // groups, -1)
    _, out_channels, depth = kernels.shape
    y = np.empty((groups, out_channels, *patches.shape[3:]), x.dtype)
    shift = np.zeros((), x.dtype) if bias is None else bias.reshape(groups, -1, 1)
    for block in blocks(y):
        y_block = y[block].reshape(groups, out_channels, -1)  # (G, O, P), a view
        np.add(kernels @ patches[block].reshape(groups, depth, -1), shift, out=y_block)
    return batch_first(y.reshape(len(weight), *y.shape[2:]), x.ndim), Cache(padded, kernels, windows)


def backward(cache: Cache, grad_y: Array, need_grad_x: bool = True) -> tuple[Array | None, Array, Array]:
    """Return ``grad_x, grad_weight, grad_bias``; the first is None if not ``need_grad_x``.

    Forward computed ``y = weight patches + bias`` for each block of pixels. As in `linear`, with the sum over
    the blocks because each uses the same weight and bias:

        grad_weight  = sum of grad_y patches.T         (O, K) = (O, P) (P, K)
        grad_bias    = sum of grad_y 1                 (O,)   = (O, P) (P,), where 1 is a vector of ones
        grad_patches = weight.T grad_y                 (K, P) = (K, O) (O, P)

    A pixel of x is in the patches of several windows, and its gradient is the sum of theirs: each is added at
    the place from which forward took it. What falls on the border is dropped, since the zeros there were not
    x. Source: Dumoulin and Visin (2016), chapter 4.
    """
    padded, kernels, windows = cache
    groups, out_channels, depth = kernels.shape
    patches = windows.patches(padded)
    grad_pixels = batch_last(grad_y)
    grad_pixels = grad_pixels.reshape(groups, out_channels, *grad_pixels.shape[1:])  # (G, O, H', W', N)
    grad_kernels = np.zeros_like(kernels).swapaxes(1, 2)  # (G, K, O)
    grad_bias = np.zeros_like(kernels, shape=(groups, out_channels))
    grad_padded = np.zeros_like(padded) if need_grad_x else None
    grad_patches = None if grad_padded is None else windows.patches(grad_padded)
    for block in blocks(grad_pixels):
        grad_block = grad_pixels[block].reshape(groups, out_channels, -1)  # (G, O, P)
        seen = patches[block]
        grad_kernels += seen.reshape(groups, depth, -1) @ grad_block.swapaxes(1, 2)
        grad_bias += grad_block @ np.ones(grad_block.shape[2], grad_y.dtype)
        if grad_patches is not None:
            grad_seen = (kernels.swapaxes(1, 2) @ grad_block).reshape(seen.shape)
            for i, j in np.ndindex(windows.kernel):
                grad_patches[:, i, j][block] += grad_seen[:, i, j]
    grad_weight = grad_kernels.swapaxes(1, 2).reshape(groups * out_channels, -1, *windows.kernel)
    grad_x = None if grad_padded is None else windows.crop(batch_first(grad_padded, grad_y.ndim))
    return grad_x, grad_weight, grad_bias.reshape(-1)


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
