"""Which bits of two runs differ, where first, and whether a near-tie in rounding explains it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class BitDifference:
    """One element in which the engines differ."""

    step: int  # the first step is 1
    tensor: str
    index: tuple[int, ...]
    reference: float
    autograd: float
    cause: str

    def __str__(self) -> str:
        where = f"{self.tensor}[{', '.join(map(str, self.index))}]"
        return f"step {self.step}, {where}: {self.reference!r} and {self.autograd!r}; {self.cause}"


@dataclass
class ExactReport:
    """How many float32 numbers of two trainings differ in any bit.

    ``differing`` has a dict for each step: the tensors that differ there, and in how many elements.
    ``elements`` is how many were compared in all. ``first`` is the first difference in the order of
    computation, so that everything it was computed from is the same in both engines.
    """

    elements: int = 0
    differing: list[dict[str, int]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    first: BitDifference | None = None

    @property
    def steps(self) -> int:
        """The number of steps compared."""
        return len(self.differing)

    @property
    def identical(self) -> bool:
        """Whether no bit differed at any step."""
        return self.first is None

    @property
    def agrees(self) -> bool:
        """Whether no bit differed, by the name that all reports have."""
        return self.identical

    @property
    def total(self) -> int:
        """How many elements differed, summed over tensors and steps."""
        return sum(sum(counts.values()) for counts in self.differing)

    def __str__(self) -> str:
        head = f"{self.steps} steps, {self.elements} elements compared, {self.total} differ"
        return head if self.identical else f"{head}, in {sum(map(bool, self.differing))} steps; {self.first}"

    def add(self, ours: Mapping[str, Any], theirs: Mapping[str, Any], unrounded: Mapping[str, Any]) -> None:
        """Compare the tensors of one step, float32 arrays by name, ``ours`` in the order of computation.

        ``unrounded`` has the float64 value of those that are reductions. Raises ValueError if shapes differ.
        """
        counts: dict[str, int] = {}
        for name, a in ours.items():
            b = theirs[name]
            if a.shape != b.shape:
                raise ValueError(f"{name}: the reference's shape is {a.shape}, autograd's {b.shape}")
            differs = a.view(np.uint32) != b.view(np.uint32)
            self.elements += a.size
            if differs.any():
                counts[name] = int(differs.sum())
                if self.first is None:
                    index = tuple(int(i) for i in np.unravel_index(differs.argmax(), a.shape))
                    cause = explain(a[index], b[index], unrounded.get(name), index)
                    values = float(a[index]), float(b[index])
                    self.first = BitDifference(self.steps + 1, name, index, *values, cause)
        self.differing.append(counts)
        self.losses.append(float(ours["loss"]))


def explain(a: np.float32, b: np.float32, unrounded: np.ndarray | None, index: tuple[int, ...]) -> str:
    """Say whether two results differ because the float64 sum behind ``a`` was a near-tie.

    It is one if the sum is within 64 float64 ulps of the midpoint of a and b: then the last bits of float64,
    in which the order of summation shows, decide where it is rounded to. The ulp is that of the tensor's
    largest value, because a sum that cancels keeps the rounding errors of its large terms.
    """
    if unrounded is None:
        return "not a near-tie: nothing is summed here"
    away = abs(float(unrounded[index]) - (float(a) + float(b)) / 2)
    ulps = away / np.spacing(np.abs(unrounded).max())
    kind = "a near-tie" if ulps <= 64 else "not a near-tie"
    return f"{kind}: the float64 sum is {ulps:.2g} float64 ulps of the tensor's maximum from the midpoint"
