"""Which error counts, and what else one wants to know of two arrays that should be equal.

The error that counts is the largest difference over the largest value of the tensor: an absolute tolerance
would pass any gradient that is small enough, a zero gradient among them. How large it may be follows from the
unit roundoff u (2^-24 in float32, 2^-53 in float64), not from experience.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# In float64 two correct backward passes differ by rounding alone: some 1e-15 of the largest element.
FLOAT64_LIMIT = 1e-12


def unit_roundoff(dtype: npt.DTypeLike) -> float:
    """Return u, the largest relative error of rounding to nearest: 2^-24 in float32, 2^-53 in float64."""
    return float(np.finfo(dtype).eps) / 2


def backward_limit(dtype: npt.DTypeLike, loss: float = 1.0) -> float:
    """Return the error that a correct backward pass through a whole network may have, by `compare_tensors`.

    1e-12 in float64. In float32 it is ``u (16 + 1 / loss)``: autograd forms the gradient at the label as
    p - 1, where p was rounded; its error u is relative to 1, but the gradient itself, 1 - p, is about as
    small as the loss.
    """
    if np.finfo(dtype).eps < 1e-12:
        return FLOAT64_LIMIT
    return unit_roundoff(dtype) * (16 + 1 / max(abs(float(loss)), float(np.finfo(dtype).tiny)))


@dataclass(frozen=True)
class TensorAgreement:
    """How far two engines are apart in one tensor.

    ``error`` decides, against ``limit``. The other figures explain: ``ulps`` is the largest distance in
    representable numbers (next to zero thousands are harmless), ``cosine`` that of the angle between the
    tensors (NaN where one is all zeros), ``worst`` the index of the largest difference, with the value that
    each engine has there. ``reference_error`` and ``autograd_error`` are each engine's own error against
    higher-precision truth, on the same scale as ``error``, where there is one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    largest_difference: float
    largest_value: float
    limit: float = FLOAT64_LIMIT
    ulps: float = 0.0
    cosine: float = 1.0
    worst: tuple[int, ...] | None = None
    reference_value: float | None = None
    autograd_value: float | None = None
    reference_error: float | None = None
    autograd_error: float | None = None

    @property
    def error(self) -> float:
        """Largest difference over largest value: 0 for equal tensors, NaN where a difference is."""
        return self.largest_difference / self.largest_value if self.largest_difference else 0.0

    @property
    def agrees(self) -> bool:
        """Whether the error is within the limit (NaN is not)."""
        return self.error <= self.limit


def compare_tensors(
    name: str,
    reference: Array,
    autograd: Array,
    *,
    limit: float = FLOAT64_LIMIT,
    truth: Array | None = None,
) -> TensorAgreement:
    """Compare two arrays of one shape; ``truth``, if known, is the same tensor in a higher precision.

    The coarser dtype of the two is the one of the row. Raises ValueError if the shapes differ, for
    broadcasting would hide that.
    """
    if reference.shape != autograd.shape:
        raise ValueError(f"{name}: the reference's shape is {reference.shape}, autograd's {autograd.shape}")
    dtype = min(reference.dtype, autograd.dtype, key=lambda d: d.itemsize)
    if not reference.size:
        return TensorAgreement(name, reference.shape, str(dtype), 0.0, 0.0, limit)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(reference - autograd)
    flat = int(np.where(np.isnan(difference), np.inf, difference).argmax())
    worst = tuple(int(i) for i in np.unravel_index(flat, reference.shape))
    return TensorAgreement(
        name=name,
        shape=reference.shape,
        dtype=str(dtype),
        largest_difference=float(difference[worst]),
        largest_value=float(max(np.abs(reference).max(), np.abs(autograd).max())),
        limit=limit,
        ulps=largest_ulps(reference.astype(dtype), autograd.astype(dtype)),
        cosine=cosine(reference, autograd),
        worst=worst,
        reference_value=float(reference[worst]),
        autograd_value=float(autograd[worst]),
        reference_error=None if truth is None else error_against(truth, reference),
        autograd_error=None if truth is None else error_against(truth, autograd),
    )


def error_against(truth: Array, found: Array) -> float:
    """Return the largest difference over the largest true value, computed in the precision of ``truth``."""
    if found.shape != truth.shape:
        raise ValueError(f"the truth's shape is {truth.shape}, found {found.shape}")
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        difference = np.abs(found.astype(truth.dtype) - truth).max(initial=0)
        return float(difference / np.abs(truth).max(initial=0)) if difference else 0.0


def product_units(found: Array, expected: Array, magnitude: Array, dtype: npt.DTypeLike) -> float:
    """Return the largest ``|found - expected| / (u magnitude)``, u being the unit roundoff of ``dtype``.

    For a product A B of matrices ``magnitude`` is |A||B|: element by element, the sum of the sizes of what
    was added up. However it is ordered, a sum of n terms errs by less than n u of that (Higham 2002,
    equation 3.13), in practice by some sqrt(n); 16 is what we allow. Where the magnitude is 0 nothing was
    added, and any difference is infinite.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        units = np.abs(found - expected) / (unit_roundoff(dtype) * magnitude)
    return float(np.where(found == expected, 0, units).max(initial=0))


def largest_ulps(a: Array, b: Array) -> float:
    """Return how many representable numbers lie between two arrays of one dtype, where most do.

    Infinite where exactly one of two elements is NaN; NaN for dtypes other than float32 and float64.
    """
    if a.dtype not in (np.float32, np.float64):
        return float("nan")
    if (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    # Read as integers, floats of one sign are in order; those of negative ones are turned round below zero.
    integer: type[np.signedinteger[Any]] = np.int32 if a.dtype == np.float32 else np.int64
    keys = (np.ascontiguousarray(x).view(integer).astype(np.longdouble) for x in (a, b))
    first, second = (np.where(key < 0, np.iinfo(integer).min - key, key) for key in keys)
    return float(np.where(np.isnan(a), 0, np.abs(first - second)).max(initial=0))


def cosine(a: Array, b: Array) -> float:
    """Return the cosine of the angle between two tensors seen as vectors; NaN if either is all zeros."""
    a, b = (x.astype(np.longdouble).reshape(-1) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        a, b = a / np.abs(a).max(initial=0), b / np.abs(b).max(initial=0)
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))
