"""Where do two engines part? The first step, operation, tensor and element; and whether it is only a flip.

Both engines take each step from one state, so that rounding cannot add up over the steps: what differs by
more than rounding differs because of this step, and the first such point in the order of the computation
names the operation. Even the gradients are handed over before the update, so that it too is compared on equal
inputs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

import nn_reference as nn
from agreement.allowances import UNITS, forward_limit, rounding_noise, sums, update_magnitudes
from agreement.measures import FLOAT64_LIMIT, Array, TensorAgreement, backward_limit, unit_roundoff
from agreement.tracing import AutogradEngine, Pass, Point, ReferenceEngine, Snapshot

Row = tuple[Point, TensorAgreement]


@dataclass(frozen=True)
class Flip:
    """A kink that rounding carries one engine to one side of and the other to the other: no mistake.

    ReLU: a pre-activation within rounding of 0. Max pooling: a tie within rounding, won by different pixels.
    The gradients then differ by a whole term, in both engines rightly.
    """

    step: int
    operation: str
    kind: str  # "ReLU", "max-pool"
    element: tuple[int, ...]  # of the input (ReLU) or output (max pooling)
    reference_value: float
    autograd_value: float

    def __str__(self) -> str:
        what = "pre-activation" if self.kind == "ReLU" else "the largest pixel"
        values = f"{self.reference_value:.9g} in the reference, {self.autograd_value:.9g} in autograd"
        return (
            f"step {self.step}: {self.kind} flip in {self.operation}{list(self.element)}: {what} is {values}"
        )


@dataclass(frozen=True)
class Difference:
    """The first point at which two engines differ by more than rounding. ``flip`` if that explains it."""

    step: int
    point: Point
    row: TensorAgreement
    flip: Flip | None = None

    @property
    def element(self) -> tuple[int, ...] | None:
        """The index of the worst element."""
        return self.row.worst

    def __str__(self) -> str:
        element = list(self.row.worst or ())
        row, place = self.row, f"step {self.step}, {self.point}{element}"
        assert row.reference_value is not None
        assert row.autograd_value is not None
        if np.isnan(row.reference_value):
            return f"{place}: the reference has nothing here (NaN), autograd {row.autograd_value:.9g}"
        values = f"reference {row.reference_value:.9g}, autograd {row.autograd_value:.9g}"
        text = f"{place}: {values} (error {row.error:.2g}, limit {row.limit:.2g})"
        return f"{text}; not a mistake: {self.flip}" if self.flip else text


@dataclass(frozen=True)
class LockedStep:
    """One step of both engines from one state: every point compared, in the order of the computation.

    ``widened`` is the number of points that were beyond the strict limit, relative to the largest element,
    but within what rounding explains (`agreement.allowances`).
    """

    step: int
    loss: float
    rows: list[Row]
    flips: list[Flip]
    widened: int = 0

    @property
    def difference(self) -> Difference | None:
        """The first mistake; if there is none, the first difference that a flip explains; or None."""
        found = [
            Difference(self.step, point, row, flip)
            for (point, row), flip in zip(self.rows, explained(self.rows, self.flips), strict=True)
            if not row.agrees
        ]
        return next((d for d in found if d.flip is None), found[0] if found else None)


def explained(rows: list[Row], flips: list[Flip]) -> list[Flip | None]:
    """Return for each row the flip after which it comes in the backward: then it may differ; or None."""
    since = {Point("backward", flip.operation, "grad_input"): flip for flip in reversed(flips)}
    flip, found = None, []
    for point, _ in rows:
        flip = flip or since.get(point)
        found.append(flip if point.phase == "backward" else None)
    return found


def first_of(steps: Iterable[LockedStep]) -> Difference | None:
    """Return the first mistake in these steps, or the first difference by a flip if there is no mistake."""
    flipped = None
    for step in steps:
        found = step.difference
        if found is not None and found.flip is None:
            return found
        flipped = flipped or found
    return flipped


def locked_steps(
    reference: ReferenceEngine, autograd: AutogradEngine, batches: Iterable[tuple[Array, Array]]
) -> Iterator[LockedStep]:
    """Let both engines take each step from the same state, which is then autograd's."""
    reference.restore(autograd.snapshot())
    for number, (inputs, targets) in enumerate(batches, 1):
        yield locked_step(reference, autograd, number, inputs, targets)
        reference.restore(autograd.snapshot())


def locked_step(
    reference: ReferenceEngine, autograd: AutogradEngine, number: int, inputs: Array, targets: Array
) -> LockedStep:
    """Take one step in both engines, which are in the same state, and compare it point by point."""
    before = autograd.snapshot()
    input_grad = number % 2 == 1  # every second step as training takes it, without the inputs' gradient
    ours = reference.compute(inputs, targets, input_grad)
    theirs = autograd.compute(inputs, targets, ours.masks)
    flips = find_flips(number, ours, theirs)
    rows = strict = _compare_passes(ours, theirs, input_grad)
    excused = explained(rows, flips)
    if _open(rows, excused):
        judged = _compare_sums(rows, ours, theirs)
        rows = [old if flip else new for old, new, flip in zip(rows, judged, excused, strict=True)]
    if _open(rows, excused):
        again = lambda: autograd.compute(inputs, targets, ours.masks)  # noqa: E731
        noise = rounding_noise(autograd, before, theirs, again)
        judged = [(point, _allow(row, UNITS * noise[point])) for point, row in rows]
        rows = [old if flip else new for old, new, flip in zip(rows, judged, excused, strict=True)]
    widened = sum(a.agrees < b.agrees for (_, a), (_, b) in zip(strict, rows, strict=True))
    rows += _moved_too_soon(reference.parameters(), before.network)

    reference.take_gradients(autograd.gradients())
    if autograd.max_norm is not None:
        reference.clip()
        autograd.clip()
        rows += _compare_clipped(reference.gradients(), autograd.gradients())
        reference.take_gradients(autograd.gradients())
    gradients = autograd.gradients()
    reference.step()
    autograd.step()
    rows += _compare_updates(reference, autograd, before, gradients)
    return LockedStep(number, theirs.loss, rows, flips, widened)


def _open(rows: list[Row], excused: list[Flip | None]) -> bool:
    """Tell whether a row is beyond its limit that no flip explains."""
    return any(not row.agrees and not flip for (_, row), flip in zip(rows, excused, strict=True))


def _compare_passes(ours: Pass, theirs: Pass, input_grad: bool) -> list[Row]:
    points = list(theirs.trace)
    # Without the inputs' gradient nothing goes back beyond the first layer with parameters.
    while not input_grad and points[-1].tensor in ("grad_input", "grad_output"):
        points.pop()
    rows = []
    for point in points:
        expected = theirs.trace[point]
        # What the reference never reached is as wrong as can be.
        found = ours.trace.get(point, np.full_like(expected, np.nan))
        backward = point.phase == "backward" or point.operation == "loss"
        limit = backward_limit(expected.dtype, theirs.loss) if backward else forward_limit(expected.dtype)
        rows.append((point, _row(point, found, expected, limit)))
    return rows


def _compare_sums(rows: list[Row], ours: Pass, theirs: Pass) -> list[Row]:
    """Judge rows beyond their limit by the truth, where they are sums whose terms may have cancelled."""
    truths, again = sums(ours, theirs), []
    for point, row in rows:
        if not row.agrees and point in truths and point in ours.trace:
            truth, allowance = truths[point].truth, truths[point].allowance
            by_truth = _row(point, ours.trace[point], truth, row.limit)
            row = _allow(by_truth, allowance) if _allow(by_truth, allowance).agrees else row
        again.append((point, row))
    return again


def _allow(row: TensorAgreement, allowance: float) -> TensorAgreement:
    """Widen the limit of a row to a difference that rounding explains."""
    if row.agrees or not row.largest_value > 0:
        return row
    return replace(row, limit=max(row.limit, allowance / row.largest_value))


def find_flips(step: int, ours: Pass, theirs: Pass, *, locked: bool = True) -> list[Flip]:
    """Return the kinks that the engines passed on different sides.

    Of a ``locked`` step only those where the inputs agree within rounding; free runs have drifted apart, and
    then it is a flip all the same.
    """
    flips = []
    for operation, layer in ours.layers.items():
        a, b = ours.inputs[operation], theirs.inputs[operation]
        if locked and np.abs(a - b).max(initial=0) > forward_limit(b.dtype) * np.abs(b).max(initial=0):
            continue
        if isinstance(layer, nn.ReLU | nn.LeakyReLU):
            kind, apart = "ReLU", (a > 0) != (b > 0)
        elif isinstance(layer, nn.MaxPool2d):
            a, b = winners(layer, a), winners(layer, b)
            kind, apart = "max-pool", a != b
        else:
            continue
        for element in map(tuple, np.argwhere(apart).tolist()):
            flips.append(Flip(step, operation, kind, element, float(a[element]), float(b[element])))
    return flips


def winners(layer: nn.MaxPool2d, x: Array) -> Array:
    """Return which pixel of the image is the largest of each window, by PyTorch: the layer may be wrong."""
    import torch

    windows = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)
    _, pixels = torch.nn.functional.max_pool2d(torch.tensor(x), *windows, return_indices=True)
    return pixels.numpy()


def _moved_too_soon(parameters: Mapping[str, Array], before: Mapping[str, Array]) -> list[Row]:
    """Return a row for each parameter that forward or backward moved: only the update may."""
    rows = []
    for name, value in parameters.items():
        if not np.array_equal(value, before[name]):
            layer, _, tensor = name.rpartition(".")
            point = Point("backward", layer or "network", f"{tensor} itself")
            rows.append((point, _row(point, value, before[name], FLOAT64_LIMIT)))
    return rows


def _compare_clipped(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> list[Row]:
    rows = []
    for name, expected in theirs.items():
        point = Point("update", "clip_grad_norm_", name)
        limit = forward_limit(expected.dtype)  # the norm is a sum over all parameters
        rows.append((point, _row(point, ours[name], expected, limit)))
    return rows


def _compare_updates(
    reference: ReferenceEngine, autograd: AutogradEngine, before: Snapshot, gradients: Mapping[str, Array]
) -> list[Row]:
    """Compare each moment, each new parameter, and the learning rate for the next step."""
    ours, theirs = reference.snapshot(), autograd.snapshot()
    optimizer = type(autograd.optimizer).__name__
    settings = {
        id(parameter): {**group, **then}  # the scheduler has moved on already
        for group, then in zip(autograd.optimizer.param_groups, before.settings, strict=True)
        for parameter in group["params"]
    }
    rows = []
    for name, parameter in autograd.network.named_parameters():
        if name not in gradients:
            continue
        magnitudes = update_magnitudes(
            before.network[name],
            theirs.network[name],
            gradients[name],
            before.moments[name],
            theirs.moments[name],
            settings[id(parameter)],
        )
        limit = UNITS * unit_roundoff(parameter.detach().numpy().dtype)
        for key, magnitude in magnitudes.items():
            if key == "parameter":
                point = Point("update", optimizer, name)
                found, expected = ours.network[name], theirs.network[name]
            else:
                point = Point("update", optimizer, f"{name} {key}")
                expected = theirs.moments[name][key]
                found = ours.moments[name].get(key, np.full_like(expected, np.nan))
            rows.append((point, _row(point, found, expected, limit, magnitude)))
        if "step" in theirs.moments[name]:
            expected = np.asarray(theirs.moments[name]["step"], float)
            found = np.asarray(ours.moments[name].get("step", np.nan), float)
            point = Point("update", optimizer, f"{name} step")
            rows.append((point, _row(point, found, expected, FLOAT64_LIMIT)))
    return rows + _compare_settings(ours, theirs)


def _row(
    point: Point, ours: Array, theirs: Array, limit: float, magnitude: Array | None = None
) -> TensorAgreement:
    """Compare as `agreement.compare_tensors`, but without ulps and cosine (NaN), which take longest.

    With ``magnitude`` each element's difference is relative to its own.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"{point}: the reference's shape is {ours.shape}, autograd's {theirs.shape}")
    if not ours.size:
        return TensorAgreement(str(point), ours.shape, str(ours.dtype), 0.0, 0.0, limit)
    if magnitude is None:
        magnitude = np.broadcast_to(np.maximum(np.abs(ours).max(), np.abs(theirs).max()), ours.shape)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        difference = np.abs(ours - theirs)
        shares = np.where(difference == 0, 0, difference / magnitude)
    worst = tuple(map(int, np.unravel_index(np.where(np.isnan(shares), np.inf, shares).argmax(), ours.shape)))
    return TensorAgreement(
        name=str(point),
        shape=ours.shape,
        dtype=str(theirs.dtype),
        largest_difference=float(difference[worst]),
        largest_value=float(magnitude[worst]) or float(np.finfo(np.float64).tiny),
        limit=limit,
        ulps=float("nan"),
        cosine=float("nan"),
        worst=worst,
        reference_value=float(ours[worst]),
        autograd_value=float(theirs[worst]),
    )


def _compare_settings(ours: Snapshot, theirs: Snapshot) -> list[Row]:
    """Compare learning rates (and what else schedulers change), one number a parameter group."""
    rows = []
    for key in theirs.settings[0]:
        point = Point("update", "scheduler", key)
        found, expected = (np.array([group[key] for group in s.settings], float) for s in (ours, theirs))
        rows.append((point, _row(point, found, expected, FLOAT64_LIMIT)))
    return rows
