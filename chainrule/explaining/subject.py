"""What is explained: which network with which weights, on which example.

A network written on the command line becomes a `Recipe` as well, so that everything behind this module sees
one kind of thing: a recipe, its network in float64, an input and a target.
"""

import copy
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import nn_reference
from chainrule import datasets, saved
from chainrule import recipe as recipes
from chainrule.datasets import Dataset
from chainrule.engines import NumpyEngine
from chainrule.errors import ChainruleError, WrongUsage, nearest
from chainrule.recipe import Recipe
from chainrule.recipe_parts import Part

ACTIVATIONS = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "elu": "ELU",
    "silu": "SiLU",
    "gelu": "GELU",
    "none": "Identity",
}
LOSSES = {"cross-entropy": "CrossEntropyLoss", "mse": "MSELoss", "bce": "BCEWithLogitsLoss"}
_MOST_UNITS = 10_000  # of a layer of --net: a slip of the keyboard should not ask for a terabyte
_MOST_WEIGHTS = 50_000_000


@dataclass(frozen=True)
class Subject:
    """A network and what it is shown. Nothing here is changed by explaining it: `fresh` gives copies.

    ``x`` (N, *recipe.input_shape) is normalised already; ``target`` is (N,) classes, or (N, outputs) numbers
    for MSELoss and BCEWithLogitsLoss.
    """

    kind: str  # "net", "recipe" or "run"
    recipe: Recipe
    weights: str  # where they come from, for people
    network: Any = field(repr=False)  # nn_reference.Sequential, float64
    x: np.ndarray = field(repr=False)
    target: np.ndarray
    class_names: tuple[str, ...]
    example: dict[str, Any]  # where the example comes from
    training: bool = False  # whether Dropout and BatchNorm behave as in training

    def fresh(self) -> tuple[Any, Any]:
        """Return a copy of the network, as it was, and a criterion: masks are drawn the same each time."""
        return copy.deepcopy(self.network), self.recipe.build_loss(nn_reference)

    @property
    def classes(self) -> bool:
        """Whether the target is a class for each example, and not numbers."""
        return self.target.ndim == 1


@dataclass(frozen=True)
class Wanted:
    """Which example a person asked for: numbers of their own, or images of a data set."""

    input: str | None = None  # "0.5,-0.3"; examples of a batch are separated by semicolons
    target: str | None = None  # likewise
    label: str | None = None  # "1" or "1,0"
    index: str | None = None  # "0", "0,5,7" or "0:8"
    split: str = "test"
    dataset: str | None = None
    root: Path | None = None
    seed: int | None = None
    training: bool = False


def from_net(text: str, activation: str, loss: str | None, learning_rate: float, wanted: Wanted) -> Subject:
    """Return a network such as ``"2-3-2"``, with weights drawn from the seed and rounded to two decimals.

    ``activation`` stands between the layers, not after the last. ``loss`` is cross-entropy, but mse for a
    single output. Raises WrongUsage for text that is no network, and for an example that does not fit it.
    """
    sizes = _sizes(text)
    loss = loss or ("mse" if sizes[-1] == 1 else "cross-entropy")
    seed = 0 if wanted.seed is None else wanted.seed
    for option, value in (("--index", wanted.index), ("--dataset", wanted.dataset)):
        if value is not None:
            raise WrongUsage(f"{option} is for recipes and runs; give a network of --net its --input")
    kind = ACTIVATIONS[activation]
    layers, shapes = [], []
    for number, (ins, outs) in enumerate(itertools.pairwise(sizes), start=1):
        layers.append(Part("Linear", {"in_features": ins, "out_features": outs}, f"fc{number}"))
        shapes.append((outs,))
        if number < len(sizes) - 1 and activation != "none":
            layers.append(Part(kind, {}, f"{activation}{number}"))
            shapes.append((outs,))
    plan = Recipe(
        name=text,
        source="--net",
        summary=f"{text}, {kind}" if len(sizes) > 2 else text,
        layers=tuple(layers),
        shapes=tuple(shapes),
        input_shape=(sizes[0],),
        mean=0.0,
        std=1.0,
        loss=Part(LOSSES[loss], {}),
        optimizer=Part("SGD", {"lr": learning_rate}),
        batch_size=1,
        epochs=1,
        seed=seed,
    )
    network = _drawn(plan, seed, wanted.training)
    for parameter in network.parameters():
        parameter.data = np.round(parameter.data, 2) + 0.0
    x = _own_input(wanted, plan)
    if x is None:
        x = np.round(np.random.default_rng([seed, 4]).uniform(-1, 1, (1, sizes[0])), 1) + 0.0
    source = "drawn" if wanted.input is None else "given"
    names = tuple(map(str, range(sizes[-1])))
    target = _own_target(wanted, plan, len(x), names)
    if target is None:
        rng = np.random.default_rng([seed, 5])
        target = rng.integers(0, sizes[-1] if loss == "cross-entropy" else 2, (len(x), sizes[-1]))
        target = target[:, 0] if loss == "cross-entropy" else target.astype(np.float64)
    drawn = f"drawn from seed {seed}, rounded to two decimals"
    return Subject("net", plan, drawn, network, x, target, names, {"source": source}, wanted.training)


def from_recipe(name: str, wanted: Wanted) -> Subject:
    """Return a recipe's network as it is before training, on images of a data set or numbers of one's own."""
    plan = recipes.load(name)
    seed = plan.seed if wanted.seed is None else wanted.seed
    network = _drawn(plan, seed, wanted.training)

    def load() -> Dataset:
        data = datasets.load(wanted.dataset or "auto", wanted.root)
        shape = data.test_images.shape[1:]
        if plan.input_shape not in (shape, (1, *shape)):
            raise ChainruleError(
                f"{plan.source} takes inputs of {plan.input_shape}, {data.title} has images of {shape}: "
                "give --input"
            )
        return data

    names = tuple(map(str, range(plan.shapes[-1][-1])))
    drawn = f"untrained, drawn from seed {seed}"
    return _shown("recipe", plan, drawn, network, names, wanted, load)


def from_run(path: Path, which: str, trained_by: str | None, wanted: Wanted) -> Subject:
    """Return a run's network with the weights that it reached, on images of its data set."""
    if wanted.seed is not None and not wanted.training:
        raise WrongUsage("--seed draws weights: a run has its own (with --train it draws Dropout's masks)")
    run = saved.open_run(path)
    state = saved.load_weights(run, which, trained_by)
    seed = run.recipe.seed if wanted.seed is None else wanted.seed
    network = _drawn(run.recipe, seed, wanted.training)
    network.load_state_dict(state)
    file = f"{run.path / saved.weights_file(run, which, trained_by)}"

    def load() -> Dataset:
        return saved.load_data(run, wanted.dataset, wanted.root)[0]

    return _shown("run", run.recipe, file, network, run.class_names, wanted, load)


def _drawn(plan: Recipe, seed: int, training: bool) -> Any:
    """Return the network as training starts it, in float64."""
    network = plan.build(
        nn_reference,
        generator=np.random.default_rng([seed, 0]),
        mask_generator=np.random.default_rng([seed, 2]),
    )
    return network.double().train(training)


def _shown(
    kind: str, plan: Recipe, weights: str, network: Any, names: tuple[str, ...], wanted: Wanted, load: Any
) -> Subject:
    """Add the example: the numbers that were given, else images of the data set that ``load`` brings."""
    x = _own_input(wanted, plan)
    if x is not None:
        if wanted.index is not None:
            raise WrongUsage("--input and --index each name an example: give one of them")
        target = _own_target(wanted, plan, len(x), names)
        if target is None:
            raise WrongUsage(f"--input needs --label, a class from 0 to {len(names) - 1}")
        example: dict[str, Any] = {"source": "given"}
    else:
        data = load()
        images, labels = getattr(data, f"{wanted.split}_images"), getattr(data, f"{wanted.split}_labels")
        chosen = _indices("0" if wanted.index is None else wanted.index, len(labels), wanted.split)
        names = data.class_names
        put = NumpyEngine(network, None, None).put(
            plan.examples(images[chosen]), labels[chosen], plan.mean, plan.std
        )
        x, target = put.images.astype(np.float64), put.labels
        own = _own_target(wanted, plan, len(x), names)
        target = target if own is None else own
        example = {
            "source": "dataset",
            "dataset": data.name,
            "title": data.title,
            "split": wanted.split,
            "indices": chosen,
            "labels": labels[chosen].tolist(),
        }
    subject = Subject(kind, plan, weights, network, x, target, names, example, wanted.training)
    if wanted.training and len(x) < 2 and any(layer.type.startswith("BatchNorm") for layer in plan.layers):
        raise WrongUsage(
            "with --train BatchNorm takes mean and variance of the batch: give two examples or more, "
            "such as --index 0:4"
        )
    return subject


def _sizes(text: str) -> list[int]:
    if not re.fullmatch(r"[0-9]+(-[0-9]+)+", text):
        raise WrongUsage(f"--net takes layer sizes joined by hyphens, such as 2-3-2; found '{text}'")
    sizes = [int(part) for part in text.split("-")]
    if not all(1 <= size <= _MOST_UNITS for size in sizes):
        raise WrongUsage(f"--net takes layers of 1 to {_MOST_UNITS:,} units, found '{text}'")
    if (weights := sum(a * b for a, b in itertools.pairwise(sizes))) > _MOST_WEIGHTS:
        raise WrongUsage(f"--net takes up to {_MOST_WEIGHTS:,} weights, '{text}' has {weights:,}")
    return sizes


def _rows(option: str, text: str, width: int) -> np.ndarray:
    """Return (N, width) from "1,2;3,4"."""
    rows = []
    for part in text.split(";"):
        try:
            row = [float(number.replace("_", "?")) for number in part.split(",")]
        except ValueError:
            raise WrongUsage(
                f"{option} takes numbers separated by commas, and examples by semicolons; found '{part}'"
            ) from None
        if not np.isfinite(row).all():
            raise WrongUsage(f"{option} takes finite numbers, found '{part}'")
        if len(row) != width:
            raise WrongUsage(f"{option} takes {width} numbers for each example, found {len(row)}")
        rows.append(row)
    return np.array(rows, dtype=np.float64)


def _own_input(wanted: Wanted, plan: Recipe) -> np.ndarray | None:
    if wanted.input is None:
        return None
    rows = _rows("--input", wanted.input, int(np.prod(plan.input_shape)))
    return rows.reshape(len(rows), *plan.input_shape)


def _own_target(wanted: Wanted, plan: Recipe, count: int, names: tuple[str, ...]) -> np.ndarray | None:
    """Return what ``--label`` or ``--target`` says, or None; WrongUsage where the loss takes the other."""
    classes = plan.loss.type in ("CrossEntropyLoss", "NLLLoss")
    if wanted.target is not None and classes:
        raise WrongUsage(f"--target is for --loss mse and bce; {plan.loss.type} takes --label, a class")
    if wanted.label is not None and not classes:
        raise WrongUsage(f"--label is for cross-entropy; {plan.loss.type} takes --target, numbers")
    outputs = plan.shapes[-1][-1]
    if wanted.target is not None:
        rows = _rows("--target", wanted.target, outputs)
        if len(rows) != count:
            raise WrongUsage(f"--target has {len(rows)} rows for {count} examples")
        if plan.loss.type == "BCEWithLogitsLoss" and not ((rows >= 0) & (rows <= 1)).all():
            raise WrongUsage(f"--target of --loss bce takes numbers from 0 to 1, found '{wanted.target}'")
        return rows
    if wanted.label is None:
        return None
    labels = []
    for part in wanted.label.split(","):
        known = {name: number for number, name in enumerate(names)}
        if part.strip() in known:
            labels.append(known[part.strip()])
        elif part.strip().isdecimal() and int(part) < outputs:
            labels.append(int(part))
        else:
            expected = f"a class from 0 to {outputs - 1}"
            raise WrongUsage(f"--label takes {expected}, found '{part.strip()}'{nearest(part, known)}")
    if len(labels) != count:
        raise WrongUsage(f"--label has {len(labels)} classes for {count} examples")
    return np.array(labels, dtype=np.int64)


def _indices(text: str, count: int, split: str) -> list[int]:
    """Return [0, 5] from "0,5" and [0, 1, 2] from "0:3"."""
    chosen: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?::(\d+))?\s*", part, re.ASCII)
        if match is None:
            raise WrongUsage(f"--index takes numbers of images, such as 0 or 0,5 or 0:8; found '{part}'")
        first = int(match[1])
        last = first + 1 if match[2] is None else int(match[2])
        if last <= first:
            raise WrongUsage(
                f"--index {part.strip()} names no image: expected FIRST:END with END after FIRST"
            )
        if last > count:
            raise WrongUsage(f"--index {part.strip()}: the {split} images are numbered 0 to {count - 1:,}")
        chosen += range(first, last)
    return chosen
