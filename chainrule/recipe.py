"""Recipes: a network and how it is trained, as data that both engines build from.

A recipe is a TOML file in ``chainrule/recipes/`` (or a path of your own). Layers, losses and optimizers are
named as in ``torch.nn`` and ``torch.optim``, with their arguments; sizes that follow from the layer before
are computed.
"""

import tomllib
from collections import OrderedDict
from dataclasses import dataclass
from importlib import resources
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

from chainrule.errors import ChainruleError, WrongUsage, nearest

# Layers that keep the shape of what they are given, and those that are built with random weights.
_ELEMENTWISE = ("ReLU", "Sigmoid", "Tanh", "LogSoftmax", "Softmax", "Identity")
_RANDOM = ("Linear",)
_LAYERS = ("Flatten", "Linear", *_ELEMENTWISE)

_KEYS = {
    "": {"summary", "layers", "input", "training"},
    "input": {"shape", "mean", "std"},
    "training": {"loss", "optimizer", "batch_size", "epochs", "seed"},
}


@dataclass(frozen=True)
class Part:
    """A layer, loss or optimizer: its class in ``torch.nn`` or ``torch.optim``, and the arguments."""

    type: str
    arguments: dict[str, Any]
    name: str = ""


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run needs besides the data.

    ``shapes[i]`` is the shape of one example after ``layers[i]``. The network sees
    ``(pixel / 255 - mean) / std``.
    """

    name: str
    summary: str
    layers: tuple[Part, ...]
    shapes: tuple[tuple[int, ...], ...]
    input_shape: tuple[int, ...]
    mean: float
    std: float
    loss: Part
    optimizer: Part
    batch_size: int
    epochs: int
    seed: int

    def build(self, nn: ModuleType, **random_arguments: Any) -> Any:
        """Return the network, built from ``nn``: ``nn_reference`` or ``torch.nn``, the names are the same.

        ``random_arguments`` go to the layers that draw random weights (``generator=`` for ``nn_reference``).
        """
        modules = (
            (layer.name, _make(nn, layer, **(random_arguments if layer.type in _RANDOM else {})))
            for layer in self.layers
        )
        return nn.Sequential(OrderedDict(modules))

    def build_loss(self, nn: ModuleType) -> Any:
        """Return the loss, built from ``nn_reference`` or ``torch.nn``."""
        return _make(nn, self.loss)

    def build_optimizer(self, optim: ModuleType, parameters: Any) -> Any:
        """Return the optimizer of ``parameters``, built from ``nn_reference.optim`` or ``torch.optim``."""
        return _make(optim, self.optimizer, parameters)


def known() -> list[str]:
    """Names of the recipes that come with chainrule."""
    files = resources.files("chainrule.recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(name: str) -> Recipe:
    """Return the recipe of this name, or the one in a TOML file of your own (``./mine.toml``).

    Raises WrongUsage for an unknown name, ChainruleError for a file that is not a recipe.
    """
    if name in known():
        text = resources.files("chainrule.recipes").joinpath(f"{name}.toml").read_text("utf-8")
        return parse(text, name=name, source=f"recipe {name}")
    path = Path(name).expanduser()
    if path.suffix != ".toml":
        raise WrongUsage(
            f"there is no recipe '{name}'. Known: {', '.join(known())}; or a path that ends in .toml."
            + nearest(name, known())
        )
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ChainruleError(f"{path}: expected a recipe in TOML, found bytes that are not text") from None
    except OSError as error:
        raise ChainruleError(f"{path}: {error.strerror}") from None
    return parse(text, name=path.stem, source=str(path))


def parse(text: str, *, name: str, source: str) -> Recipe:
    """Return the recipe that ``text`` (TOML) describes; ``source`` is named in errors (ChainruleError)."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ChainruleError(f"{source}: not valid TOML: {error}") from None
    _check_keys(table, source)
    _check_input(table["input"], source)
    layers, shapes = _resolve(
        [_part(layer, source) for layer in table["layers"]], table["input"]["shape"], source
    )
    training = table["training"]
    for key, least in (("batch_size", 1), ("epochs", 1), ("seed", 0)):
        if type(training[key]) is not int or training[key] < least:
            raise ChainruleError(
                f"{source}: training.{key} must be a whole number from {least} up, found {training[key]!r}"
            )
    return Recipe(
        name=name,
        summary=table["summary"],
        layers=layers,
        shapes=shapes,
        input_shape=tuple(table["input"]["shape"]),
        mean=float(table["input"]["mean"]),
        std=float(table["input"]["std"]),
        loss=_part(training["loss"], source),
        optimizer=_part(training["optimizer"], source),
        batch_size=training["batch_size"],
        epochs=training["epochs"],
        seed=training["seed"],
    )


def _make(namespace: ModuleType, part: Part, *more: Any, **random_arguments: Any) -> Any:
    try:
        return getattr(namespace, part.type)(*more, **part.arguments, **random_arguments)
    except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
        where = f"'{part.name}'" if part.name else part.type
        raise ChainruleError(f"the recipe's {where} cannot be built with {part.arguments}: {error}") from None


def _check_keys(table: dict[str, Any], source: str) -> None:
    for section, keys in _KEYS.items():
        found = table.get(section, {}) if section else table
        prefix = f"{section}." if section else ""
        if missing := sorted(keys - found.keys()):
            raise ChainruleError(f"{source}: {prefix}{missing[0]} is missing")
        if unknown := sorted(found.keys() - keys):
            raise ChainruleError(
                f"{source}: unknown key {prefix}{unknown[0]}.{nearest(unknown[0], sorted(keys))}"
            )


def _check_input(table: dict[str, Any], source: str) -> None:
    shape = table["shape"]
    if not isinstance(shape, list) or not shape or any(type(size) is not int or size < 1 for size in shape):
        raise ChainruleError(f"{source}: input.shape must be a list of whole numbers, found {shape!r}")
    for key in ("mean", "std"):
        if type(table[key]) not in (int, float) or (key == "std" and not table[key] > 0):
            above = " above 0" if key == "std" else ""
            raise ChainruleError(f"{source}: input.{key} must be a number{above}, found {table[key]!r}")


def _part(table: dict[str, Any], source: str) -> Part:
    if not isinstance(table, dict) or "type" not in table:
        raise ChainruleError(f"{source}: expected a table with a type, found {table!r}")
    arguments = {key: value for key, value in table.items() if key not in ("type", "name")}
    return Part(type=table["type"], arguments=arguments, name=table.get("name", ""))


def _resolve(
    layers: list[Part], input_shape: list[int], source: str
) -> tuple[tuple[Part, ...], tuple[tuple[int, ...], ...]]:
    """Follow the shape of one example through the layers, and fill in the sizes that follow from it."""
    shape = tuple(input_shape)
    resolved: list[Part] = []
    shapes: list[tuple[int, ...]] = []
    for layer in layers:
        arguments = layer.arguments
        if not layer.name:
            raise ChainruleError(f"{source}: a {layer.type} layer has no name")
        if any(layer.name == other.name for other in resolved):
            raise ChainruleError(f"{source}: two layers are named '{layer.name}'")
        if layer.type == "Flatten":
            shape = (prod(shape),)
        elif layer.type == "Linear":
            if "out_features" not in arguments:
                raise ChainruleError(f"{source}: '{layer.name}' has no out_features")
            arguments = {"in_features": shape[-1], **arguments}
            shape = (*shape[:-1], arguments["out_features"])
        elif layer.type not in _ELEMENTWISE:
            raise ChainruleError(
                f"{source}: unknown layer type '{layer.type}'. Known: {', '.join(_LAYERS)}."
                + nearest(layer.type, list(_LAYERS))
            )
        resolved.append(Part(layer.type, arguments, layer.name))
        shapes.append(shape)
    return tuple(resolved), tuple(shapes)
