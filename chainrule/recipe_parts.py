"""The parts of a recipe: a class of ``torch.nn`` or ``torch.optim`` with its arguments, checked by name.

Layers are followed one after the other: the shape of one example after each is found by sending a blank one
through it, and gives the next layer the size that it needs.
"""

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

import nn_reference
from chainrule.errors import nearest
from nn_reference import optim

RANDOM = ("Linear", "Conv2d")  # what is built with random weights
_IMAGE_LAYERS = ("Conv2d", "MaxPool2d", "AvgPool2d", "BatchNorm2d")
LAYERS = (
    *("Flatten", *RANDOM, "MaxPool2d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Dropout", "Identity"),
    *("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "ELU", "SiLU", "GELU", "LogSoftmax", "Softmax"),
)

# The argument that follows from the layer before, and the axis of one example that it is the size of.
_COMPUTED = {
    "Linear": ("in_features", -1),
    "Conv2d": ("in_channels", 0),
    "BatchNorm1d": ("num_features", 0),
    "BatchNorm2d": ("num_features", 0),
}
_SIZES = ("in_features", "out_features", "in_channels", "out_channels", "num_features")

# What the program decides itself: the mean over the batch is what it weights and reports, the loss is what
# a plateau is looked for in, and a cycle is as long as the training.
_OURS = {"dtype", "device", "generator", "reduction", "last_epoch", "total_steps", "steps_per_epoch"}
_OURS_OF = {"ReduceLROnPlateau": {"mode"}, "OneCycleLR": {"epochs"}}


@dataclass(frozen=True)
class Part:
    """A layer, loss or optimizer: its class in ``torch.nn`` or ``torch.optim``, and the arguments."""

    type: str
    arguments: dict[str, Any]
    name: str = ""


class WrongRecipe(Exception):
    """What is wrong in a recipe, without the name of its file."""


def check(condition: object, expected: str, found: object) -> None:
    """Raise WrongRecipe, which says what was expected and what was found, unless ``condition`` holds."""
    if not condition:
        shown = repr(found)
        raise WrongRecipe(f"{expected}, found {shown if len(shown) <= 60 else shown[:57] + '...'}")


def is_whole(value: object, least: int) -> bool:
    """Tell whether this is a whole number from ``least`` up, of a size that arrays can have."""
    return type(value) is int and least <= value < 2**63


def is_number(value: object) -> bool:
    """Tell whether this is a finite number, which a bool is not."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)  # type: ignore[arg-type]


def read_part(
    what: str, table: object, types: tuple[str, ...], namespace: Any = None, optional: Iterable[str] = ()
) -> Part:
    """Return a part after checking its type and, in ``namespace``, the names of its arguments."""
    if not isinstance(table, dict) or not isinstance(table.get("type"), str):
        raise WrongRecipe(
            f"{what} must be a table with a type, such as {{ type = '{types[0]}' }}, found {table!r}"
        )
    kind = table["type"]
    if kind not in types:
        raise WrongRecipe(f"unknown {what} type '{kind}'. Known: {', '.join(types)}." + nearest(kind, types))
    arguments = {key: value for key, value in table.items() if key not in ("type", "name")}
    if ours := sorted((_OURS | _OURS_OF.get(kind, set())) & arguments.keys()):
        raise WrongRecipe(f"{what} {kind}: {ours[0]} cannot be chosen in a recipe")
    name = table.get("name", "")
    check(isinstance(name, str), f"the name of a {kind} must be text", name)
    if namespace is not None:
        first = 1 if namespace in (optim, optim.lr_scheduler) else 0  # the parameters, or the optimizer
        check_arguments(f"{what} {kind}", arguments, getattr(namespace, kind), first, optional)
    return Part(kind, arguments, name)


def check_arguments(
    what: str, given: Iterable[str], function: Any, skip: int = 0, optional: Iterable[str] = ()
) -> None:
    """Compare the names of arguments with those of a class or function, but for the ``skip`` first ones."""
    names = dict(list(inspect.signature(function).parameters.items())[skip:])
    if function is optim.AdamW:  # which passes on to Adam what it does not name
        names = {**dict(list(inspect.signature(optim.Adam).parameters.items())[skip:]), **names}
    open_ended = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    names = {name: parameter for name, parameter in names.items() if parameter.kind not in open_ended}
    for name in given:
        if name not in names:
            raise WrongRecipe(f"{what} has no argument '{name}'.{nearest(name, names)}")
    for name, parameter in names.items():
        if parameter.default is parameter.empty and name not in given and name not in optional:
            raise WrongRecipe(f"{what} has no {name}")


def follow_shapes(
    layers: list[Part], shape: tuple[int, ...]
) -> tuple[tuple[Part, ...], tuple[tuple[int, ...], ...]]:
    """Follow the shape of one example through the layers, and fill in the sizes that follow from it."""
    resolved: list[Part] = []
    shapes: list[tuple[int, ...]] = []
    for layer in layers:
        if not layer.name.isidentifier():
            named = f"the name '{layer.name}', expected one such as fc1" if layer.name else "no name"
            raise WrongRecipe(f"a {layer.type} layer has {named}")
        if any(layer.name == other.name for other in resolved):
            raise WrongRecipe(f"two layers are named '{layer.name}'")
        layer = Part(layer.type, _with_computed_size(layer, shape), layer.name)
        shape = _shape_after(layer, shape)
        resolved.append(layer)
        shapes.append(shape)
    return tuple(resolved), tuple(shapes)


def _with_computed_size(layer: Part, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the layer's arguments with the one that follows from ``shape``; all are checked by name."""
    arguments = layer.arguments
    if layer.type == "Flatten":
        check(not arguments, f"'{layer.name}' (Flatten) takes no arguments here", arguments)
    if layer.type in _IMAGE_LAYERS and len(shape) != 3:
        hint = f": begin with input.shape = [1, {shape[0]}, {shape[1]}]" if len(shape) == 2 else ""
        raise WrongRecipe(
            f"'{layer.name}' ({layer.type}) takes images (channels, height, width), found {shape}{hint}"
        )
    for key in _SIZES:
        size = arguments.get(key, 1)
        check(is_whole(size, 1), f"'{layer.name}'.{key} must be a whole number from 1 up", size)
    if layer.type in _COMPUTED:
        key, axis = _COMPUTED[layer.type]
        arguments = {key: shape[axis], **arguments}
        check(arguments[key] == shape[axis], f"'{layer.name}'.{key} must be {shape[axis]}", arguments[key])
    check_arguments(f"'{layer.name}'", arguments, getattr(nn_reference, layer.type))
    return arguments


def _shape_after(layer: Part, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one example after a layer, by sending a blank one through it."""
    if layer.type == "Linear":  # known without drawing its weights
        return (*shape[:-1], layer.arguments["out_features"])
    try:
        return tuple(make(nn_reference, layer).eval()(np.zeros((1, *shape), np.float32)).shape[1:])
    except Exception as error:
        raise WrongRecipe(f"'{layer.name}': {error}") from None


def make(namespace: Any, part: Part, *positional: Any, **more: Any) -> Any:
    """Return what ``part`` describes: the class of that name in ``namespace``, called with its arguments."""
    return getattr(namespace, part.type)(*positional, **part.arguments, **more)
