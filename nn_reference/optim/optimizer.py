"""What SGD and Adam share: groups of parameters, their state, and how it is saved."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from nn_reference._arrays import Array
from nn_reference.module import Parameter

PIECE = 2**15  # elements: small enough that the arrays of one piece stay in the cache together

# what schedulers add to groups
SCHEDULED = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum")

Params: TypeAlias = Iterable[Parameter] | Iterable[tuple[str, Parameter]] | Iterable[dict[str, Any]]


def pieces(*arrays: Array | None) -> Iterator[tuple[Any, ...]]:
    """Yield views of the same part of each array, cut along its slowest axis; None stays None.

    An update makes several passes over its arrays: piece by piece they find them in the cache, and need
    little scratch.
    """
    first = next(a for a in arrays if a is not None)
    shape = first.shape
    if first.flags.f_contiguous and len(shape) > 1:
        shape, arrays = shape[::-1], tuple(None if a is None else a.T for a in arrays)
    if not shape:
        yield arrays
        return
    rows = max(1, PIECE // max(1, math.prod(shape[1:])))
    for i in range(0, shape[0], rows):
        yield tuple(None if a is None else a[i : i + rows] for a in arrays)


class Optimizer:
    """``torch.optim.Optimizer``: changes parameters in place, from their gradients.

    ``params`` holds `Parameter` objects, or pairs of a name and one (`named_parameters`), or dicts such as
    ``{"params": [...], "lr": 0.1}`` with settings of their own; the other settings of a group are the
    ``defaults``. ``param_groups`` are these dicts, which schedulers change; ``state`` has the arrays that
    each parameter's update remembers.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Parameter, dict[str, Any]] = {}
        if isinstance(params, Parameter):
            raise TypeError(f"{type(self).__name__}: params is a Parameter, expected a list of them")
        given: list[Any] = list(params)
        if not given:
            raise ValueError(f"{type(self).__name__}: no parameters")
        if not isinstance(given[0], dict):
            given = [{"params": given}]
        for group in given:
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own."""
        name, group = type(self).__name__, dict(param_group)
        if "params" not in group:
            raise ValueError(f"{name}: a parameter group has no 'params', found {', '.join(group)}")
        unknown = [key for key in group if key not in ("params", *self.defaults, *SCHEDULED)]
        if unknown:
            raise ValueError(f"{name}: {unknown[0]!r} is not a setting; there are {', '.join(self.defaults)}")
        params = group.pop("params")
        params = [params] if isinstance(params, Parameter) else list(params)
        params = [p[1] if isinstance(p, tuple) else p for p in params]
        seen = [p for other in self.param_groups for p in other["params"]]
        for parameter in params:
            if not isinstance(parameter, Parameter):
                raise TypeError(f"{name}: found a {type(parameter).__name__}, expected a Parameter")
            if parameter in seen:
                raise ValueError(f"{name}: a parameter is listed twice")
            seen.append(parameter)
        settings = {**self.defaults, **group}
        self._check(settings)
        self.param_groups.append({"params": params, **settings})

    def _check(self, settings: Mapping[str, Any]) -> None:
        """Raise ValueError for a setting out of its range."""
        for key in ("lr", "eps", "weight_decay", "momentum"):
            if key in settings and not settings[key] >= 0:
                raise ValueError(f"{type(self).__name__}: {key}={settings[key]}, expected at least 0")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient of every parameter."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.zero_grad(set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient.

        ``closure``, if given, is called first to compute the gradients; what it returns is returned. Raises
        ValueError for a gradient that has not its parameter's shape and dtype.
        """
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                grad = parameter.grad
                if grad is None:
                    continue
                if (grad.shape, grad.dtype) != (parameter.shape, parameter.dtype):
                    found = f"a gradient is {grad.dtype} {grad.shape}"
                    expected = f"its parameter {parameter.dtype} {parameter.shape}"
                    raise ValueError(f"{type(self).__name__}: {found}, {expected}")
                # a NumPy float64 from a user's own schedule would turn float32 arithmetic into float64
                settings = {k: v.item() if isinstance(v, np.generic) else v for k, v in group.items()}
                self._update(parameter, grad, settings)
        return loss

    def _update(self, parameter: Parameter, grad: Array, settings: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return copies of the settings and the state, with numbers in place of the parameters, as torch."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        number = {p: i for i, p in enumerate(parameters)}
        state = {number[p]: {k: np.copy(v)[()] for k, v in self.state[p].items()} for p in self.state}
        groups = [{**group, "params": [number[p] for p in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, of this optimizer or torch's of the same name.

        Raises ValueError, with nothing changed, when groups, their sizes or the shapes of arrays differ.
        """
        name = type(self).__name__
        groups = state_dict["param_groups"]
        sizes, found = ([len(group["params"]) for group in each] for each in (self.param_groups, groups))
        if found != sizes:
            raise ValueError(f"{name}.load_state_dict: groups of {found} parameters, expected {sizes}")
        new_state: dict[Parameter, dict[str, Any]] = {}
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            for parameter, number in zip(mine["params"], theirs["params"], strict=True):
                entry = state_dict["state"].get(number)
                if entry is not None:
                    new_state[parameter] = self._restore(parameter, entry)
        self.state = new_state
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            mine.update({key: theirs[key] for key in (*self.defaults, *SCHEDULED) if key in theirs})

    def _restore(self, parameter: Parameter, entry: Mapping[str, Any]) -> dict[str, Any]:
        restored: dict[str, Any] = {}
        for key, value in entry.items():
            if key == "step":
                restored[key] = int(value)
            elif value is not None:
                if np.shape(value) != parameter.shape:
                    shapes = f"{key} has shape {np.shape(value)}, expected {parameter.shape}"
                    raise ValueError(f"{type(self).__name__}.load_state_dict: {shapes}")
                restored[key] = np.asarray(value).astype(parameter.dtype)
        return restored

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])
