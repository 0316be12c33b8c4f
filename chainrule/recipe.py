"""Recipes: a network and how it is trained, as data that both engines build from.

A recipe is a TOML file in ``chainrule/recipes/`` (or a path of your own). Layers, losses, optimizers,
schedulers and initialisers are named as in ``torch.nn`` and ``torch.optim``, with their arguments; sizes that
follow from the layer before are computed.
"""

import tomllib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import nn_reference
from chainrule.errors import ChainruleError, WrongUsage, nearest
from chainrule.recipe_changes import OPTIONAL, REQUIRED, apply_change
from chainrule.recipe_changes import changes as changes
from chainrule.recipe_parts import (
    LAYERS,
    RANDOM,
    WrongRecipe,
    check,
    check_arguments,
    follow_shapes,
    is_number,
    is_whole,
    make,
    read_part,
)
from chainrule.recipe_parts import Part as Part
from nn_reference import optim

_LOSSES = ("CrossEntropyLoss", "NLLLoss")
_OPTIMIZERS = ("SGD", "Adam", "AdamW")
_SCHEDULERS = (
    *("StepLR", "MultiStepLR", "ExponentialLR", "LinearLR", "CosineAnnealingLR", "OneCycleLR"),
    "ReduceLROnPlateau",
)
_WEIGHT_INITS = ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "uniform", "normal")
_BIAS_INITS = ("zeros", "ones", "constant", "uniform", "normal")


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
        random = {**dict.fromkeys(RANDOM, weights), "Dropout": masks}
        modules = ((layer.name, make(nn, layer, **random.get(layer.type, {}))) for layer in self.layers)
        network = nn.Sequential(OrderedDict(modules))
        for layer, module in zip(self.layers, network, strict=True):
            if layer.type not in RANDOM:
                continue
            for init, parameter in ((self.init_weight, module.weight), (self.init_bias, module.bias)):
                if init is not None and parameter is not None:
                    drawn = {} if init.type in ("zeros", "ones", "constant") else weights
                    getattr(nn.init, f"{init.type}_")(parameter, **init.arguments, **drawn)
        return network

    def build_loss(self, nn: ModuleType) -> Any:
        """Return the loss, built from ``nn_reference`` or ``torch.nn``."""
        return make(nn, self.loss)

    def build_optimizer(self, optim: ModuleType, parameters: Any, **more: Any) -> Any:
        """Return the optimizer of ``parameters``, built from ``nn_reference.optim`` or ``torch.optim``.

        ``more`` is handed to it as well: how it computes what the recipe says (``fused=True`` of PyTorch).
        """
        return make(optim, self.optimizer, parameters, **more)

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
        return make(optim.lr_scheduler, self.scheduler, optimizer, **more)

    def rates_within_epochs(self, steps_per_epoch: int) -> list[float]:
        """Return the learning rate of every step, where it changes within an epoch; else none.

        It is that of the scheduler itself, which needs no training to be stepped.
        """
        if self.interval != "step" or self.scheduler is None:
            return []
        optimizer = self.build_optimizer(optim, [nn_reference.Parameter(np.zeros(1, np.float32))])
        scheduler = self.build_scheduler(optim, optimizer, steps_per_epoch)
        rates = []
        for _ in range(self.epochs * steps_per_epoch):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            scheduler.step()
        return rates

    def parameter_counts(self) -> tuple[int, ...]:
        """Return the number of learnt numbers in each layer."""
        network = self.build(nn_reference)
        return tuple(sum(parameter.data.size for parameter in module.parameters()) for module in network)

    @property
    def waits_for_plateau(self) -> bool:
        """Whether the scheduler's step needs to be told the loss."""
        return self.scheduler is not None and self.scheduler.type == "ReduceLROnPlateau"

    def examples(self, images: np.ndarray) -> np.ndarray:
        """Return images (N, H, W) as the network takes them, (N, *input_shape): where that is (1, H, W), with
        an axis for the one channel."""
        return images.reshape(len(images), *self.input_shape)


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
            apply_change(table, key, value)
        made = _recipe(table, name, source)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ChainruleError(f"{source}: not valid TOML: {error}") from None
    except WrongRecipe as error:
        raise ChainruleError(f"{source}: {error}") from None
    # The summary is text that somebody wrote: it must not name layers that are no longer so.
    changed = [
        f"{key.removeprefix('layers.')} = {value}"
        for key, value in (changes or {}).items()
        if key.startswith("layers.")
    ]
    return replace(made, summary=", ".join([made.summary, *changed]))


def restore(saved: Any, source: str | None = None) -> Recipe:
    """Return the recipe that `dataclasses.asdict` made ``saved`` of: ``recipe`` in a run's config.json.

    It is checked like one that a person wrote. ``source`` is named in errors (ChainruleError); by default it
    is the file that the recipe was first read from.
    """
    keys = ("batch_size", "epochs", "seed", "validation", "early_stopping")
    try:
        source = str(saved["source"]) if source is None else source
        training = {key: saved[key] for key in keys if key in saved}
        training |= {"loss": _as_table(saved["loss"]), "optimizer": _as_table(saved["optimizer"])}
        if saved["scheduler"] is not None:
            training["scheduler"] = {**_as_table(saved["scheduler"]), "interval": saved["interval"]}
        table = {
            "summary": saved["summary"],
            "layers": [_as_table(layer) for layer in saved["layers"]],
            "input": {"shape": list(saved["input_shape"]), "mean": saved["mean"], "std": saved["std"]},
            "training": training,
        }
        if saved["init_weight"] is not None:
            init = {key: saved[f"init_{key}"] for key in ("weight", "bias")}
            table["init"] = {key: _as_table(part) for key, part in init.items() if part is not None}
        return _recipe(table, str(saved["name"]), source)
    except WrongRecipe as error:
        raise ChainruleError(f"{source}: {error}") from None
    except (AttributeError, KeyError, TypeError) as error:
        raise ChainruleError(f"{source or 'config.json'}: not the recipe of a run: {error}") from None


def _as_table(part: Any) -> dict[str, Any]:
    """Return a part as it stands in a recipe's file."""
    name = {"name": part["name"]} if part["name"] else {}
    return {**part["arguments"], **name, "type": part["type"]}


def _recipe(table: dict[str, Any], name: str, source: str) -> Recipe:
    for section in ("", "input", "training", *(["init"] if "init" in table else [])):
        _check_keys(section, table.get(section) if section else table)
    check(isinstance(table["summary"], str), "summary must be text", table["summary"])
    image, training, init = table["input"], table["training"], table.get("init", {})
    shape = image["shape"]
    check(
        isinstance(shape, list) and shape and all(is_whole(size, 1) for size in shape),
        "input.shape must be a list of whole numbers",
        shape,
    )
    check(is_number(image["mean"]), "input.mean must be a number", image["mean"])
    check(is_number(image["std"]) and image["std"] > 0, "input.std must be a number above 0", image["std"])
    training = {"validation": 0, "early_stopping": None, "scheduler": None, **training}
    for key, least in (
        ("batch_size", 1),
        ("epochs", 1),
        ("seed", 0),
        ("validation", 0),
        ("early_stopping", 1),
    ):
        if training[key] is not None or key != "early_stopping":
            whole = f"training.{key} must be a whole number from {least} up"
            check(is_whole(training[key], least), whole, training[key])
    if training["early_stopping"] is not None and not training["validation"]:
        raise WrongRecipe(
            "early stopping needs images to judge by: give --validation, or training.validation"
        )
    check(isinstance(table["layers"], list) and table["layers"], "layers must be a list", table["layers"])
    layers, shapes = follow_shapes(
        [read_part("layer", layer, LAYERS) for layer in table["layers"]], tuple(shape)
    )
    optimizer = read_part("training.optimizer", training["optimizer"], _OPTIMIZERS, optim)
    rate = optimizer.arguments.get("lr", 1e-3)
    check(is_number(rate) and rate > 0, "training.optimizer's lr must be a number above 0", rate)
    loss = read_part("training.loss", training["loss"], _LOSSES, nn_reference)
    if loss.type == "NLLLoss" and layers[-1].type != "LogSoftmax":
        raise WrongRecipe(
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
    part = read_part(f"init.{key}", init[key], types)
    check_arguments(f"init.{key} {part.type}", part.arguments, getattr(nn_reference.init, f"{part.type}_"), 1)
    return part


def _scheduler(table: Any) -> tuple[Part | None, str]:
    """Return the scheduler and what it counts: steps for OneCycleLR, else epochs or as ``interval`` says."""
    if table is None:
        return None, "epoch"
    given = table.get("interval") if isinstance(table, dict) else None
    if isinstance(table, dict):
        table = {key: value for key, value in table.items() if key != "interval"}
    part = read_part("training.scheduler", table, _SCHEDULERS, optim.lr_scheduler, optional=("T_max",))
    allowed = {"OneCycleLR": ("step",), "ReduceLROnPlateau": ("epoch",)}.get(part.type, ("epoch", "step"))
    interval = allowed[0] if given is None else given
    check(interval in allowed, f"the interval of {part.type} must be {' or '.join(allowed)}", interval)
    return part, interval


def _check_keys(section: str, found: object) -> None:
    required, keys = REQUIRED[section], REQUIRED[section] | OPTIONAL.get(section, set())
    if found is None:
        raise WrongRecipe(f"{section} is missing")
    if not isinstance(found, dict):
        raise WrongRecipe(f"{section} must be a table, found {found!r}")
    prefix = f"{section}." if section else ""
    if missing := sorted(required - found.keys()):
        raise WrongRecipe(f"{prefix}{missing[0]} is missing")
    if unknown := sorted(found.keys() - keys):
        raise WrongRecipe(f"unknown key {prefix}{unknown[0]}.{nearest(unknown[0], keys)}")
