"""Mistakes in convolution and pooling. x (N, C, H, W), grad_y (N, C', H', W'), slices as in `_windows`."""

from dataclasses import replace
from typing import Any

import numpy as np

from agreement.measures import Array
from agreement.mutants.mutant import Kind
from agreement.mutants.operations._register import mistake
from nn_reference import avg_pool2d, conv2d, max_pool2d
from nn_reference._windows import Slice, Windows, batch_first

Grads = tuple[Array | None, Array, Array]
conv_backward, avg_backward, max_backward = conv2d.backward, avg_pool2d.backward, max_pool2d.backward
max_forward = max_pool2d.forward
POOLS_RIGHT = "grad_padded[window] += its part of grad_y"


def slices_as_if(windows: Windows, shape: tuple[int, ...], **wrong: Any) -> list[tuple[Slice, Slice]]:
    """Return for each position of the kernel the right slice, and that of the same size with wrong windows.

    The wrong ones are those of a smaller stride or dilation, so they lie within the image, too.
    """
    rows, columns = windows.count(shape)
    other = replace(windows, **wrong)
    pairs = []
    for i, j, window in windows.slices(shape):
        top, left = i * other.dilation[0], j * other.dilation[1]
        down = slice(top, top + (rows - 1) * other.stride[0] + 1, other.stride[0])
        across = slice(left, left + (columns - 1) * other.stride[1] + 1, other.stride[1])
        pairs.append((window, (..., down, across)))
    return pairs


def conv_input_gradient(
    cache: conv2d.Cache, grad_y: Array, weight: Array | None = None, add: bool = True, **wrong: Any
) -> Array:
    """Return grad_x with another weight, slices as if the windows were ``wrong``, or parts not added up."""
    groups, out_channels, _ = cache.kernels.shape
    weight = weight_of(cache) if weight is None else weight
    rows = grad_y.reshape(*grad_y.shape[:-3], groups, out_channels, -1)
    grad_padded = np.zeros_like(batch_first(cache.padded, grad_y.ndim))  # (*, G I, H + border, W + border)
    for number, (_, place) in enumerate(slices_as_if(cache.windows, grad_padded.shape, **wrong)):
        i, j = divmod(number, cache.windows.kernel[1])
        part = (weight[..., i, j].swapaxes(-1, -2) @ rows).reshape(grad_padded[place].shape)
        grad_padded[place] = grad_padded[place] + part if add else part
    return cache.windows.crop(grad_padded)


def weight_of(cache: conv2d.Cache) -> Array:
    """Return the weight as (G, O, I, kernel height, kernel width)."""
    return cache.kernels.reshape(*cache.kernels.shape[:2], -1, *cache.windows.kernel)


# -- convolution ----------------------------------------------------------------------------------


@mistake(
    "Conv2d",
    conv2d,
    right="grad_x[r + i] += weight[i] grad_y[r], the full convolution with the flipped kernel",
    wrong="grad_x[r + i] += weight[k - 1 - i] grad_y[r]",
)
def kernel_not_flipped(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """In backward the kernel lies the wrong way round: each pixel goes with the weight at the far end.

    Where the kernel slides over grad_y it must be turned; where each window is added in its place, not.
    """
    _, grad_weight, grad_bias = conv_backward(cache, grad_y, False)
    return conv_input_gradient(cache, grad_y, weight_of(cache)[..., ::-1, ::-1]), grad_weight, grad_bias


@mistake(
    "Conv2d",
    conv2d,
    right="grad_weight[i, j] = sum of grad_y times the pixels at (i, j)",
    wrong="grad_weight[k - 1 - i, k - 1 - j] = the same",
)
def weights_gradient_flipped(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The kernel's gradient comes out turned by 180 degrees, as for a true convolution."""
    grad_x, grad_weight, grad_bias = conv_backward(cache, grad_y, need_grad_x)
    return grad_x, grad_weight[..., ::-1, ::-1], grad_bias


@mistake("Conv2d", conv2d, right="the slice begins at pixel i", wrong="the slice begins at pixel i - 1")
def moved_by_a_pixel(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """An index is off by one: the gradient is right, but beside the pixels that it belongs to."""
    grad_x, grad_weight, grad_bias = conv_backward(cache, grad_y, need_grad_x)
    return None if grad_x is None else np.roll(grad_x, 1, axis=-1), grad_weight, grad_bias


@mistake("Conv2d", conv2d, right="pixel r stride + i", wrong="pixel r + i")
def stride_forgotten(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """Backward adds the gradients of neighbouring outputs at neighbouring pixels; forward took steps."""
    _, grad_weight, grad_bias = conv_backward(cache, grad_y, False)
    return conv_input_gradient(cache, grad_y, stride=(1, 1)), grad_weight, grad_bias


@mistake("Conv2d", conv2d, right="pixel r + i dilation", wrong="pixel r + i")
def dilation_forgotten(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """Backward closes the gaps that a dilated kernel has."""
    _, grad_weight, grad_bias = conv_backward(cache, grad_y, False)
    return conv_input_gradient(cache, grad_y, dilation=(1, 1)), grad_weight, grad_bias


@mistake(
    "Conv2d",
    conv2d,
    right="grad_x = grad_padded[p : p + H]",
    wrong="grad_x = grad_padded[: H]",
)
def padding_forgotten(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The border is cut off at the end alone, so everything is moved by the padding."""
    _, grad_weight, grad_bias = conv_backward(cache, grad_y, False)
    (above, below), (left, right) = cache.windows.border
    moved = replace(cache.windows, border=((0, above + below), (0, left + right)))
    return conv_input_gradient(cache._replace(windows=moved), grad_y), grad_weight, grad_bias


@mistake("Conv2d", conv2d, right="grad_x[window] += part", wrong="grad_x[window] = part")
def overwritten_where_windows_overlap(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """A pixel that several windows see keeps only what the last of them gave."""
    _, grad_weight, grad_bias = conv_backward(cache, grad_y, False)
    return conv_input_gradient(cache, grad_y, add=False), grad_weight, grad_bias


@mistake(
    "Conv2d",
    conv2d,
    right="grad_bias = sum over images and pixels of grad_y",
    wrong="grad_bias = mean over pixels, summed over images",
)
def mean_over_pixels_in_the_bias(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The bias is added at every pixel, so its gradient is the sum over all of them."""
    grad_x, grad_weight, grad_bias = conv_backward(cache, grad_y, need_grad_x)
    return grad_x, grad_weight, grad_bias / (grad_y.shape[-2] * grad_y.shape[-1])


@mistake(
    "Conv2d",
    conv2d,
    right="grad_bias = sum over images and pixels of grad_y",
    wrong="grad_bias = sum over images of grad_y[:, :, 0, 0]",
)
def bias_of_one_pixel(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The two axes of the image, over which the bias was broadcast, are not summed."""
    grad_x, grad_weight, _ = conv_backward(cache, grad_y, need_grad_x)
    return grad_x, grad_weight, grad_y[..., 0, 0].reshape(-1, grad_y.shape[-3]).sum(0)


@mistake(
    "Conv2d",
    conv2d,
    right="grad_weight = sum over images",
    wrong="grad_weight = mean over images",
)
def mean_over_images(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The kernel's gradient is divided by the batch size, which the loss's mean has already done."""
    grad_x, grad_weight, grad_bias = conv_backward(cache, grad_y, need_grad_x)
    images = grad_y.shape[0] if grad_y.ndim == 4 else 1
    return grad_x, grad_weight / images, grad_bias


@mistake(
    "Conv2d",
    conv2d,
    right="all in the dtype of x",
    wrong="grad_padded = zeros(shape, float32)",
    kind=Kind.PRECISION,
    shows_in=("float64",),
)
def float32_canvas(cache: conv2d.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The array on which the slices are added up is float32, whatever x is."""
    grad_x, grad_weight, grad_bias = conv_backward(cache, grad_y, need_grad_x)
    if grad_x is not None:
        grad_x = grad_x.astype(np.float32).astype(grad_y.dtype)
    return grad_x, grad_weight, grad_bias


# -- max pooling: the cache is (shape of the padded images, number of the winning slice, windows) ----


def forward_that_keeps(x: Array, windows: Windows) -> tuple[Array, tuple[Any, ...]]:
    """Compute max pooling, and keep x and y for the backwards that want to compare them."""
    y, cache = max_forward(x, windows)
    return y, (windows.pad(x, -np.inf), y.copy(), cache)


def share_among_ties(cache: tuple[Any, ...], grad_y: Array, equal_parts: bool) -> Array:
    """Return grad_x with each element of grad_y given to all pixels that equal the largest."""
    padded, y, (_, _, windows) = cache
    grad_padded = np.zeros(padded.shape, grad_y.dtype)
    ties = sum((padded[window] == y).astype(int) for _, _, window in windows.slices(padded.shape))
    for _, _, window in windows.slices(padded.shape):
        grad_padded[window] += (padded[window] == y) * grad_y / (ties if equal_parts else 1)
    return windows.crop(grad_padded)


@mistake(
    "MaxPool2d",
    max_pool2d,
    right="the first of the largest pixels gets grad_y",
    wrong="each of the largest pixels gets grad_y",
    kind=Kind.KINK,
    forward=forward_that_keeps,
)
def to_all_ties(cache: tuple[Any, ...], grad_y: Array) -> Array:
    """The mask is x == y, so equal pixels all get the whole gradient, and its sum grows."""
    return share_among_ties(cache, grad_y, equal_parts=False)


@mistake(
    "MaxPool2d",
    max_pool2d,
    right="the first of the largest pixels gets grad_y",
    wrong="k largest pixels get grad_y / k each",
    kind=Kind.KINK,
    forward=forward_that_keeps,
)
def shared_among_ties(cache: tuple[Any, ...], grad_y: Array) -> Array:
    """Equal pixels share the gradient: a subgradient, too, but not the one that PyTorch takes."""
    return share_among_ties(cache, grad_y, equal_parts=True)


@mistake("MaxPool2d", max_pool2d, right="the largest pixel gets grad_y", wrong="all get grad_y / pixels")
def backward_of_average_pooling(cache: max_pool2d.Cache, grad_y: Array) -> Array:
    """The gradient is spread evenly over the window, as if its mean had been taken."""
    shape, _, windows = cache
    divisor = np.full((), windows.kernel[0] * windows.kernel[1], grad_y.dtype)
    return avg_backward((shape, divisor, windows), grad_y)


@mistake("MaxPool2d", max_pool2d, right="the largest pixel gets grad_y", wrong="grad_x = 0")
def pixels_get_no_gradient(cache: max_pool2d.Cache, grad_y: Array) -> Array:
    """Where the largest pixels were is not kept, so nothing flows back."""
    return np.zeros_like(max_backward(cache, grad_y))


@mistake("MaxPool2d", max_pool2d, right=POOLS_RIGHT, wrong="grad_padded[window] = its part of grad_y")
def maximum_overwritten(cache: max_pool2d.Cache, grad_y: Array) -> Array:
    """A pixel that wins several windows keeps the gradient of the last only."""
    shape, winner, windows = cache
    grad_padded = np.zeros(shape, grad_y.dtype)
    for k, (_, _, window) in enumerate(windows.slices(shape)):
        grad_padded[window] = np.where(winner == k, grad_y, grad_padded[window])
    return windows.crop(grad_padded)


@mistake("MaxPool2d", max_pool2d, right="grad_padded[p : p + H]", wrong="grad_padded[: H]")
def border_cut_at_the_end(cache: max_pool2d.Cache, grad_y: Array) -> Array:
    """The padding is cut off at the end alone, so everything is moved by it."""
    whole = replace(cache[2], border=((0, 0), (0, 0)))
    height, width = cache[2].crop(np.empty(cache[0], bool)).shape[-2:]
    return max_backward((cache[0], cache[1], whole), grad_y)[..., :height, :width]


# -- average pooling: the cache is (shape of the padded images, divisor, windows) --------------------


@mistake("AvgPool2d", avg_pool2d, right="each pixel gets grad_y / divisor", wrong="each pixel gets grad_y")
def divisor_forgotten(cache: avg_pool2d.Cache, grad_y: Array) -> Array:
    """The mean's 1 / n is missing: each pixel gets the whole gradient."""
    return avg_backward((cache[0], np.ones((), grad_y.dtype), cache[2]), grad_y)


@mistake(
    "AvgPool2d",
    avg_pool2d,
    right="divisor: the pixels that the window counts, or divisor_override",
    wrong="divisor: height times width of the kernel",
)
def divisor_is_the_kernel(cache: avg_pool2d.Cache, grad_y: Array) -> Array:
    """At the border a window may count fewer pixels, and an argument may set another number."""
    kernel = cache[2].kernel
    return avg_backward((cache[0], np.array(kernel[0] * kernel[1], grad_y.dtype), cache[2]), grad_y)


@mistake("AvgPool2d", avg_pool2d, right=POOLS_RIGHT, wrong="grad_padded[window] = its part of grad_y")
def average_overwritten(cache: avg_pool2d.Cache, grad_y: Array) -> Array:
    """A pixel that several windows see keeps only what the last of them gave."""
    shape, divisor, windows = cache
    grad_padded = np.zeros(shape, grad_y.dtype)
    for _, _, window in windows.slices(shape):
        grad_padded[window] = grad_y / divisor
    return windows.crop(grad_padded)


@mistake("AvgPool2d", avg_pool2d, right="pixel r stride + i", wrong="pixel r + i")
def pooling_stride_forgotten(cache: avg_pool2d.Cache, grad_y: Array) -> Array:
    """Backward spreads neighbouring outputs over neighbouring pixels; forward took steps."""
    shape, divisor, windows = cache
    grad_padded = np.zeros(shape, grad_y.dtype)
    for _, place in slices_as_if(windows, shape, stride=(1, 1)):
        grad_padded[place] += grad_y / divisor
    return windows.crop(grad_padded)
