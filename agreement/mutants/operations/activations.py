"""Mistakes in what is done element by element. x, y and grad_y (*) have one shape."""

import numpy as np

from agreement.measures import Array
from agreement.mutants.mutant import Kind
from agreement.mutants.operations._register import mistake
from nn_reference import elu, gelu, leaky_relu, relu, sigmoid, silu, tanh

# -- ReLU: the cache is y -------------------------------------------------------------------------


def relu_that_keeps_x(x: Array, out: Array | None = None) -> tuple[Array, Array]:
    """Compute ReLU with x in its cache: of y, "at least 0" would be true everywhere."""
    return np.maximum(x, 0, out=out), x


@mistake(
    "ReLU",
    relu,
    right="grad_x = grad_y [x > 0]",
    wrong="grad_x = grad_y [x >= 0]",
    kind=Kind.KINK,
    forward=relu_that_keeps_x,
)
def at_least_for_greater(cache: Array, grad_y: Array) -> Array:
    """At x = 0 the gradient is let through, where PyTorch takes the slope from below, 0."""
    return np.where(cache >= 0, grad_y, 0)


@mistake("ReLU", relu, right="grad_x = grad_y [x > 0]", wrong="grad_x = grad_y")
def mask_missing(cache: Array, grad_y: Array) -> Array:
    """The gradient passes through units that were off."""
    return grad_y.copy()


@mistake("ReLU", relu, right="grad_x = grad_y [x > 0]", wrong="grad_x = grad_y [grad_y > 0]")
def mask_of_the_gradient(cache: Array, grad_y: Array) -> Array:
    """ReLU is applied to the gradient, as if the backward were the forward once more."""
    return grad_y * (grad_y > 0)


@mistake("ReLU", relu, right="grad_x = grad_y [x > 0]", wrong="grad_x = grad_y y")
def output_for_mask(cache: Array, grad_y: Array) -> Array:
    """The gradient is multiplied by the output itself, not by whether it is positive."""
    return grad_y * cache


@mistake("ReLU", relu, right="grad_x = grad_y * mask", wrong="grad_y *= mask;  grad_x = grad_y")
def upstream_changed_in_place(cache: Array, grad_y: Array) -> Array:
    """The result is right, but the gradient from above, which others may still need, has been overwritten."""
    grad_y *= cache > 0
    return grad_y


@mistake("ReLU", relu, right="grad_x[i] = grad_y[i] [x[i] > 0]", wrong="the same, i counted in memory")
def order_in_memory_assumed(cache: Array, grad_y: Array) -> Array:
    """The elements are read as they lie in memory, which for a transposed array is another order."""
    in_memory = np.array(grad_y.ravel(order="K")).reshape(grad_y.shape)
    return in_memory * (cache > 0)


# -- LeakyReLU: the cache is (x > 0, slope) -------------------------------------------------------


@mistake("LeakyReLU", leaky_relu, right="slope grad_y, where x <= 0", wrong="0, where x <= 0")
def slope_forgotten(cache: leaky_relu.Cache, grad_y: Array) -> Array:
    """The backward of ReLU was copied: nothing passes below zero."""
    return np.where(cache[0], grad_y, 0)


@mistake("LeakyReLU", leaky_relu, right="slope grad_y, where x <= 0", wrong="0.01 grad_y, where x <= 0")
def default_slope(cache: leaky_relu.Cache, grad_y: Array) -> Array:
    """The slope is written as a number, right only as long as nobody changes the argument."""
    return np.where(cache[0], grad_y, 0.01 * grad_y)


@mistake(
    "LeakyReLU",
    leaky_relu,
    right="mask = x > 0",
    wrong="mask = x >= 0",
    kind=Kind.KINK,
    attribute="forward",
)
def one_at_the_kink(x: Array, negative_slope: float = 0.01) -> tuple[Array, leaky_relu.Cache]:
    """At x = 0 the slope from above is taken, where PyTorch takes that from below."""
    positive = x >= 0
    return np.where(positive, x, negative_slope * x), (positive, negative_slope)


# -- Sigmoid and Tanh: the cache is y -------------------------------------------------------------


@mistake(
    "Sigmoid",
    sigmoid,
    right="grad_x = grad_y y (1 - y)",
    wrong="grad_x = grad_y s (1 - s) with s = sigmoid(y)",
)
def derivative_at_the_output(cache: Array, grad_y: Array) -> Array:
    """The formula for x is given y: the derivative is taken at the wrong place."""
    s = 1 / (1 + np.exp(-cache))
    return grad_y * s * (1 - s)


@mistake("Sigmoid", sigmoid, right="grad_x = grad_y y (1 - y)", wrong="grad_x = y (1 - y)")
def upstream_forgotten(cache: Array, grad_y: Array) -> Array:
    """The local derivative is returned alone; with an upstream gradient of ones nobody sees it."""
    return cache * (1 - cache)


@mistake("Sigmoid", sigmoid, right="grad_x = grad_y y (1 - y)", wrong="grad_x = grad_y y")
def one_minus_y_dropped(cache: Array, grad_y: Array) -> Array:
    """Half of the product is missing, as if sigmoid were exp."""
    return grad_y * cache


@mistake("Tanh", tanh, right="grad_x = grad_y (1 - y^2)", wrong="grad_x = grad_y (1 - y)")
def square_forgotten(cache: Array, grad_y: Array) -> Array:
    """The square is missing: half of the formula of sigmoid has come in."""
    return grad_y * (1 - cache)


@mistake("Tanh", tanh, right="grad_x = grad_y (1 - y^2)", wrong="grad_x = grad_y (1 - tanh(y)^2)")
def tanh_taken_twice(cache: Array, grad_y: Array) -> Array:
    """The formula for x is given y: the derivative is taken at the wrong place."""
    return grad_y * (1 - np.tanh(cache) ** 2)


# -- ELU: the cache is (x, alpha) -----------------------------------------------------------------


@mistake("ELU", elu, right="grad_y alpha exp(x), where x <= 0", wrong="grad_y exp(x), where x <= 0")
def alpha_forgotten(cache: elu.Cache, grad_y: Array) -> Array:
    """The factor alpha is missing, which only alpha = 1 hides."""
    return np.where(cache[0] > 0, grad_y, grad_y * np.exp(np.minimum(cache[0], 0)))


@mistake("ELU", elu, right="grad_y alpha exp(x) = grad_y (y + alpha)", wrong="grad_y y, where x <= 0")
def output_for_exponential(cache: elu.Cache, grad_y: Array) -> Array:
    """The output is taken for alpha exp(x), but it is that less alpha."""
    x, alpha = cache
    return np.where(x > 0, grad_y, grad_y * (alpha * np.expm1(np.minimum(x, 0))))


@mistake(
    "ELU",
    elu,
    right="grad_y [x > 0] + grad_y alpha exp(x) [x <= 0]",
    wrong="grad_y [x >= 0] + grad_y alpha exp(x) [x < 0]",
    kind=Kind.KINK,
)
def slope_one_at_the_kink(cache: elu.Cache, grad_y: Array) -> Array:
    """At x = 0 the slope from above is taken, where PyTorch takes that from below."""
    x, alpha = cache
    return np.where(x >= 0, grad_y, grad_y * (alpha * np.exp(np.minimum(x, 0))))


@mistake(
    "ELU",
    elu,
    right="y = alpha expm1(x)",
    wrong="y = alpha (exp(x) - 1)",
    kind=Kind.PRECISION,
    attribute="forward",
    shows_in=("float32",),
)
def exp_minus_one(x: Array, alpha: float = 1.0) -> tuple[Array, elu.Cache]:
    """Near zero exp(x) is rounded to a number near 1, and the subtraction leaves the rounding."""
    return np.where(x > 0, x, alpha * (np.exp(np.minimum(x, 0)) - 1)), (x, alpha)


# -- SiLU: the cache is (x, s); GELU: (x, Phi, approximate) ---------------------------------------


@mistake("SiLU", silu, right="dy/dx = s + x s (1 - s)", wrong="dy/dx = s")
def second_term_dropped(cache: silu.Cache, grad_y: Array) -> Array:
    """x is in both factors of y = x s(x): the product rule has two terms."""
    return grad_y * cache[1]


@mistake("SiLU", silu, right="dy/dx = s + x s (1 - s)", wrong="dy/dx = s (1 - s)")
def derivative_of_sigmoid_only(cache: silu.Cache, grad_y: Array) -> Array:
    """The factor x is treated as a constant 1, which leaves the derivative of sigmoid."""
    _, s = cache
    return grad_y * s * (1 - s)


@mistake(("GELU", "GELU-tanh"), gelu, right="dy/dx = Phi(x) + x phi(x)", wrong="dy/dx = Phi(x)")
def density_term_dropped(cache: gelu.Cache, grad_y: Array) -> Array:
    """x is in both factors of y = x Phi(x): the product rule has two terms."""
    return grad_y * cache[1]


@mistake(
    "GELU",
    gelu,
    right="phi(x) = exp(-x^2 / 2) / sqrt(2 pi)",
    wrong="phi(x) = exp(-x^2 / 2)",
)
def density_not_normalised(cache: gelu.Cache, grad_y: Array) -> Array:
    """The density of the normal distribution lacks its constant."""
    x, cdf, _ = cache
    return grad_y * (cdf + x * np.exp(-0.5 * x * x))


@mistake(
    "GELU",
    gelu,
    right="slope = cdf + x phi(x), in a new array",
    wrong="cdf += x phi(x)",
)
def cache_changed_in_place(cache: gelu.Cache, grad_y: Array) -> Array:
    """The result is right, but what it was made from is overwritten: a second backward would be wrong."""
    x, cdf, _ = cache
    cdf += x * gelu.normal_density(x)
    return grad_y * cdf


@mistake(
    "GELU-tanh",
    gelu,
    right="dy/dx = P + x P (1 - P) 2 du/dx",
    wrong="dy/dx = P + x phi(x)",
)
def derivative_of_the_exact_form(cache: gelu.Cache, grad_y: Array) -> Array:
    """Forward approximates, backward does not: nearly right, to three digits."""
    x, cdf, _ = cache
    return grad_y * (cdf + x * gelu.normal_density(x))


@mistake(
    "GELU-tanh",
    gelu,
    right="du/dx = sqrt(2 / pi) (1 + 3 0.044715 x^2)",
    wrong="du/dx = sqrt(2 / pi)",
)
def inner_derivative_cut_short(cache: gelu.Cache, grad_y: Array) -> Array:
    """The cubic term of u has no derivative."""
    x, cdf, _ = cache
    return grad_y * (cdf + x * 2 * cdf * (1 - cdf) * x.dtype.type(np.sqrt(2 / np.pi)))
