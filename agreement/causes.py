"""What probably went wrong: the mistake that turns the right gradient into the one that was found.

Each rule below is one mistake that people make, and holds for the whole tensor or is not named. None of them
decides whether two tensors agree; they only save the reader an evening.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Two tensors are the same up to a cause when they differ by less than this share of the largest element.
_SAME = 1e-6


@dataclass(frozen=True)
class Context:
    """What is known of the call that gave a gradient.

    ``sizes`` are numbers that a factor may come from, under the words for them ("the batch size": 4);
    ``relatives`` are arrays that may have been mistaken for the gradient or mark where it is wrong, under
    theirs ("the upstream gradient", "x").
    """

    sizes: Mapping[str, float] = field(default_factory=dict)
    relatives: Mapping[str, Array] = field(default_factory=dict)


def likely_cause(found: Array, expected: Array, context: Context | None = None) -> str:
    """Return in a few words what turned ``expected`` into ``found``, or "" where nothing fits.

    The arrays may have different shapes. At most the best guess is returned: the first rule that holds.
    """
    context = context or Context()
    found, expected = np.asarray(found), np.asarray(expected)
    with np.errstate(all="ignore"):
        if found.shape != expected.shape:
            return _wrong_shape(found, expected, context)
        return next(_reasons(found, expected, context), "")


def _wrong_shape(found: Array, expected: Array, context: Context) -> str:
    batch = context.sizes.get("the batch size")
    for perm in _permutations(found.shape, expected.shape):
        if _same(found.transpose(perm), expected):
            return _permuted(perm)
    if found.ndim > expected.ndim:
        for axes in itertools.combinations(range(found.ndim), found.ndim - expected.ndim):
            if found.sum(axes).shape != expected.shape:
                continue
            over = "the batch" if axes == (0,) and found.shape[0] == batch else f"axis {_join(axes)}"
            if _same(found.sum(axes), expected):
                return f"right, if it were summed over {over}: a value used several times gets all gradients"
            if _same(found.mean(axes), expected):
                return f"right, if it were averaged over {over}"
    kept = tuple(
        axis for axis in range(found.ndim) if found.ndim == expected.ndim and expected.shape[axis] == 1
    )
    if kept and found.sum(kept, keepdims=True).shape == expected.shape:
        over = "the batch" if kept == (0,) and found.shape[0] == batch else f"axis {_join(kept)}"
        if _same(found.sum(kept, keepdims=True), expected):
            return f"right, if it were summed over {over}: a value used several times gets all gradients"
    if found.size == expected.size and _same(found.reshape(expected.shape), expected):
        return f"right, but of shape {found.shape} where {expected.shape} is expected"
    if found.size == 1 and _same(found.reshape(()), expected.sum()):
        return "summed over everything"
    for perm in _permutations(found.shape, expected.shape):
        return _permuted(perm) + " (by its shape; the values differ, too)"
    return ""


def _reasons(found: Array, expected: Array, context: Context) -> Iterator[str]:
    """Give each explanation of one wrong tensor of the right shape, the surest first."""
    finite = np.isfinite(found)
    if not finite.all() and np.isfinite(expected).all():
        kind = "NaN" if np.isnan(found).any() else "infinite"
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        count = np.count_nonzero(~finite)
        yield f"{count:,} of {found.size:,} elements are {kind}, the first at {list(first)}"
        return
    if not found.any():
        yield "all zeros: it is never computed, or masked away"
        return
    if not expected.any():
        yield "should be all zeros"
        return
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    if difference < _SAME:
        yield from _nearly(found, expected, difference)
        return
    yield from _factor(found, expected, context)
    yield from _rearranged(found, expected)
    yield from _mistaken(found, context)
    yield from _some_elements(found, expected, context)
    yield from _factor_per_index(found, expected)
    yield from _shifted(found, expected)


def _nearly(found: Array, expected: Array, difference: float) -> Iterator[str]:
    """Right to six digits: a factor of nearly 1, or digits lost."""
    ratio = float(
        (found / np.abs(expected).max() * expected).sum()
        / (expected / np.abs(expected).max() * expected).sum()
    )
    if np.abs(found - ratio * expected).max() <= 1e-3 * np.abs(found - expected).max():
        yield f"a constant factor of 1 {'+' if ratio > 1 else '-'} {abs(ratio - 1):.3g}"
    if expected.dtype.itemsize > 4 and difference > 1e-10:
        yield "as exact as float32: somewhere the numbers pass through float32"
    yield f"right to {-np.log10(difference):.0f} digits: another eps, or digits lost in rounding"


def _factor(found: Array, expected: Array, context: Context) -> Iterator[str]:
    ratio = _ratio(found, expected)
    if ratio is None:
        return
    sign = "-" if ratio < 0 else ""
    size = abs(ratio)
    names = {words: value for words, value in context.sizes.items() if value not in (0, 1)}
    if sign and _close(size, 1):
        yield "the sign is turned (a factor of -1)"
    minus = ", and the sign is turned" if sign else ""
    for words, value in names.items():
        if _close(size, value):
            yield f"{value:g} times too large: not divided by {words}, or multiplied by it twice{minus}"
        if _close(size, 1 / value):
            yield f"{value:g} times too small: divided by {words} once too often{minus}"
        if _close(size, value**2):
            yield f"{value:g}² times too large: {words} is multiplied by twice{minus}"
        if _close(size, 1 / value**2):
            yield f"{value:g}² times too small: divided by {words} twice too often{minus}"
    for value, text in ((2, "2"), (0.5, "1/2"), (4, "4"), (0.25, "1/4")):
        if _close(size, value):
            yield f"a factor of {sign}{text}"
    yield f"a constant factor of {ratio:.6g}"


def _rearranged(found: Array, expected: Array) -> Iterator[str]:
    for perm in _permutations(found.shape, expected.shape):
        moved = found.transpose(perm)
        if _same(moved, expected):
            yield _permuted(perm)
        elif (ratio := _ratio(moved, expected)) is not None:
            yield f"{_permuted(perm)}, and a factor of {ratio:.6g}"
    axes = [axis for axis in range(min(found.ndim, 5)) if found.shape[axis] > 1]
    for count in range(1, len(axes) + 1):
        for some in itertools.combinations(axes, count):
            if _same(np.flip(found, some), expected):
                yield f"reversed along axis {_join(some)}"
    if found.ndim and found.size < 10**6 and _same(np.sort(found, None), np.sort(expected, None)):
        yield "the right values in the wrong places"


def _mistaken(found: Array, context: Context) -> Iterator[str]:
    for words, other in context.relatives.items():
        if not other.any():
            continue
        if other.shape == found.shape and _same(found, other):
            yield f"it is {words} itself"
        if other.ndim and len(other) > 1 and other[0].size == found.size and other.shape != found.shape:
            for row, name in ((0, "first"), (-1, "last")):
                if _same(found.reshape(other[row].shape), other[row]):
                    yield f"it is the {name} row of {words} alone: a sum over the batch is missing"


def _some_elements(found: Array, expected: Array, context: Context) -> Iterator[str]:
    wrong = np.abs(found - expected) > _SAME * np.abs(expected).max()
    count = int(np.count_nonzero(wrong))
    if not count or count == found.size:
        return
    for words, other in context.relatives.items():
        if other.shape != found.shape or words == "the upstream gradient":
            continue
        for mask, where in (
            (other == 0, f"is exactly 0: a kink or a tie, where a choice must be made ({count:,} elements)"),
            (other < 0, "is negative"),
            (other > 0, "is positive"),
            (other <= 0, "is not positive"),
            (other >= 0, "is not negative"),
        ):
            if not (wrong & ~mask).any() and count > np.count_nonzero(mask) / 2:
                yield f"wrong only where {words} {where}"
    for axis in range(found.ndim):
        others = tuple(other for other in range(found.ndim) if other != axis)
        hit = np.flatnonzero(wrong.any(others))
        if len(hit) <= max(1, found.shape[axis] // 4) and found.shape[axis] > 2:
            what = {(2, 0): "row", (2, 1): "column"}.get((found.ndim, axis), f"index of axis {axis}:")
            yield f"wrong only in {what} {_join(hit[:5])}{', ...' if len(hit) > 5 else ''}"
    if count <= found.size // 2:
        first = [int(i) for i in np.argwhere(wrong)[0]]
        yield f"wrong in {count:,} of {found.size:,} elements, the first at {first}"


def _factor_per_index(found: Array, expected: Array) -> Iterator[str]:
    for axis in range(found.ndim):
        if found.shape[axis] < 2 or found.size == found.shape[axis]:
            continue
        others = tuple(other for other in range(found.ndim) if other != axis)
        ratio = (found * expected).sum(others, keepdims=True) / (expected**2).sum(others, keepdims=True)
        if np.isfinite(ratio).all() and _same(found, ratio * expected):
            yield f"each index of axis {axis} has its own factor, from {ratio.min():.4g} to {ratio.max():.4g}"


def _shifted(found: Array, expected: Array) -> Iterator[str]:
    """The difference is the same all along an axis, as when a mean's path is forgotten."""
    difference = found - expected
    for axis in range(found.ndim):
        mean = difference.mean(axis, keepdims=True)
        if found.shape[axis] > 2 and np.abs(difference - mean).max() <= 1e-6 * np.abs(difference).max():
            yield f"off by an amount that is the same along axis {axis}: a sum or mean over it is missing"


def _permutations(shape: tuple[int, ...], target: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Give each order of axes, other than the one there is, that brings ``shape`` to ``target``."""
    if len(shape) != len(target) or len(shape) > 5:
        return
    for perm in itertools.permutations(range(len(shape))):
        if perm != tuple(range(len(shape))) and tuple(shape[axis] for axis in perm) == target:
            yield perm


def _permuted(perm: tuple[int, ...]) -> str:
    return "transposed" if len(perm) == 2 else f"its axes are permuted: right after transpose{perm}"


def _ratio(found: Array, expected: Array) -> float | None:
    """Return r when ``found = r expected``, else None."""
    scale = np.abs(expected).max()
    if not scale > 0:
        return None
    unit = expected / scale
    ratio = float((found * unit).sum() / (unit * unit).sum() / scale)
    return ratio if ratio and np.isfinite(ratio) and _same(found, ratio * expected) else None


def _same(a: Array, b: Array) -> bool:
    return bool(np.abs(a - b).max(initial=0) <= _SAME * np.abs(b).max(initial=0))


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= _SAME * abs(b)


def _join(numbers: Any) -> str:
    words = [str(int(number)) for number in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
