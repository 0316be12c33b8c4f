"""Parameters, and modules that hold them: names, state and printing, but no mathematics."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from nn_reference._arrays import Array

if TYPE_CHECKING:
    from nn_reference.layer import Tape


class Parameter:
    """An array that is learnt.

    ``data`` is the value and ``grad`` the gradient of the loss with respect to it, of the same shape and
    dtype; ``None`` until a backward has run. Optimizers change ``data`` in place, so it may be a view: of a
    transposed array, or of a vector that holds all parameters. ``spare`` is None or an array that the next
    gradient may be computed into; `nn_reference.utils.Vector` sets it.
    """

    __slots__ = ("data", "grad", "spare")

    def __init__(self, data: Array) -> None:
        self.data = data
        self.grad: Array | None = None
        self.spare: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of ``data``."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of ``data``."""
        return self.data.dtype

    def accumulate(self, grad: Array) -> None:
        """Add ``grad``, an array that nobody else holds: the first one is kept as it is."""
        if self.grad is None:
            self.grad = grad
        else:
            self.grad += grad

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient."""
        if not set_to_none:
            raise NotImplementedError("zero_grad: set_to_none=False is not supported by nn_reference")
        self.grad = None

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self.dtype})"


class State(threading.local):
    """What a call must know of the calls around it; each thread has its own."""

    grad_enabled: bool = True
    forward: object | None = None  # stands for the outermost call that is running
    tapes: "tuple[Tape, ...]" = ()


state = State()


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

    _shown: tuple[str, ...] = ()  # the attributes that repr shows

    training = True  # of the class, as is all that a module starts with: there is no __init__ to call
    _buffers: tuple[str, ...] = ()

    def forward(self, *inputs: Any, **kwargs: Any) -> Array:
        """Compute the output; call the module itself rather than this method."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Add to each parameter's gradient, and return that of the input (None if not ``input_grad``)."""
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def __call__(self, *inputs: Any, **kwargs: Any) -> Array:
        """Run `forward`. The outermost of the calls that are running marks where a new forward begins."""
        outermost = state.forward is None
        if outermost:
            state.forward = object()
        try:
            return self.forward(*inputs, **kwargs)
        finally:
            if outermost:
                state.forward = None

    def register_buffer(self, name: str, tensor: Array | None) -> None:
        """Set an attribute that belongs to the state but is not learnt (BatchNorm's running statistics)."""
        setattr(self, name, tensor)
        self._buffers = (*self._buffers, name)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield the modules directly inside this one."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def children(self) -> Iterator["Module"]:
        """Yield the modules directly inside this one."""
        return (module for _, module in self.named_children())

    def apply(self, fn: Callable[["Module"], Any]) -> Self:
        """Call ``fn`` with every module inside this one and then with it; returns the module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def _walk(self, prefix: str) -> Iterator[tuple[str, "Module"]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(_join(prefix, name))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield this module and all inside it, outer ones first; one used under two names has the first."""
        found: dict[int, tuple[str, Module]] = {}
        for name, module in self._walk(prefix):
            found.setdefault(id(module), (name, module))
        return iter(found.values())

    def modules(self) -> Iterator["Module"]:
        """Yield this module and all inside it."""
        return (module for _, module in self.named_modules())

    def _own_parameters(self) -> Iterator[tuple[str, Parameter]]:
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Parameter))

    def _own_buffers(self) -> Iterator[tuple[str, Array]]:
        return ((name, getattr(self, name)) for name in self._buffers if getattr(self, name) is not None)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield each parameter once, under torch's name for it, as ``fc1.weight``."""
        found: dict[int, tuple[str, Parameter]] = {}
        for prefix, module in self.named_modules():
            for name, parameter in module._own_parameters():
                found.setdefault(id(parameter), (_join(prefix, name), parameter))
        return iter(found.values())

    def parameters(self) -> Iterator[Parameter]:
        """Yield each parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Yield each buffer that is not None, under torch's name for it."""
        for prefix, module in self.named_modules():
            yield from ((_join(prefix, name), value) for name, value in module._own_buffers())

    def buffers(self) -> Iterator[Array]:
        """Yield each buffer that is not None."""
        return (value for _, value in self.named_buffers())

    def _live_state(self) -> Iterator[tuple[str, Array]]:
        """Yield torch's key and the array itself for every parameter and buffer."""
        for prefix, module in self._walk(""):
            yield from ((_join(prefix, name), p.data) for name, p in module._own_parameters())
            yield from ((_join(prefix, name), value) for name, value in module._own_buffers())

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
        wrong = [f"{key} is missing" for key in missing] + [f"{key} is unexpected" for key in unexpected]
        wrong = wrong if strict else []
        common = [key for key in live if key in given]
        for key in common:
            new, old = given[key], live[key]
            if new.shape != old.shape or not np.can_cast(new.dtype, old.dtype, "same_kind"):
                wrong.append(f"{key} is {new.dtype} {new.shape}, expected {old.dtype} {old.shape}")
        if wrong:
            raise ValueError(f"{type(self).__name__}.load_state_dict: {'; '.join(wrong)}")
        for key in common:
            np.copyto(live[key], given[key], casting="same_kind")
        return Loaded(missing, unexpected)

    def to(self, dtype: npt.DTypeLike) -> Self:
        """Convert parameters, gradients and floating-point buffers to ``dtype``; returns the module."""
        if not np.issubdtype(dtype, np.inexact):
            raise TypeError(f"{type(self).__name__}.to: dtype is {dtype}, expected floating point")
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(dtype, copy=False)
            if parameter.grad is not None:
                parameter.grad = parameter.grad.astype(dtype, copy=False)
        for module in self.modules():
            for name, value in list(module._own_buffers()):
                if np.issubdtype(value.dtype, np.inexact):
                    setattr(module, name, value.astype(dtype, copy=False))
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

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient of every parameter."""
        for parameter in self.parameters():
            parameter.zero_grad(set_to_none)

    def extra_repr(self) -> str:
        """Return the arguments that `repr` shows."""
        values = {name: getattr(self, name) for name in self._shown}
        return ", ".join(f"{n}={v is not None if n == 'bias' else repr(v)}" for n, v in values.items())

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self.extra_repr()}"
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        return "\n  ".join([head, *lines]) + ("\n)" if lines else ")")


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


class Sequential(Module):
    """One module after the other: ``y = f_n(... f_2(f_1(x)))``.

    By the chain rule the gradient goes through the same modules in reverse. Takes modules, named "0", "1",
    ..., or one `OrderedDict` of them.
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            items: list[tuple[str, Any]] = list(modules[0].items())
        else:
            items = [(str(i), module) for i, module in enumerate(modules)]
        for name, module in items:
            self._add(name, module)

    def _add(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"Sequential: {name} is a {type(module).__name__}, expected a Module")
        if not name or "." in name or hasattr(self, name):
            raise ValueError(f"Sequential: {name!r} cannot be the name of a module")
        setattr(self, name, module)

    def append(self, module: Module) -> Self:
        """Add a module at the end, named by its number; returns the whole."""
        self._add(str(len(self)), module)
        return self

    def forward(self, x: Array) -> Array:
        """Run the modules in order."""
        for module in self:
            x = module(x)
        return x

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Run the modules' backwards in reverse order.

        With ``input_grad=False`` it stops at the first module that has parameters, which then
        skips the gradient of its own input (in an image network the most expensive one), and returns None.
        """
        modules = list(self)
        if input_grad:
            first = 0
        else:
            first = next((i for i, module in enumerate(modules) if any(module.parameters())), len(modules))
        grad: Any = grad_output
        del grad_output  # each gradient is let go as soon as the next is there
        for i in reversed(range(first, len(modules))):
            grad = modules[i].backward(grad, input_grad=input_grad or i > first)
        return grad if input_grad else None

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.named_children())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, index: int | slice) -> Module:
        """Return one module, or for a slice a `Sequential` of the same modules."""
        if isinstance(index, slice):
            return Sequential(OrderedDict(list(self.named_children())[index]))
        return list(self)[index]
