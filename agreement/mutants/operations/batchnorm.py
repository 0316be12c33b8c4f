"""Mistakes in batch normalisation. x (N, C, *); sums and means are over all axes but C."""

import numpy as np

from agreement.measures import Array
from agreement.mutants.mutant import Kind
from agreement.mutants.operations._register import mistake
from nn_reference import batchnorm

Cache = batchnorm.Cache
Grads = tuple[Array, Array, Array]
BOTH = ("BatchNorm1d", "BatchNorm2d")
forward, backward = batchnorm.forward, batchnorm.backward
RIGHT_X = "grad_x = s (g - mean(g) - x^ mean(g x^))"


def per_channel(a: Array, like: Array) -> Array:
    """Give (C,) the rank of ``like``, (N, C, *)."""
    return a.reshape(1, -1, *(1,) * (like.ndim - 2))


def input_gradient(cache: Cache, grad_y: Array, mean_path: float = 1, variance_path: float = 1) -> Array:
    """Return grad_x of batch statistics with each path times a factor."""
    g = grad_y if cache.weight is None else grad_y * per_channel(cache.weight, grad_y)
    axes = (0, *range(2, grad_y.ndim))
    mean_g, mean_gx = g.mean(axes, keepdims=True), (g * cache.normalised).mean(axes, keepdims=True)
    return cache.inverse_std * (g - mean_path * mean_g - variance_path * cache.normalised * mean_gx)


def with_input_gradient(cache: Cache, grad_y: Array, **paths: float) -> Grads:
    """Return the right gradients but for that of x, where the statistics are the batch's."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y)
    return input_gradient(cache, grad_y, **paths) if cache.of_batch else grad_x, grad_weight, grad_bias


@mistake(BOTH, batchnorm, right=RIGHT_X, wrong="grad_x = s (g - x^ mean(g x^))")
def mean_path_dropped(cache: Cache, grad_y: Array) -> Grads:
    """The mean is treated as a constant, but it moves with every x."""
    return with_input_gradient(cache, grad_y, mean_path=0)


@mistake(BOTH, batchnorm, right=RIGHT_X, wrong="grad_x = s (g - mean(g))")
def variance_path_dropped(cache: Cache, grad_y: Array) -> Grads:
    """The variance is treated as a constant, but it moves with every x."""
    return with_input_gradient(cache, grad_y, variance_path=0)


@mistake(BOTH, batchnorm, right=RIGHT_X, wrong="grad_x = s g")
def statistics_are_constants(cache: Cache, grad_y: Array) -> Grads:
    """The backward of evaluation is used while training, where mean and variance depend on x."""
    return backward(cache._replace(of_batch=False), grad_y)


@mistake(BOTH, batchnorm, right="g = grad_y weight", wrong="g = grad_y")
def gamma_dropped(cache: Cache, grad_y: Array) -> Grads:
    """The gradient does not pass through the scale gamma (weight)."""
    return backward(cache._replace(weight=None), grad_y)


@mistake(BOTH, batchnorm, right="grad_x = s g, in evaluation", wrong=RIGHT_X)
def running_statistics_taken_for_the_batchs(cache: Cache, grad_y: Array) -> Grads:
    """In evaluation mean and variance are constants, and the two paths through them do not exist."""
    return backward(cache._replace(of_batch=True), grad_y)


@mistake(BOTH, batchnorm, right="mean(g x^) over n elements", wrong="sum(g x^) / (n - 1)")
def unbiased_for_biased(cache: Cache, grad_y: Array) -> Grads:
    """Backward divides by n - 1, but the variance that normalises was divided by n."""
    n = grad_y.size // grad_y.shape[1]
    return with_input_gradient(cache, grad_y, variance_path=n / (n - 1))


@mistake(
    BOTH,
    batchnorm,
    right="var = sum((x - mean)^2) / n",
    wrong="var = sum((x - mean)^2) / (n - 1)",
    attribute="forward",
)
def unbiased_in_the_forward(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    running: tuple[Array, Array] | None = None,
) -> tuple[Array, Cache, tuple[Array, Array]]:
    """The variance that normalises is the estimate for the population; backward is right for that of the
    batch."""
    y, cache, (mean, var) = forward(x, weight, bias, eps, running)
    if running is None:
        n = x.size // x.shape[1]
        inverse_std = 1 / np.sqrt(var * n / (n - 1) + eps)
        normalised = (x - mean) * inverse_std
        y = normalised if weight is None else normalised * per_channel(weight, x)
        y = y if bias is None else y + per_channel(bias, x)
        cache = cache._replace(normalised=normalised, inverse_std=inverse_std)
    return y, cache, (mean, var)


@mistake("BatchNorm2d", batchnorm, right=RIGHT_X, wrong="grad_x = 0")
def input_gets_no_gradient(cache: Cache, grad_y: Array) -> Grads:
    """The sum of the gradient over a channel is zero, but not the gradient itself."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y)
    return np.zeros_like(grad_x), grad_weight, grad_bias


@mistake("BatchNorm2d", batchnorm, right="mean(g) = sum(g) / (N H W)", wrong="mean(g) = sum(g) / N")
def pixels_not_counted(cache: Cache, grad_y: Array) -> Grads:
    """A channel has N H W values, not N: the formula of (N, C) was used for images."""
    pixels = grad_y[0, 0].size
    return with_input_gradient(cache, grad_y, mean_path=pixels, variance_path=pixels)


@mistake(BOTH, batchnorm, right="grad_weight = sum(grad_y x^)", wrong="grad_weight = sum(grad_y)")
def gammas_gradient_is_betas(cache: Cache, grad_y: Array) -> Grads:
    """The gradient of the scale lacks the factor x^ that it scales."""
    grad_x, _, grad_bias = backward(cache, grad_y)
    return grad_x, grad_bias.copy(), grad_bias


@mistake("BatchNorm1d", batchnorm, right="grad_bias = sum(grad_y)", wrong="grad_bias = mean(grad_y)")
def mean_for_sum_in_beta(cache: Cache, grad_y: Array) -> Grads:
    """The shift is added to every value of its channel, so its gradient is the sum, not the mean."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y)
    return grad_x, grad_weight, grad_bias / (grad_y.size // len(grad_bias))


@mistake(
    "BatchNorm2d",
    batchnorm,
    right="all in the dtype of x",
    wrong="grad_weight = float32(sum(grad_y x^))",
    kind=Kind.PRECISION,
    shows_in=("float64",),
)
def float32_sums(cache: Cache, grad_y: Array) -> Grads:
    """The sums are kept in float32 arrays, so a float64 gradient loses half its digits."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y)
    return grad_x, grad_weight.astype(np.float32).astype(grad_y.dtype), grad_bias


@mistake(
    BOTH,
    batchnorm,
    right="running_var keeps sum((x - mean)^2) / (n - 1)",
    wrong="running_var keeps sum((x - mean)^2) / n",
    kind=Kind.STATE,
    attribute="forward",
)
def biased_running_variance(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    running: tuple[Array, Array] | None = None,
) -> tuple[Array, Cache, tuple[Array, Array]]:
    """The variance that is kept for evaluation lacks the correction n / (n - 1). No gradient of this step
    shows it; those of evaluation do."""
    y, cache, (mean, var) = forward(x, weight, bias, eps, running)
    n = x.size // x.shape[1]
    return y, cache, (mean, var * (n - 1) / n)
