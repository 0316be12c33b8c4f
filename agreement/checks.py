"""The checkers: what follows from a row of the layer table without another line.

Each is a function ``(row, example) -> list of TensorAgreement``, one for the output and for every gradient,
and one more for everything that a backward must leave as it was and did not, and for every gradient that a
second backward, without the input's, does not add to. In a `TensorAgreement` "reference" is `nn_reference`;
"autograd" stands for what it is compared with, PyTorch or not.

`CHECKERS` says of each which rows it applies to and which mutants it claims to catch; `check` runs them all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from agreement.measures import (
    FLOAT64_LIMIT,
    Array,
    TensorAgreement,
    compare_tensors,
    error_against,
    unit_roundoff,
)
from agreement.mutants import Kind, Mutant
from agreement.running import (
    Outcome,
    Tensors,
    central,
    derivatives,
    disagreement,
    imaginary,
    neighbours,
    run_autograd,
    run_reference,
    true_derivatives,
)
from agreement.table.row import Accuracy, Example, Row

COMPLEX_STEP_LIMIT = 1e-13
DIFFERENCES_LIMIT = 1e-9
ONE_SIDED_LIMIT = 1e-5
LONGDOUBLE_LIMIT = 1e-13
LONG_BATCH = 3001
TINY = float(np.finfo(np.float64).tiny)


# -- comparing ------------------------------------------------------------------------------------


def compare(
    outcome: Outcome, others: Tensors, limit: float, dtype: npt.DTypeLike = np.float64
) -> list[TensorAgreement]:
    """Compare all that the others have, by largest difference over largest value.

    A missing tensor, a wrong dtype and a change in place are rows of their own, which do not agree.
    """
    rows = [
        compare_tensors(name, outcome.tensors[name], other, limit=limit)
        if name in outcome.tensors
        else disagreement(f"{name}, missing", other)
        for name, other in others.items()
    ]
    return rows + of_another_dtype(outcome, dtype) + outcome.changes


def of_another_dtype(outcome: Outcome, dtype: npt.DTypeLike) -> list[TensorAgreement]:
    """Return a row, which does not agree, for each tensor that is not of the dtype that came in."""
    return [
        disagreement(f"dtype of {name}", tensor)
        for name, tensor in outcome.tensors.items()
        if tensor.dtype != np.dtype(dtype) and tensor.dtype.kind != "i"
    ]


def compare_in_units(
    name: str, found: Array, other: Array, magnitude: Array, units: float, truth: Array | None = None
) -> TensorAgreement:
    """Compare element by element: the worst is that of the largest ``|found - other| / magnitude``.

    The limit is ``units`` times float32's unit roundoff. The row's ``largest_value`` is the magnitude there.
    """
    row = compare_tensors(name, found, other, limit=units * unit_roundoff(np.float32))
    if not found.size:
        return row
    difference = np.abs(found.astype(np.longdouble) - other)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(difference == 0, 0, difference / magnitude)
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), found.shape))
    truth = other if truth is None else truth
    return replace(
        row,
        largest_difference=float(difference[worst]),
        largest_value=max(float(magnitude[worst]), TINY),  # where 0 is due, any difference is too large
        worst=worst,
        reference_value=float(found[worst]),
        autograd_value=float(other[worst]),
        reference_error=error_against(truth, found),
    )


def magnitudes(accuracy: Accuracy, example: Example, truth: Tensors) -> Tensors:
    """Return what float32's units are relative to, for each tensor of the truth; see `Accuracy`.

    |A||B| of a product, and of all that is linear in x, in the weight and in the bias, is what the same
    operation gives for the absolute values of everything.
    """
    if accuracy.measure == "products":
        truth = run_reference(example.positive(), np.longdouble).tensors
    if accuracy.measure != "tensor":
        return {name: np.abs(tensor) for name, tensor in truth.items()}
    upstream = example.upstream_of(np.longdouble)(truth["output"].shape)
    scale = {}
    for name, tensor in truth.items():
        beside = upstream if name.startswith("grad") else tensor if name == "output" else example.inputs[0]
        scale[name] = np.full(tensor.shape, max(np.abs(tensor).max(initial=0), np.abs(beside).max(initial=0)))
    return scale


# -- the checkers ---------------------------------------------------------------------------------


def autograd(row: Row, example: Example) -> list[TensorAgreement]:
    """Compare with torch.autograd in float64: output, every gradient, and running statistics."""
    ours, theirs = run_reference(example), run_autograd(example)
    more = [disagreement(f"{name}, only ours", t) for name, t in ours.tensors.items() if name not in theirs]
    return compare(ours, theirs, FLOAT64_LIMIT) + more


def complex_step(row: Row, example: Example) -> list[TensorAgreement]:
    """Compare with the complex step in float64."""
    found = derivatives(example, np.complex128, imaginary(np.float64))
    return compare(run_reference(example), found, COMPLEX_STEP_LIMIT)


def finite_differences(row: Row, example: Example) -> list[TensorAgreement]:
    """Compare with central differences in float64, away from kinks."""
    if row.kinks is not None:
        example = example.spread_out()
    return compare(
        run_reference(example), derivatives(example, np.float64, central(2.0**-10)), DIFFERENCES_LIMIT
    )


def one_sided(row: Row, example: Example) -> list[TensorAgreement]:
    """Plant kinks, by rounding to halves, and compare with the differences on the side that the row names."""
    example = example.rounded()
    found = [
        derivatives(beside, np.float64, central(2.0**-22))
        for beside in neighbours(row, example, step=2.0**-20)
    ]
    return compare(
        run_reference(example),
        {name: np.mean([tensors[name] for tensors in found], axis=0) for name in found[0]},
        ONE_SIDED_LIMIT,
    )


def longdouble(row: Row, example: Example) -> list[TensorAgreement]:
    """Compare float64 with the truth in longdouble, and the dtypes of a run in longdouble."""
    precise = run_reference(example, np.longdouble)
    truth = precise.tensors | true_derivatives(row, example)
    rows = compare(run_reference(example), truth, LONGDOUBLE_LIMIT)
    return rows + of_another_dtype(precise, np.longdouble)


def float32(row: Row, example: Example) -> list[TensorAgreement]:
    """Compare float32 with the truth of the same float32 numbers, in the units of the row."""
    example = example.as_float32()
    precise = run_reference(example, np.longdouble).tensors
    return _float32_against(row, example, precise | true_derivatives(row, example))


def float32_sums(row: Row, example: Example) -> list[TensorAgreement]:
    """Compare float32 sums of thousands of positive numbers with the same backward in longdouble."""
    example = example.as_float32().positive()
    return _float32_against(row, example, run_reference(example, np.longdouble).tensors)


def _float32_against(row: Row, example: Example, truth: Tensors) -> list[TensorAgreement]:
    accuracy = example.float32 or row.float32
    outcome = run_reference(example, np.float32)
    scale = magnitudes(accuracy, example, truth)
    rows = [
        compare_in_units(name, tensor, truth[name], scale[name], accuracy.units)
        for name, tensor in outcome.tensors.items()
    ]
    return rows + of_another_dtype(outcome, np.float32) + outcome.changes


def float32_autograd(row: Row, example: Example) -> list[TensorAgreement]:
    """Compare with torch.autograd in float32, and both with the truth.

    Both may err, so the limit is twice the row's units; relative to the tensor's largest value but for
    products, for PyTorch cancels where we do not.
    """
    example = example.as_float32()
    truth = run_reference(example, np.longdouble).tensors | true_derivatives(row, example)
    accuracy = row.float32 if row.float32.measure == "products" else replace(row.float32, measure="tensor")
    scale = magnitudes(accuracy, example, truth)
    outcome, theirs = run_reference(example, np.float32), run_autograd(example, np.float32)
    rows = [
        replace(
            compare_in_units(name, tensor, theirs[name], scale[name], 2 * accuracy.units, truth[name]),
            autograd_error=error_against(truth[name], theirs[name]),
        )
        for name, tensor in outcome.tensors.items()
    ]
    return rows + of_another_dtype(outcome, np.float32) + outcome.changes


# -- which applies where, and what it claims ------------------------------------------------------


@dataclass(frozen=True)
class Checker:
    """A checker's function, the rows it applies to, and the mutants of these that it claims to catch."""

    run: Callable[[Row, Example], list[TensorAgreement]]
    kinds: tuple[Kind, ...]
    digits: tuple[str, ...] = ()  # of the mutants that lose digits: those that show in all of these
    applies: Callable[[Row], bool] = lambda row: True
    batch: int | None = None

    @property
    def name(self) -> str:
        """The function's name."""
        return self.run.__name__

    def claims(self, row: Row, mutant: Mutant) -> bool:
        """Whether this must report a mutant of the row."""
        if mutant.kind is Kind.PRECISION:
            return self.applies(row) and bool(self.digits) and set(self.digits) <= set(mutant.shows_in)
        return self.applies(row) and mutant.kind in self.kinds

    def __call__(self, row: Row, seed: int, *, edges: bool = False) -> list[TensorAgreement]:
        """Run on the example of a seed; a long batch has no edges."""
        return self.run(row, row.example(seed, edges=edges and self.batch is None, batch=self.batch))

    def __str__(self) -> str:
        return self.name


_GRADIENTS = (Kind.OPERATION, Kind.KINK)
CHECKERS = (
    Checker(autograd, (*_GRADIENTS, Kind.STATE), ("float64",)),
    Checker(complex_step, (Kind.OPERATION,), ("float64",), applies=lambda row: row.smooth),
    Checker(finite_differences, (Kind.OPERATION,), ("float64",)),
    Checker(one_sided, _GRADIENTS, applies=lambda row: row.kinks is not None),
    Checker(longdouble, _GRADIENTS, ("float64",)),
    Checker(float32, _GRADIENTS, ("float32",)),
    Checker(float32_sums, (), ("long batches",), applies=lambda row: row.sums, batch=LONG_BATCH),
    Checker(float32_autograd, (*_GRADIENTS, Kind.STATE), ("float32", "float64")),
)


def check(row: Row, seed: int, *, edges: bool = False) -> dict[str, list[TensorAgreement]]:
    """Run every checker that applies to a row on the example of a seed; returns their rows by name."""
    return {c.name: c(row, seed, edges=edges) for c in CHECKERS if c.applies(row)}


def effect(row: Row, mutant: Mutant, seed: int) -> dict[str, float]:
    """Return how much a mutant changes each tensor: largest change over largest right value, 0 left out.

    Changes in place and gradients that do not add up count as well. It runs in float64 where the mistake
    shows in that, else in float32 and, should it need one, on a long batch.
    """
    dtype = np.float64 if "float64" in mutant.shows_in else np.float32
    long = "float32" not in mutant.shows_in and dtype is np.float32
    example = row.example(seed, batch=LONG_BATCH if long else None)
    right = run_reference(example, dtype)
    with mutant.planted():
        wrong = run_reference(example, dtype)
    pairs = {name: (wrong.tensors[name], tensor) for name, tensor in right.tensors.items()}
    pairs |= {name: (after, before) for name, (before, after) in (wrong.kept | wrong.added).items()}
    return {
        name: error_against(before, after) if after.shape == before.shape else np.inf
        for name, (after, before) in pairs.items()
        if not np.array_equal(after, before, equal_nan=True)
    }
