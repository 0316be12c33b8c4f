"""How two arrays differ, read piece by piece."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from idx.layout import AnyArray, Header
from idx.lazy import LazyArray
from idx.progress import Track

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Difference:
    """What `compare` found. If the headers differ, the elements were not compared.

    ``count`` is the number of elements that differ by a bit, ``first`` the index of the first one with its
    values in both arrays, ``largest`` the largest absolute difference (NaN if one of two is NaN).
    """

    headers: tuple[Header, Header]
    count: int = 0
    first: tuple[int, ...] | None = None
    values: tuple[float, float] | None = None
    largest: float = 0.0

    @property
    def differ(self) -> bool:
        """Whether anything differs."""
        return self.count > 0 or self.headers[0] != self.headers[1]

    def as_data(self) -> dict[str, Any]:
        """For JSON, which has no NaN and no infinity: they are strings."""
        return {
            **asdict(self),
            "values": self.values and [_for_json(value) for value in self.values],
            "largest": _for_json(self.largest),
            "headers": [{"dtype": str(header.dtype), "shape": header.shape} for header in self.headers],
            "differ": self.differ,
        }

    def __str__(self) -> str:
        one, other = self.headers
        if one != other:
            return f"different: {one} and {other}"
        if not self.count:
            return f"the same: {one}"
        assert self.values is not None
        return (
            f"different: {self.count} of {one.size} elements, the first at {list(self.first or ())} "
            f"({self.values[0]} and {self.values[1]}), by at most {self.largest}"
        )


def _for_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def compare(one: LazyArray, other: LazyArray, track: Track = iter) -> Difference:
    """Compare two files element by element, bit by bit, without taking either into memory."""
    headers = (one.header, other.header)
    if one.header != other.header:
        return Difference(headers)
    length = len(one) if one.ndim else 1
    rows = max(1, _CHUNK_BYTES // max(1, one.nbytes // max(1, length)))
    result = Difference(headers)
    for start in track(range(0, max(length, 1), rows)):
        key = slice(start, start + rows) if one.ndim else ()
        result = _add(result, np.asarray(one[key]), np.asarray(other[key]), start)
    return result


def _add(result: Difference, one: AnyArray, other: AnyArray, start: int) -> Difference:
    bits = np.dtype(f"u{one.itemsize}")
    differing = np.flatnonzero(one.reshape(-1).view(bits) != other.reshape(-1).view(bits))
    if not differing.size:
        return result
    left, right = one.reshape(-1)[differing], other.reshape(-1)[differing]
    with np.errstate(invalid="ignore"):
        largest = float(np.abs(left.astype(np.float64) - right.astype(np.float64)).max())
    first, values = result.first, result.values
    if first is None:
        place = [int(index) for index in np.unravel_index(differing[0], one.shape)]
        first = (place[0] + start, *place[1:]) if place else ()
        values = (left[0].item(), right[0].item())
    return Difference(
        result.headers,
        result.count + differing.size,
        first,
        values,
        float(np.maximum(result.largest, largest)),
    )
