"""The Gaussian error linear unit: each x times the probability that a standard normal is below it."""

import numpy as np

from nn_reference import sigmoid
from nn_reference._arrays import Array, check_choice
from nn_reference.layer import Layer

Cache = tuple[Array, Array, str]

NEAR = 3.0  # up to |x| = 3 the series is used, beyond it the continued fraction
DEPTH = 80  # of the fraction; at 3 that is enough for the 64 bits of a longdouble
_INVERSE_ROOT_2PI = np.longdouble("0.39894228040143267793994605993438186848")
_ROOT_2_OVER_PI = np.longdouble("0.79788456080286535587989211986876373695")
_CUBIC = 0.044715


def normal_density(x: Array) -> Array:
    """Return phi(x) = exp(-x^2 / 2) / sqrt(2 pi)."""
    return np.exp(-0.5 * x * x) * x.dtype.type(_INVERSE_ROOT_2PI)


def normal_cdf(x: Array) -> Array:
    """Return Phi(x), the integral of phi from minus infinity to x; complex x must be near the real axis.

    Near 0 by a series whose terms all have one sign (integrate phi by parts again and again),

        Phi(x) = 1/2 + phi(x) (x + x^3 / 3 + x^5 / (3 5) + x^7 / (3 5 7) + ...)

    and in the tails, for x > 0, by Laplace's continued fraction

        Phi(-x) = 1 - Phi(x) = phi(x) / (x + 1 / (x + 2 / (x + 3 / (x + ...))))

    The error is at most a few units of rounding of 1 (checked against mpmath, in longdouble too). Sources:
    Marsaglia (2004), *Evaluating the Normal Distribution*; Abramowitz and Stegun (1964), 26.2.11 and 26.2.14.
    """
    result = np.empty_like(x)
    near = np.abs(x.real) <= NEAR
    z = x[near]
    term = total = z
    largest, n = NEAR, 1
    while largest > np.finfo(x.dtype).eps / 4:
        n += 2
        largest *= NEAR * NEAR / n
        term = term * (z * z / n)
        total = total + term
    result[near] = 0.5 + normal_density(z) * total

    z = x[~near]
    upper = z.real > 0
    z = np.where(upper, z, -z)
    fraction = z
    for k in range(DEPTH, 0, -1):
        fraction = z + k / fraction
    tail = normal_density(z) / fraction
    result[~near] = np.where(upper, 1 - tail, tail)
    return result


def forward(x: Array, approximate: str = "none") -> tuple[Array, Cache]:
    """Compute ``y = x Phi(x)``, x and y (*), any shape.

    With ``approximate="tanh"``, Phi(x) is replaced by ``P = (1 + tanh(u)) / 2`` with ``u = sqrt(2 / pi) (x +
    0.044715 x^3)``; that is sigmoid(2 u), which does not cancel where tanh(u) is near -1.
    """
    if approximate == "tanh":
        u = x.dtype.type(_ROOT_2_OVER_PI) * (x + _CUBIC * x * x * x)
        cdf, _ = sigmoid.forward(2 * u)
    else:
        cdf = normal_cdf(x)
    return x * cdf, (x, cdf, approximate)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x = grad_y (Phi(x) + x phi(x))``.

    That is the product rule, as phi is the derivative of Phi; for the approximation P = sigmoid(2 u) it is
    ``dP/dx = P (1 - P) 2 du/dx``. Source: Hendrycks and Gimpel (2016).
    """
    x, cdf, approximate = cache
    if approximate == "tanh":
        du_dx = x.dtype.type(_ROOT_2_OVER_PI) * (1 + 3 * _CUBIC * x * x)
        density = 2 * cdf * (1 - cdf) * du_dx
    else:
        density = normal_density(x)
    return grad_y * (cdf + x * density)


class GELU(Layer):
    """``torch.nn.GELU``, exact or with ``approximate="tanh"``."""

    _shown = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        check_choice("GELU", "approximate", approximate, ("none", "tanh"))
        self.approximate = approximate

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        return forward(x, self.approximate)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
