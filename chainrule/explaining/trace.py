"""One forward and one backward through the engine, and for each layer upstream x local = gradient.

The numbers are the engine's own, read from `nn_reference.Tape`. The local derivatives are its as well: the
local derivative of a layer that works on each number by itself is what its backward returns for an upstream
gradient of 1, and row i of a Jacobian what it returns for 1 at output i and 0 elsewhere.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import nn_reference
from chainrule.errors import ChainruleError
from chainrule.explaining.subject import Subject

# What local derivative a layer has, by the class's name. Anything else is "other": only the engine's result.
_KINDS = {
    **dict.fromkeys(("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "ELU", "SiLU", "GELU"), "elementwise"),
    **dict.fromkeys(("Dropout", "Identity"), "elementwise"),
    **dict.fromkeys(("Softmax", "LogSoftmax"), "jacobian"),
    **dict.fromkeys(("MaxPool2d", "AvgPool2d"), "windows"),
    "Linear": "matrix",
    "Flatten": "reshape",
    "Conv2d": "kernel",
}
# Upstream x local, multiplied here, differs from the engine's gradient by rounding alone.
_ROUNDING = 1e-12
# Numbers in the table of a BatchNorm's derivatives: as many as examples times outputs.
_LARGEST_TABLE = 100_000


@dataclass(frozen=True)
class Local:
    """The derivative of a layer's output with respect to its input.

    ========== ==========================================================================================
    kind       values
    ========== ==========================================================================================
    elementwise  (N, *), of the output's shape: dy/dx of each number; gradient = upstream * values
    matrix       None: it is the layer's weight (out, in); gradient = upstream @ weight
    jacobian     (N, C, C): values[n, i, j] = dy_i/dx_j; gradient[n] = upstream[n] @ values[n]
    reshape      None: 1 for each number; the gradient is the upstream one in the input's shape
    kernel       None: a convolution's weight, at every place
    windows      (N, C, H, W), of the input's shape: the sum of dy/dx over the windows that see the pixel
    batch        BatchNorm with the batch's statistics, where each output depends on its whole channel:
                 (N, N, C), values[i, j, c] = dy[i, c]/dx[j, c], gradient[j, c] = sum over i of upstream[i, c]
                 * values[i, j, c]; None for images and for large batches
    other        None: no table of this layer's derivative
    ========== ==========================================================================================
    """

    kind: str
    values: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class LayerTrace:
    """One layer's numbers. ``grad_output`` is the upstream gradient dL/dy, ``grad_input`` is dL/dx."""

    name: str
    kind: str  # the class, as in torch.nn
    shown: str  # its arguments, as torch prints them
    input: np.ndarray
    output: np.ndarray
    grad_output: np.ndarray
    grad_input: np.ndarray
    local: Local
    parameters: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    buffers: dict[str, np.ndarray]
    cache: Any = field(repr=False)
    module: Any = field(repr=False)


@dataclass(frozen=True)
class Trace:
    """All layers in the order of the forward, and the loss. ``grad_scores`` is dL/d(output of the last)."""

    layers: tuple[LayerTrace, ...]
    loss: float
    scores: np.ndarray
    grad_scores: np.ndarray

    def __getitem__(self, name: str) -> LayerTrace:
        """Return the layer of that name; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def gradients(self) -> dict[str, np.ndarray]:
        """Return dL/dparameter of every parameter, by torch's names."""
        return {f"{layer.name}.{key}": grad for layer in self.layers for key, grad in layer.gradients.items()}

    def parameters(self) -> dict[str, np.ndarray]:
        """Return every parameter, by torch's names."""
        return {
            f"{layer.name}.{key}": value for layer in self.layers for key, value in layer.parameters.items()
        }


def trace(subject: Subject) -> Trace:
    """Send the example forward and backward once.

    Raises ChainruleError if the loss is not a finite number, and if a layer's gradient is not upstream times
    local: then the engine, which a reader may be changing, is wrong.
    """
    network, criterion = subject.fresh()
    with np.errstate(over="ignore", invalid="ignore"), nn_reference.Tape(network, loss=criterion) as tape:
        loss = float(criterion(network(subject.x), subject.target))
        network.backward(criterion.backward())
    if not np.isfinite(loss):
        raise ChainruleError(f"the loss is {loss}: these numbers overflow; take a smaller --input")
    for call in tape.calls:
        grads = [call.grad_input, *(parameter.grad for parameter in call.layer.parameters())]
        if not all(np.isfinite(array).all() for array in (call.output, *grads) if array is not None):
            raise ChainruleError(f"{call.name}: numbers overflow there; take a smaller --input")
    untouched, _ = subject.fresh()
    before = dict(untouched.named_children())
    *calls, loss_call = tape.calls
    layers = tuple(_layer(call, before[call.name]) for call in calls)
    assert loss_call.grad_input is not None
    return Trace(layers, loss, calls[-1].output, loss_call.grad_input)


def _layer(call: nn_reference.Call, before: Any) -> LayerTrace:
    assert call.grad_output is not None
    assert call.grad_input is not None
    parameters = dict(call.layer.named_parameters())
    kind = type(call.layer).__name__
    local = _local(kind, call, before)
    _check(call, local)
    return LayerTrace(
        name=call.name,
        kind=kind,
        shown=call.layer.extra_repr(),
        input=call.inputs[0],
        output=call.output,
        grad_output=call.grad_output,
        grad_input=call.grad_input,
        local=local,
        parameters={name: parameter.data for name, parameter in parameters.items()},
        gradients={name: np.asarray(parameter.grad) for name, parameter in parameters.items()},
        buffers=dict(before.named_buffers()),
        cache=call.cache,
        module=call.layer,
    )


def _local(kind: str, call: nn_reference.Call, before: Any) -> Local:
    """Return the layer's local derivative, from its own backward; ``before`` is it before the forward."""
    if kind.startswith("BatchNorm"):
        shape = "batch" if call.cache.of_batch else "elementwise"
    else:
        shape = _KINDS.get(kind, "other")
    if shape in ("elementwise", "windows"):
        return Local(shape, _backward(call, before, np.ones_like(call.output)))
    if shape == "batch" and call.output.ndim == 2 and len(call.output) * call.output.size <= _LARGEST_TABLE:
        rows = []
        for i in range(len(call.output)):
            basis = np.zeros_like(call.output)
            basis[i] = 1
            rows.append(_backward(call, before, basis))
        return Local(shape, np.stack(rows))
    if shape == "jacobian":
        rows = []
        for i in range(call.output.shape[-1]):
            basis = np.zeros_like(call.output)
            basis[..., i] = 1
            rows.append(_backward(call, before, basis))
        return Local(shape, np.stack(rows, axis=-2))
    return Local(shape)


def _backward(call: nn_reference.Call, before: Any, upstream: np.ndarray) -> np.ndarray:
    """Return what the layer's backward makes of another upstream gradient."""
    if isinstance(before, nn_reference.Dropout):  # whose mask is drawn: a second forward has another one
        return nn_reference.dropout.backward(call.cache, upstream) if call.cache is not None else upstream
    layer = copy.deepcopy(before)
    layer(call.inputs[0])
    return np.asarray(layer.backward(upstream))


def _check(call: nn_reference.Call, local: Local) -> None:
    """Raise ChainruleError unless upstream times local is what the engine's backward returned."""
    upstream, gradient = call.grad_output, call.grad_input
    assert upstream is not None
    assert gradient is not None
    if local.kind == "matrix":
        factor = call.layer.weight.data  # type: ignore[attr-defined]
        product = upstream @ factor
    elif local.kind == "reshape":
        factor, product = np.ones(()), upstream.reshape(gradient.shape)
    elif local.kind == "elementwise" and local.values is not None:
        factor, product = local.values, upstream * local.values
    elif local.kind == "jacobian" and local.values is not None:
        factor, product = local.values, np.einsum("...i,...ij->...j", upstream, local.values)
    elif local.kind == "batch" and local.values is not None:
        factor, product = local.values, np.einsum("ic,ijc->jc", upstream, local.values)
    else:
        return
    largest = np.abs(upstream).max(initial=0) * np.abs(factor).max(initial=0)
    apart = np.abs(product - gradient).max(initial=0)
    if not apart <= _ROUNDING * largest:
        raise ChainruleError(
            f"{call.name}: the engine's gradient is not upstream times local: they differ by {apart:.2g}, "
            f"where the product is at most {largest:.2g}"
        )
