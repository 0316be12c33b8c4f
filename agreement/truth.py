"""Who is right? The same gradients in more digits than either engine has.

`network` runs the reference engine in longdouble (64 bits of fraction on x86, 11 more than float64): the same
formulas, so it shows rounding but no mistake that all precisions share. `mlp` knows no backward at all: it is
the limit of a difference quotient, computed with mpmath in 50 digits, and so judges the formulas, too.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agreement.gradients import trace_reference

Array = npt.NDArray[Any]


def network(
    reference: Any, criterion: Any, inputs: Array, targets: Array, dtype: npt.DTypeLike = np.longdouble
) -> dict[str, Array]:
    """Return every value and gradient of one batch, under the names of `compare_networks`, in ``dtype``.

    ``reference`` and ``criterion`` are of ``nn_reference`` and are left as they are.
    """
    wide, wide_loss = copy.deepcopy(reference).to(dtype), copy.deepcopy(criterion).to(dtype)
    wide.zero_grad()
    return trace_reference(wide, wide_loss, inputs.astype(dtype), targets).everything()


def mlp(
    layers: Sequence[tuple[Array, Array]],
    inputs: Array,
    labels: Array,
    *,
    activation: str = "relu",
    digits: int = 50,
) -> dict[str, Array]:
    """Return loss and gradients of a network of affine layers, with mean cross-entropy, in 50 digits.

        layers  pairs weight (out, in) and bias (out,); the activation ("relu" or "tanh") is between them
        inputs  (N, in)
        labels  (N,), integers

    The result has "outputs", "loss", "d loss / d inputs" and for layer i "d loss / d {i}.weight" and
    "d loss / d {i}.bias", as longdouble. Each derivative is (L(t + h) - L(t - h)) / 2h with h = 10^-digits,
    in three times as many digits, so that its error is of the order h². That takes two forwards for each
    number: it is meant for networks of some dozens of parameters. Raises ImportError without mpmath.
    """
    try:
        import mpmath
    except ImportError:
        raise ImportError("agreement.truth.mlp needs mpmath: pip install mpmath") from None
    if activation not in ("relu", "tanh"):
        raise ValueError(f"activation={activation!r}, expected 'relu' or 'tanh'")
    with mpmath.workdps(3 * digits):
        number = np.frompyfunc(lambda value: mpmath.mpf(float(value)), 1, 1)
        x = number(inputs)
        numbers = [(number(weight), number(bias)) for weight, bias in layers]
        act = np.frompyfunc(_relu if activation == "relu" else mpmath.tanh, 1, 1)
        exp, log = np.frompyfunc(mpmath.exp, 1, 1), np.frompyfunc(mpmath.log, 1, 1)

        def outputs() -> Array:
            h = x
            for i, (weight, bias) in enumerate(numbers):
                h = h @ weight.T + bias
                h = h if i == len(numbers) - 1 else act(h)
            return np.asarray(h)

        def loss() -> Any:
            """The mean of -log(exp(z_k) / sum_j exp(z_j)), as it stands in textbooks."""
            z = outputs()
            p = exp(z[np.arange(len(z)), labels]) / exp(z).sum(1)
            return -log(p).sum() / len(z)

        result = {"outputs": _rounded(outputs()), "loss": _rounded(np.asarray(loss(), object))}
        step = mpmath.mpf(10) ** -digits
        result["d loss / d inputs"] = _differentiate(loss, x, step)
        for i, (weight, bias) in enumerate(numbers):
            result[f"d loss / d {i}.weight"] = _differentiate(loss, weight, step)
            result[f"d loss / d {i}.bias"] = _differentiate(loss, bias, step)
    return result


def _relu(value: Any) -> Any:
    return value if value > 0 else 0 * value


def _differentiate(function: Callable[[], Any], array: Array, step: Any) -> Array:
    """Return the derivative of ``function()`` with respect to each element of an array that it reads."""
    grad = np.empty(array.shape, object)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function()
        array[index] = kept - step
        grad[index] = (above - function()) / (2 * step)
        array[index] = kept
    return _rounded(grad)


def _rounded(values: Array) -> Array:
    """Return mpmath's numbers as longdouble, by way of their decimal digits."""
    import mpmath

    digits = np.frompyfunc(lambda value: np.longdouble(mpmath.nstr(value, 30)), 1, 1)
    return np.asarray(digits(values), np.longdouble)
