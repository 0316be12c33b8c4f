"""Does a hand-written backward agree with autograd? For anybody's layer, loss or network.

`compare` returns a report, `assert_gradients_agree` is the same for a test suite. Both sides get the same
numbers in the same precision, each tensor is measured by its largest difference over its largest value, and
everything is tried twice: with the values given, and with drawn ones (`agreement.probes` says why).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agreement import probes
from agreement.autograd import Autograd, AutogradFailed
from agreement.causes import Context, likely_cause
from agreement.inputs import parse_inputs
from agreement.limits import Limit, conditioned_limits
from agreement.measures import TensorAgreement, compare_tensors, error_against, unit_roundoff
from agreement.own import CannotRun, Functions, Object, OwnCode, Pass, Reference, wrap
from agreement.report import Report

Array = npt.NDArray[Any]

# A parameter of theirs is looked for among ours under its own name, then under what else people call it.
_ALIASES = {
    "weight": ("W", "w", "weights", "Weight", "kernel", "kernels", "filters", "gamma", "scale"),
    "bias": ("b", "B", "biases", "Bias", "beta", "shift", "offset"),
}


class GradientsDisagree(AssertionError):
    """What `assert_gradients_agree` raises; ``report`` holds all that was found."""

    def __init__(self, report: Report):
        super().__init__(f"\n{report}")
        self.report = report


@dataclass(frozen=True)
class _Link:
    """A parameter of ours and one of theirs, and how ours is laid out: same, transposed or reshaped."""

    own: str
    theirs: str
    layout: str
    shape: tuple[int, ...]
    their_shape: tuple[int, ...]

    def to_own(self, array: Array) -> Array:
        """Bring an array from PyTorch's layout to ours."""
        return array.T if self.layout == "transposed" else array.reshape(self.shape)

    def to_theirs(self, array: Array) -> Array:
        """Bring an array from our layout to PyTorch's."""
        return array.T if self.layout == "transposed" else array.reshape(self.their_shape)


@dataclass(frozen=True)
class _Probe:
    """One set of numbers: inputs, and parameters in PyTorch's layout by PyTorch's names."""

    label: str
    inputs: tuple[Array, ...]
    parameters: Mapping[str, Array]
    seed: tuple[int, ...]


def compare(
    reference: Any,
    autograd: Any,
    inputs: Any,
    *,
    dtype: npt.DTypeLike = np.float64,
    loss: float = 1.0,
    seed: int = 0,
    parameters: Mapping[str, str] | None = None,
    gradients: Any = None,
    drawn: bool = True,
) -> Report:
    """Compare outputs and gradients of hand-written code with those of autograd.

    ``reference`` is an object with ``forward`` and ``backward`` (of ``nn_reference`` or your own) or a pair
    of functions ``(forward, backward)``; `agreement.own` says what is understood. ``autograd`` is a
    ``torch.nn.Module`` or a function of tensors; it is given the inputs and then the reference's parameters.
    Neither is changed: copies are used.

    ``inputs`` is an array or a shape such as ``(4, 7)``, or a list of these for several inputs; arrays of
    integers (labels) have no gradient. ``dtype`` is float64 or float32; ``loss`` loosens the limit of
    float32 to u (16 + 1/loss). ``parameters`` maps PyTorch's names to yours where they are not found by
    themselves (``{"weight": "W"}``), ``gradients`` yours to where their gradients are (``{"W": "dW"}``), or
    for functions lists the arguments in the order in which backward returns their gradients.
    With ``drawn=False`` only the values given are used, and mistakes that these hide stay hidden.

    Returns a `Report`; what is wrong is in it, including exceptions of the code under test. Raises TypeError
    for arguments that are none of the above, ValueError where parameters have no counterpart.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.float64, np.float32):
        raise TypeError(f"dtype is {dtype}, expected float64 or float32")
    own, theirs = wrap(reference, gradients), Autograd(autograd)
    return _Comparison(own, theirs, dtype, loss, seed).run(parse_inputs(inputs), parameters or {}, drawn)


def assert_gradients_agree(reference: Any, autograd: Any, inputs: Any, **options: Any) -> None:
    """Raise `GradientsDisagree`, an AssertionError, unless `compare` finds agreement.

    The message says which tensor and which element, both values, what probably went wrong, and how to repeat
    it. The options are those of `compare`.
    """
    report = compare(reference, autograd, inputs, **options)
    if not report.agrees:
        raise GradientsDisagree(report)


class _Comparison:
    """One run of `compare`; the rows are gathered over its probes."""

    def __init__(self, own: OwnCode, theirs: Autograd, dtype: np.dtype[Any], loss: float, seed: int):
        self.own, self.theirs, self.dtype, self.loss, self.seed = own, theirs, dtype, loss, seed
        self.report = Report("", names=("yours", "autograd"))
        self.worst: dict[str, tuple[float, TensorAgreement, str]] = {}
        self.links: list[_Link] = []

    def run(self, inputs: list[Array | tuple[int, ...]], mapping: Mapping[str, str], drawn: bool) -> Report:
        report, shapes = self.report, ""
        if isinstance(self.own, Reference):
            self.theirs.take_buffers(dict(self.own.module.named_buffers()))
            report.names = ("reference", "autograd")
        try:
            first = self._first_probe(inputs, mapping)
            shapes = ", inputs " + ", ".join("x".join(map(str, i.shape)) or "scalar" for i in first.inputs)
            self._check(first)
            if drawn and (second := self._drawn_probe(first, inputs)) is not None:
                self._check(second)
                self._check_sequence(first, second)
        except (CannotRun, AutogradFailed) as error:
            self._problem(str(error))
        report.rows = [row for _, row, _ in self.worst.values()]
        report.remarks.update({row.name: remark for _, row, remark in self.worst.values() if remark})
        report.title = f"{report.names[0].capitalize()} against autograd in {self.dtype}{shapes}"
        if any(row.name == "output" for row in report.wrong):
            report.notes.append("the outputs differ: mend forward first, the gradients follow from it")
        given = ", ".join(f"array {i.shape}" if isinstance(i, np.ndarray) else str(i) for i in inputs)
        report.repeat = (
            f"agreement.compare(..., [{given}], dtype={str(self.dtype)!r}, seed={self.seed}); "
            "the values drawn follow from the seed alone"
        )
        return report

    def _problem(self, text: str) -> None:
        if text not in self.report.problems:
            self.report.problems.append(text)

    # -- probes -----------------------------------------------------------------------------------------

    def _first_probe(self, inputs: list[Array | tuple[int, ...]], mapping: Mapping[str, str]) -> _Probe:
        """The values given; what is only a shape is drawn, from a domain in which autograd gives numbers."""
        own, theirs = self.own, self.theirs
        names = own.input_names(len(inputs))
        if isinstance(own, Functions) and theirs.is_module:
            self._lay_out(own, inputs)
        if theirs.is_module:
            self.links = list(_link(own.parameters, theirs.parameters, mapping))
            if isinstance(own, Object):
                self._leave_out(own)
        else:
            given = [(name, own.parameters[name]) for name in (mapping.values() or own.parameters)]
            self.links = [_Link(name, name, "same", value.shape, value.shape) for name, value in given]
        values = {link.theirs: link.to_theirs(own.parameters[link.own]) for link in self.links}
        for domain in ("any", "positive", "unit"):
            rng = np.random.default_rng([self.seed, 0])
            arrays = tuple(
                self._cast(probes.draw(i, rng, domain) if isinstance(i, tuple) else i) for i in inputs
            )
            probe = _Probe("given", arrays, values, (self.seed, 0))
            y, grads, _ = self._autograd(probe, self.dtype)
            if all(np.isfinite(a).all() for a in (y, *grads) if a is not None):
                break
        self.names = names
        return self._decide_layouts(probe)

    def _lay_out(self, own: Functions, inputs: list[Array | tuple[int, ...]]) -> None:
        """Give functions PyTorch's parameters, with matrices transposed if forward fails on PyTorch's."""
        values = self.theirs.parameters
        arguments = own.input_names(len(inputs) + len(values))[len(inputs) :]
        rng = np.random.default_rng([self.seed, 0])
        arrays = [self._cast(probes.draw(i, rng) if isinstance(i, tuple) else i) for i in inputs]
        for transposed in (False, True, None):
            given = {
                name: self._cast(array.T if transposed and array.ndim == 2 else array)
                for name, array in zip(arguments, values.values(), strict=True)
            }
            own.set_parameters(given)
            trial = own.fresh()
            trial.set_parameters(given)
            try:
                trial.run(arrays, probes.upstream((self.seed, 0), self.dtype))
                break
            except CannotRun as error:
                if not str(error).startswith("forward"):
                    break

    def _leave_out(self, own: Object) -> None:
        """Forget arrays that have no counterpart: buffers, moments, or a bias that PyTorch's has not."""
        names = [link.own for link in self.links]
        if rest := [name for name in own.parameters if name not in names]:
            self.report.notes.append(
                f"not compared, for the autograd model has no such parameter: {', '.join(rest)}"
            )
        own.keep(names)

    def _decide_layouts(self, probe: _Probe) -> _Probe:
        """Square weights may be PyTorch's or transposed: what forward makes of random ones tells."""
        square = [i for i, link in enumerate(self.links) if link.layout == "same or transposed"]
        if not square:
            return probe
        rng = np.random.default_rng([self.seed, 5])
        asked = replace(
            probe,
            inputs=tuple(
                i if i.dtype.kind != "f" else self._cast(rng.normal(size=i.shape)) for i in probe.inputs
            ),
            parameters={
                name: self._cast(rng.uniform(0.5, 1.5, v.shape)) for name, v in probe.parameters.items()
            },
        )
        expected = self._autograd(asked, self.dtype)[0]
        errors = {}
        for layout in ("same", "transposed"):
            for i in square:
                self.links[i] = replace(self.links[i], layout=layout)
            try:
                found = self._own(asked, self._fresh()).output
                errors[layout] = error_against(expected, found) if found.shape == expected.shape else np.inf
            except CannotRun:
                errors[layout] = np.inf
        best = min(errors, key=lambda layout: np.nan_to_num(errors[layout], nan=np.inf))
        given = {link.theirs: self.own.parameters[link.own] for link in self.links}
        for i in square:
            self.links[i] = replace(self.links[i], layout=best)
        values = {link.theirs: link.to_theirs(given[link.theirs]) for link in self.links}
        return replace(probe, parameters=values)

    def _drawn_probe(self, first: _Probe, inputs: list[Array | tuple[int, ...]]) -> _Probe | None:
        """Other inputs and parameters, and a larger batch where there is one of 1 and autograd takes it."""
        rng = np.random.default_rng([self.seed, 2])
        values = {name: self._cast(probes.draw_like(value, rng)) for name, value in first.parameters.items()}
        batch = probes.LEAST_BATCH
        single = [i for i, a in enumerate(first.inputs) if a.ndim and len(a) == 1]
        for larger in (single, single[:1], []) if single else ([],):
            label = f"a batch of {batch}, for one of 1 hides mistakes" if larger else "drawn values"
            drawn = tuple(
                self._cast(probes.resample(a, rng, batch if i in larger else None))
                for i, a in enumerate(first.inputs)
            )
            probe = _Probe(label, drawn, values, (self.seed, 2))
            try:
                y, grads, of_parameters = self._autograd(probe, self.dtype)
            except AutogradFailed:
                continue
            if all(np.isfinite(a).all() for a in (y, *grads, *of_parameters.values()) if a is not None):
                return probe
        self.report.notes.append("autograd gives no numbers for drawn values: only those given were tried")
        return None

    def _cast(self, array: Array) -> Array:
        array = np.asarray(array)
        return np.array(array, self.dtype) if array.dtype.kind == "f" else array.copy()

    # -- one probe --------------------------------------------------------------------------------------

    def _autograd(
        self, probe: _Probe, dtype: npt.DTypeLike
    ) -> tuple[Array, list[Array | None], dict[str, Array]]:
        return self.theirs.run(probe.inputs, probe.parameters, probes.upstream(probe.seed, self.dtype), dtype)

    def _fresh(self) -> OwnCode:
        return self.own.fresh()

    def _own(self, probe: _Probe, code: OwnCode) -> Pass:
        code.set_parameters(
            {link.own: self._cast(link.to_own(probe.parameters[link.theirs])) for link in self.links}
        )
        return code.run(probe.inputs, probes.upstream(probe.seed, self.dtype))

    def _expected(self, probe: _Probe, dtype: npt.DTypeLike) -> dict[str, Array]:
        """Autograd's output and gradients under our names and in our layout."""
        y, of_inputs, of_parameters = self._autograd(probe, dtype)
        result = {"output": y}
        with_gradient = 1 if self.own.one_input else len(of_inputs)
        for name, grad in list(zip(self.names, of_inputs, strict=True))[:with_gradient]:
            if grad is not None:
                result[f"d/d{name}"] = grad
        for link in self.links:
            result[f"d/d{link.own}"] = link.to_own(of_parameters[link.theirs])
        return result

    def _check(self, probe: _Probe) -> None:
        """Compare every tensor of one probe."""
        expected = self._expected(probe, self.dtype)
        found = self._own(probe, self._fresh())
        for problem in found.problems:
            self._problem(problem)
        self.report.notes += [note for note in found.notes if note not in self.report.notes]
        again = self._own(probe, self._fresh())
        if not _same_bits(found, again):
            self._problem(
                "two runs on the same inputs differ: fix the seed of what is random, or turn it off"
            )
            return
        truth = self._truth(probe)
        limits = self._limits(probe, expected)
        context = self._context(probe, found.output)
        for name, value in expected.items():
            if name == "output":
                got: Array | None = found.output
            else:
                got = found.gradients.get(name.removeprefix("d/d"))
            if got is None:
                self._problem(
                    f"no gradient of {name.removeprefix('d/d')} was found: {self._looked_for(name)}"
                )
                continue
            if got.shape != value.shape:
                cause = likely_cause(got, value, context)
                self._problem(
                    f"{name} has shape {got.shape}, expected {value.shape}" + (f": {cause}" if cause else "")
                )
                continue
            if got.dtype != self.dtype:
                self._problem(f"{name} is {got.dtype}, expected {self.dtype} as the inputs are")
            row = limits[name].apply(compare_tensors(name, got, value, truth=truth.get(name)))
            remark = limits[name].reason
            if undecided := limits[name].undecided(row):
                self._problem(undecided)
            if not row.agrees:
                remark = likely_cause(got, value, context) or "no simple one"
                remark += f"; seen with {probe.label}" if probe.label != "given" else ""
            severity = np.inf if np.isnan(row.error) else row.error / row.limit
            if name not in self.worst or severity > self.worst[name][0]:
                self.worst[name] = (severity, row, remark)
        unknown = [name for name in found.gradients if f"d/d{name}" not in expected]
        unknown = [name for name in unknown if name not in self.names]
        if unknown:
            self._problem(
                f"backward gives a gradient of {', '.join(unknown)}, which is not among the arguments"
            )

    def _looked_for(self, name: str) -> str:
        name = name.removeprefix("d/d")
        if name in self.names or isinstance(self.own, Functions):
            return "backward does not return it"
        places = f"there is no d{name}, grad_{name} or grads"
        return f"backward does not return it, and {places}; say gradients={{...}}"

    def _truth(self, probe: _Probe) -> dict[str, Array]:
        """The same in a higher precision: autograd in float64 for float32, our engine in longdouble."""
        if isinstance(self.own, Reference) and self.dtype == np.float64:
            code = self._fresh()
            assert isinstance(code, Reference)
            code.module.to(np.longdouble)
            code.set_parameters(
                {link.own: probe.parameters[link.theirs].astype(np.longdouble) for link in self.links}
            )
            inputs = [i.astype(np.longdouble) if i.dtype.kind == "f" else i for i in probe.inputs]
            wide = probes.upstream(probe.seed, self.dtype)
            try:
                exact = code.run(inputs, lambda shape: wide(shape).astype(np.longdouble))
            except CannotRun:
                return {}
            return {"output": exact.output, **{f"d/d{name}": grad for name, grad in exact.gradients.items()}}
        return self._expected(probe, np.float64) if self.dtype == np.float32 else {}

    def _limits(self, probe: _Probe, expected: Mapping[str, Array]) -> dict[str, Limit]:
        """Return the limit of each tensor, with a control one ulp away."""
        moved = []
        for salt in (1, 2):
            control = replace(
                probe,
                inputs=tuple(probes.one_ulp_away(i, salt) for i in probe.inputs),
                parameters={
                    name: probes.one_ulp_away(self._cast(v), salt) for name, v in probe.parameters.items()
                },
            )
            moved.append(self._expected(control, self.dtype))
        other = self._expected(probe, np.float64 if self.dtype == np.float32 else np.float32)
        return conditioned_limits(expected, moved, self.dtype, self.loss, other=other)

    def _context(self, probe: _Probe, output: Array) -> Context:
        """What a wrong gradient may have to do with."""
        first = probe.inputs[0]
        sizes: dict[str, float] = {}
        if first.ndim:
            sizes["the batch size"] = len(first)
        if output.ndim > 1:
            sizes["the number of outputs per example"] = output.size // max(len(output), 1)
        sizes["the number of elements of the output"] = output.size
        sizes["the number of elements of the input"] = first.size
        relatives = {"the upstream gradient": probes.upstream(probe.seed, self.dtype)(output.shape)}
        relatives |= {
            name: i for name, i in zip(self.names, probe.inputs, strict=True) if i.dtype.kind == "f"
        }
        relatives["the output"] = output
        relatives |= {link.own: link.to_own(probe.parameters[link.theirs]) for link in self.links}
        return Context(sizes, relatives)

    # -- more than one call -----------------------------------------------------------------------------

    def _check_sequence(self, first: _Probe, second: _Probe) -> None:
        """Two calls in a row on one object: the second must be that of a fresh object, or be added up."""
        if self.report.problems:
            return
        code = self._fresh()
        alone = [self._own(probe, self._fresh()) for probe in (first, second)]
        self._own(first, code)
        then = self._own(second, code)
        for name in (*self.names, *(link.own for link in self.links)):
            if name not in then.gradients or name not in alone[1].gradients:
                continue
            got, expected = then.gradients[name], alone[1].gradients[name]
            summed = (
                alone[0].gradients[name] + expected
                if alone[0].gradients[name].shape == expected.shape
                else None
            )
            is_parameter = name not in self.names
            if _close(got, expected, self.dtype) or (
                is_parameter and summed is not None and _close(got, summed, self.dtype)
            ):
                continue
            may = " nor the sum of both" if is_parameter else ""
            self._problem(
                f"d/d{name} of a second forward and backward is not that of a fresh object{may}: "
                "something of the first call is still used (a stale cache?)"
            )
        if not _close(then.output, alone[1].output, self.dtype):
            self._problem("the output of a second forward is not that of a fresh object: something is kept")


def _link(
    own: Mapping[str, Array], theirs: Mapping[str, Array], mapping: Mapping[str, str]
) -> Iterator[_Link]:
    """Find for each parameter of PyTorch's the one of ours."""
    for key, name in mapping.items():
        if key not in theirs or name not in own:
            wrong, there = (key, theirs) if key not in theirs else (name, own)
            raise ValueError(f"parameters: there is no {wrong!r}; known: {', '.join(there) or 'none'}")
    left = [name for name in own if name not in mapping.values()]
    pairs: dict[str, str] = dict(mapping)
    for find in (_by_name, _by_alias, _by_order):
        for name, value in theirs.items():
            if name not in pairs and (match := find(name, value, left, own)):
                pairs[name] = match
                left.remove(match)
    for name, value in theirs.items():
        if name not in pairs:
            known = ", ".join(f"{key} {array.shape}" for key, array in own.items()) or "no arrays"
            raise ValueError(
                f"the autograd model's {name} {value.shape} has no counterpart in your code, "
                f"which has {known}: say parameters={{{name!r}: ...}}"
            )
        shape = own[pairs[name]].shape
        layout = _layout(shape, value.shape)
        if not layout:
            raise ValueError(
                f"your {pairs[name]} has shape {shape}, the autograd model's {name} {value.shape}"
            )
        yield _Link(pairs[name], name, layout, shape, value.shape)


def _by_name(name: str, value: Array, left: Sequence[str], own: Mapping[str, Array]) -> str | None:
    return name if name in left else None


def _by_alias(name: str, value: Array, left: Sequence[str], own: Mapping[str, Array]) -> str | None:
    prefix, _, last = name.rpartition(".")
    for alias in _ALIASES.get(last, ()):
        for candidate in left:
            if candidate == (f"{prefix}.{alias}" if prefix else alias) or (
                not prefix and candidate.rpartition(".")[2] == alias
            ):
                return candidate if _layout(own[candidate].shape, value.shape) else None
    return None


def _by_order(name: str, value: Array, left: Sequence[str], own: Mapping[str, Array]) -> str | None:
    return next((candidate for candidate in left if _layout(own[candidate].shape, value.shape)), None)


def _layout(own: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    if own == theirs:
        return "same or transposed" if len(own) == 2 and own[0] == own[1] and own[0] > 1 else "same"
    if len(own) == 2 and own == theirs[::-1]:
        return "transposed"
    return "reshaped" if [s for s in own if s != 1] == [s for s in theirs if s != 1] else ""


def _same_bits(a: Pass, b: Pass) -> bool:
    pairs = [(a.output, b.output), *((a.gradients[name], b.gradients.get(name)) for name in a.gradients)]
    return all(
        y is not None and x.shape == y.shape and np.array_equal(x, y, equal_nan=True) for x, y in pairs
    )


def _close(a: Array, b: Array, dtype: npt.DTypeLike) -> bool:
    return a.shape == b.shape and (
        np.array_equal(a, b, equal_nan=True) or error_against(b, a) <= 64 * unit_roundoff(dtype)
    )
