"""Which arrays IDX can store, and conversions that change no value."""

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from idx.errors import UnsupportedArrayError
from idx.layout import CODES, AnyArray

# The type to offer for one that IDX has not: the smallest that can hold all its values, or else the largest
# of its kind.
_NEAREST: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.bool_): np.dtype(np.uint8),
    np.dtype(np.uint16): np.dtype(np.int32),
    np.dtype(np.uint32): np.dtype(np.int32),
    np.dtype(np.int64): np.dtype(np.int32),
    np.dtype(np.uint64): np.dtype(np.int32),
    np.dtype(np.float16): np.dtype(np.float32),
    np.dtype(np.longdouble): np.dtype(np.float64),
}


_BLOCK = 1 << 16  # elements


def as_storable(array: ArrayLike, casting: Literal["no", "same_value"], dtype: DTypeLike | None) -> AnyArray:
    """``array`` as an array of a type that IDX has, in any byte order; see `idx.write` for the arguments.

    Raises:
        UnsupportedArrayError: it has another type and no conversion was asked for, or a value would change.
    """
    if casting not in ("no", "same_value"):
        raise ValueError(f'casting must be "no" or "same_value", not {casting!r}')
    if np.ma.is_masked(array):
        raise UnsupportedArrayError(
            "found an array with masked elements, expected one without: IDX cannot store the mask"
        )
    try:
        found = np.asarray(array)
    except ValueError as error:  # rows of different lengths
        raise UnsupportedArrayError(f"found what NumPy makes no array of ({error})") from None
    own = _in_native_order(found.dtype)
    if dtype is not None:
        wanted = _in_native_order(np.dtype(dtype))
        if wanted not in CODES:
            raise UnsupportedArrayError(_no_such_type(wanted))
        return found if own == wanted else convert_same_value(found, wanted)
    if own in CODES:
        return found
    if casting == "same_value" and own in _NEAREST:
        return convert_same_value(found, _NEAREST[own])
    raise UnsupportedArrayError(_no_such_type(own))


def _in_native_order(dtype: np.dtype[Any]) -> np.dtype[Any]:
    try:
        return dtype.newbyteorder("=")
    except TypeError:  # NumPy's new types, such as StringDType, have none
        raise UnsupportedArrayError(_no_such_type(dtype)) from None


def _no_such_type(dtype: np.dtype[Any]) -> str:
    if dtype in _NEAREST:
        return (
            f"found {dtype}, which IDX has not; the nearest type is {_NEAREST[dtype]} "
            '(casting="same_value" converts to it if no value changes)'
        )
    return f"found {dtype}, which IDX has not; expected one of {', '.join(str(known) for known in CODES)}"


def convert_same_value(array: AnyArray, dtype: np.dtype[Any]) -> AnyArray:
    """Convert a numeric ``array`` to ``dtype``; NaN counts as the same value as NaN.

    Raises:
        UnsupportedArrayError: a value would change; the first is named.
    """
    if array.dtype.kind not in "biuf":
        raise UnsupportedArrayError(_no_such_type(array.dtype))
    converted = np.empty(array.shape, dtype)
    # Block by block, so that the comparison costs no further copies of the array.
    blocks = np.nditer(
        [array, converted],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"], ["writeonly"]],
        op_dtypes=[array.dtype.newbyteorder("="), dtype],
        order="C",
        casting="equiv",
        buffersize=_BLOCK,
    )
    position = 0
    with blocks, np.errstate(all="ignore"):
        for values, target in blocks:
            target[...] = values.astype(dtype)
            changed = _differ(target.astype(values.dtype), values) | ~_in_range(values, target)
            if values.dtype.kind == "f" and dtype.kind in "iu":
                changed |= (values == 0) & np.signbit(values)  # integers have no -0.0
            if changed.any():
                first = position + int(np.argmax(changed))
                where = tuple(int(i) for i in np.unravel_index(first, array.shape))
                raise UnsupportedArrayError(
                    f"found {array[where]} at {list(where)}, "
                    f"expected values that {array.dtype} and {dtype} share"
                )
            position += len(values)
    return converted


def _differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    both_nan = (one != one) & (other != other)
    return np.asarray((one != other) & ~both_nan)


def _in_range(array: NDArray[Any], converted: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value lies within the integer type; outside, conversions differ between processors."""
    to_integer = converted.dtype.kind in "iu"
    values, integer = (array, converted.dtype) if to_integer else (converted, array.dtype)
    if integer.kind not in "iu":
        return np.ones(array.shape, np.bool_)
    limits = np.iinfo(integer)
    return np.asarray((values >= limits.min) & (values < limits.max + 1))
