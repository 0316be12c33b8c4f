"""Initial values of parameters: ``torch.nn.init``, and the defaults of ``torch.nn``'s layers.

If the inputs of ``y_j = sum_i w_ji x_i`` are independent with mean 0, then Var(y) = fan_in Var(w) E(x^2), and
going back Var(grad_x) = fan_out Var(w) Var(grad_y). Xavier's Var(w) = 2 / (fan_in + fan_out) keeps both near
what they were (Glorot and Bengio 2010); Kaiming's Var(w) = gain^2 / fan makes up for an activation that lets
part of the signal through, gain^2 = 2 for ReLU which lets half of it (He et al. 2015). A uniform draw on (-a,
a) has variance a^2 / 3.

Every function fills its first argument in place and returns it. The numbers come from ``generator``, a
``numpy.random.Generator`` (a new unseeded one if None) or a `nn_reference.torch_random.Generator`. NumPy's
are drawn in float64 and rounded, so that networks of each dtype start from the same values.
"""

import math
from typing import TypeAlias, TypeVar

import numpy as np

from nn_reference import torch_random
from nn_reference._arrays import Array, check_choice
from nn_reference.module import Parameter

Generator: TypeAlias = np.random.Generator | torch_random.Generator
G: TypeAlias = Generator | None
Target = TypeVar("Target", Array, Parameter)

_CONVOLUTIONS = [f"conv{transposed}{n}d" for transposed in ("", "_transpose") for n in (1, 2, 3)]
_GAINS = dict.fromkeys(["linear", *_CONVOLUTIONS, "sigmoid"], 1.0)
_GAINS |= {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def _array(tensor: Array | Parameter) -> Array:
    return tensor.data if isinstance(tensor, Parameter) else tensor


def uniform_(tensor: Target, a: float = 0.0, b: float = 1.0, generator: G = None) -> Target:
    """Draw from the uniform distribution on [a, b)."""
    array = _array(tensor)
    if isinstance(generator, torch_random.Generator):
        array[...] = generator.uniform(a, b, array.shape, array.dtype)
    else:
        array[...] = (generator or np.random.default_rng()).uniform(a, b, array.shape)
    return tensor


def normal_(tensor: Target, mean: float = 0.0, std: float = 1.0, generator: G = None) -> Target:
    """Draw from the normal distribution."""
    array = _array(tensor)
    array[...] = (generator or np.random.default_rng()).normal(mean, std, array.shape)
    return tensor


def constant_(tensor: Target, val: float) -> Target:
    """Set every element to ``val``."""
    _array(tensor)[...] = val
    return tensor


def zeros_(tensor: Target) -> Target:
    """Set every element to 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Target) -> Target:
    """Set every element to 1."""
    return constant_(tensor, 1.0)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which Kaiming's standard deviation makes up for ``nonlinearity``.

    ``param`` is the negative slope of "leaky_relu", 0.01 if None.
    """
    check_choice("calculate_gain", "nonlinearity", nonlinearity, (*_GAINS, "leaky_relu"))
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    return _GAINS[nonlinearity]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight of shape (out, in) or (out, in, kernel height, kernel width)."""
    if len(shape) < 2:
        raise ValueError(f"fan_in and fan_out need a weight of two or more dimensions, found shape {shape}")
    receptive_field = math.prod(shape[2:])
    return shape[1] * receptive_field, shape[0] * receptive_field


def xavier_uniform_(tensor: Target, gain: float = 1.0, generator: G = None) -> Target:
    """Draw uniformly with variance gain^2 2 / (fan_in + fan_out)."""
    bound = math.sqrt(3) * gain * math.sqrt(2 / sum(fans(tensor.shape)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Target, gain: float = 1.0, generator: G = None) -> Target:
    """Draw normally with variance gain^2 2 / (fan_in + fan_out)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor.shape))), generator)


def _kaiming_std(tensor: Array | Parameter, a: float, mode: str, nonlinearity: str) -> float:
    check_choice("kaiming", "mode", mode, ("fan_in", "fan_out"))
    fan_in, fan_out = fans(tensor.shape)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def kaiming_uniform_(
    tensor: Target, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: G = None
) -> Target:
    """Draw uniformly with variance gain^2 / fan; ``a`` is the negative slope of a leaky ReLU."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Target, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: G = None
) -> Target:
    """Draw normally with variance gain^2 / fan; ``a`` is the negative slope of a leaky ReLU."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def reset_affine(weight: Parameter, bias: Parameter | None, generator: G = None) -> None:
    """Draw torch's default for Linear and Conv2d: weight and bias uniform within 1 / sqrt(fan_in).

    The weight's bound is written there as Kaiming's with a = sqrt(5), which is the same number.
    """
    generator = generator or np.random.default_rng()
    fan_in = fans(weight.shape)[0]
    if weight.data.size:
        kaiming_uniform_(weight, math.sqrt(5), generator=generator)
    if bias is not None:
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        uniform_(bias, -bound, bound, generator)
