"""Train both engines side by side: from the same weights, over the same batches, for many steps.

In float64 they run free and must stay together. In float32 they cannot: rounding differs, and training
amplifies it. So there the state is locked to one engine at every step (see `agreement.bisect`), and the free
run is only held against a *control*: one engine against itself, started one ulp away.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

import nn_reference as nn
from agreement.allowances import one_ulp_away
from agreement.bisect import (
    Difference,
    Flip,
    LockedStep,
    find_flips,
    first_of,
    locked_steps,
)
from agreement.bits import ExactReport
from agreement.exact import exact_training
from agreement.measures import FLOAT64_LIMIT, Array, TensorAgreement
from agreement.tracing import AutogradEngine, Point, ReferenceEngine

# A free float32 run may be this many times as far from the other engine as from its control. The control is
# moved by one ulp once; the engines round differently in every operation of every step.
CONTROL_FACTOR = 1000.0

Batch = tuple[Array, Array]


class Twins:
    """A training task that both engines can be given: network, loss and optimizer, from one start.

    ``network`` and ``loss`` are functions of the library, ``nn_reference`` or ``torch.nn`` (its names are the
    same: ``lambda nn: nn.Sequential(nn.Linear(4, 3), nn.ReLU())``), or a pair of modules, ours and torch's.
    ``optimizer(optim, parameters)`` and ``schedule(lr_scheduler, optimizer)`` are functions of
    ``nn_reference.optim`` or ``torch.optim`` and their ``lr_scheduler``; the schedule steps once a batch.
    ``clip`` is the norm to which gradients are clipped, None for no clipping. The weights are those of our
    network, or ``start`` (a state dict, arrays under torch's keys). Training changes nothing given here.
    """

    def __init__(
        self,
        network: Callable[[Any], Any] | tuple[Any, Any],
        loss: Callable[[Any], Any] | tuple[Any, Any],
        optimizer: Callable[[Any, Any], Any],
        *,
        schedule: Callable[[Any, Any], Any] | None = None,
        clip: float | None = None,
        start: Mapping[str, Array] | None = None,
    ) -> None:
        self._network, self._loss, self._optimizer = network, loss, optimizer
        self._schedule, self._clip = schedule, clip
        self._start = dict(_build(network, nn, 0).state_dict()) if start is None else dict(start)

    def reference(self, dtype: npt.DTypeLike, seed: int = 0) -> ReferenceEngine:
        """Return our engine at the start; ``seed`` decides the dropout masks."""
        network = _build(self._network, nn, 0)
        network.load_state_dict(self._start)
        network.to(dtype)
        for number, module in enumerate(network.modules()):
            if isinstance(module, nn.Dropout):
                module.generator = np.random.default_rng([seed, 2, number])
        optimizer = self._optimizer(nn.optim, network.parameters())
        scheduler = self._schedule(nn.optim.lr_scheduler, optimizer) if self._schedule else None
        return ReferenceEngine(network, _build(self._loss, nn, 0), optimizer, scheduler, self._clip)

    def autograd(self, dtype: npt.DTypeLike) -> AutogradEngine:
        """Return PyTorch's engine at the start. Raises ValueError if its network has other tensors."""
        import torch

        network = _build(self._network, torch.nn, 1)
        found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        expected = {name: value.shape for name, value in self._start.items()}
        if found != expected:
            odd = sorted(key for key in {**found, **expected} if found.get(key) != expected.get(key))
            here, there = expected.get(odd[0], "missing"), found.get(odd[0], "missing")
            raise ValueError(f"Twins: the shape of {odd[0]} is {here} in our network, {there} in torch's")
        network.load_state_dict({name: torch.tensor(value) for name, value in self._start.items()})
        network.to(getattr(torch, np.dtype(dtype).name))
        criterion = _build(self._loss, torch.nn, 1).to(getattr(torch, np.dtype(dtype).name))
        optimizer = self._optimizer(torch.optim, network.parameters())
        scheduler = self._schedule(torch.optim.lr_scheduler, optimizer) if self._schedule else None
        return AutogradEngine(network, criterion, optimizer, scheduler, self._clip)


def _build(what: Any, library: Any, side: int) -> Any:
    return copy.deepcopy(what[side]) if isinstance(what, tuple) else what(library)


def _check_finite(loss: float, step: int) -> None:
    if not np.isfinite(loss):
        raise ValueError(
            f"PyTorch's loss is {loss} in step {step}, expected a finite one: is the learning rate too high?"
        )


@dataclass(frozen=True)
class TrainingReport:
    """What became of two engines that started as one.

    ``distance`` has the relative distance of the parameters, ``|ours - theirs| / |theirs|`` with all of them
    as one vector, before the first step and after each: (steps + 1,). ``buffers`` has that of the running
    statistics (0 if there are none; infinite if their batches are not counted alike), ``tensors`` that of
    each tensor, and ``control`` that of the reference from itself, started one ulp away.

    Where the steps were also ``compared`` one by one from one state, ``worst`` lists each point at its worst
    step, the nearest to its limit first, steps with flips left out; ``difference`` is the first mistake (or
    what a flip explains) and ``flips`` has the flips. Of ``points`` compared, ``widened`` were beyond the
    strict limit, but within what rounding explains. ``parted`` is the first flip of the free runs,
    ``control_parted`` that of the control.
    """

    dtype: str
    distance: Array
    buffers: Array
    tensors: dict[str, Array]
    losses: Array  # (steps,), before each step of the free run
    control: Array | None = None
    compared: bool = False
    worst: list[tuple[int, Point, TensorAgreement]] = field(default_factory=list)
    difference: Difference | None = None
    flips: list[Flip] = field(default_factory=list)
    points: int = 0
    widened: int = 0
    parted: Flip | None = None
    control_parted: Flip | None = None

    @property
    def steps(self) -> int:
        """How many steps each engine took."""
        return len(self.losses)

    @property
    def agrees(self) -> bool:
        """Whether the engines do the same.

        Never further apart than 1e-12 is enough in float64. Otherwise both must have taken every step from
        one state without a difference that is more than rounding and flips; and the free run, if there was
        a control, must be within `CONTROL_FACTOR` of it.
        """
        if not self.compared:
            return self.together
        return not self.mistaken and (self.together or not self.beyond_control)

    @property
    def mistaken(self) -> bool:
        """Whether a step differed by more than rounding and flips."""
        return self.difference is not None and self.difference.flip is None

    @property
    def together(self) -> bool:
        """Whether the free runs never were further apart than 1e-12 (float64 only)."""
        furthest = max(self.distance.max(), self.buffers.max())
        return self.dtype == "float64" and bool(furthest <= FLOAT64_LIMIT)

    @property
    def beyond_control(self) -> bool:
        """Whether the free run went `CONTROL_FACTOR` times as far as the control, before any flip in it."""
        if self.control is None:
            return False
        last = self.steps if self.parted is None else self.parted.step - 1
        reached = np.maximum.accumulate(self.control[: last + 1])
        return not bool((self.distance[: last + 1] <= CONTROL_FACTOR * reached).all())

    def __str__(self) -> str:
        way = "state locked at each step" if self.compared else "free-running"
        lines = [
            f"{self.dtype}, {way}, {self.steps} steps: {'agree' if self.agrees else 'DISAGREE'}",
            f"  relative distance of the parameters, free-running: {self.distance[-1]:.2g} at the end, "
            f"{self.distance.max():.2g} at most",
        ]
        if self.control is not None:
            lines.append(
                f"  control, started one ulp away: {self.control[-1]:.2g} at the end, "
                f"{self.control.max():.2g} at most"
            )
        if self.compared:
            lines.append(f"  {self.points} points compared; {self.widened} needed more than the strict limit")
        if self.worst and not self.mistaken:
            step, _, row = self.worst[0]
            share = row.error / row.limit
            lines.append(
                f"  nearest to its limit: step {step}, {row.name}: {row.error:.2g}, {share:.0%} of it"
            )
        if self.parted and not self.mistaken:
            lines.append(f"  first flip of the free run: {self.parted}")
        if self.difference:
            lines.append(f"  first difference: {self.difference}")
        return "\n".join(lines)


@overload
def locked_training(
    twins: Twins,
    inputs: Array,
    targets: Array,
    *,
    steps: int = 1000,
    batch_size: int = 64,
    dtype: npt.DTypeLike = np.float64,
    locked: bool | None = None,
    control: bool = True,
    seed: int = 0,
    exact: Literal[False] = False,
) -> TrainingReport: ...


@overload
def locked_training(
    twins: Twins,
    inputs: Array,
    targets: Array,
    *,
    steps: int = 1000,
    batch_size: int = 64,
    seed: int = 0,
    exact: Literal[True],
) -> ExactReport: ...


def locked_training(
    twins: Twins,
    inputs: Array,
    targets: Array,
    *,
    steps: int = 1000,
    batch_size: int = 64,
    dtype: npt.DTypeLike = np.float64,
    locked: bool | None = None,
    control: bool = True,
    seed: int = 0,
    exact: bool = False,
) -> TrainingReport | ExactReport:
    """Train both engines for ``steps`` steps and tell how far they are apart, and whether they may be.

    ``inputs`` (N, ...) and ``targets`` (N, ...) are cut into full batches, shuffled anew each epoch as
    ``seed`` decides. With ``locked`` (by default in float32) every step is also taken from one state by both
    and compared point by point; without it (by default in float64) only when the free runs part, to find out
    where. Raises ValueError for networks that have not the same tensors, fewer examples than one batch, or a
    loss that becomes infinite or NaN in PyTorch.

    ``exact=True`` compares every bit instead, in float32, with reductions in float64: see
    `agreement.exact_training`, which says what it takes (an MLP, cross-entropy, SGD).
    """
    if exact:
        return _exact_run(twins, inputs, targets, steps, batch_size, seed)
    dtype = np.dtype(dtype)
    locked = dtype == np.float32 if locked is None else locked
    inputs, targets = prepared(inputs, targets, dtype)
    if not 1 <= batch_size <= len(inputs):
        raise ValueError(
            f"locked_training: batch_size={batch_size}, expected 1 to {len(inputs)}, the examples"
        )

    def fresh() -> Iterator[Batch]:
        return batches(inputs, targets, batch_size, steps, seed)

    # An engine that is wrong may overflow: that is for the report to say, not for NumPy.
    with np.errstate(over="ignore", invalid="ignore"):
        return _report(twins, fresh, dtype, locked, control, seed)


def _exact_run(
    twins: Twins, inputs: Array, targets: Array, steps: int, batch_size: int, seed: int
) -> ExactReport:
    """Call `exact_training` with what the twins are made of; NotImplementedError for what it cannot take."""
    engine = twins.reference(np.float32)
    loss = engine.criterion
    plain = type(loss) is nn.CrossEntropyLoss and loss.weight is None and not loss.label_smoothing
    if not plain or loss.reduction != "mean":
        raise NotImplementedError("exact=True: the loss must be CrossEntropyLoss() without options")
    if type(engine.optimizer) is not nn.optim.SGD or len(engine.optimizer.param_groups) != 1:
        raise NotImplementedError("exact=True: the optimizer must be SGD, with one group of parameters")
    if engine.scheduler is not None or engine.max_norm is not None:
        raise NotImplementedError("exact=True: there can be neither a schedule nor clipping")
    settings = {key: engine.optimizer.param_groups[0][key] for key in engine.optimizer.defaults}
    if settings.pop("maximize"):
        raise NotImplementedError("exact=True: SGD must minimise")
    return exact_training(
        engine.network,
        inputs.astype(np.float32),
        targets.astype(np.int64),
        steps=steps,
        batch_size=batch_size,
        generator=nn.torch_random.Generator(seed),
        **settings,
    )


def _report(
    twins: Twins,
    fresh: Callable[[], Iterator[Batch]],
    dtype: np.dtype[Any],
    locked: bool,
    control: bool,
    seed: int,
) -> TrainingReport:
    report = free_run(twins, fresh(), dtype, seed)
    if control or (dtype == np.float64 and not report.together):  # only a control tells drift from mistake
        distance, flip = control_run(twins, fresh(), dtype, seed)
        report = replace(report, control=distance, control_parted=flip)
    if locked or not report.agrees:
        comparisons = locked_steps(twins.reference(dtype, seed), twins.autograd(dtype), fresh())
        report = replace(report, compared=True, **_summary(comparisons))
    return report


def first_difference(
    twins: Twins,
    inputs: Array,
    targets: Array,
    *,
    steps: int = 1000,
    batch_size: int = 64,
    dtype: npt.DTypeLike = np.float64,
    seed: int = 0,
) -> Difference | None:
    """Return where the engines first differ by more than rounding: step, operation, tensor and element.

    The arguments are those of `locked_training`. A difference that a flip explains is returned only where
    there is no mistake; None if there is neither.
    """
    inputs, targets = prepared(inputs, targets, np.dtype(dtype))
    run = batches(inputs, targets, batch_size, steps, seed)
    with np.errstate(over="ignore", invalid="ignore"):
        return first_of(locked_steps(twins.reference(dtype, seed), twins.autograd(dtype), run))


def prepared(inputs: Array, targets: Array, dtype: np.dtype[Any]) -> Batch:
    """Return inputs in ``dtype``, and targets too unless they are class numbers, which become int64."""
    if len(inputs) != len(targets):
        raise ValueError(f"{len(inputs)} inputs, but {len(targets)} targets")
    classes = np.issubdtype(targets.dtype, np.integer)
    return inputs.astype(dtype), targets.astype(np.int64 if classes else dtype)


def batches(inputs: Array, targets: Array, batch_size: int, steps: int, seed: int) -> Iterator[Batch]:
    """Yield ``steps`` full batches, epoch after epoch, each in an order of its own."""
    per_epoch = len(inputs) // batch_size
    order = np.empty(0, int)
    for step in range(steps):
        epoch, position = divmod(step, per_epoch)
        if position == 0:
            order = np.random.default_rng([seed, 1, epoch]).permutation(len(inputs))
        chosen = order[position * batch_size : (position + 1) * batch_size]
        yield inputs[chosen], targets[chosen]


def free_run(twins: Twins, run: Iterator[Batch], dtype: np.dtype[Any], seed: int) -> TrainingReport:
    """Train both engines, each from its own state, and measure how far they drift apart."""
    reference, autograd = twins.reference(dtype, seed), twins.autograd(dtype)
    distances, losses, parted = [_distances(reference, autograd)], [], None
    for number, (inputs, targets) in enumerate(run, 1):
        ours = reference.learn(inputs, targets)
        theirs = autograd.learn(inputs, targets, ours.masks)
        _check_finite(theirs.loss, number)
        parted = parted or next(iter(find_flips(number, ours, theirs, locked=False)), None)
        losses.append(theirs.loss)
        distances.append(_distances(reference, autograd))
    tensors = {name: np.array([row[name] for row in distances]) for name in distances[0]}
    parameters, buffers = tensors.pop("parameters"), tensors.pop("buffers")
    return TrainingReport(str(dtype), parameters, buffers, tensors, np.array(losses), parted=parted)


def control_run(
    twins: Twins, run: Iterator[Batch], dtype: np.dtype[Any], seed: int
) -> tuple[Array, Flip | None]:
    """Train the reference twice, once from weights one ulp away: the distance that rounding alone makes."""
    reference, moved = twins.reference(dtype, seed), twins.reference(dtype, seed)
    start = moved.snapshot()
    moved.restore(replace(start, network=one_ulp_away(start.network, seed)))
    distances, parted = [_distances(moved, reference)["parameters"]], None
    for number, (inputs, targets) in enumerate(run, 1):
        passes = reference.learn(inputs, targets), moved.learn(inputs, targets)
        parted = parted or next(iter(find_flips(number, *passes, locked=False)), None)
        distances.append(_distances(moved, reference)["parameters"])
    return np.array(distances), parted


def _distances(ours: ReferenceEngine, theirs: ReferenceEngine | AutogradEngine) -> dict[str, float]:
    """Return the relative distance of each tensor, and of "parameters" and "buffers" as one vector each."""
    squares: dict[str, Array] = {"parameters": np.zeros(2), "buffers": np.zeros(2)}
    for kind, a, b in (
        ("parameters", ours.parameters(), theirs.parameters()),
        ("buffers", ours.buffers(), theirs.buffers()),
    ):
        for name, value in b.items():
            if np.issubdtype(value.dtype, np.integer):  # a count is right or wrong
                squares[name] = np.array([0.0 if a[name] == value else np.inf, 0.0])
            else:
                squares[name] = np.array([_square(a[name] - value), _square(value)])
            squares[kind] = squares[kind] + squares[name]
    with np.errstate(divide="ignore"):
        return {name: float(np.sqrt(d / size)) if d else 0.0 for name, (d, size) in squares.items()}


def _square(x: Array) -> float:
    flat = x.reshape(-1).astype(np.float64)
    return float(flat @ flat)


def _summary(steps: Iterator[LockedStep]) -> dict[str, Any]:
    """Go through locked steps up to the first mistake; keep the worst of each point."""
    worst: dict[Point, tuple[int, Point, TensorAgreement]] = {}
    flips: list[Flip] = []
    difference, points, widened = None, 0, 0
    for step in steps:
        flips += step.flips
        points, widened = points + len(step.rows), widened + step.widened
        for point, row in step.rows if not step.flips else ():
            if point not in worst or _share(row) > _share(worst[point][2]):
                worst[point] = (step.step, point, row)
        found = step.difference
        if found is not None and (difference is None or found.flip is None):
            difference = found
        if found is not None and found.flip is None:
            break
    ordered = sorted(worst.values(), key=lambda entry: -_share(entry[2]))
    return {
        "worst": ordered,
        "difference": difference,
        "flips": flips,
        "points": points,
        "widened": widened,
    }


def _share(row: TensorAgreement) -> float:
    """How much of its limit a row takes; NaN counts as infinitely much."""
    share = row.error / row.limit
    return float("inf") if np.isnan(share) else share
