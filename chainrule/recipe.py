"""Recipes: a network and how it is trained, as data that both engines build from.

A recipe is a TOML file in ``chainrule/recipes/`` (or a path of your own). Layers, losses, optimizers,
schedulers and initialisers are named as in ``torch.nn`` and ``torch.optim``, with their arguments; sizes that
follow from the layer before are computed.
"""

import inspect
import math
import tomllib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import nn_reference
from chainrule.errors import ChainruleError, WrongUsage, nearest
from nn_reference import optim

_RANDOM = ("Linear", "Conv2d")  # what is built with random weights
_IMAGE_LAYERS = ("Conv2d", "MaxPool2d", "AvgPool2d", "BatchNorm2d")
_LAYERS = (
    *("Flatten", *_RANDOM, "MaxPool2d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Dropout", "Identity"),
    *("ReLU", "LeakyReLU", "Sigmoid", "Tanh", "ELU", "SiLU", "GELU", "LogSoftmax", "Softmax"),
)
_LOSSES = ("CrossEntropyLoss", "NLLLoss")
_OPTIMIZERS = ("SGD", "Adam", "AdamW")
_SCHEDULERS = (
    *("StepLR", "MultiStepLR", "ExponentialLR", "LinearLR", "CosineAnnealingLR", "OneCycleLR"),
    "ReduceLROnPlateau",
)
_WEIGHT_INITS = ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "uniform", "normal")
_BIAS_INITS = ("zeros", "ones", "constant", "uniform", "normal")

# The argument that follows from the layer before, and the axis of one example that it is the size of.
_COMPUTED = {
    "Linear": ("in_features", -1),
    "Conv2d": ("in_channels", 0),
    "BatchNorm1d": ("num_features", 0),
    "BatchNorm2d": ("num_features", 0),
}
_SIZES = ("in_features", "out_features", "in_channels", "out_channels", "num_features")

_REQUIRED = {
    "": {"summary", "layers", "input", "training"},
    "input": {"shape", "mean", "std"},
    "training": {"loss", "optimizer", "batch_size", "epochs", "seed"},
    "init": {"weight"},
}
_OPTIONAL = {
    "": {"init"},
    "training": {"scheduler", "validation", "early_stopping"},
    "init": {"bias"},
}
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


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run needs besides the data.

    ``shapes[i]`` is the shape of one example after ``layers[i]``. The network sees
    ``(pixel / 255 - mean) / std``. ``interval`` is what the scheduler counts, "step" or "epoch".
    ``validation`` is how many training images are kept back, ``early_stopping`` after how many epochs without
    a better one on these the training ends (None: never).
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
    init_weight: Part | None = None
    init_bias: Part | None = None
    scheduler: Part | None = None
    interval: str = "epoch"
    validation: int = 0
    early_stopping: int | None = None

    def build(self, nn: ModuleType, *, generator: Any = None, mask_generator: Any = None) -> Any:
        """Return the network, built from ``nn``: ``nn_reference`` or ``torch.nn``, the names are the same.

        The weights are drawn from ``generator``, the masks of Dropout from ``mask_generator``; both are for
        ``nn_reference`` (``torch.nn`` draws from PyTorch's own generator).
        """
        weights = {} if generator is None else {"generator": generator}
        masks = {} if mask_generator is None else {"generator": mask_generator}
        random = {**dict.fromkeys(_RANDOM, weights), "Dropout": masks}
        modules = ((layer.name, _make(nn, layer, **random.get(layer.type, {}))) for layer in self.layers)
        network = nn.Sequential(OrderedDict(modules))
        for layer, module in zip(self.layers, network, strict=True):
            if layer.type not in _RANDOM:
                continue
            for init, parameter in ((self.init_weight, module.weight), (self.init_bias, module.bias)):
                if init is not None and parameter is not None:
                    drawn = {} if init.type in ("zeros", "ones", "constant") else weights
                    getattr(nn.init, f"{init.type}_")(parameter, **init.arguments, **drawn)
        return network

    def build_loss(self, nn: ModuleType) -> Any:
        """Return the loss, built from ``nn_reference`` or ``torch.nn``."""
        return _make(nn, self.loss)

    def build_optimizer(self, optim: ModuleType, parameters: Any) -> Any:
        """Return the optimizer of ``parameters``, built from ``nn_reference.optim`` or ``torch.optim``."""
        return _make(optim, self.optimizer, parameters)

    def build_scheduler(self, optim: ModuleType, optimizer: Any, steps_per_epoch: int) -> Any:
        """Return the scheduler of ``optimizer``, to be stepped once every ``interval``, or None.

        OneCycleLR is as long as the training, and so is CosineAnnealingLR where the recipe gives no T_max.
        """
        if self.scheduler is None:
            return None
        length = self.epochs * (steps_per_epoch if self.interval == "step" else 1)
        more = {}
        if self.scheduler.type == "OneCycleLR":
            more["total_steps"] = length
        elif self.scheduler.type == "CosineAnnealingLR" and "T_max" not in self.scheduler.arguments:
            more["T_max"] = length
        return _make(optim.lr_scheduler, self.scheduler, optimizer, **more)

    def examples(self, images: np.ndarray) -> np.ndarray:
        """Return images (N, H, W) as the network takes them, (N, *input_shape): where that is (1, H, W), with
        an axis for the one channel."""
        return images.reshape(len(images), *self.input_shape)


def _make(namespace: Any, part: Part, *positional: Any, **more: Any) -> Any:
    return getattr(namespace, part.type)(*positional, **part.arguments, **more)


def known() -> list[str]:
    """Names of the recipes that come with chainrule."""
    files = resources.files("chainrule.recipes").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe of this name, or the one in a TOML file of your own (``./mine.toml``).

    ``changes`` are set before it is read: ``{"training.epochs": 5, "layers.fc1.out_features": 64}``.

    Raises WrongUsage for an unknown name or key, ChainruleError for a file that is not a recipe. What only an
    engine can know is not checked here: `chainrule.engines.rehearse` does that.
    """
    if name in known():
        text = resources.files("chainrule.recipes").joinpath(f"{name}.toml").read_text("utf-8")
        return parse(text, name=name, source=f"recipe {name}", changes=changes)
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
    return parse(text, name=path.stem, source=str(path), changes=changes)


def parse(text: str, *, name: str, source: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe that ``text`` (TOML) describes; ``source`` is named in errors (ChainruleError)."""
    try:
        table = tomllib.loads(text)
        for key, value in (changes or {}).items():
            _change(table, key, value)
        made = _recipe(table, name, source)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ChainruleError(f"{source}: not valid TOML: {error}") from None
    except _Wrong as error:
        raise ChainruleError(f"{source}: {error}") from None
    # The summary is text that somebody wrote: it must not name layers that are no longer so.
    changed = [
        f"{key.removeprefix('layers.')} = {value}"
        for key, value in (changes or {}).items()
        if key.startswith("layers.")
    ]
    return replace(made, summary=", ".join([made.summary, *changed]))


def restore(saved: Any, source: str) -> Recipe:
    """Return the recipe that ``saved`` is what `dataclasses.asdict` made of: a run's config.json keeps it so.

    It is checked like one that a person wrote; ``source`` is named in errors (ChainruleError).
    """
    try:
        keys = ("batch_size", "epochs", "seed", "validation", "early_stopping")
        training = {key: saved[key] for key in keys if key in saved}
        training |= {"loss": _as_table(saved["loss"]), "optimizer": _as_table(saved["optimizer"])}
        if saved.get("scheduler") is not None:
            training["scheduler"] = {**_as_table(saved["scheduler"]), "interval": saved["interval"]}
        init = {key: saved.get(f"init_{key}") for key in ("weight", "bias")}
        table = {
            "summary": saved["summary"],
            "layers": [_as_table(layer) for layer in saved["layers"]],
            "input": {"shape": saved["input_shape"], "mean": saved["mean"], "std": saved["std"]},
            "training": training,
        }
        if init["weight"] is not None:
            table["init"] = {key: _as_table(part) for key, part in init.items() if part is not None}
        return _recipe(table, str(saved["name"]), source)
    except _Wrong as error:
        raise ChainruleError(f"{source}: {error}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise ChainruleError(f"{source}: not the recipe of a run: {error}") from None


def _as_table(part: Any) -> dict[str, Any]:
    """Return a part as it stands in a recipe's file."""
    name = {"name": part["name"]} if part["name"] else {}
    return {**part["arguments"], **name, "type": part["type"]}


class _Wrong(Exception):
    """What is wrong in a recipe, without the name of its file."""


def _recipe(table: dict[str, Any], name: str, source: str) -> Recipe:
    for section in ("", "input", "training", *(["init"] if "init" in table else [])):
        _check_keys(section, table.get(section) if section else table)
    _check(isinstance(table["summary"], str), "summary must be text", table["summary"])
    image, training, init = table["input"], table["training"], table.get("init", {})
    shape = image["shape"]
    _check(
        isinstance(shape, list) and shape and all(_is_whole(size, 1) for size in shape),
        "input.shape must be a list of whole numbers",
        shape,
    )
    _check(_is_number(image["mean"]), "input.mean must be a number", image["mean"])
    _check(_is_number(image["std"]) and image["std"] > 0, "input.std must be a number above 0", image["std"])
    training = {"validation": 0, "early_stopping": None, "scheduler": None, **training}
    for key, least in (
        ("batch_size", 1),
        ("epochs", 1),
        ("seed", 0),
        ("validation", 0),
        ("early_stopping", 1),
    ):
        if training[key] is not None:
            whole = f"training.{key} must be a whole number from {least} up"
            _check(_is_whole(training[key], least), whole, training[key])
    if training["early_stopping"] is not None and not training["validation"]:
        raise _Wrong("early stopping needs images to judge by: give --validation, or training.validation")
    _check(isinstance(table["layers"], list) and table["layers"], "layers must be a list", table["layers"])
    layers, shapes = _resolve([_part("layer", layer, _LAYERS) for layer in table["layers"]], tuple(shape))
    optimizer = _part("training.optimizer", training["optimizer"], _OPTIMIZERS, optim)
    rate = optimizer.arguments.get("lr", 1e-3)
    _check(_is_number(rate) and rate > 0, "training.optimizer's lr must be a number above 0", rate)
    loss = _part("training.loss", training["loss"], _LOSSES, nn_reference)
    if loss.type == "NLLLoss" and layers[-1].type != "LogSoftmax":
        raise _Wrong(
            f"NLLLoss takes log-probabilities, but the network ends with '{layers[-1].name}' "
            f"({layers[-1].type}): end it with a LogSoftmax, or take CrossEntropyLoss"
        )
    scheduler, interval = _scheduler(training["scheduler"])
    return Recipe(
        name=name,
        source=source,
        summary=table["summary"],
        layers=layers,
        shapes=shapes,
        input_shape=tuple(shape),
        mean=float(image["mean"]),
        std=float(image["std"]),
        loss=loss,
        optimizer=optimizer,
        batch_size=training["batch_size"],
        epochs=training["epochs"],
        seed=training["seed"],
        init_weight=_init("weight", init, _WEIGHT_INITS),
        init_bias=_init("bias", init, _BIAS_INITS),
        scheduler=scheduler,
        interval=interval,
        validation=training["validation"],
        early_stopping=training["early_stopping"],
    )


def _init(key: str, init: dict[str, Any], types: tuple[str, ...]) -> Part | None:
    if key not in init:
        return None
    part = _part(f"init.{key}", init[key], types)
    _check_arguments(
        f"init.{key} {part.type}", part.arguments, getattr(nn_reference.init, f"{part.type}_"), 1
    )
    return part


def _scheduler(table: Any) -> tuple[Part | None, str]:
    """Return the scheduler and what it counts: steps for OneCycleLR, else epochs or as ``interval`` says."""
    if table is None:
        return None, "epoch"
    given = table.get("interval") if isinstance(table, dict) else None
    if isinstance(table, dict):
        table = {key: value for key, value in table.items() if key != "interval"}
    part = _part("training.scheduler", table, _SCHEDULERS, optim.lr_scheduler, optional=("T_max",))
    allowed = {"OneCycleLR": ("step",), "ReduceLROnPlateau": ("epoch",)}.get(part.type, ("epoch", "step"))
    interval = allowed[0] if given is None else given
    _check(interval in allowed, f"the interval of {part.type} must be {' or '.join(allowed)}", interval)
    return part, interval


def _check(condition: object, expected: str, found: object) -> None:
    if not condition:
        shown = repr(found)
        raise _Wrong(f"{expected}, found {shown if len(shown) <= 60 else shown[:57] + '...'}")


def _is_whole(value: object, least: int) -> bool:
    return type(value) is int and least <= value < 2**63


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)  # type: ignore[arg-type]


def _check_keys(section: str, found: object) -> None:
    required, keys = _REQUIRED[section], _REQUIRED[section] | _OPTIONAL.get(section, set())
    if found is None:
        raise _Wrong(f"{section} is missing")
    if not isinstance(found, dict):
        raise _Wrong(f"{section} must be a table, found {found!r}")
    prefix = f"{section}." if section else ""
    if missing := sorted(required - found.keys()):
        raise _Wrong(f"{prefix}{missing[0]} is missing")
    if unknown := sorted(found.keys() - keys):
        raise _Wrong(f"unknown key {prefix}{unknown[0]}.{nearest(unknown[0], keys)}")


def _part(
    what: str, table: object, types: tuple[str, ...], namespace: Any = None, optional: Iterable[str] = ()
) -> Part:
    """Return a part after checking its type and, in ``namespace``, the names of its arguments."""
    if not isinstance(table, dict) or not isinstance(table.get("type"), str):
        raise _Wrong(
            f"{what} must be a table with a type, such as {{ type = '{types[0]}' }}, found {table!r}"
        )
    kind = table["type"]
    if kind not in types:
        raise _Wrong(f"unknown {what} type '{kind}'. Known: {', '.join(types)}." + nearest(kind, types))
    arguments = {key: value for key, value in table.items() if key not in ("type", "name")}
    if ours := sorted((_OURS | _OURS_OF.get(kind, set())) & arguments.keys()):
        raise _Wrong(f"{what} {kind}: {ours[0]} cannot be chosen in a recipe")
    name = table.get("name", "")
    _check(isinstance(name, str), f"the name of a {kind} must be text", name)
    if namespace is not None:
        first = 1 if namespace in (optim, optim.lr_scheduler) else 0  # the parameters, or the optimizer
        _check_arguments(f"{what} {kind}", arguments, getattr(namespace, kind), first, optional)
    return Part(kind, arguments, name)


def _check_arguments(
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
            raise _Wrong(f"{what} has no argument '{name}'.{nearest(name, names)}")
    for name, parameter in names.items():
        if parameter.default is parameter.empty and name not in given and name not in (*optional, *_OURS):
            raise _Wrong(f"{what} has no {name}")


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
        layer = Part(layer.type, _with_computed_size(layer, shape), layer.name)
        shape = _shape_after(layer, shape)
        resolved.append(layer)
        shapes.append(shape)
    return tuple(resolved), tuple(shapes)


def _with_computed_size(layer: Part, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the layer's arguments with the one that follows from ``shape``; all are checked by name."""
    arguments = layer.arguments
    if layer.type == "Flatten":
        _check(not arguments, f"'{layer.name}' (Flatten) takes no arguments here", arguments)
    if layer.type in _IMAGE_LAYERS and len(shape) != 3:
        hint = f": begin with input.shape = [1, {shape[0]}, {shape[1]}]" if len(shape) == 2 else ""
        raise _Wrong(
            f"'{layer.name}' ({layer.type}) takes images (channels, height, width), found {shape}{hint}"
        )
    for key in _SIZES:
        size = arguments.get(key, 1)
        _check(_is_whole(size, 1), f"'{layer.name}'.{key} must be a whole number from 1 up", size)
    if layer.type in _COMPUTED:
        key, axis = _COMPUTED[layer.type]
        arguments = {key: shape[axis], **arguments}
        _check(arguments[key] == shape[axis], f"'{layer.name}'.{key} must be {shape[axis]}", arguments[key])
    _check_arguments(f"'{layer.name}'", arguments, getattr(nn_reference, layer.type))
    return arguments


def _shape_after(layer: Part, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of one example after a layer, by sending a blank one through it."""
    if layer.type == "Linear":  # known without drawing its weights
        return (*shape[:-1], layer.arguments["out_features"])
    try:
        return tuple(_make(nn_reference, layer).eval()(np.zeros((1, *shape), np.float32)).shape[1:])
    except Exception as error:
        raise _Wrong(f"'{layer.name}': {error}") from None


# -- Changes from the command line ----------------------------------------------------------------------


def changes(settings: Iterable[str]) -> dict[str, Any]:
    """Return what ``--set`` says: "training.epochs=5" gives ``{"training.epochs": 5}``.

    Values are TOML; a word without quotes is text. Raises WrongUsage.
    """
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not key or not text:
            raise WrongUsage(f"--set takes KEY=VALUE, such as training.epochs=5, found '{setting}'")
        try:
            table = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            if not text.replace("-", "_").isidentifier():
                raise WrongUsage(f"--set {key}: expected a value in TOML, found '{text}'") from None
            table = {"value": text}
        if table.keys() != {"value"}:
            raise WrongUsage(f"--set {key}: expected one value in TOML, found '{text}'")
        result[key] = table["value"]
    return result


def _change(table: dict[str, Any], path: str, value: Any) -> None:
    """Set what ``path`` names in a recipe's table; WrongUsage if there is nothing of that name.

    Arguments of a part are checked where all of them are, in `_part`.
    """
    here: Any = table
    *sections, last = path.split(".")
    for depth, key in enumerate(sections):
        where = ".".join(sections[:depth])
        if where == "layers":
            layers = {layer["name"]: layer for layer in here if isinstance(layer, dict) and "name" in layer}
            if key not in layers:
                raise WrongUsage(f"--set {path}: there is no layer '{key}'.{nearest(key, layers)}")
            here = layers[key]
        else:
            _check_known(path, where, key)
            here = here.setdefault(key, {})
        if not isinstance(here, dict | list):
            raise WrongUsage(
                f"--set {path}: {'.'.join(sections[: depth + 1])} is {here!r}, it has no '{last}'"
            )
    if isinstance(here, list):
        raise WrongUsage(f"--set {path}: name an argument of a layer, such as layers.fc1.out_features=64")
    _check_known(path, ".".join(sections), last)
    here[last] = value


def _check_known(path: str, section: str, key: str) -> None:
    if section in _REQUIRED:
        keys = _REQUIRED[section] | _OPTIONAL.get(section, set())
        if key not in keys:
            raise WrongUsage(f"--set {path}: there is no '{key}'.{nearest(key, keys)}")
