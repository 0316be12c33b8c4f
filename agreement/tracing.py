"""One training step in either engine, all that happens on the way recorded under one set of names, in order.

A *trace* maps a `Point` (the output of fc1 in the forward, the gradient of its weight in the backward, its
new weight after the update) to the array that was there. Two traces of one step can then be compared point by
point, in the order in which the numbers came about: the first point that differs is where the mistake is.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import nn_reference as nn
from agreement.measures import Array


class Point(NamedTuple):
    """A place in a training step."""

    phase: str  # "forward", "backward" or "update"
    operation: str  # a layer's name, "loss", the optimizer's or scheduler's class
    tensor: str  # "output", "grad_output", "grad_input", the name of a parameter, a buffer or a moment

    def __str__(self) -> str:
        return f"{self.phase} of {self.operation}, {self.tensor}"


Trace = dict[Point, Array]


@dataclass
class Pass:
    """A forward and a backward: what they gave, and what the other engine needs to do the same."""

    loss: float
    trace: Trace
    inputs: dict[str, Array] = field(default_factory=dict)  # of each call of a layer
    grad_outputs: dict[str, Array] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)  # the layer itself, ours or torch's
    masks: dict[str, list[Array]] = field(default_factory=dict)  # of each Dropout, call by call


@dataclass(frozen=True)
class Snapshot:
    """Copies of all that decides an engine's next step, as NumPy arrays; either engine can `restore` it."""

    network: dict[str, Array]  # parameters and buffers under torch's keys
    moments: dict[str, dict[str, Any]]  # of each parameter: "step", "exp_avg", ...
    settings: list[dict[str, Any]]  # of each parameter group: what schedulers change


SCHEDULED = ("lr", "momentum", "betas")


def _settings(optimizer: Any) -> list[dict[str, Any]]:
    return [{key: group[key] for key in SCHEDULED if key in group} for group in optimizer.param_groups]


class _Labels:
    """Names for the calls of layers: "fc1", and "fc1 (call 2)" when it is used again in one forward."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []  # layer, label
        self._count: Counter[str] = Counter()

    def add(self, layer: str) -> str:
        self._count[layer] += 1
        label = layer if self._count[layer] == 1 else f"{layer} (call {self._count[layer]})"
        self.calls.append((layer, label))
        return label


def _backward_trace(
    calls: Iterable[tuple[str, str]],
    grad_outputs: Mapping[str, Array],
    grad_inputs: Mapping[str, Array],
    grads: Mapping[str, Array],
) -> Trace:
    """Put gradients in the order in which they come about, from the loss to the input.

    A layer's grad_output should be the grad_input of the layer after it: it is listed too because the loop
    over the layers may hand over something else. A layer's parameters come where its first call goes back:
    only then is their sum complete.
    """
    trace: Trace = {}
    for layer, label in reversed(list(calls)):
        if label in grad_outputs:
            trace[Point("backward", label, "grad_output")] = grad_outputs[label]
        for name, grad in grads.items():
            owner, _, parameter = name.rpartition(".")
            if layer == label == (owner or "network"):
                trace[Point("backward", layer, parameter)] = grad
        if label in grad_inputs:
            trace[Point("backward", label, "grad_input")] = grad_inputs[label]
    return trace


class ReferenceEngine:
    """A network, loss and optimizer of ``nn_reference``."""

    def __init__(self, network: Any, criterion: Any, optimizer: Any, scheduler: Any, clip: float | None):
        self.network, self.criterion = network, criterion
        self.optimizer, self.scheduler, self.max_norm = optimizer, scheduler, clip

    def compute(self, inputs: Array, targets: Array, input_grad: bool = True) -> Pass:
        """Forget the last gradients, run forward and backward; parameters stay as they are.

        Training does not ask for ``input_grad``, the gradient of the inputs. Raises ValueError where a
        gradient has not the shape of its parameter.
        """
        self.network.train()
        self.optimizer.zero_grad()
        with nn.Tape(self.network, loss=self.criterion) as tape:
            loss = float(self.criterion(self.network(inputs), targets))
            self.network.backward(self.criterion.backward(), input_grad=input_grad)
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None and parameter.grad.shape != parameter.shape:
                layer, _, tensor = name.rpartition(".")
                raise ValueError(
                    f"backward of {layer or 'network'}: the gradient of {tensor} is {parameter.grad.shape}, "
                    f"expected {parameter.shape}"
                )
        return self._read(tape, loss)

    def _read(self, tape: nn.Tape, loss: float) -> Pass:
        labels, step = _Labels(), Pass(loss, {})
        grad_inputs = {}
        for call in tape.calls:
            name = call.name or "network"
            label = labels.add(name)
            step.trace[Point("forward", label, "output")] = np.asarray(call.output)
            step.inputs[label], step.layers[label] = call.inputs[0], call.layer
            if call.grad_input is not None:
                grad_inputs[label] = call.grad_input
            if call.grad_output is not None:
                step.grad_outputs[label] = call.grad_output
            if isinstance(call.layer, nn.Dropout) and call.cache is not None:
                step.masks.setdefault(name, []).append(call.cache)
        step.trace.update(_buffer_trace(self.buffers()))
        step.trace.update(_backward_trace(labels.calls, step.grad_outputs, grad_inputs, self.gradients()))
        return step

    def gradients(self) -> dict[str, Array]:
        """Return the gradient of each parameter that has one."""
        return {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}

    def parameters(self) -> dict[str, Array]:
        """Return the parameters themselves."""
        return {name: p.data for name, p in self.network.named_parameters()}

    def buffers(self) -> dict[str, Array]:
        """Return the buffers themselves: BatchNorm's running statistics and the count of its batches."""
        return dict(self.network.named_buffers())

    def take_gradients(self, gradients: Mapping[str, Array]) -> None:
        """Put copies of these in the place of the engine's own."""
        for name, parameter in self.network.named_parameters():
            parameter.grad = np.array(gradients[name]) if name in gradients else None

    def clip(self) -> None:
        """Scale the gradients down to the largest norm allowed, if there is one."""
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)

    def step(self) -> None:
        """Let the optimizer change the parameters, and the scheduler the learning rate."""
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def learn(self, inputs: Array, targets: Array) -> Pass:
        """Take a whole training step."""
        step = self.compute(inputs, targets, input_grad=False)
        self.clip()
        self.step()
        return step

    def snapshot(self) -> Snapshot:
        """Return copies of parameters, buffers, moments and settings."""
        moments = {
            name: {key: np.copy(value) for key, value in self.optimizer.state.get(parameter, {}).items()}
            for name, parameter in self.network.named_parameters()
        }
        return Snapshot(dict(self.network.state_dict()), moments, _settings(self.optimizer))

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from there."""
        self.network.load_state_dict(snapshot.network)
        for name, parameter in self.network.named_parameters():
            self.optimizer.state.pop(parameter, None)
            if moments := snapshot.moments[name]:
                copies = {k: int(v) if k == "step" else np.copy(v) for k, v in moments.items()}
                self.optimizer.state[parameter] = copies
        for group, settings in zip(self.optimizer.param_groups, snapshot.settings, strict=True):
            group.update(settings)


class AutogradEngine:
    """The same of ``torch``, on the CPU, with the same methods."""

    def __init__(self, network: Any, criterion: Any, optimizer: Any, scheduler: Any, clip: float | None):
        self.network, self.criterion = network, criterion
        self.optimizer, self.scheduler, self.max_norm = optimizer, scheduler, clip

    def compute(self, inputs: Array, targets: Array, masks: Mapping[str, list[Array]]) -> Pass:
        """Run forward and backward as `ReferenceEngine.compute`, with the reference's dropout masks."""
        import torch

        self.network.train()
        self.optimizer.zero_grad()
        x = torch.tensor(inputs, requires_grad=True)
        step = Pass(0.0, {})
        with _masked(self.network, masks), _Recorder(self.network, self.criterion, step) as recorder:
            loss = self.criterion(self.network(x), torch.tensor(targets))
            loss.backward()
        step.loss = loss.item()
        step.trace.update(_buffer_trace(self.buffers()))
        step.trace.update(
            _backward_trace(recorder.labels.calls, step.grad_outputs, recorder.grad_inputs, self.gradients())
        )
        return step

    def gradients(self) -> dict[str, Array]:
        """Return a copy of the gradient of each parameter that has one."""
        named = self.network.named_parameters()
        return {name: p.grad.numpy().copy() for name, p in named if p.grad is not None}

    def parameters(self) -> dict[str, Array]:
        """Return the parameters themselves."""
        return {name: p.detach().numpy() for name, p in self.network.named_parameters()}

    def buffers(self) -> dict[str, Array]:
        """Return the buffers themselves: BatchNorm's running statistics and the count of its batches."""
        return {name: buffer.numpy() for name, buffer in self.network.named_buffers()}

    def take_gradients(self, gradients: Mapping[str, Array]) -> None:
        """Put copies of these in the place of the engine's own."""
        import torch

        for name, parameter in self.network.named_parameters():
            parameter.grad = torch.tensor(gradients[name]) if name in gradients else None

    def clip(self) -> None:
        """Scale the gradients down to the largest norm allowed, if there is one."""
        import torch

        if self.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)

    def step(self) -> None:
        """Let the optimizer change the parameters, and the scheduler the learning rate."""
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def learn(self, inputs: Array, targets: Array, masks: Mapping[str, list[Array]]) -> Pass:
        """Take a whole training step."""
        step = self.compute(inputs, targets, masks)
        self.clip()
        self.step()
        return step

    def snapshot(self) -> Snapshot:
        """Return copies of parameters, buffers, moments and settings."""
        network = {name: value.numpy().copy() for name, value in self.network.state_dict().items()}
        moments = {}
        for name, parameter in self.network.named_parameters():
            entry = self.optimizer.state.get(parameter, {})
            moments[name] = {key: value.numpy().copy() for key, value in entry.items() if value is not None}
        return Snapshot(network, moments, _settings(self.optimizer))

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from there."""
        import torch

        self.network.load_state_dict({name: torch.tensor(value) for name, value in snapshot.network.items()})
        for name, parameter in self.network.named_parameters():
            self.optimizer.state.pop(parameter, None)
            if moments := snapshot.moments[name]:
                dtypes = {"step": torch.float32}
                copies = {k: torch.tensor(v, dtype=dtypes.get(k)) for k, v in moments.items()}
                self.optimizer.state[parameter] = copies
        for group, settings in zip(self.optimizer.param_groups, snapshot.settings, strict=True):
            group.update(settings)


def _buffer_trace(buffers: Mapping[str, Array]) -> Trace:
    """Return the buffers as the forward left them, counters as float64."""
    trace = {}
    for name, value in buffers.items():
        owner, _, buffer = name.rpartition(".")
        copy = np.array(value, None if np.issubdtype(value.dtype, np.floating) else np.float64)
        trace[Point("forward", owner or "network", buffer)] = copy
    return trace


@contextmanager
def _masked(network: Any, masks: Mapping[str, list[Array]]) -> Iterator[None]:
    """Let each Dropout of torch drop what the reference drops; by how much it scales the rest is its own."""
    import torch

    def hook_of(left: list[Array], scale: float) -> Any:
        return lambda module, args, output: args[0] * (torch.tensor(left.pop(0) != 0).to(args[0]) * scale)

    handles = []
    for name, module in network.named_modules():
        if name in masks:
            scale = 1 / (1 - module.p) if module.p < 1 else 0.0
            handles.append(module.register_forward_hook(hook_of(list(masks[name]), scale)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    """While active, keeps in ``step`` what `nn_reference.Tape` keeps, of the layers of a torch network."""

    def __init__(self, network: Any, criterion: Any, step: Pass) -> None:
        leaves = [(name, module) for name, module in network.named_modules() if not list(module.children())]
        self._modules = [(name or "network", module) for name, module in leaves] + [("loss", criterion)]
        self.step, self.labels = step, _Labels()
        self.grad_inputs: dict[str, Array] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "_Recorder":
        for name, module in self._modules:
            pending: list[str] = []  # the calls of this module that have not gone back yet
            self._handles += [
                module.register_forward_hook(self._forward_hook(name, pending)),
                module.register_full_backward_hook(self._backward_hook(pending)),
            ]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _forward_hook(self, name: str, pending: list[str]) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            label = self.labels.add(name)
            pending.append(label)
            self.step.layers[label], self.step.inputs[label] = module, inputs[0].detach().numpy()
            self.step.trace[Point("forward", label, "output")] = output.detach().numpy()

        return hook

    def _backward_hook(self, pending: list[str]) -> Any:
        def hook(module: Any, grad_input: Any, grad_output: Any) -> None:
            label = pending.pop()
            self.step.grad_outputs[label] = grad_output[0].numpy()
            if grad_input[0] is not None:
                self.grad_inputs[label] = grad_input[0].numpy()

        return hook
