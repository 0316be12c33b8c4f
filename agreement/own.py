"""Somebody's own forward and backward, in whatever form, behind one interface.

Three forms are understood:

- a pair of functions ``(forward, backward)``. ``forward(x, w, b)`` returns ``y`` or ``(y, cache)``;
  ``backward(cache, grad_y)`` (or ``(grad_y, cache)``, told apart by the word cache in the signature; or
  without a cache ``backward(grad_y, x, w, b)``) returns the gradients of the arguments, in the order of the
  arguments or as a dict with their names;
- an object with ``forward(x)`` (or a call) and ``backward(grad_y)``, with parameters in attributes;
- a module of ``nn_reference``.

An object's parameters are its attributes (and those of the layers in it) that are floating-point arrays. The
gradient of ``W`` is looked for in what ``backward`` returns, then in the attributes ``dW``, ``grad_W``,
``W_grad``, ``gW``, ``dLdW``, ``W.grad`` and in dicts ``grads`` or ``gradients``; or where ``gradients=``
says.
"""

import copy
import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nn_reference import Module, Parameter

Array = npt.NDArray[Any]
_HERE = Path(__file__).parent


class CannotRun(Exception):
    """The code failed, or gave something that is not a gradient. The message says where and how."""


@dataclass
class Pass:
    """What one forward and one backward gave: the output, and the gradient of each argument by its name.

    An argument without an entry has no gradient; ``problems`` are what else was noticed, in words, and
    ``notes`` what was assumed.
    """

    output: Array
    gradients: dict[str, Array]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class OwnCode:
    """Code to be checked. ``inputs`` are given at each call, ``parameters`` belong to the code.

    Each `run` uses the same object again, as a training loop would;
    `fresh` returns one that has not been called.
    """

    one_input = False  # whether only the first input has a gradient
    parameters: dict[str, Array]

    def input_names(self, count: int) -> list[str]:
        """Return the names of the inputs."""
        raise NotImplementedError

    def fresh(self) -> "OwnCode":
        """Return a copy that shares nothing with this one."""
        return copy.deepcopy(self)

    def set_parameters(self, values: Mapping[str, Array]) -> None:
        """Put these arrays in place of the parameters with their names."""
        raise NotImplementedError

    def forward(self, inputs: Sequence[Array]) -> Any:
        """Return the output, as the code gives it."""
        raise NotImplementedError

    def backward(self, upstream: Array, names: Sequence[str]) -> dict[str, Any]:
        """Return the gradient of each input and parameter that has one."""
        raise NotImplementedError

    def run(self, inputs: Sequence[Array], upstream: Callable[[tuple[int, ...]], Array]) -> Pass:
        """Go forward and back once, and notice what the code does to its arguments.

        ``upstream`` makes the gradient of the output from its shape. Raises CannotRun when the code does.
        """
        names = self.input_names(len(inputs))
        given = [array.copy() for array in inputs]
        before = {name: value.copy() for name, value in self.parameters.items()}
        output = _as_array("forward", self._call("forward", lambda: self.forward(given)))
        problems = self._changed("forward", inputs, given, names, before)
        grad = upstream(output.shape)
        handed = grad.copy()
        kept = output.copy()
        self._notes: list[str] = []
        found = self._call("backward", lambda: self.backward(handed, names))
        problems += self._changed("backward", inputs, given, names, before)
        if not _equal(handed, grad):
            problems.append("backward changes the upstream gradient in place: others still need it")
        if not _equal(output, kept):
            problems.append("backward changes the output of forward in place: others still need it")
        gradients = {name: _as_array(f"the gradient of {name}", value) for name, value in found.items()}
        gradients = {name: value.copy() for name, value in gradients.items()}
        return Pass(kept, gradients, list(dict.fromkeys(problems)), self._notes)

    def _in_order(self, result: Any, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Return the names of the gradients in a tuple: as the arguments, or in the one order that fits.

        ``shapes`` are those of the arguments. Where they do not tell, the order of the arguments holds.
        """
        names = list(shapes)
        if not isinstance(result, tuple | list) or len(result) != len(names) or len(names) > 6:
            return names
        if _is_array_as_list(result):
            return names
        found = [() if value is None else _as_array("backward", value).shape for value in result]
        fits = [order for order in itertools.permutations(names) if [shapes[n] for n in order] == found]
        if len(fits) != 1 or list(fits[0]) == names:
            return names
        self._notes.append(
            f"backward returns the gradients in the order {', '.join(fits[0])}, by their shapes"
        )
        return list(fits[0])

    def _call(self, what: str, function: Callable[[], Any]) -> Any:
        try:
            with np.errstate(all="ignore"):
                return function()
        except CannotRun:
            raise
        except (Exception, SystemExit) as error:
            place = _place(error)
            raise CannotRun(f"{what} raises {type(error).__name__}: {error}{place}") from error

    def _changed(
        self, what: str, inputs: Sequence[Array], given: Sequence[Array], names: Sequence[str], before: Any
    ) -> list[str]:
        changed = [name for name, a, b in zip(names, inputs, given, strict=True) if not _equal(a, b)]
        changed += [name for name, value in self.parameters.items() if not _equal(value, before[name])]
        return [f"{what} changes {name} in place" for name in changed]


def wrap(code: Any, gradients: Any = None) -> OwnCode:
    """Return ``code`` behind the interface; TypeError when it is none of the known forms.

    ``gradients`` says where gradients are: for functions the names of the arguments in the order in which
    backward returns them, for objects a dict from a parameter's name to that of its gradient.
    """
    if isinstance(code, OwnCode):
        return code
    if isinstance(code, tuple | list) and len(code) == 2 and all(map(callable, code)):
        return Functions(code[0], code[1], gradients)
    if isinstance(code, Module):
        return Reference(copy.deepcopy(code))
    if inspect.isclass(code):
        raise TypeError(f"found the class {code.__name__}, expected an object: {code.__name__}(...)")
    if callable(getattr(code, "backward", None)) and (
        callable(getattr(code, "forward", None)) or callable(code)
    ):
        return Object(copy.deepcopy(code), gradients)
    raise TypeError(
        f"found a {type(code).__name__}, expected an object with forward and backward, "
        "or a pair of functions (forward, backward)"
    )


# -- a pair of functions --------------------------------------------------------------------------------


class Functions(OwnCode):
    """``(forward, backward)``. Parameters are arguments after the inputs, once `set_parameters` is called."""

    def __init__(
        self, forward: Callable[..., Any], backward: Callable[..., Any], order: Sequence[str] | None = None
    ):
        self._forward, self._backward, self._order = forward, backward, order
        self.parameters = {}

    def fresh(self) -> "Functions":
        """Return the same functions, without parameters."""
        return Functions(self._forward, self._backward, self._order)

    def set_parameters(self, values: Mapping[str, Array]) -> None:
        """Take the arguments that follow the inputs."""
        self.parameters = {name: np.array(value) for name, value in values.items()}

    def input_names(self, count: int) -> list[str]:
        """Return the names that forward has for its arguments."""
        names = positional(self._forward)
        return names[:count] if len(names) >= count else [f"input[{i}]" for i in range(count)]

    def forward(self, inputs: Sequence[Array]) -> Any:
        """Return y of ``y`` or ``(y, cache, ...)``."""
        self._inputs = [*inputs, *self.parameters.values()]
        result = self._forward(*self._inputs)
        self._has_cache = isinstance(result, tuple) and len(result) > 1
        if self._has_cache:
            self._cache = result[1]
        return result[0] if isinstance(result, tuple) else result

    def backward(self, upstream: Array, names: Sequence[str]) -> dict[str, Any]:
        """Call backward with the cache where its signature has it."""
        if not self._has_cache:
            result = self._backward(upstream, *self._inputs)
        elif _cache_is_second(self._backward):
            result = self._backward(upstream, self._cache)
        else:
            result = self._backward(self._cache, upstream)
        everything = [*names, *self.parameters]
        shapes = {name: np.shape(a) for name, a in zip(everything, self._inputs, strict=True)}
        return named(result, self._order or self._in_order(result, shapes), everything)


def positional(function: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that can be given by position; [] where Python cannot tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in parameters if parameter.kind in kinds]


def _cache_is_second(backward: Callable[..., Any]) -> bool:
    names = positional(backward)
    is_cache = [bool(re.search(r"cache|ctx|context|saved|memory", name, re.IGNORECASE)) for name in names[:2]]
    return is_cache == [False, True]


def named(result: Any, order: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """Return what a backward returned as a dict by argument: an array, a tuple in order, or a dict."""
    if isinstance(result, Mapping):
        return {_which(str(key), known): value for key, value in result.items() if value is not None}
    many = isinstance(result, tuple | list) and not _is_array_as_list(result)
    values = list(result) if many else [result]
    if len(values) > len(order):
        raise CannotRun(
            f"backward returns {len(values)} gradients, expected at most {len(order)}: {', '.join(order)}"
        )
    return {name: value for name, value in zip(order, values, strict=False) if value is not None}


def _which(key: str, known: Sequence[str]) -> str:
    """Return the argument whose gradient a dict has under ``key``: x for x, dx, grad_x, x_grad."""
    for name in known:
        if key == name or key in gradient_names(name):
            return name
    return key


def gradient_names(name: str) -> list[str]:
    """Return what people call the gradient of ``name``."""
    return [
        f"d{name}", f"grad_{name}", f"{name}_grad", f"g{name}", f"d_{name}", f"dL_d{name}", f"dLd{name}",
        f"grad{name}", f"grad{name[:1].upper()}{name[1:]}", f"{name}_gradient",
    ]  # fmt: skip


# -- an object ------------------------------------------------------------------------------------------


@dataclass
class _Slot:
    """A place that holds a parameter: an attribute of ``owner``, or an entry of a dict or list in it."""

    owner: Any
    holder: Any  # the owner, or the dict or list in it
    key: Any

    def get(self) -> Any:
        value = (
            self.holder[self.key] if isinstance(self.holder, dict | list) else getattr(self.holder, self.key)
        )
        return value.data if _is_parameter(value) else np.asarray(value)

    def set(self, array: Any) -> None:
        if isinstance(self.holder, dict | list):
            old = self.holder[self.key]
        else:
            old = getattr(self.holder, self.key)
        if _is_parameter(old):
            old.data = array
            return
        array = array.tolist() if isinstance(old, list) else array
        if isinstance(self.holder, dict | list):
            self.holder[self.key] = array
        else:
            setattr(self.holder, self.key, array)

    def gradient(self) -> Any:
        """Return the gradient from where people keep it, or None."""
        value = (
            self.holder[self.key] if isinstance(self.holder, dict | list) else getattr(self.holder, self.key)
        )
        if _is_parameter(value):
            return value.grad
        names = gradient_names(self.key) if isinstance(self.key, str) else []
        for name in names:
            if getattr(self.owner, name, None) is not None:
                return getattr(self.owner, name)
        for collection in ("grads", "gradients", "grad", "dparams"):
            held = getattr(self.owner, collection, None)
            if isinstance(held, Mapping):
                for key in (self.key, *names):
                    if held.get(key) is not None:
                        return held[key]
            elif isinstance(held, list) and isinstance(self.key, int) and self.key < len(held):
                return held[self.key]
        return None


class Object(OwnCode):
    """An object with ``forward(x)`` or a call, and ``backward(grad_y)``."""

    def __init__(self, code: Any, gradients: Mapping[str, Any] | None = None):
        self._code, self._where = code, dict(gradients or {})
        self._slots = dict(_slots(code, ""))
        # An array that is the gradient of another one, or a hidden one (_x, the cache), is no parameter.
        taken = {other for name in self._slots for other in _gradient_paths(name)} | set(self._where.values())
        self._gradient_slots = [slot for name, slot in self._slots.items() if name in taken]
        self._slots = {
            name: slot
            for name, slot in self._slots.items()
            if name not in taken and not name.rsplit(".", 1)[-1].startswith("_")
        }

    @property
    def parameters(self) -> dict[str, Array]:  # type: ignore[override]
        """The arrays that are there now."""
        return {name: slot.get() for name, slot in self._slots.items()}

    def keep(self, names: Sequence[str]) -> None:
        """Forget the other parameters: buffers, moments."""
        self._slots = {name: slot for name, slot in self._slots.items() if name in names}

    def input_names(self, count: int) -> list[str]:
        """Return the names that forward has for its arguments."""
        names = [name for name in positional(self._function()) if name != "self"]
        return names[:count] if len(names) >= count else [f"input[{i}]" for i in range(count)]

    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(self._code, "forward", None) or self._code
        return function

    def set_parameters(self, values: Mapping[str, Array]) -> None:
        """Put arrays into the attributes, each time a copy; gradients that wait there become zeros."""
        for name, value in values.items():
            self._slots[name].set(np.array(value))
            for slot in self._gradient_slots:
                slot.set(np.zeros_like(slot.get(), value.dtype))

    def forward(self, inputs: Sequence[Array]) -> Any:
        """Call ``forward(*inputs)``, or the object itself where it has no forward."""
        self._shapes = [array.shape for array in inputs]
        result = self._function()(*inputs)
        self._cache = result[1] if isinstance(result, tuple) and len(result) == 2 else None
        return result[0] if isinstance(result, tuple) else result

    def backward(self, upstream: Array, names: Sequence[str]) -> dict[str, Any]:
        """Call ``backward(upstream)``, and collect what it returns and what it leaves in attributes."""
        arguments = positional(self._code.backward)
        needed = [
            p for p in _parameters(self._code.backward) if p.default is p.empty and p.name in arguments
        ]  # fmt: skip
        if not arguments and upstream.shape == ():
            result = self._code.backward()  # a loss, whose upstream gradient is 1
            result = _scaled(result, float(upstream))
        elif len(needed) == 2 and self._cache is not None:
            pair = (
                (upstream, self._cache) if _cache_is_second(self._code.backward) else (self._cache, upstream)
            )
            result = self._code.backward(*pair)
        else:
            result = self._code.backward(upstream)
        everything = [*names, *self._slots]
        shapes = dict(zip(names, self._shapes, strict=True))
        shapes |= {name: slot.get().shape for name, slot in self._slots.items()}
        found = {} if result is None else named(result, self._in_order(result, shapes), everything)
        for name, slot in self._slots.items():
            value = self._stated(name, result) if name in self._where else slot.gradient()
            if name not in found and value is not None:
                found[name] = value
        return found

    def _stated(self, name: str, result: Any) -> Any:
        where = self._where[name]
        if isinstance(where, int):
            return result[where]
        value = self._code
        for part in str(where).split("."):
            value = value[part] if isinstance(value, Mapping) else getattr(value, part, None)
        return value


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _scaled(result: Any, factor: float) -> Any:
    if isinstance(result, Mapping):
        return {key: value * factor for key, value in result.items() if value is not None}
    if isinstance(result, tuple | list):
        return tuple(None if value is None else value * factor for value in result)
    return None if result is None else result * factor


def _slots(code: Any, prefix: str, seen: frozenset[int] = frozenset()) -> Iterator[tuple[str, _Slot]]:
    """Give each place below ``code`` that holds a floating-point array, by its path."""
    if id(code) in seen or not hasattr(code, "__dict__"):
        return
    seen = seen | {id(code)}
    for name, value in list(vars(code).items()):
        path = f"{prefix}{name}"
        if _holds(value) or _is_list_of_floats(value):
            yield path, _Slot(code, code, name)
        elif isinstance(value, dict | list) and not re.match(r"_|d?grad|cache", name):
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                if _holds(item):
                    yield f"{path}.{key}", _Slot(code, value, key)
                elif hasattr(item, "backward"):
                    yield from _slots(item, f"{path}.{key}.", seen)
        elif hasattr(value, "backward"):
            yield from _slots(value, f"{path}.", seen)


def _gradient_paths(path: str) -> list[str]:
    prefix, _, name = path.rpartition(".")
    return [f"{prefix}.{other}" if prefix else other for other in gradient_names(name)]


def _is_parameter(value: Any) -> bool:
    """Tell whether ``value`` holds an array and its gradient, as `nn_reference.Parameter` does."""
    is_array = isinstance(value, np.ndarray)
    return isinstance(value, Parameter) or (
        not is_array and isinstance(getattr(value, "data", None), np.ndarray) and hasattr(value, "grad")
    )


def _is_list_of_floats(value: Any) -> bool:
    """Tell whether ``value`` is a list of floats, or a matrix as a list of such lists."""
    return (
        isinstance(value, list)
        and bool(value)
        and (all(isinstance(v, float | np.floating) for v in value) or all(map(_is_list_of_floats, value)))
    )


def _is_array_as_list(value: Any) -> bool:
    """Tell whether ``value`` is one array as nested lists, and not a list of several gradients."""
    if not _is_list_of_floats(value):
        return False
    try:
        return bool(np.array(value).size)
    except ValueError:  # lists of unequal shapes
        return False


def _holds(value: Any) -> bool:
    array = value.data if _is_parameter(value) else value
    return isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.inexact)


# -- a module of nn_reference ---------------------------------------------------------------------------


class Reference(OwnCode):
    """A layer, network or loss of ``nn_reference``."""

    one_input = True  # what a loss is given besides is the target

    def __init__(self, module: Module):
        self.module = module

    @property
    def parameters(self) -> dict[str, Array]:  # type: ignore[override]
        """The parameters' data, under torch's names."""
        return {name: parameter.data for name, parameter in self.module.named_parameters()}

    def input_names(self, count: int) -> list[str]:
        """Return "input", and for what a loss is given besides, "target"."""
        return ["input", "target", *(f"input[{i}]" for i in range(2, count))][:count]

    def set_parameters(self, values: Mapping[str, Array]) -> None:
        """Replace the data of parameters, and bring buffers to their dtype."""
        for value in list(values.values())[:1]:
            self.module.to(value.dtype)
        for name, parameter in self.module.named_parameters():
            if name in values:
                parameter.data = np.array(values[name])

    def forward(self, inputs: Sequence[Array]) -> Any:
        """Call the module."""
        return self.module(*inputs)

    def backward(self, upstream: Array, names: Sequence[str]) -> dict[str, Any]:
        """Call its backward, and read the gradients from the parameters."""
        grad_input = self.module.backward(upstream)
        grads = {name: p.grad for name, p in self.module.named_parameters() if p.grad is not None}
        return {**({} if grad_input is None else {names[0]: grad_input}), **grads}


# -- small things ---------------------------------------------------------------------------------------


def _as_array(what: str, value: Any) -> Array:
    if isinstance(value, np.ndarray | np.generic | float | complex):
        return np.asarray(value)
    if isinstance(value, list):
        try:
            array = np.array(value)
        except ValueError:
            raise CannotRun(f"{what} gives lists of unequal lengths, expected an array") from None
        if array.dtype.kind in "fc":
            return array
    raise CannotRun(f"{what} gives a {type(value).__name__}, expected a NumPy array")


def _equal(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


def _place(error: BaseException) -> str:
    """Return " (file.py, line 7)" of the innermost frame of the user's code."""
    traceback, place = error.__traceback__, ""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if "site-packages" not in file and not file.startswith("<") and Path(file).parent != _HERE:
            place = f" ({Path(file).name}, line {traceback.tb_lineno})"
        traceback = traceback.tb_next
    return place
