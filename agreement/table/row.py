"""What the layer table is made of: a row for each operation, which draws examples of it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

import nn_reference as nn
from agreement.measures import Array
from agreement.mutants import Mutant
from agreement.table.draw import Draw


@dataclass(frozen=True)
class Accuracy:
    """How near float32 must come to the truth, in units of u = 2^-24, and why that many.

    What a unit is relative to depends on ``measure``:

    - "products": element by element |A||B|, the sum of the sizes of what was added up;
    - "element": each element itself, for operations in which nothing cancels;
    - "tensor": the largest element of the tensor or of what it was made from (for a gradient the one from
      above, for running statistics x), where a subtraction cancels.
    """

    measure: Literal["products", "element", "tensor"]
    units: float
    reason: str


PRODUCTS = Accuracy("products", 16, "sums of products: 16 u |A||B|, element by element")


@dataclass(frozen=True)
class Kinks:
    """Where an operation has a kink, and which of the derivatives around it the gradient is.

    The derivative taken at a kink is the mean of those at the neighbours ``nudge(x, step)``, which lie beside
    it: one of them for "from below", two for "the middle".
    """

    where: str
    taken: str
    nudges: tuple[Callable[[Array, float], Array], ...]


@dataclass(frozen=True)
class Example:
    """One module with its arguments drawn, in float64, and inputs for it.

    ``theirs()`` makes PyTorch's counterpart with the same state: a ``torch.nn.Module``, or a function of
    tensors. ``inputs`` are x, for a loss also the target. The gradient that comes from above is random, of a
    stream of its own (``seed``), times ``scale``, or (``absolute``) its absolute values. ``float32``, where
    given, takes the place of the row's.
    Every second example has its arrays in Fortran's order, which must make no difference.
    """

    ours: nn.Module
    theirs: Callable[[], Callable[..., Any]]
    inputs: tuple[Array, ...]
    seed: int = 0
    scale: float = 1.0
    float32: Accuracy | None = None
    absolute: bool = False

    @property
    def order(self) -> Literal["C", "F"]:
        """The order of inputs and upstream gradient in memory."""
        return "F" if self.seed % 2 else "C"

    def upstream_of(self, dtype: npt.DTypeLike) -> Callable[[tuple[int, ...]], Array]:
        """Return what gives the gradient of an output of a shape: never ones, which hide mistakes."""

        def upstream(shape: tuple[int, ...]) -> Array:
            grad = np.asarray(np.random.default_rng([self.seed, 1]).normal(scale=self.scale, size=shape))
            grad = grad.astype(np.float32).astype(dtype, order=self.order)  # the same number in every dtype
            return np.abs(grad, out=grad) if self.absolute else grad

        return upstream

    def with_inputs(self, change: Callable[[Array], Array]) -> "Example":
        """Return the example with each floating-point input changed."""
        return replace(self, inputs=tuple(a if a.dtype.kind == "i" else change(a) for a in self.inputs))

    def with_parameters(self, change: Callable[[Array], Array]) -> "Example":
        """Return the example with each parameter changed."""
        ours = copy.deepcopy(self.ours)
        for parameter in ours.parameters():
            parameter.data = change(parameter.data)
        return replace(self, ours=ours)

    def positive(self) -> "Example":
        """Return the example with the absolute values of inputs, parameters and upstream gradient."""
        return replace(self.with_inputs(np.abs).with_parameters(np.abs), absolute=True)

    def rounded(self) -> "Example":
        """Return the example with inputs rounded to halves: zeros and ties everywhere."""
        return self.with_inputs(lambda a: np.round(2 * a) / 2)

    def as_float32(self) -> "Example":
        """Return the example with all numbers rounded to float32: every dtype then starts from the same."""
        ours = copy.deepcopy(self.ours).to(np.float32).to(np.float64)
        return replace(self, ours=ours).with_inputs(lambda a: a.astype(np.float32).astype(np.float64))

    def spread_out(self) -> "Example":
        """Return the example away from kinks: no value near zero, near another, or near the target's.

        The values lie on a grid, in random order; those of the target halfway between zero and the first.
        """
        rng = np.random.default_rng([self.seed, 2])
        beside = iter((0.5, 0.25))

        def on_grid(a: Array) -> Array:
            order = rng.permutation(a.size).reshape(a.shape) - a.size // 2
            return (order + next(beside)) * (2.0 ** -np.ceil(np.log2(max(a.size, 2) / 8)))

        return self.with_inputs(on_grid)


@dataclass(frozen=True)
class Row:
    """An operation, and all that the checkers must know of it.

    ``make`` draws an example; ``arguments`` says in a few words what it varies. ``smooth``: analytic at every
    input drawn, so that the complex step holds. ``sums``: what it sums over the batch is added up in blocks,
    so that float32 is as exact for a long batch as for a short one.
    """

    name: str
    make: Callable[[Draw], Example]
    arguments: str
    float32: Accuracy
    smooth: bool = True
    kinks: Kinks | None = None
    sums: bool = False
    domain: str = "all numbers"
    mutants: tuple[Mutant, ...] = field(default=(), repr=False)

    def example(self, seed: int, *, edges: bool = False, batch: int | None = None) -> Example:
        """Draw the example of this seed, always the same; see `Draw` for ``edges`` and ``batch``."""
        return self.make(Draw(seed, edges=edges, batch=batch))

    def __str__(self) -> str:
        return self.name


def from_below(x: Array, step: float) -> Array:
    """Return x a little lower."""
    return x - x.dtype.type(step)


def from_above(x: Array, step: float) -> Array:
    """Return x a little higher."""
    return x + x.dtype.type(step)


def first_highest(x: Array, step: float) -> Array:
    """Return x with each element lowered, the more so the later it comes, so that the first of ties wins."""
    return x - x.dtype.type(step) * np.arange(x.size).reshape(x.shape)
