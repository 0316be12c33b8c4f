"""Parameters, modules and the calls between them: everything that is not mathematics.

A `Layer` remembers what its backward needs (the *cache*) when it runs forward, and forgets it when it
runs backward. The memory is a stack, so a layer that is used twice in one forward gets each cache
back in the reverse order, which is the order of the chain rule. A new forward (a call that is not made from
within another module's call) drops what an earlier one left behind: a network that is only ever evaluated
holds the caches of its last batch, and none at all inside ``with no_grad():``.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from nn_reference._arrays import Array, check_floating


class Parameter:
    """An array that is learnt.

    ``data`` is the value and ``grad`` the gradient of the loss with respect to it, of the same shape and
    dtype; ``None`` until a backward has run. Optimizers change ``data`` in place, so it may be a view: of a
    transposed array, or of a vector that holds all parameters. ``grad_buffer``, when set, is the array into
    which the first backward after `zero_grad` writes; without it every such backward makes a new array.
    """

    __slots__ = ("data", "grad", "grad_buffer")

    def __init__(self, data: Array) -> None:
        self.data = data
        self.grad: Array | None = None
        self.grad_buffer: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of ``data``."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of ``data``."""
        return self.data.dtype

    @property
    def grad_out(self) -> Array | None:
        """Where a backward may write this gradient: `grad_buffer` while ``grad`` is empty, else None."""
        return self.grad_buffer if self.grad is None else None

    def accumulate(self, grad: Array) -> None:
        """Add ``grad``, an array that nobody else holds: the first one is kept as it is."""
        if self.grad is None:
            self.grad = grad
        else:
            self.grad += grad

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype})"


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


class _Pending(NamedTuple):
    """A forward that waits for its backward."""

    cache: Any
    output_shape: tuple[int, ...]
    output_dtype: np.dtype[Any]
    calls: list[Call]


class _State(threading.local):
    """What a call must know of the calls around it; each thread has its own."""

    grad_enabled: bool = True
    forward: object | None = None  # stands for the outermost call that is running
    tapes: "tuple[Tape, ...]" = ()


_state = _State()


@contextmanager
def no_grad() -> Iterator[None]:
    """Run forwards without remembering what a backward would need, as ``torch.no_grad``."""
    before = _state.grad_enabled
    _state.grad_enabled = False
    try:
        yield
    finally:
        _state.grad_enabled = before


class Loaded(NamedTuple):
    """What ``load_state_dict(strict=False)`` left out."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Something with parameters, buffers and modules inside it: the base of layers and of networks.

    A subclass that combines others writes ``forward(x) -> y`` and ``backward(grad_output, input_grad=True)
    -> grad_input``, the second undoing the first in reverse order. Attributes that are `Parameter`
    or `Module` objects are found by themselves, in the order in which they were set.
    """

    def __init__(self) -> None:
        self.training = True
        self._buffers: list[str] = []

    def forward(self, *inputs: Any, **kwargs: Any) -> Array:
        """Compute the output; call the module itself rather than this method."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Add to each parameter's gradient, and return that of the input (None if not ``input_grad``)."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def __call__(self, *inputs: Any) -> Array:
        """Run `forward`. The outermost of the calls that are running marks where a new forward begins."""
        outermost = _state.forward is None
        if outermost:
            _state.forward = object()
        try:
            return self.forward(*inputs)
        finally:
            if outermost:
                _state.forward = None

    # -- what is inside ---------------------------------------------------------------------------

    def register_buffer(self, name: str, value: Array | None) -> None:
        """Set an attribute that belongs to the state but is not learnt (BatchNorm's running statistics)."""
        setattr(self, name, value)
        self._buffers.append(name)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield the modules directly inside this one."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield this module and all inside it, outer ones first; one used under two names has the first."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def _walk(self, prefix: str) -> Iterator[tuple[str, "Module"]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator["Module"]:
        """Yield this module and all inside it."""
        return (module for _, module in self.named_modules())

    def _own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Parameter))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield each parameter once, under torch's name for it, as ``fc1.weight``."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, parameter in module._own_parameters():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"{prefix}.{name}" if prefix else name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield each parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    # -- state ------------------------------------------------------------------------------------

    def _live_state(self) -> Iterator[tuple[str, Array]]:
        """Yield torch's key and the array itself for every parameter and buffer."""
        for prefix, module in self._walk(""):
            dot = f"{prefix}." if prefix else ""
            for name, parameter in module._own_parameters():
                yield dot + name, parameter.data
            for name in module._buffers:
                if getattr(module, name) is not None:
                    yield dot + name, getattr(module, name)

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of all parameters and buffers under torch's keys, in torch's order.

        Unlike torch's these are copies: they do not change as training goes on.
        """
        return {key: np.array(value, order="C") for key, value in self._live_state()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Loaded:
        """Copy ``state_dict`` (arrays or CPU tensors) into the parameters and buffers, in place.

        Values are converted to the dtype that is there. Raises ValueError, with nothing changed, for a shape
        that differs and, if ``strict``, for keys that are missing or unexpected.
        """
        live = dict(self._live_state())
        given = {key: np.asarray(value) for key, value in state_dict.items()}
        missing = [key for key in live if key not in given]
        unexpected = [key for key in given if key not in live]
        wrong = [
            f"{key} is {given[key].dtype} {given[key].shape}, expected {live[key].dtype} {live[key].shape}"
            for key in live
            if key in given
            and (
                given[key].shape != live[key].shape
                or not np.can_cast(given[key].dtype, live[key].dtype, "same_kind")
            )
        ]
        if strict:
            wrong += [f"{key} is missing" for key in missing] + [f"{key} is unexpected" for key in unexpected]
        if wrong:
            raise ValueError(f"{type(self).__name__}.load_state_dict: {'; '.join(wrong)}")
        for key, value in live.items():
            if key in given:
                np.copyto(value, given[key], casting="same_kind")
        return Loaded(missing, unexpected)

    def to(self, dtype: npt.DTypeLike) -> Self:
        """Convert parameters, gradients and floating-point buffers to ``dtype``; returns the module."""
        target = np.dtype(dtype)
        if not np.issubdtype(target, np.inexact):
            raise TypeError(f"{type(self).__name__}.to: dtype is {target}, expected floating point")
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(target, copy=False)
            parameter.grad_buffer = None
            if parameter.grad is not None:
                parameter.grad = parameter.grad.astype(target, copy=False)
        for module in self.modules():
            for name in module._buffers:
                value = getattr(module, name)
                if value is not None and np.issubdtype(value.dtype, np.inexact):
                    setattr(module, name, value.astype(target, copy=False))
        return self

    def double(self) -> Self:
        """Convert to float64."""
        return self.to(np.float64)

    def float(self) -> Self:
        """Convert to float32."""
        return self.to(np.float32)

    def train(self, mode: bool = True) -> Self:
        """Choose how Dropout and BatchNorm behave, here and inside; returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """``train(False)``."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradient of every parameter."""
        for parameter in self.parameters():
            parameter.zero_grad()

    # -- reading ----------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return the arguments that `repr` shows."""
        return ""

    def __repr__(self) -> str:
        children = list(self.named_children())
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in children]
        return "\n  ".join([f"{type(self).__name__}({self.extra_repr()}", *lines]) + "\n)"


class Layer(Module):
    """A module that does arithmetic of its own.

    A subclass writes ``_forward(x) -> (y, cache)`` and ``_backward(cache, grad_y, need_grad_x) -> grad_x``,
    which call the pure functions of its file; the second hands parameters their gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pending: list[_Pending] | None = None  # None: never called; []: all gone back
        self._pending_of: object | None = None  # the forward they belong to

    def _forward(self, *inputs: Any, **kwargs: Any) -> tuple[Array, Any]:
        raise NotImplementedError

    def _backward(self, cache: Any, grad_y: Array, need_grad_x: bool) -> Array | None:
        raise NotImplementedError

    def _check_input(self, x: Array) -> None:
        check_floating(type(self).__name__, "input", x)
        for name, parameter in self._own_parameters():
            if parameter.dtype != x.dtype:
                raise TypeError(
                    f"{type(self).__name__}: input is {x.dtype} but {name} is {parameter.dtype}; "
                    "convert the input with astype or the network with to(dtype)"
                )

    def forward(self, *inputs: Any, **kwargs: Any) -> Array:
        """Compute the output and remember what `backward` needs.

        Raises TypeError for an input that is not floating point, or not of the parameters' dtype.
        """
        self._check_input(inputs[0])
        y, cache = self._forward(*inputs)
        if _state.forward is None or self._pending_of is not _state.forward or self._pending is None:
            self._pending, self._pending_of = [], _state.forward
        if _state.grad_enabled:
            calls = [tape._record(self, inputs, y, cache) for tape in _state.tapes if self in tape]
            self._pending.append(_Pending(cache, y.shape, y.dtype, calls))
        return y

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Go back through the latest forward that has not been gone back through yet.

        Raises RuntimeError when there is none; ValueError or TypeError when ``grad_output`` has not the shape
        or the dtype of the output (that forward can then still be gone back through).
        """
        pending = self._last_pending()
        name = type(self).__name__
        if not isinstance(grad_output, np.ndarray) or grad_output.dtype != pending.output_dtype:
            found = getattr(grad_output, "dtype", type(grad_output).__name__)
            raise TypeError(f"{name}.backward: gradient is {found}, the output was {pending.output_dtype}")
        if grad_output.shape != pending.output_shape:
            raise ValueError(
                f"{name}.backward: gradient is {grad_output.shape}, the output was {pending.output_shape}"
            )
        grad_input = self._backward(pending.cache, grad_output, input_grad)
        if self._pending:
            self._pending.pop()
        for call in pending.calls:
            call.grad_output, call.grad_input = grad_output, grad_input
        return grad_input

    def _last_pending(self) -> _Pending:
        name = type(self).__name__
        if self._pending is None:
            raise RuntimeError(f"{name}.backward: called before forward")
        if not self._pending:
            raise RuntimeError(
                f"{name}.backward: nothing to go back through; "
                "called twice for one forward, or the forward ran under no_grad"
            )
        return self._pending[-1]


class Sequential(Module):
    """One module after the other: ``y = f_n(... f_2(f_1(x)))``.

    By the chain rule the gradient goes through the same modules in reverse. Takes modules, named "0", "1",
    ..., or one `OrderedDict` of them.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            items: list[tuple[str, Any]] = list(modules[0].items())
        else:
            items = [(str(i), module) for i, module in enumerate(modules)]
        for name, module in items:
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: {name} is a {type(module).__name__}, expected a Module")
            if not name or "." in name or hasattr(self, name):
                raise ValueError(f"Sequential: {name!r} cannot be the name of a module")
            setattr(self, name, module)

    def forward(self, x: Array) -> Array:
        """Run the modules in order."""
        for _, module in self.named_children():
            x = module(x)
        return x

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Run the modules' backwards in reverse order.

        With ``input_grad=False`` it stops at the first module that has parameters, which then
        skips the gradient of its own input (in an image network the most expensive one), and returns None.
        """
        modules = list(self)
        first = 0
        if not input_grad:
            while first < len(modules) and next(modules[first].parameters(), None) is None:
                first += 1
        grad: Array | None = grad_output
        for i in range(len(modules) - 1, first - 1, -1):
            assert grad is not None
            grad = modules[i].backward(grad, input_grad=input_grad or i > first)
        return grad if input_grad else None

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def __len__(self) -> int:
        return len(list(self.named_children()))

    def __getitem__(self, index: int | slice) -> Module:
        """Return one module, or for a slice a `Sequential` of the same modules."""
        items = list(self.named_children())
        if isinstance(index, slice):
            return Sequential(OrderedDict(items[index]))
        return items[index][1]


@dataclass(eq=False)
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
    """

    network: Module
    others: dict[str, Module]
    calls: list[Call] = field(default_factory=list)

    def __init__(self, network: Module, **others: Module) -> None:
        self.network, self.others, self.calls = network, others, []
        roots = [("", network), *others.items()]
        self._names = {id(m): name for prefix, root in roots for name, m in root.named_modules(prefix)}

    def __contains__(self, layer: object) -> bool:
        return id(layer) in self._names

    def _record(self, layer: Layer, inputs: tuple[Any, ...], output: Array, cache: Any) -> Call:
        self.calls.append(Call(self._names[id(layer)], layer, inputs, output, cache))
        return self.calls[-1]

    def __getitem__(self, name: str) -> Call:
        """Return the one call of the layer of that name; KeyError when there was none or more than one."""
        found = [call for call in self.calls if call.name == name]
        if len(found) != 1:
            names = ", ".join(dict.fromkeys(call.name for call in self.calls))
            raise KeyError(
                f"{name!r} was called {len(found)} times; recorded: {names} (all of them in .calls)"
            )
        return found[0]

    def __enter__(self) -> Self:
        _state.tapes += (self,)
        return self

    def __exit__(self, *exception: object) -> None:
        _state.tapes = tuple(tape for tape in _state.tapes if tape is not self)
