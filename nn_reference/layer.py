"""Layers: modules that do arithmetic of their own, remember it for backward, and can be listened to.

A `Layer` remembers what its backward needs (the *cache*) when it runs forward, and forgets it when it
runs backward. The memory is a stack, so a layer that is used twice in one forward gets each cache
back in the reverse order, which is the order of the chain rule. A new forward (a call that is not made from
within another module's call) drops what an earlier one left behind: a network that is only ever evaluated
holds the caches of its last batch, and none at all inside ``with no_grad():``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from nn_reference._arrays import Array, check_floating
from nn_reference.module import Module, state


@contextmanager
def no_grad() -> Iterator[None]:
    """Run forwards without remembering what a backward would need, as ``torch.no_grad``."""
    before = state.grad_enabled
    state.grad_enabled = False
    try:
        yield
    finally:
        state.grad_enabled = before


@dataclass(eq=False)
class Call:
    """One call of one layer, as a `Tape` records it. What has not happened yet is None."""

    name: str
    layer: "Layer"
    inputs: tuple[Any, ...]
    output: Array
    cache: Any
    grad_output: Array | None = None
    grad_input: Array | None = None


class Pending(NamedTuple):
    """A forward that waits for its backward."""

    cache: Any
    output_shape: tuple[int, ...]
    output_dtype: np.dtype[Any]
    calls: list[Call]


class Layer(Module):
    """A module that does arithmetic of its own.

    A subclass writes ``_forward(x) -> (y, cache)`` and ``_backward(cache, grad_y, need_grad_x) -> grad_x``,
    which call the pure functions of its file; the second hands parameters their gradients. A cache refers to
    the parameters themselves: between a forward and its backward they must not change.
    """

    _pending: list[Pending] | None = None  # None: never called; []: all gone back
    _pending_of: object | None = None  # the forward they belong to

    def _forward(self, *inputs: Any, **kwargs: Any) -> tuple[Array, Any]:
        raise NotImplementedError

    def _backward(self, cache: Any, grad_y: Array, need_grad_x: bool) -> Array | None:
        raise NotImplementedError

    def forward(self, input: Array, *others: Any) -> Array:
        """Compute the output and remember what `backward` needs.

        An output that is part of what is remembered cannot be written into. Raises TypeError for an input
        that is not floating point, or not of the parameters' dtype.
        """
        self._check_input(input)
        inputs = (input, *others)
        y, cache = self._forward(*inputs)
        y = np.asarray(y)
        if y.dtype != input.dtype:
            raise TypeError(f"{type(self).__name__}: output is {y.dtype} but the input is {input.dtype}")
        if state.grad_enabled and _shares_memory(y, cache):
            y.flags.writeable = False
        calls = [tape.record(self, inputs, y, cache) for tape in state.tapes if self in tape]
        if self._pending is None or state.forward is None or self._pending_of is not state.forward:
            self._pending, self._pending_of = [], state.forward
        if state.grad_enabled:
            self._pending.append(Pending(cache, y.shape, y.dtype, calls))
        return y

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Go back through the latest forward that has not been gone back through yet.

        Raises RuntimeError when there is none; ValueError or TypeError when ``grad_output`` has not the shape
        or the dtype of the output (that forward can then still be gone back through).
        """
        pending, name = self._last_pending(), type(self).__name__
        if not isinstance(grad_output, np.ndarray) or grad_output.dtype != pending.output_dtype:
            found = getattr(grad_output, "dtype", type(grad_output).__name__)
            raise TypeError(f"{name}.backward: gradient is {found}, the output was {pending.output_dtype}")
        if grad_output.shape != pending.output_shape:
            shapes = f"gradient is {grad_output.shape}, the output was {pending.output_shape}"
            raise ValueError(f"{name}.backward: {shapes}")
        grad_input = self._backward(pending.cache, grad_output, input_grad)
        grad_input = None if grad_input is None else np.asarray(grad_input)
        for call in pending.calls:
            call.grad_output, call.grad_input = grad_output, grad_input
        if self._pending:
            self._pending.pop()
        return grad_input

    def _accumulate(self, **grads: Array) -> None:
        """Add to the gradients of the parameters of these names that the layer has."""
        for name, parameter in self._own_parameters():
            parameter.accumulate(grads[name])

    def _last_pending(self) -> Pending:
        if self._pending:
            return self._pending[-1]
        reason = "called before forward"
        if self._pending is not None:
            reason = "called twice for one forward, or the forward ran under no_grad, or a later forward "
            reason += "dropped it (then make both calls within one module)"
        raise RuntimeError(f"{type(self).__name__}.backward: {reason}")

    def _check_input(self, x: Array) -> None:
        name = type(self).__name__
        check_floating(name, "input", x)
        for key, parameter in self._own_parameters():
            if parameter.dtype != x.dtype:
                dtypes = f"input is {x.dtype} but {key} is {parameter.dtype}"
                raise TypeError(f"{name}: {dtypes}; use x.astype or network.to(dtype)")


def _shares_memory(y: Array, cache: Any) -> bool:
    if isinstance(cache, tuple):
        return any(_shares_memory(y, part) for part in cache)
    return isinstance(cache, np.ndarray) and np.may_share_memory(y, cache)


class Tape:
    """A record of every layer's call while it is active: values and, after backward, gradients, by name.

    ::

        with nn.Tape(network, loss=criterion) as tape:
            criterion(network(x), labels)
            network.backward(criterion.backward())
        tape["fc1"].output, tape["fc1"].grad_output, tape["loss"].inputs

    Layers are listed under their names in ``network``; further modules under the keywords that name them. The
    value between two layers is the one's ``output`` and the other's ``inputs[0]``. The arrays are the
    network's own, not copies; ``cache`` is what its file's forward returned (a Dropout's is its mask).
    ``calls`` has all of them in the order of the forward.
    """

    def __init__(self, network: Module, **others: Module) -> None:
        self.calls: list[Call] = []
        roots = [("", network), *others.items()]
        self._names = {id(m): name for prefix, root in roots for name, m in root.named_modules(prefix)}

    def __contains__(self, layer: object) -> bool:
        return id(layer) in self._names

    def record(self, layer: Layer, inputs: tuple[Any, ...], output: Array, cache: Any) -> Call:
        """Add a call; the layer fills in the gradients when it goes back."""
        self.calls.append(Call(self._names[id(layer)], layer, inputs, output, cache))
        return self.calls[-1]

    def __getitem__(self, name: str) -> Call:
        """Return the one call of the layer of that name; KeyError when there was none or more than one."""
        found = [call for call in self.calls if call.name == name]
        if len(found) != 1:
            names = ", ".join(dict.fromkeys(call.name for call in self.calls))
            raise KeyError(f"{name!r} was called {len(found)} times; all of .calls: {names}")
        return found[0]

    def __enter__(self) -> Self:
        state.tapes += (self,)
        return self

    def __exit__(self, *exception: object) -> None:
        state.tapes = tuple(tape for tape in state.tapes if tape is not self)
