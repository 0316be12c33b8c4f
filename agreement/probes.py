"""Inputs that show mistakes: random, not small in number, with zeros and ties among them.

A batch of one hides a wrong 1/N, an upstream gradient of ones hides all of softmax's gradient, and values
that are all different never meet the edge of a ReLU or two equal maxima.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEAST_BATCH = 3


def draw(shape: Sequence[int], rng: np.random.Generator, domain: str = "any") -> Array:
    """Return normal numbers of which half are rounded to halves, so that zeros and ties are common.

    ``domain`` "positive" gives numbers from 0.5 up, "unit" numbers between 0 and 1.
    """
    values = rng.normal(scale=1.5, size=tuple(shape))
    values = np.where(rng.random(values.shape) < 0.5, np.round(values * 2) / 2, values)
    if domain == "positive":
        return np.abs(values) + 0.5
    return rng.uniform(0.05, 0.95, values.shape) if domain == "unit" else values


def draw_like(parameter: Array, rng: np.random.Generator) -> Array:
    """Return random numbers for a parameter, so that no default (a bias of 0, a scale of 1) hides a mistake.

    A matrix or kernel is scaled by 1 / sqrt(inputs), as initialisers do; what is all positive stays so.
    """
    if parameter.size and (parameter > 0).all():
        return rng.uniform(0.5, 1.5, parameter.shape)
    inputs = int(np.prod(parameter.shape[1:])) if parameter.ndim > 1 else 1
    return np.asarray(rng.normal(size=parameter.shape) / np.sqrt(max(inputs, 1)))


def resample(array: Array, rng: np.random.Generator, batch: int | None = None) -> Array:
    """Return elements of ``array`` in random places: as many, or with ``batch`` for the size of axis 0.

    So nothing leaves the values that the code is for, and ties come by themselves.
    """
    shape = array.shape if batch is None else (batch, *array.shape[1:])
    return np.asarray(rng.choice(array.reshape(-1), shape)) if array.size else array.copy()


def upstream(seed: Sequence[int], dtype: npt.DTypeLike) -> Callable[[tuple[int, ...]], Array]:
    """Return what makes the gradient of an output of any shape: random, and the same for one seed."""
    return lambda shape: np.random.default_rng([*seed, 1]).normal(size=shape).astype(dtype)


def one_ulp_away(array: Array, salt: int) -> Array:
    """Return each number moved to a neighbour, the same for equal numbers; zero stays.

    It is the control: what this changes, rounding may change. Zeros and ties must stay what they are, for on
    a kink the smallest step leads to another derivative.
    """
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        return array
    bits = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").astype(np.uint64)
    up = (bits + np.uint64(salt)) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(63) == 1
    moved = np.nextafter(array, np.where(up, np.inf, -np.inf).astype(array.dtype))
    return np.where(array == 0, array, moved).reshape(array.shape)
