"""Is a backward the derivative of its forward? Found without any other engine.

The derivative of L = sum(upstream * output) is found in one of two ways:

- the complex step, Im L(x + i h v) / h with h = 1e-20: nothing is subtracted, so it is exact to rounding, and
  a gradient of 1e-200 is as well determined as one of 1. It needs a forward that is analytic and computes in
  complex numbers. Source: Squire and Trapp (1998);
- central differences, extrapolated to h = 0 from ever smaller steps, with an estimate of their error that
  decides what can be told. Source: Ridders (1982).

Which one holds is found out by trying: a forward that drops the imaginary part (``np.abs``) gives complex
steps that differences contradict.
"""

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agreement import probes
from agreement.causes import Context, likely_cause
from agreement.inputs import parse_inputs
from agreement.measures import TensorAgreement, compare_tensors
from agreement.own import CannotRun, OwnCode, wrap
from agreement.report import Report

Array = npt.NDArray[Any]

COMPLEX_LIMIT = 1e-10
DIFFERENCE_LIMIT = 1e-6
_STEP = 1e-20
# Tensors with more elements than this are not differentiated element by element.
ALL_ELEMENTS = 100


def check_gradients(
    code: Any,
    inputs: Any,
    *,
    gradient: Callable[..., Any] | None = None,
    gradients: Any = None,
    seed: int = 0,
    directions: int = 4,
    elements: int = 24,
) -> Report:
    """Compare the gradients that ``code`` computes with the derivative of its own forward. Needs no PyTorch.

    ``code`` is an object with ``forward`` and ``backward``, a pair of functions, or a module of
    ``nn_reference``, as in `agreement.compare`; or a function that returns a number, with its ``gradient``,
    which takes the same arguments and returns an array or a tuple of arrays. ``inputs`` are arrays or shapes.
    Everything is in float64.

    What is guaranteed of each tensor: with up to 100 elements every element is checked. A larger one is
    checked along ``directions`` random directions, each of which moves all of its elements: an error e in a
    gradient g is missed with a probability below (limit |g| / |e|)^directions. Besides, ``elements`` of its
    elements are checked one by one, the largest, smallest and those at zeros among them, and the directions
    that move equal values together, so that ties stay ties.

    Where a step up and a step down give different slopes there is a kink; any gradient between the two is
    right there, and a note says so. What differences are too coarse to tell is reported as undecided.
    Returns a `Report`. Raises TypeError for arguments that are none of the above.
    """
    if gradient is not None:
        code = _scalar(code, gradient)
    elif inspect.isfunction(code):
        raise TypeError(f"found the function {code.__name__} alone, expected its gradient too: gradient=...")
    own = wrap(code, gradients)
    return _Check(own, seed, directions, elements).run(parse_inputs(inputs))


def _scalar(function: Callable[..., Any], gradient: Callable[..., Any]) -> tuple[Any, Any]:
    """Return a function and its gradient as a pair (forward, backward)."""

    def forward(*arguments: Array) -> tuple[Any, Any]:
        value = np.asarray(function(*arguments))
        if value.shape != ():
            raise CannotRun(f"the function returns an array of shape {value.shape}, expected one number")
        return value, arguments

    def backward(cache: Any, upstream: Array) -> Any:
        result = gradient(*cache)
        if result is None:
            raise CannotRun("gradient returns None")
        many = isinstance(result, tuple | list) and len(cache) > 1
        if many:
            return tuple(None if g is None else upstream * np.asarray(g) for g in result)
        return upstream * np.asarray(result)

    forward.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # for the names
    return forward, backward


@dataclass(frozen=True)
class _Slope:
    """A derivative, and how far off it may be."""

    value: float
    error: float


class _Check:
    """One run of `check_gradients`."""

    def __init__(self, own: OwnCode, seed: int, directions: int, elements: int):
        self.own, self.seed, self.directions, self.elements = own, seed, directions, elements
        self.noise: dict[str, float] = {}
        self.upstreams: dict[tuple[int, ...], Array] = {}
        self.report = Report(
            "Your backward against the derivative of your forward", names=("yours", "numerical")
        )

    def run(self, inputs: Sequence[Array | tuple[int, ...]]) -> Report:
        rng = np.random.default_rng([self.seed, 0])
        arrays = [probes.draw(i, rng) if isinstance(i, tuple) else np.array(i) for i in inputs]
        arrays = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
        self.names = self.own.input_names(len(arrays))
        given = ", ".join(f"array {i.shape}" if isinstance(i, np.ndarray) else str(i) for i in inputs)
        self.report.repeat = f"agreement.check_gradients(..., [{given}], seed={self.seed})"
        try:
            self._run(arrays, rng)
        except CannotRun as error:
            self.report.problems.append(str(error))
        return self.report

    def _run(self, arrays: list[Array], rng: np.random.Generator) -> None:
        point = dict(zip(self.names, arrays, strict=True))
        point |= {name: np.asarray(value, np.float64) for name, value in self.own.parameters.items()}
        # Away from kinks, where every direction has a derivative.
        beside = {
            name: self._jitter(value, rng) if name in self.names else value for name, value in point.items()
        }
        claimed, claimed_beside = self._claim(point), self._claim(beside)
        if claimed is None or claimed_beside is None:
            return
        names = [name for name, value in point.items() if value.dtype.kind == "f" and value.size]
        if not names:
            self._problem("nothing to differentiate: there is no input of floating-point numbers")
        names = [
            name for name in names if name in claimed or not (self.own.one_input and name in self.names[1:])
        ]
        self.complex = self._complex_works(beside, names, rng)
        how = (
            "complex step" if self.complex else "differences, for forward is not analytic in complex numbers"
        )
        self.report.title += f", by {how}"
        for name in names:
            if name not in claimed:
                self._missing(name, beside, rng)
            elif claimed[name].shape != point[name].shape:
                cause = likely_cause(claimed[name], point[name])
                words = f": {cause}" if "transposed" in cause or "permuted" in cause else ""
                self.report.problems.append(
                    f"d/d{name} has shape {claimed[name].shape}, expected {point[name].shape}" + words
                )
            else:
                self._along(name, beside, claimed_beside[name], rng)
                self._tied(name, point, claimed[name], rng)
                self._one_by_one(name, point, claimed[name], rng)
        self._forgive_zeros()

    def _jitter(self, value: Array, rng: np.random.Generator) -> Array:
        if value.dtype.kind != "f" or not value.size:
            return value
        return value + 1e-2 * _scale(value) * rng.normal(size=value.shape)

    # -- what the code claims, and what its forward does ------------------------------------------------

    def _claim(self, point: dict[str, Array]) -> dict[str, Array] | None:
        """Return the code's gradients; twice, for they must repeat."""
        passes = []
        for _ in range(2):
            code = self._at(point)
            passes.append(code.run([point[name] for name in self.names], self._upstream))
        for problem in passes[0].problems:
            self._problem(problem)
        if not np.array_equal(passes[0].output, passes[1].output, equal_nan=True):
            self._problem("two forwards on the same inputs differ: fix the seed of what is random")
            return None
        if not np.isfinite(passes[0].output).all():
            self._problem("forward gives NaN or infinity")
            return None
        return passes[0].gradients

    def _problem(self, text: str) -> None:
        if text not in self.report.problems:
            self.report.problems.append(text)

    def _at(self, point: dict[str, Array]) -> OwnCode:
        code = self.own.fresh()
        code.set_parameters({name: value for name, value in point.items() if name not in self.names})
        return code

    def _upstream(self, shape: tuple[int, ...]) -> Array:
        if shape not in self.upstreams:
            self.upstreams[shape] = probes.upstream((self.seed, 7), np.float64)(shape)
        return self.upstreams[shape]

    def _loss(self, point: dict[str, Array]) -> tuple[Any, float]:
        """Return L and the sum of the sizes of its terms."""
        code = self._at(point)
        y = np.asarray(code._call("forward", lambda: code.forward([point[n].copy() for n in self.names])))
        terms = self._upstream(y.shape) * y
        return terms.sum(), float(np.abs(terms).sum())

    # -- derivatives ------------------------------------------------------------------------------------

    def _slope(self, point: dict[str, Array], name: str, v: Array) -> _Slope:
        """Return the derivative of L as the tensor ``name`` moves along ``v``."""
        return self._complex_step(point, name, v) if self.complex else self._differences(point, name, v)

    def _complex_step(self, point: dict[str, Array], name: str, v: Array) -> _Slope:
        code_point = {**point, name: point[name] + 1j * _STEP * v}
        for other, value in point.items():  # one dtype for all, as layers want it
            if other != name and value.dtype.kind == "f":
                code_point[other] = value.astype(np.complex128)
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            value, _ = self._loss(code_point)
        return _Slope(float(np.imag(value)) / _STEP, 0.0)

    def _differences(self, point: dict[str, Array], name: str, v: Array) -> _Slope:
        """Central differences with steps 0.1, 0.025, ... of the usual size of x, extrapolated to 0."""
        h = 0.1 * _scale(point[name]) / max(float(np.abs(v).max()), 1e-300)
        best = _Slope(0.0, np.inf)
        row: list[float] = []
        for level in range(11):
            above, size = self._loss({**point, name: point[name] + h * v})
            below, _ = self._loss({**point, name: point[name] - h * v})
            floor = 4 * np.finfo(np.float64).eps * size / h
            new = [float((above - below) / (2 * h))]
            for k, old in enumerate(row[:5]):
                factor = 16.0 ** (k + 1)
                new.append((factor * new[k] - old) / (factor - 1))
                error = max(abs(new[k + 1] - new[k]), abs(new[k + 1] - old)) + floor
                if error < best.error:
                    best = _Slope(new[k + 1], error)
            row, h = new, h / 4
            if level > 4 and best.error < 1e-10 * abs(best.value):
                break
        return best

    def _sides(self, point: dict[str, Array], name: str, v: Array) -> tuple[float, float] | None:
        """Return the slopes to the left and to the right if they stay different as the step shrinks."""
        start, size = self._loss(point)
        gaps = []
        for h in (1e-4, 1e-5, 1e-6):
            h *= _scale(point[name])
            right = float((self._loss({**point, name: point[name] + h * v})[0] - start) / h)
            left = float((start - self._loss({**point, name: point[name] - h * v})[0]) / h)
            gaps.append((abs(right - left), left, right))
        noise = 8 * np.finfo(np.float64).eps * size / (1e-6 * _scale(point[name]))
        smooth = gaps[2][0] < 0.5 * gaps[0][0] or gaps[2][0] <= max(noise, 1e-4 * max(map(abs, gaps[2][1:])))
        return None if smooth else (gaps[2][1], gaps[2][2])

    def _complex_works(self, point: dict[str, Array], names: Sequence[str], rng: np.random.Generator) -> bool:
        """Tell whether complex steps agree with differences, one random direction for each tensor.

        A step of exactly 0 where differences see nothing for certain proves nothing: the imaginary part may
        have been dropped.
        """
        slopes = []
        for name in names:
            v = rng.normal(size=point[name].shape)
            try:
                step = self._complex_step(point, name, v).value
            except (CannotRun, TypeError, ValueError, np.exceptions.ComplexWarning):
                return False
            slopes.append((step, self._differences(point, name, v)))
        largest = max((abs(check.value) for _, check in slopes), default=0.0)
        return all(
            abs(step - check.value) <= 10 * check.error + 1e-6 * abs(check.value)
            and (step != 0 or check.error <= 1e-9 * largest)
            for step, check in slopes
        )

    # -- comparing --------------------------------------------------------------------------------------

    def _along(self, name: str, point: dict[str, Array], claimed: Array, rng: np.random.Generator) -> None:
        vs = [rng.normal(size=claimed.shape) for _ in range(self.directions)]
        self._row(f"d/d{name} along {len(vs)} directions", name, point, claimed, vs)

    def _tied(self, name: str, point: dict[str, Array], claimed: Array, rng: np.random.Generator) -> None:
        """Directions in which equal values move alike and zeros stay: through ties, but not through kinks."""
        values, places = np.unique(point[name], return_inverse=True)
        if len(values) == point[name].size or not values.any():
            return
        vs = [
            (rng.normal(size=values.shape) * (values != 0))[places].reshape(claimed.shape) for _ in range(2)
        ]
        self._row(f"d/d{name}, ties moved together", name, point, claimed, vs)

    def _row(
        self, label: str, name: str, point: dict[str, Array], claimed: Array, vs: Sequence[Array]
    ) -> None:
        with np.errstate(invalid="ignore", over="ignore"):  # where the gradient claimed is infinite
            found = np.array([float((claimed * v).sum()) for v in vs])
            rounding = _rounding(claimed, vs)
        slopes = [self._slope(point, name, v) for v in vs]
        expected = np.array([slope.value for slope in slopes])
        self._add(label, found, expected, max(slope.error for slope in slopes), rounding=rounding)
        self._control(point, name, vs, expected)

    def _one_by_one(
        self, name: str, point: dict[str, Array], claimed: Array, rng: np.random.Generator
    ) -> None:
        places = self._places(point[name], claimed, rng)
        found = claimed.reshape(-1)[places]
        slopes = [self._slope(point, name, _unit(claimed.shape, place)) for place in places]
        expected = np.array([slope.value for slope in slopes])
        error = max(slope.error for slope in slopes)
        tolerance = (COMPLEX_LIMIT if self.complex else DIFFERENCE_LIMIT) * np.abs(expected).max()
        kinks = []
        suspects = ~(np.abs(found - expected) <= tolerance)
        suspects[np.flatnonzero(point[name].reshape(-1)[places] == 0)[:8]] = True
        for k in np.flatnonzero(suspects):
            sides = self._sides(point, name, _unit(claimed.shape, places[k]))
            if sides is not None:
                slack = 1e-4 * max(map(abs, sides))
                kinks.append((places[k], sides))
                if min(sides) - slack <= found[k] <= max(sides) + slack:
                    expected[k] = found[k]
        label = f"d/d{name}" + ("" if len(places) == claimed.size else f", {len(places)} elements")
        context = Context(self._sizes(point), {n: point[n] for n in self.names if point[n].dtype.kind == "f"})
        row = self._add(label, found, expected, 0.0 if kinks else error)
        if not kinks:
            self._control(point, name, [_unit(claimed.shape, place) for place in places], expected)
        if row.worst is not None:
            index = np.unravel_index(places[row.worst[0]], claimed.shape)
            self._replace(replace(row, shape=claimed.shape, worst=tuple(int(i) for i in index)))
        if kinks:
            place, (left, right) = kinks[0]
            at = [int(i) for i in np.unravel_index(place, claimed.shape)]
            more = f" and {len(kinks) - 1} more" if len(kinks) > 1 else ""
            self.report.notes.append(
                f"{name} has a kink at {at}{more}: the slope is "
                f"{left:.6g} to the left and {right:.6g} to the right; what lies between is right"
            )
        if not row.agrees:
            whole = len(places) == claimed.size
            shape = claimed.shape if whole else (-1,)
            context = context if whole else Context(context.sizes)
            cause = likely_cause(found.reshape(shape), expected.reshape(shape), context)
            self.report.remarks[row.name] = cause or "no simple one"

    def _places(self, x: Array, claimed: Array, rng: np.random.Generator) -> list[int]:
        """Return the flat places to check: all of a small tensor, else a choice that has the special ones."""
        if claimed.size <= ALL_ELEMENTS:
            return list(range(claimed.size))
        size = np.abs(np.nan_to_num(claimed.reshape(-1)))
        zeros = np.flatnonzero(x.reshape(-1) == 0)[:4]
        special = [0, claimed.size - 1, int(size.argmax()), int(size.argmin()), *map(int, zeros)]
        drawn = rng.choice(claimed.size, self.elements, replace=False)
        return list(dict.fromkeys([*special, *map(int, drawn)]))

    def _sizes(self, point: dict[str, Array]) -> dict[str, float]:
        first = point[self.names[0]]
        return (
            {"the batch size": len(first), "the number of elements of the input": first.size}
            if first.ndim
            else {}
        )

    def _missing(self, name: str, point: dict[str, Array], rng: np.random.Generator) -> None:
        """A tensor without a gradient: wrong, unless the output does not depend on it."""
        slope = self._slope(point, name, rng.normal(size=point[name].shape))
        if abs(slope.value) > 8 * slope.error:
            self.report.problems.append(f"no gradient of {name} was found, and the output depends on it")

    def _add(
        self, label: str, found: Array, expected: Array, error: float, rounding: float = 0.0
    ) -> TensorAgreement:
        """Add a row; where differences are too coarse to decide it, say so."""
        row = compare_tensors(label, found, expected)
        limit = COMPLEX_LIMIT if self.complex else DIFFERENCE_LIMIT
        if np.isfinite(row.largest_value) and row.largest_value:
            limit = max(limit, 8 * error / row.largest_value, 64 * rounding / row.largest_value)
        row = replace(row, limit=float(limit))
        self.report.rows.append(row)
        return row

    def _replace(self, row: TensorAgreement) -> None:
        self.report.rows[-1] = row

    def _control(self, point: dict[str, Array], name: str, vs: Sequence[Array], expected: Array) -> None:
        """For a wrong row: keep how much rounding changes it, one ulp away and with other steps."""
        row = self.report.rows[-1]
        if row.agrees or not self.complex:
            return
        moved = {n: probes.one_ulp_away(value, 1) for n, value in point.items()}
        for length in (0.73, 1.37):
            others = np.array([self._slope(moved, name, length * v).value / length for v in vs])
            self.noise[row.name] = max(self.noise.get(row.name, 0.0), float(np.abs(others - expected).max()))

    def _forgive_zeros(self) -> None:
        """Judge the rows of which differences, or rounding, can tell nothing."""
        largest = max((row.largest_value for row in self.report.rows), default=0.0)
        for i, row in enumerate(self.report.rows):
            remains = row.largest_value <= 1e-12 * largest
            if not row.agrees and remains and self.noise.get(row.name, 0.0) > 1e-3 * row.largest_value:
                self.report.rows[i] = replace(row, limit=2.0)
                self.report.remarks[row.name] = (
                    "zero but for rounding: rounding alone changes all of its digits"
                )
            elif row.limit > 1e-2 and row.agrees:
                if row.limit * row.largest_value <= 1e-9 * largest:
                    self.report.remarks[row.name] = "zero, as far as differences can tell"
                else:
                    self.report.problems.append(
                        f"{row.name} is undecided: differences are uncertain by {row.limit:.1g} of the "
                        "largest value"
                    )


def _unit(shape: tuple[int, ...], place: int) -> Array:
    v = np.zeros(shape)
    v.flat[place] = 1.0
    return v


def _scale(x: Array) -> float:
    """Return the usual size of the elements of x; 1 for zeros."""
    return float(np.sqrt(np.mean(np.square(x)))) or 1.0


def _rounding(claimed: Array, vs: Sequence[Array]) -> float:
    """Return u times the size of what is added up in a directional derivative."""
    return float(np.finfo(np.float64).eps / 2 * max(np.sqrt(np.square(claimed * v).sum()) for v in vs))
