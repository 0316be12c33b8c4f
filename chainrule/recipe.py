"""Recipes: a network and how it is trained, as data that both engines build from.

A recipe is a TOML file in ``chainrule/recipes/`` (or a path of your own). Layers, losses and optimizers are
named as in ``torch.nn`` and ``torch.optim``, with their arguments; sizes that follow from the layer before
are computed.
"""

import math
import tomllib
from collections import OrderedDict
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

from chainrule.errors import ChainruleError, WrongUsage, nearest

# Layers that keep the shape of what they are given, and those that are built with random weights.
_ELEMENTWISE = ("ReLU", "Sigmoid", "Tanh", "LogSoftmax", "Softmax", "Identity")
_RANDOM = ("Linear",)
_LAYERS = ("Flatten", "Linear", *_ELEMENTWISE)
_LOSSES = ("CrossEntropyLoss", "NLLLoss")
_OPTIMIZERS = ("SGD", "Adam", "AdamW")

_KEYS = {
    "": {"summary", "layers", "input", "training"},
    "input": {"shape", "mean", "std"},
    "training": {"loss", "optimizer", "batch_size", "epochs", "seed"},
}
# What the program decides itself: the mean over the batch is what it weights and reports.
_OURS = {"dtype", "device", "generator", "reduction"}


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
    source: str  # where it was read, for messages
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


def _make(namespace: ModuleType, part: Part, *positional: Any, **more: Any) -> Any:
    return getattr(namespace, part.type)(*positional, **part.arguments, **more)


def known() -> list[str]:
    """Names of the recipes that come with chainrule."""
    files = resources.files("chainrule.recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(name: str) -> Recipe:
    """Return the recipe of this name, or the one in a TOML file of your own (``./mine.toml``).

    Raises WrongUsage for an unknown name, ChainruleError for a file that is not a recipe. Arguments of layers
    are not checked here: `chainrule.engines.rehearse` does that.
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
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ChainruleError(f"{path}: expected a recipe in TOML, found bytes that are not text") from None
    except OSError as error:
        raise ChainruleError(f"{path}: {error.strerror}") from None
    return parse(text, name=path.stem, source=str(path))


def parse(text: str, *, name: str, source: str) -> Recipe:
    """Return the recipe that ``text`` (TOML) describes; ``source`` is named in errors (ChainruleError)."""
    try:
        return _recipe(tomllib.loads(text), name, source)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ChainruleError(f"{source}: not valid TOML: {error}") from None
    except _Wrong as error:
        raise ChainruleError(f"{source}: {error}") from None


class _Wrong(Exception):
    """What is wrong in a recipe, without the name of its file."""


def _recipe(table: dict[str, Any], name: str, source: str) -> Recipe:
    for section, keys in _KEYS.items():
        _check_keys(section, table.get(section) if section else table, keys)
    _check(isinstance(table["summary"], str), "summary must be text", table["summary"])
    image, training = table["input"], table["training"]
    shape = image["shape"]
    _check(
        isinstance(shape, list) and shape and all(_is_whole(size, 1) for size in shape),
        "input.shape must be a list of whole numbers",
        shape,
    )
    _check(_is_number(image["mean"]), "input.mean must be a number", image["mean"])
    _check(_is_number(image["std"]) and image["std"] > 0, "input.std must be a number above 0", image["std"])
    for key, least in (("batch_size", 1), ("epochs", 1), ("seed", 0)):
        whole = f"training.{key} must be a whole number from {least} up"
        _check(_is_whole(training[key], least), whole, training[key])
    _check(isinstance(table["layers"], list) and table["layers"], "layers must be a list", table["layers"])
    layers, shapes = _resolve([_part("layer", layer, _LAYERS) for layer in table["layers"]], tuple(shape))
    optimizer = _part("training.optimizer", training["optimizer"], _OPTIMIZERS)
    rate = optimizer.arguments.get("lr", 1e-3)
    _check(_is_number(rate) and rate > 0, "training.optimizer's lr must be a number above 0", rate)
    return Recipe(
        name=name,
        source=source,
        summary=table["summary"],
        layers=layers,
        shapes=shapes,
        input_shape=tuple(shape),
        mean=float(image["mean"]),
        std=float(image["std"]),
        loss=_part("training.loss", training["loss"], _LOSSES),
        optimizer=optimizer,
        batch_size=training["batch_size"],
        epochs=training["epochs"],
        seed=training["seed"],
    )


def _check(condition: object, expected: str, found: object) -> None:
    if not condition:
        shown = repr(found)
        raise _Wrong(f"{expected}, found {shown if len(shown) <= 60 else shown[:57] + '...'}")


def _is_whole(value: object, least: int) -> bool:
    return type(value) is int and least <= value < 2**63


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)  # type: ignore[arg-type]


def _check_keys(section: str, found: object, keys: set[str]) -> None:
    if found is None:
        raise _Wrong(f"{section} is missing")
    if not isinstance(found, dict):
        raise _Wrong(f"{section} must be a table, found {found!r}")
    prefix = f"{section}." if section else ""
    if missing := sorted(keys - found.keys()):
        raise _Wrong(f"{prefix}{missing[0]} is missing")
    if unknown := sorted(found.keys() - keys):
        raise _Wrong(f"unknown key {prefix}{unknown[0]}.{nearest(unknown[0], keys)}")


def _part(what: str, table: object, types: tuple[str, ...]) -> Part:
    if not isinstance(table, dict) or not isinstance(table.get("type"), str):
        raise _Wrong(
            f"{what} must be a table with a type, such as {{ type = '{types[0]}' }}, found {table!r}"
        )
    if table["type"] not in types:
        raise _Wrong(
            f"unknown {what} type '{table['type']}'. Known: {', '.join(types)}."
            + nearest(table["type"], types)
        )
    arguments = {key: value for key, value in table.items() if key not in ("type", "name")}
    if ours := sorted(_OURS & arguments.keys()):
        raise _Wrong(f"{what} {table['type']}: {ours[0]} cannot be chosen in a recipe")
    name = table.get("name", "")
    _check(isinstance(name, str), f"the name of a {table['type']} must be text", name)
    return Part(table["type"], arguments, name)


def _resolve(
    layers: list[Part], shape: tuple[int, ...]
) -> tuple[tuple[Part, ...], tuple[tuple[int, ...], ...]]:
    """Follow the shape of one example through the layers, and fill in the sizes that follow from it."""
    resolved: list[Part] = []
    shapes: list[tuple[int, ...]] = []
    for layer in layers:
        if not layer.name.isidentifier():
            named = f"the name '{layer.name}', expected one such as fc1" if layer.name else "no name"
            raise _Wrong(f"a {layer.type} layer has {named}")
        if any(layer.name == other.name for other in resolved):
            raise _Wrong(f"two layers are named '{layer.name}'")
        arguments = layer.arguments
        if layer.type == "Flatten":
            _check(not arguments, f"'{layer.name}' (Flatten) takes no arguments here", arguments)
            shape = (math.prod(shape),)
        elif layer.type == "Linear":
            if "out_features" not in arguments:
                raise _Wrong(f"'{layer.name}' has no out_features")
            for key in ("in_features", "out_features"):
                size = arguments.get(key, 1)
                _check(_is_whole(size, 1), f"'{layer.name}'.{key} must be a whole number from 1 up", size)
            arguments = {"in_features": shape[-1], **arguments}
            fits = arguments["in_features"] == shape[-1]
            _check(fits, f"'{layer.name}'.in_features must be {shape[-1]}", arguments["in_features"])
            shape = (*shape[:-1], arguments["out_features"])
        resolved.append(Part(layer.type, arguments, layer.name))
        shapes.append(shape)
    return tuple(resolved), tuple(shapes)
