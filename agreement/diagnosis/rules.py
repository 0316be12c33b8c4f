"""Mistakes that can be made in any gradient: a sign, a mean for a sum, a row left out."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agreement.diagnosis.subject import Probe, Subject, Tensors
from agreement.measures import Array


@dataclass(frozen=True)
class Rule:
    """A mistake, and what it makes of the right tensor ``name``: None where it makes nothing else of it."""

    name: str
    mistake: str
    wrong: str
    make: Callable[["Case"], Array | None]


@dataclass
class Case:
    """One tensor of one probe: what a rule may look at."""

    subject: Subject
    probe: Probe
    name: str
    right: Tensors
    before: tuple[Probe, Tensors] | None  # the probe before it that has the same shapes
    evaluate: Callable[[Probe], Tensors]

    @property
    def tensor(self) -> Array:
        """The right one."""
        return self.right[self.name]

    def with_upstream(self, upstream: Array) -> Array | None:
        """Return the tensor that another gradient from above gives."""
        if self.subject.kind != "operation":
            return None
        changed = np.asarray(upstream, self.probe.upstream.dtype).reshape(self.probe.upstream.shape)
        return self.evaluate(replace(self.probe, upstream=changed)).get(self.name)


def of(name: str, mistake: str, wrong: str) -> Callable[[Callable[[Case], Array | None]], Rule]:
    """Make a rule of a function."""
    return lambda make: Rule(name, mistake, wrong, make)


# -- a constant factor ----------------------------------------------------------------------------------

Factor = tuple[str, str, str, Callable[[Probe, Array], float]]


def _classes(probe: Probe) -> float:
    x = probe.args.get("x")
    return float(x.shape[1]) if x is not None and x.ndim > 1 else 1.0


FACTORS: list[Factor] = [
    (
        "sign turned",
        "The sign is turned: every number is minus what it should be.",
        "-1 times the gradient",
        lambda p, t: -1.0,
    ),
    (
        "a factor of 2",
        "Everything is twice as large: a factor 2 too many.",
        "2 times the gradient",
        lambda p, t: 2.0,
    ),
    (
        "a factor of 1/2",
        "Everything is half as large: a factor 2 is missing, or one of 1/2 is too many.",
        "1/2 times the gradient",
        lambda p, t: 0.5,
    ),
    (
        "divided by the batch size",
        "The gradient is divided by the size of the batch once too often: a mean where a sum belongs.",
        "the gradient / N",
        lambda p, t: 1.0 / max(p.batch, 1),
    ),
    (
        "multiplied by the batch size",
        "The gradient is as many times too large as the batch has rows: a mean was "
        "forgotten, or counted the wrong way.",
        "N times the gradient",
        lambda p, t: float(max(p.batch, 1)),
    ),
    (
        "divided by the number of columns",
        "The gradient is divided by the number of columns: a mean over what should not be averaged.",
        "the gradient / C",
        lambda p, t: 1.0 / _classes(p),
    ),
    (
        "multiplied by the number of columns",
        "The gradient is as many times too large as there are columns.",
        "C times the gradient",
        lambda p, t: _classes(p),
    ),
    (
        "the number of columns for the batch size",
        "The gradient is divided by the number of columns where it should be by that of the rows.",
        "the gradient N / C",
        lambda p, t: max(p.batch, 1) / _classes(p),
    ),
    (
        "divided by the number of outputs",
        "The gradient is divided by the number of outputs.",
        "the gradient / outputs",
        lambda p, t: 1.0 / max(p.upstream.shape[-1] if p.upstream.ndim else 1, 1),
    ),
    (
        "divided by the batch size twice",
        "The gradient is divided by the size of the batch twice too often.",
        "the gradient / N^2",
        lambda p, t: 1.0 / max(p.batch, 1) ** 2,
    ),
    (
        "divided by the number of pixels",
        "The gradient is divided by the number of pixels.",
        "the gradient / (H W)",
        lambda p, t: 1.0 / np.prod(p.upstream.shape[2:]) if p.upstream.ndim == 4 else 1.0,
    ),
    ("a factor of 4", "Everything is four times as large.", "4 times the gradient", lambda p, t: 4.0),
    (
        "the upstream gradient twice",
        "The gradient from above is multiplied in twice.",
        "grad_loss times the gradient",
        lambda p, t: float(p.upstream) if p.upstream.shape == () else 1.0,
    ),
    (
        "upstream forgotten",
        "The local derivative is returned alone; with an upstream gradient of ones nobody sees it.",
        "the gradient for grad_loss = 1",
        lambda p, t: 1.0 / float(p.upstream) if p.upstream.shape == () and p.upstream else 1.0,
    ),
]


# -- other changes of the right tensor ------------------------------------------------------------------


def _rows(case: Case, keep: Any) -> Array | None:
    """Return the gradient when only some rows of the batch are gone back through."""
    if not case.probe.upstream.ndim or case.probe.batch < 2 or len(case.probe.upstream) != case.probe.batch:
        return None
    mask = np.zeros(case.probe.upstream.shape)
    mask[keep] = 1
    return case.with_upstream(case.probe.upstream * mask)


def _columns(case: Case, keep: Any) -> Array | None:
    if case.tensor.ndim < 2:
        return None
    found = np.zeros_like(case.tensor)
    found[..., keep] = case.tensor[..., keep]
    return found


def _stale(case: Case) -> Array | None:
    if case.before is None or case.subject.kind != "operation":
        return None
    before, _ = case.before
    return case.evaluate(replace(before, upstream=case.probe.upstream)).get(case.name)


def _stale_inputs(case: Case) -> Array | None:
    if case.before is None or case.subject.kind != "operation":
        return None
    before, _ = case.before
    kept = {
        key: before.args[key] if key in ("x", "target") else value for key, value in case.probe.args.items()
    }
    return case.evaluate(replace(case.probe, args=kept)).get(case.name)


def _added(case: Case) -> Array | None:
    if case.before is None:
        return None
    return case.tensor + case.before[1][case.name]


RULES: list[Rule] = [
    of("no gradient at all", "The gradient is all zeros: it is never computed, or masked away.", "0")(
        lambda c: np.zeros_like(c.tensor)
    ),
    of(
        "upstream forgotten",
        "The local derivative is returned alone; with an upstream gradient of ones nobody sees it.",
        "the gradient for grad_y = 1",
    )(lambda c: c.with_upstream(np.ones(c.probe.upstream.shape))),
    of(
        "added for multiplied",
        "The gradient from above is added to the local derivative; along a chain the factors are multiplied.",
        "grad_y + dy/dx",
    )(
        lambda c: (
            c.probe.upstream + c.with_upstream(np.ones(c.probe.upstream.shape))
            if c.probe.upstream.ndim and c.probe.upstream.shape == c.tensor.shape
            else None
        )
    ),
    of(
        "the upstream gradient itself",
        "The gradient from above is handed on as it is: the local derivative is missing.",
        "grad_y",
    )(lambda c: c.probe.upstream if c.probe.upstream.shape == c.tensor.shape else None),
    of(
        "the upstream gradient twice",
        "The gradient from above is multiplied in twice.",
        "the gradient for grad_y^2",
    )(lambda c: c.with_upstream(c.probe.upstream**2)),
    of("the output itself", "What is returned is the output of the forward.", "y")(
        lambda c: c.right.get("output") if c.name != "output" else None
    ),
    of("the argument itself", "What is returned is the argument, not its gradient.", "the argument")(
        lambda c: c.probe.args.get(c.name.removeprefix("grad of "))
    ),
    of("transposed", "Its two axes have changed places.", "the transpose")(
        lambda c: c.tensor.T if c.tensor.ndim == 2 else None
    ),
    of(
        "transposed, then reshaped",
        "It is the transpose, forced into the right shape.",
        "the transpose, reshaped",
    )(lambda c: np.ascontiguousarray(c.tensor.T).reshape(c.tensor.shape) if c.tensor.ndim == 2 else None),
    of(
        "the order of a reshape",
        "The numbers are right, but were put into their shape column by column.",
        "the same numbers, column by column",
    )(
        lambda c: (
            c.tensor.reshape(c.tensor.shape, order="F")
            if c.tensor.ndim < 2
            else c.tensor.reshape(-1).reshape(c.tensor.shape, order="F")
        )
    ),
    of("reversed", "The numbers are right, but in reverse order.", "[::-1]")(
        lambda c: c.tensor[..., ::-1] if c.tensor.ndim else None
    ),
    of("the rows in reverse order", "The rows of the batch come back in reverse order.", "[::-1]")(
        lambda c: c.tensor[::-1] if c.tensor.ndim > 1 else None
    ),
    of("the first row alone", "Only the first row of the batch is counted.", "what row 0 gives")(
        lambda c: _rows(c, 0)
    ),
    of(
        "the last row alone",
        "Only the last row of the batch is counted: in a loop over the rows each overwrites the one "
        "before (= for +=).",
        "what row N - 1 gives",
    )(lambda c: _rows(c, -1)),
    of(
        "the last row is left out",
        "The last row of the batch is left out: a loop ends one too early.",
        "rows 0 to N - 2",
    )(lambda c: _rows(c, slice(None, -1))),
    of(
        "the first row is left out",
        "The first row of the batch is left out: a loop begins one too late.",
        "rows 1 to N - 1",
    )(lambda c: _rows(c, slice(1, None))),
    of(
        "the last column is left out",
        "The last column is left out: a loop ends one too early.",
        "columns 0 to C - 2",
    )(lambda c: _columns(c, slice(None, -1))),
    of(
        "the first column is left out",
        "The first column is left out: a loop begins one too late.",
        "columns 1 to C - 1",
    )(lambda c: _columns(c, slice(1, None))),
    of(
        "stale-cache",
        "Backward reads what the forward of the batch before left behind.",
        "the cache of the last batch",
    )(_stale),
    of(
        "stale-cache, of the input",
        "Backward reads the input of the batch before.",
        "the input of the last batch",
    )(_stale_inputs),
    of(
        "gradients-not-zeroed",
        "The gradient of the batch before is still there, and this one is added to it.",
        "grad + the grad of the last batch",
    )(_added),
    of(
        "a mask of ReLU that does not belong here",
        "The gradient is zero wherever the input is not positive, as behind a ReLU; there is none here.",
        "the gradient [x > 0]",
    )(
        lambda c: (
            c.tensor * (c.probe.args["x"] > 0)
            if c.name == "grad of x" and c.probe.args["x"].shape == c.tensor.shape
            else None
        )
    ),
    of("absolute values", "Every number has lost its sign.", "|the gradient|")(lambda c: np.abs(c.tensor)),
    of(
        "cut to integers",
        "The numbers are cut to integers: the array that holds them was made for integers.",
        "int(the gradient)",
    )(lambda c: np.trunc(c.tensor)),
]


def shapes(case: Case, found: Array) -> Iterator[tuple[str, str, str]]:
    """Give name, mistake and formula of what turns the right tensor into one of another shape."""
    right = case.tensor
    if found.shape == right.shape:
        return
    if found.size == right.size and _same(found.reshape(right.shape), right):
        yield (
            "another shape",
            f"The numbers are right, but their shape is {found.shape} instead of {right.shape}.",
            f"shape {found.shape}",
        )
    if found.ndim > right.ndim:
        axes = tuple(range(found.ndim - right.ndim))
        if np.prod(found.shape[: len(axes)]) == 1:
            return
        if found.sum(axes).shape == right.shape and _same(found.sum(axes), right):
            yield (
                "not summed",
                "It has a part for each row of the batch: what is used several times gets the sum of them.",
                f"shape {found.shape}",
            )
        if found.mean(axes).shape == right.shape and _same(found.mean(axes), right):
            yield ("not averaged", "It has a part for each row of the batch.", f"shape {found.shape}")
    if found.size == 1 and _same(found.reshape(()), right.sum()):
        yield (
            "summed over everything",
            "It is summed over everything to a single number.",
            "sum(the gradient)",
        )
    if found.ndim < right.ndim:
        for axis in range(right.ndim):
            if right.sum(axis).shape == found.shape and _same(found, right.sum(axis)):
                yield (
                    "summed once too often",
                    f"It is summed over its axis {axis}, which should stay.",
                    f"summed over axis {axis}",
                )


def swapped(case: Case) -> Iterator[tuple[str, str, str, Array]]:
    """Give the other gradients, and the arguments, that may stand in the place of this one."""
    for other, value in case.right.items():
        if other.startswith("grad of ") and other != case.name and value.shape == case.tensor.shape:
            yield (
                f"the {other.replace('grad', 'gradient')}",
                f"It is the {other.replace('grad', 'gradient')}.",
                other,
                value,
            )
    for role, value in case.probe.args.items():
        if value.shape == case.tensor.shape and case.name != f"grad of {role}" and value.dtype.kind == "f":
            yield f"the argument {role}", f"It is the argument {role} itself.", role, value


def _same(a: Array, b: Array) -> bool:
    scale = np.abs(b).max(initial=0)
    return bool(np.abs(a - b).max(initial=0) <= 3e-5 * (scale or 1))


def sizes_of(probe: Probe) -> Mapping[str, float]:
    """Return the numbers that a factor may come from, for `agreement.causes`."""
    found = {"the batch size": float(probe.batch)} if probe.batch > 1 else {}
    shape = probe.upstream.shape
    if len(shape) > 1:
        found["the number of outputs"] = float(np.prod(shape[1:]))
    x = probe.args.get("x")
    if x is not None and x.ndim > 1:
        found["the number of inputs"] = float(x.shape[1])
    return found
