"""Random sizes, arguments and values that leave a mistake no place to hide."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from agreement.measures import Array

T = TypeVar("T")


class Draw:
    """Draws the parts of one example from one seed.

    Sizes are at least 2 and all different, so that no axis can be taken for another. With ``edges`` they are
    anything from 1, equal ones too, images may come without a batch, and kernels may be large: less telling,
    but correct code must get these right as well. ``batch``, if given, is the size of the first axis.
    """

    def __init__(self, seed: int, *, edges: bool = False, batch: int | None = None) -> None:
        self.seed, self.edges, self.batch = seed, edges, batch
        self.rng = np.random.default_rng(seed)
        self._taken: set[int] = set()

    def integer(self, low: int, high: int) -> int:
        """Return an integer from ``low`` to ``high``, both included."""
        return int(self.rng.integers(low, high + 1))

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self.rng.integers(len(options)))]

    def flag(self) -> bool:
        """Return True or False."""
        return self.choice((False, True))

    def size(self, low: int = 2, high: int = 6) -> int:
        """Return a size that no axis has yet (any from 1, if this draws edges)."""
        if self.edges:
            return self.integer(1, min(high, 5))
        free = [n for n in range(low, high + 10) if n not in self._taken]
        size = free[int(self.rng.integers(max(1, sum(n <= high for n in free))))]
        self._taken.add(size)
        return size

    def first(self, low: int = 2, high: int = 6) -> int:
        """Return the size of the batch."""
        return self.size(low, high) if self.batch is None else self.batch

    def shape(self, least: int = 1, most: int = 4) -> tuple[int, ...]:
        """Return the shape of an array of ``least`` to ``most`` axes; two or more unless this draws edges."""
        rank = self.integer(least if self.edges else max(2, least), most if self.batch is None else 2)
        return (self.first(), *(self.size() for _ in range(rank - 1)))

    def images(self) -> tuple[int, ...]:
        """Return a shape (N, C, H, W), or (C, H, W) when drawing edges; C is even."""
        if self.edges:
            batch = self.choice(((), (1,), (2,), (3,)))
            return (*batch, 2 * self.integer(1, 3), self.integer(3, 8), self.integer(3, 8))
        self._taken.add(channels := self.choice((2, 4)))
        return (self.first(2, 3), channels, self.size(3, 7), self.size(3, 7))

    def one_or_two(self, low: int, high: int) -> int | tuple[int, int]:
        """Return one number for both axes of an image, or one for each."""
        return self.integer(low, high) if self.flag() else (self.integer(low, high), self.integer(low, high))

    def values(self, shape: tuple[int, ...], ties: bool = True) -> Array:
        """Return normal values, half of them rounded, so that zeros and equal values are common.

        One is always 2.5, so that no result consists of rounding errors alone.
        """
        values = self.rng.normal(scale=2.0, size=shape)
        if ties:
            values = np.where(self.rng.random(shape) < 0.5, np.round(values), values)
        values.flat[self.rng.integers(values.size)] = 2.5
        return values

    def spread(self, shape: Any, low: float, high: float) -> Array:
        """Return values spread evenly between two numbers."""
        return self.rng.uniform(low, high, shape)
