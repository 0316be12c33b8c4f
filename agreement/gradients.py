"""Do two engines agree on a whole network? Every value on the way there and back, on one batch.

The hand-written side is listened to with a `nn_reference.Tape`, PyTorch's with hooks. Both compute on copies
in the precision asked for, from the reference's state; which elements a Dropout of the reference drops is
handed to PyTorch. Beside each difference stand both engines' own errors against a higher precision: for
float32 PyTorch in float64, for float64 the reference in longdouble, which has the same formulas and so shows
rounding alone. The control is PyTorch again, from one ulp away.

A ReLU's input within rounding of 0 can be positive in one engine and negative in the other, and two equal
maxima can differ in their last bit; then both gradients are right, and far apart. Such decisions are handed
over as well: there, and only there, the others see the reference's number (`_locked`).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import nn_reference as nn
from agreement import probes
from agreement.causes import Context, likely_cause
from agreement.limits import conditioned_limits
from agreement.measures import TensorAgreement, backward_limit, compare_tensors, unit_roundoff
from agreement.report import Report

Array = npt.NDArray[Any]

# Numbers in the two engines that are this many u of the largest one apart differ by rounding.
_ROUNDING = 256
_KINKED = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.MaxPool2d)


@dataclass
class Trace:
    """Every tensor of one forward and backward, by name, in the order in which they are computed.

    ``values`` are outputs, the loss and running statistics; ``gradients`` begin with ``d loss / d``.
    ``kinks`` are the inputs of layers that decide by a comparison, by the layers' names.
    """

    values: dict[str, Array] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)
    kinks: dict[str, Array] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)  # those layers
    masks: dict[str, list[Array | None]] = field(default_factory=dict)
    locked: dict[str, int] = field(default_factory=dict)  # how many inputs of which layer were handed over
    loss: float = float("nan")

    def everything(self) -> dict[str, Array]:
        """Return values and gradients together."""
        return {**self.values, **self.gradients}


def compare_networks(
    reference: Any,
    reference_loss: Any,
    autograd: Any,
    autograd_loss: Any,
    inputs: Array,
    targets: Array,
    *,
    dtype: npt.DTypeLike = np.float64,
    intermediates: bool = False,
    truth: bool = False,
    optimizers: tuple[Callable[[Any], Any], Callable[[Any], Any]] | None = None,
) -> Report:
    """Send one batch forward and backward through both networks and compare every tensor.

    ``reference`` and ``reference_loss`` are of ``nn_reference``, the other two of ``torch.nn``, with the same
    names of layers and parameters. All are copied; the copies have ``dtype`` (float64 or float32), the
    reference's state, and the reference's mode (train or eval).
    ``inputs``: (N, ...), ``targets``: (N,).

    The report has rows for outputs, loss, the gradient of each parameter and that of the inputs; with
    ``intermediates`` also for the output of each layer, the gradient there, and running statistics. Each
    engine's own error is there in float32, and with ``truth``, which takes a second or more, in float64.
    ``optimizers`` make, from the parameters, an optimizer for either side; then there are rows for the
    parameters after one step, which both take with the reference's gradients (Adam divides a gradient by its
    own size, and would turn the rounding of a tiny one into a step).
    """
    dtype = np.dtype(dtype)
    pair = Pair(reference, reference_loss, autograd, autograd_loss, dtype)
    report = Report(f"{len(inputs)} examples forward and back in {dtype}", names=("reference", "autograd"))
    inputs, targets = inputs.astype(dtype), np.asarray(targets)
    runs = _run(pair, inputs, targets, truth)
    for name, count in runs.theirs.locked.items():
        report.notes.append(
            f"{name}: {count:,} inputs within rounding of a kink or tie would be decided differently by "
            "autograd; the reference's decision was handed over"
        )
    chosen = _everything if intermediates else _ends
    expected = chosen(runs.theirs, pair)
    found, exact = runs.ours.everything(), runs.truth.everything() if runs.truth else {}
    limits = conditioned_limits(
        expected,
        [m.everything() for m in runs.moved],
        dtype,
        # Autograd's loss, not the reference's: one that is wrong must not widen the limits.
        (runs.other if dtype == np.float32 else runs.theirs).loss,
        values=tuple(runs.theirs.values),
        other=runs.other.everything(),
    )
    for name, value in expected.items():
        got = found.get(name)
        if got is None:
            if value.any():
                report.problems.append(f"{name}: the reference has none, autograd's is not zero")
            else:
                report.notes.append(f"{name}: the reference has none, autograd's is zero")
        elif got.shape != value.shape:
            report.problems.append(f"{name} has shape {got.shape}, expected {value.shape}")
        else:
            if got.dtype != dtype:
                report.problems.append(f"{name} is {got.dtype}, expected {dtype}")
            row = limits[name].apply(compare_tensors(name, got, value, truth=exact.get(name)))
            report.rows.append(row)
            if undecided := limits[name].undecided(row):
                report.problems.append(undecided)
            remark = limits[name].reason if row.agrees else _cause(name, got, value, runs.ours, len(inputs))
            if remark:
                report.remarks[name] = remark
    shapes = {f"d loss / d {name}": parameter.shape for name, parameter in pair.reference.named_parameters()}
    if optimizers is not None and all(
        found[name].shape == shape for name, shape in shapes.items() if name in found
    ):
        report.rows += _one_step(pair, optimizers, runs.ours.gradients)
    if report.wrong:
        report.notes.append(_where(report))
        if truth and dtype == np.float64:
            report.notes.append("the truth has the reference's own formulas: it shows rounding, not mistakes")
    return report


def compare_training(
    reference: Any,
    reference_loss: Any,
    autograd: Any,
    autograd_loss: Any,
    optimizers: tuple[Callable[[Any], Any], Callable[[Any], Any]],
    batches: Sequence[tuple[Array, Array]],
    *,
    dtype: npt.DTypeLike = np.float64,
) -> Report:
    """Train both networks over the same batches, each by itself, and compare the parameters at the end.

    The limit of each parameter is 1e-12 of its largest element in float64; where rounding alone does more it
    is 32 times the distance of a control, PyTorch from one ulp away. The trained copy of the reference is
    the report's attribute ``reference``.
    """
    dtype = np.dtype(dtype)
    pair = Pair(reference, reference_loss, autograd, autograd_loss, dtype)
    steps = f"{len(batches)} step{'s' * (len(batches) != 1)}"
    ours, theirs = pair.reference, pair.autograd
    moved = [pair.moved(salt) for salt in (1, 2)]
    our_optimizer = optimizers[0](ours.parameters())
    their_optimizers = [optimizers[1](network.parameters()) for network in (theirs, *moved)]
    for inputs, targets in batches:
        inputs = inputs.astype(dtype)
        ours.zero_grad()
        trace = trace_reference(ours, pair.reference_loss, inputs, targets)
        our_optimizer.step()
        for network, optimizer in zip((theirs, *moved), their_optimizers, strict=True):
            optimizer.zero_grad()
            trace_autograd(network, pair.autograd_loss, inputs, targets, trace)
            optimizer.step()
    report = Report(f"{steps} of training in {dtype}", names=("reference", "autograd"))
    expected, *controls = (_state(network, f" after {steps}") for network in (theirs, *moved))
    found = {
        f"{name} after {steps}": value for name, value in ours.state_dict().items() if value.dtype.kind == "f"
    }
    limits = conditioned_limits(expected, controls, dtype, values=tuple(expected), factor=32)
    for name, value in expected.items():
        if found[name].dtype != dtype or found[name].shape != value.shape:
            what = f"{found[name].dtype} of shape {found[name].shape}"
            report.problems.append(f"{name} is {what}, expected {dtype} of shape {value.shape}")
            continue
        row = limits[name].apply(compare_tensors(name, found[name], value))
        report.rows.append(row)
        remark = limits[name].reason if row.agrees else likely_cause(found[name], value)
        if remark:
            report.remarks[name] = remark
    report.reference = ours
    return report


def _one_step(
    pair: "Pair",
    optimizers: tuple[Callable[[Any], Any], Callable[[Any], Any]],
    gradients: Mapping[str, Array],
) -> list[TensorAgreement]:
    """Take one step in both engines with the same gradients, and compare the parameters."""
    import torch

    ours, theirs = dict(pair.reference.named_parameters()), dict(pair.autograd.named_parameters())
    for name, parameter in ours.items():
        grad = gradients.get(f"d loss / d {name}", np.zeros_like(parameter.data))
        parameter.grad = grad.astype(pair.dtype)
        theirs[name].grad = torch.tensor(parameter.grad)
    optimizers[0](pair.reference.parameters()).step()
    optimizers[1](pair.autograd.parameters()).step()
    limit = backward_limit(pair.dtype)
    return [
        compare_tensors(f"{name} after 1 step", p.data, theirs[name].detach().numpy(), limit=limit)
        for name, p in ours.items()
    ]


class Pair:
    """Copies of both networks and losses, in one precision and from the same state."""

    def __init__(
        self, reference: Any, reference_loss: Any, autograd: Any, autograd_loss: Any, dtype: np.dtype[Any]
    ):
        self.dtype = dtype
        self.reference = copy.deepcopy(reference).to(dtype)
        self.reference_loss = copy.deepcopy(reference_loss).to(dtype)
        self.autograd = copy.deepcopy(autograd).to(_torch_dtype(dtype))
        self.autograd_loss = copy.deepcopy(autograd_loss).to(_torch_dtype(dtype))
        self.autograd.train(reference.training)
        self.reference.zero_grad()
        self.autograd.zero_grad()
        self._load(self.autograd, self.reference.state_dict())

    def _load(self, network: Any, state: Mapping[str, Array]) -> None:
        import torch

        network.load_state_dict({name: torch.tensor(value) for name, value in state.items()})

    def moved(self, salt: int) -> Any:
        """Return PyTorch's network with each parameter moved to a neighbouring number."""
        network = copy.deepcopy(self.autograd)
        names = {name for name, _ in self.reference.named_parameters()}
        state = self.reference.state_dict()
        self._load(
            network,
            {
                name: probes.one_ulp_away(value, salt) if name in names else value
                for name, value in state.items()
            },
        )
        return network


# -- one pass of either engine --------------------------------------------------------------------------


def trace_reference(
    network: Any, criterion: Any, inputs: Array, targets: Array, decided: Trace | None = None
) -> Trace:
    """Go forward and back by hand, and return every tensor; kinks are decided as in ``decided``, if given."""
    trace = Trace()
    if decided is not None:
        _lock_reference(network, decided)
    with nn.Tape(network) as tape:
        outputs = network(inputs)
        loss = criterion(outputs, targets)
        grad_inputs = network.backward(criterion.backward())
    calls = _numbered(tape.calls, lambda call: call.name)
    for name, call in calls:
        trace.values[f"{name}.output"] = call.output
        if isinstance(call.layer, _KINKED):
            trace.kinks[name] = call.inputs[0]
            trace.layers[name] = call.layer
        if isinstance(call.layer, nn.Dropout):
            trace.masks.setdefault(call.name, []).append(call.cache)
    trace.loss = float(loss)
    trace.values |= {"outputs": outputs, "loss": np.asarray(loss)}
    trace.values |= {name: value for name, value in network.named_buffers() if value.dtype.kind == "f"}
    for name, call in reversed(calls):
        if call.grad_output is not None:
            trace.gradients[f"d loss / d {name}.output"] = call.grad_output
    grads = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    trace.gradients |= {f"d loss / d {name}": grad for name, grad in grads.items()}
    trace.gradients["d loss / d inputs"] = grad_inputs
    return trace


def trace_autograd(network: Any, criterion: Any, inputs: Array, targets: Array, decided: Trace) -> Trace:
    """The same by PyTorch, with the Dropout masks of ``decided``, and its decisions at kinks."""
    import torch

    trace = Trace()
    seen: list[tuple[str, Any]] = []
    masks = {name: list(some) for name, some in decided.masks.items()}
    counts: dict[str, int] = {}

    def before(name: str) -> Callable[[Any, Any], Any]:
        def hook(module: Any, arguments: Any) -> Any:
            counts[name] = count = counts.get(name, 0) + 1
            key = name if count == 1 else f"{name} ({count})"
            if key not in decided.kinks:
                return None
            x, ours = arguments[0], decided.kinks[key]
            locked, count = _locked(decided.layers[key], x.detach().numpy(), ours)
            if not locked.any():
                return None
            trace.locked[key] = count
            # The reference's value, but the gradient flows on to x.
            return (
                torch.where(torch.tensor(locked), torch.tensor(ours, dtype=x.dtype) + (x - x.detach()), x),
            )

        return hook

    def after(name: str) -> Callable[[Any, Any, Any], Any]:
        def hook(module: Any, arguments: Any, output: Any) -> Any:
            if name in masks:
                mask = masks[name].pop(0)
                if mask is not None:  # what is dropped is ours, by how much the rest is scaled PyTorch's own
                    scale = 1 / (1 - module.p) if module.p < 1 else 0.0
                    output = arguments[0] * (torch.tensor(mask != 0).to(arguments[0].dtype) * scale)
            output.retain_grad()
            seen.append((name, output))
            return output

        return hook

    leaves = [(name, module) for name, module in network.named_modules() if not any(module.children())]
    handles = [module.register_forward_pre_hook(before(name)) for name, module in leaves]
    handles += [module.register_forward_hook(after(name)) for name, module in leaves]
    try:
        tensor = torch.tensor(inputs, requires_grad=True)
        outputs = network(tensor)
        loss = criterion(outputs, _targets(targets, outputs.dtype))
        loss.backward()
    finally:
        for handle in handles:
            handle.remove()
    calls = _numbered(seen, lambda call: call[0])
    for name, (_, output) in calls:
        trace.values[f"{name}.output"] = output.detach().numpy()
    trace.loss = float(loss.detach())
    trace.values |= {"outputs": outputs.detach().numpy(), "loss": loss.detach().numpy()}
    trace.values |= {
        n: b.detach().numpy().copy() for n, b in network.named_buffers() if b.is_floating_point()
    }
    for name, (_, output) in reversed(calls):
        if output.grad is not None:
            trace.gradients[f"d loss / d {name}.output"] = output.grad.numpy()
    grads = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    trace.gradients |= {f"d loss / d {name}": grad.numpy().copy() for name, grad in grads.items()}
    if tensor.grad is not None:
        trace.gradients["d loss / d inputs"] = tensor.grad.numpy()
    return trace


def _targets(targets: Array, dtype: Any) -> Any:
    """Labels as they are, other targets in the dtype of the outputs."""
    import torch

    tensor = torch.tensor(targets)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _numbered(calls: Sequence[Any], name: Callable[[Any], str]) -> list[tuple[str, Any]]:
    """Give each call a name of its own: fc1, and fc1 (2) the second time."""
    counts: dict[str, int] = {}
    result = []
    for call in calls:
        counts[name(call)] = count = counts.get(name(call), 0) + 1
        result.append((name(call) if count == 1 else f"{name(call)} ({count})", call))
    return result


# -- kinks ----------------------------------------------------------------------------------------------


@dataclass
class _Runs:
    """One batch through both engines, the truth, and the controls."""

    ours: Trace
    theirs: Trace
    other: Trace  # theirs in the other precision
    truth: Trace | None
    moved: list[Trace]


def _run(pair: Pair, inputs: Array, targets: Array, truth: bool) -> _Runs:
    other_dtype = np.dtype(np.float64 if pair.dtype == np.float32 else np.float32)
    other = copy.deepcopy(pair.autograd).to(_torch_dtype(other_dtype))
    other_loss = copy.deepcopy(pair.autograd_loss).to(_torch_dtype(other_dtype))
    wide = np.longdouble
    network, criterion = copy.deepcopy(pair.reference).to(wide), copy.deepcopy(pair.reference_loss).to(wide)
    controls = [(pair.moved(salt), probes.one_ulp_away(inputs, salt)) for salt in (1, 2)]
    ours = trace_reference(pair.reference, pair.reference_loss, inputs, targets)
    theirs, *moved = (
        trace_autograd(module, pair.autograd_loss, x, targets, ours)
        for module, x in ((pair.autograd, inputs), *controls)
    )
    in_other = trace_autograd(other, other_loss, inputs.astype(other_dtype), targets, ours)
    exact = in_other if pair.dtype == np.float32 else None
    if truth and exact is None:
        exact = trace_reference(network, criterion, inputs.astype(wide), targets, ours)
    return _Runs(ours, theirs, in_other, exact, moved)


def _locked(layer: Any, x: Array, ours: Array) -> tuple[Array, int]:
    """Return where to hand over the reference's ``ours`` for ``x``, and how many inputs are the cause.

    These are decided differently by the layer, and differ by rounding alone. For max-pool whole images (n, c)
    are handed over, for three numbers may tie.
    """
    u = max(unit_roundoff(x.dtype), unit_roundoff(ours.dtype))
    close = np.abs(x - ours) <= _ROUNDING * u * np.abs(ours).max(initial=0)
    if isinstance(layer, nn.MaxPool2d):
        different = (_winners(layer, x) != _winners(layer, ours)) & close
        return np.asarray(different.any((-2, -1), keepdims=True) & close), int(different.sum())
    different = ((x > 0) != (ours > 0)) & close
    return np.asarray(different), int(different.sum())


def _winners(layer: nn.MaxPool2d, x: Array) -> Array:
    """Return how many windows each element wins."""
    pool = nn.MaxPool2d(
        layer.kernel_size, layer.stride, layer.padding, layer.dilation, ceil_mode=layer.ceil_mode
    )
    ones = np.ones_like(pool(x))
    return np.asarray(pool.backward(ones))


def _lock_reference(network: Any, decided: Trace) -> None:
    """Make each layer with a kink decide as in ``decided``: its backward is as before."""
    for name, module in network.named_modules():
        if isinstance(module, _KINKED):
            kinked: Any = module
            waiting = [x for key, x in decided.kinks.items() if key.split(" (")[0] == name]

            def forward(x: Array, layer: Any = kinked, waiting: list[Array] = waiting) -> Any:
                ours = waiting.pop(0)
                x = np.where(_locked(layer, x, ours)[0], ours, x)
                return type(layer).forward(layer, x)

            kinked.forward = forward


# -- words ----------------------------------------------------------------------------------------------


def _ends(trace: Trace, pair: Pair) -> dict[str, Array]:
    """The outputs, the loss, and the gradients of the parameters and inputs."""
    grads = [f"d loss / d {name}" for name, _ in pair.reference.named_parameters()]
    names = ["outputs", "loss", *grads, "d loss / d inputs"]
    everything = trace.everything()
    return {name: everything[name] for name in names if name in everything}


def _everything(trace: Trace, pair: Pair) -> dict[str, Array]:
    """All of it, gradients in the order of the backward: at a layer's output, then of its parameters."""
    result = {name: value for name, value in trace.values.items() if name != "outputs"}
    for name in list(trace.gradients):
        if name.endswith(".output"):
            result[name] = trace.gradients[name]
            layer = name.removesuffix(".output")
            result |= {
                n: g for n, g in trace.gradients.items() if n.rpartition(".")[0] == layer and n != name
            }
    return result | trace.gradients


def _cause(name: str, found: Array, expected: Array, ours: Trace, count: int) -> str:
    relatives = {}
    if name.endswith((".weight", ".bias")):
        layer = name.removeprefix("d loss / d ").rpartition(".")[0]
        upstream = ours.gradients.get(f"d loss / d {layer}.output")
        if upstream is not None:
            relatives["the gradient at the layer's output"] = upstream
    sizes = {"the batch size": count, "the number of elements": found.size}
    return likely_cause(found, expected, Context(sizes, relatives)) or "no simple one"


def _where(report: Report) -> str:
    """Say where the two part first: forward, or else on the way back."""
    first = next(row.name for row in report.rows if not row.agrees)
    if not first.startswith("d loss"):
        return f"the first tensor to part is {first}: what follows may be its consequence"
    return f"going back from the loss, the first gradient to part is {first}: the rest may be its consequence"


def _state(network: Any, suffix: str) -> dict[str, Array]:
    return {
        f"{name}{suffix}": value.detach().numpy().copy()
        for name, value in network.state_dict().items()
        if value.is_floating_point()
    }


def _torch_dtype(dtype: npt.DTypeLike) -> Any:
    import torch

    return torch.from_numpy(np.empty(0, dtype)).dtype
