"""Running an example of the layer table: by ours, by PyTorch, and by differences that need no backward."""

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import nn_reference as nn
from agreement.measures import Array, TensorAgreement, error_against
from agreement.table.row import Example, Row

Tensors = dict[str, Array]
Slope = Callable[[Callable[[Any], Array], Callable[..., Array]], Any]


@dataclass
class Outcome:
    """What a forward and a backward gave, and what they should have left alone: (before, after), by name.

    ``added`` has what a second backward should have made of each parameter's gradient, and what it made.
    """

    tensors: Tensors
    kept: dict[str, tuple[Array, Array]]
    added: dict[str, tuple[Array, Array]]

    @property
    def changes(self) -> list[TensorAgreement]:
        """A row, which does not agree, for each array changed in place and each gradient not added to."""
        changed = [
            disagreement(name, after)
            for name, (before, after) in self.kept.items()
            if not np.array_equal(before, after, equal_nan=True)
        ]
        # Only a sum in another order may differ: half of the digits are more than enough.
        return changed + [
            disagreement(name, found)
            for name, (right, found) in self.added.items()
            if not error_against(right, found) <= np.sqrt(np.finfo(right.dtype).eps)
        ]


def disagreement(name: str, found: Array) -> TensorAgreement:
    """Return a row that does not agree, where there is nothing to subtract."""
    return TensorAgreement(name, found.shape, str(found.dtype), np.inf, 1.0)


def in_dtype(example: Example, dtype: npt.DTypeLike) -> tuple[nn.Module, tuple[Array, ...]]:
    """Return a copy of the module, and the inputs, in another dtype; labels stay integers."""
    inputs = tuple(
        np.array(a, None if a.dtype.kind == "i" else dtype, order=example.order) for a in example.inputs
    )
    return copy.deepcopy(example.ours).to(dtype), inputs


def arrays_in(thing: Any) -> Iterator[Array]:
    """Yield the arrays of a cache."""
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, tuple):
        for part in thing:
            yield from arrays_in(part)


def run_reference(example: Example, dtype: npt.DTypeLike = np.float64) -> Outcome:
    """Run forward and backward in one dtype; returns output, gradients and buffers by name.

    What must stay as it was is compared with its value before the forward (inputs and parameters) or before
    the backward (the upstream gradient and the arrays of the cache).
    """
    module, inputs = in_dtype(example, dtype)
    parameters = dict(module.named_parameters())
    watched = dict(zip(("input", "target"), inputs, strict=False))
    watched |= {name: parameter.data for name, parameter in parameters.items()}
    before = {name: array.copy() for name, array in watched.items()}
    with nn.Tape(module) as tape:
        y = module(*inputs)
    grad_y = example.upstream_of(dtype)(y.shape)
    caches = [array for call in tape.calls for array in arrays_in(call.cache)]
    late = {f"cache[{i}]": array for i, array in enumerate(caches)} | {"gradient of output": grad_y}
    before |= {name: array.copy() for name, array in late.items()}
    watched |= late
    grad_x = module.backward(grad_y)
    grads = {name: parameter.grad for name, parameter in parameters.items()}
    tensors = {"output": y, "grad of input": grad_x}
    tensors |= {f"grad of {name}": grad for name, grad in grads.items()}
    tensors |= dict(module.named_buffers())
    return Outcome(
        {name: np.asarray(tensor) for name, tensor in tensors.items() if tensor is not None},
        {f"{name}, after backward": (before[name], watched[name]) for name in watched},
        added_to({name: grad for name, grad in grads.items() if grad is not None}, example, dtype),
    )


def added_to(grads: Tensors, example: Example, dtype: npt.DTypeLike) -> dict[str, tuple[Array, Array]]:
    """Run once more as training does: where there are gradients, and without that of the input.

    Returns for each parameter's gradient twice the first one, and what it has become.
    """
    if not grads:
        return {}
    module, inputs = in_dtype(example, dtype)
    parameters = dict(module.named_parameters())
    for name, grad in grads.items():
        parameters[name].grad = grad.copy()
    y = module(*inputs)
    module.backward(example.upstream_of(dtype)(y.shape), input_grad=False)
    return {
        f"grad of {name}, of two backwards": (2 * grad, np.asarray(parameters[name].grad))
        for name, grad in grads.items()
    }


def run_autograd(example: Example, dtype: npt.DTypeLike = np.float64) -> Tensors:
    """Run PyTorch's counterpart forward and backward; returns the same tensors as `run_reference`."""
    import torch

    tensor_type = getattr(torch, np.dtype(dtype).name)
    theirs = example.theirs()
    named: dict[str, Any] = {}
    if isinstance(theirs, torch.nn.Module):
        theirs = theirs.to(tensor_type)
        named = dict(theirs.named_parameters())
    # In C's order: not all of PyTorch takes another.
    x, *others = (torch.from_numpy(np.array(a, order="C")) for a in in_dtype(example, dtype)[1])
    x.requires_grad_()
    y = theirs(x, *others)
    y.backward(torch.from_numpy(np.array(example.upstream_of(dtype)(tuple(y.shape)), order="C")))
    tensors = {"output": y.detach(), "grad of input": x.grad}
    tensors |= {f"grad of {name}": parameter.grad for name, parameter in named.items()}
    if isinstance(theirs, torch.nn.Module):
        tensors |= dict(theirs.named_buffers())
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def derivatives(example: Example, dtype: npt.DTypeLike, slope: Slope) -> Tensors:
    """Return dL/d(element) for each element of the input and of every parameter, without any backward.

    L is the output times the upstream gradient, summed. ``slope(value, upstream)`` finds one derivative, with
    ``value(step)`` the output when the element is moved by ``step``. All runs in ``dtype``.
    """
    template, inputs = in_dtype(example, dtype)
    real = np.empty(0, dtype).real.dtype
    upstream = functools.cache(example.upstream_of(real))
    # A forward moves running statistics and draws masks, so that each must start from a copy of the module.
    moves = any(True for _ in template.buffers()) or any(hasattr(m, "generator") for m in template.modules())
    names = ["input", *(name for name, _ in template.named_parameters())]
    found = {}
    for name in names:
        shape = inputs[0].shape if name == "input" else dict(template.named_parameters())[name].shape
        grad = np.empty(shape, real)
        for index in np.ndindex(shape):

            def value(step: Any, name: str = name, index: tuple[int, ...] = index) -> Array:
                module, x = copy.deepcopy(template) if moves else template, inputs[0].copy()
                moved = x if name == "input" else dict(module.named_parameters())[name].data
                before = moved[index]
                moved[index] += step
                with nn.no_grad():
                    y = np.array(module(x, *inputs[1:]))
                moved[index] = before
                return y

            grad[index] = slope(value, upstream)
        found[f"grad of {name}"] = grad
    return found


def imaginary(dtype: npt.DTypeLike) -> Slope:
    """Return the complex step, Im f(x + ih) / h: as exact as an analytic f itself, for nothing is subtracted.

    h is so small that h^3, and with it the error of the formula, is 0 in ``dtype``.
    """
    h = np.finfo(dtype).tiny ** np.longdouble(0.6)

    def slope(value: Callable[[Any], Array], upstream: Callable[..., Array]) -> Any:
        y = value(1j * h)
        return (upstream(y.shape) * (y.imag / h)).sum()

    return slope


def central(h: float) -> Slope:
    """Return the central difference, extrapolated once: (4 D(h / 2) - D(h)) / 3, which errs by some h^4."""

    def slope(value: Callable[[Any], Array], upstream: Callable[..., Array]) -> Any:
        wide, narrow = value(h) - value(-h), value(h / 2) - value(-h / 2)
        return (upstream(wide.shape) * (8 * narrow - wide)).sum() / (6 * h)

    return slope


def true_derivatives(row: Row, example: Example) -> Tensors:
    """Return the derivatives by complex step in longdouble; at a kink those of the neighbours `Kinks` names.

    It is a truth of its own, for it runs the forward only. Neighbours are 2^-49 away (where longdouble has 64
    bits).
    """
    step = 2.0 ** (14 - np.finfo(np.longdouble).nmant)
    found = [
        derivatives(beside, np.clongdouble, imaginary(np.longdouble))
        for beside in neighbours(row, example, step, np.longdouble)
    ]
    return {name: np.mean([tensors[name] for tensors in found], axis=0) for name in found[0]}


def neighbours(row: Row, example: Example, step: float, dtype: npt.DTypeLike = np.float64) -> list[Example]:
    """Return the example itself or, where the row has kinks, those beside it of which the gradient is."""
    x, *others = example.inputs
    if row.kinks is None:
        return [example]
    return [replace(example, inputs=(nudge(x.astype(dtype), step), *others)) for nudge in row.kinks.nudges]
