"""In what each mistake is shown: a small network, a loss and an optimizer on the embedded digits."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.mutants import Kind, Mutant
from agreement.mutants.optimizers import SHOWN_BY
from chainrule import datasets
from nn_reference import optim

Array = np.ndarray
SIDE = 14  # the images are halved to 14x14
PIXELS = SIDE * SIDE
SQUARE = 49  # or halved once more, to 7x7: then a network can be equally wide everywhere
EPOCHS, BATCH = 8, 32


@dataclass(frozen=True)
class Setting:
    """What is trained. ``network(rng)`` draws weights and masks; ``targets`` is what the loss wants."""

    words: str
    network: Callable[[np.random.Generator], Any]
    loss: Callable[[], Any] = nn.CrossEntropyLoss
    targets: str = "labels"  # or "one-hot", or "some ignored"
    optimizer: str = "SGD"
    options: Mapping[str, Any] = field(default_factory=lambda: {"lr": 0.05, "momentum": 0.9})
    scheduler: tuple[str, Mapping[str, Any]] | None = None
    clip: float | None = None
    square: bool = False

    @property
    def key(self) -> str:
        """What tells settings apart: the words say everything."""
        return self.words

    def data(self) -> tuple[Array, Array, Array, Array]:
        """Return images and targets to learn from, test images and their labels."""
        digits = datasets.load("digits")
        learn, test = (_halved(images) for images in (digits.train_images, digits.test_images))
        if self.square:
            learn, test = (a.reshape(-1, 7, 2, 7, 2).mean((2, 4)) for a in (learn, test))
        flat = (-1, SQUARE if self.square else PIXELS)
        shape = (-1, 1, SIDE, SIDE) if self.words.startswith("conv") else flat
        labels = digits.train_labels.astype(np.int64)
        if self.targets == "one-hot":
            labels = np.eye(10, dtype=np.float32)[labels]
        elif self.targets == "some ignored":
            labels = np.where(np.arange(len(labels)) % 5 == 0, -100, labels)
        return learn.reshape(shape), labels, test.reshape(shape), digits.test_labels


def _halved(images: Array) -> Array:
    return (images.reshape(-1, SIDE, 2, SIDE, 2).mean((2, 4)) / 255).astype(np.float32)


def _linear(inputs: int, outputs: int, rng: np.random.Generator) -> Any:
    return nn.Linear(inputs, outputs, generator=rng)


def _mlp(*middle: Callable[[], Any] | str, width: int = 32, last: Callable[[], Any] | None = None) -> Any:
    """Return what draws Linear, the middle, Linear (and what comes last)."""

    def draw(rng: np.random.Generator) -> Any:
        layers: dict[str, Any] = {"fc1": _linear(PIXELS, width, rng)}
        for make in middle:
            module = nn.Dropout(0.3, generator=rng) if make == "dropout" else make()  # type: ignore[operator]
            layers[type(module).__name__.lower().rstrip("12d") + "1"] = module
        layers["fc2"] = _linear(width, 10, rng)
        if last is not None:
            layers["last"] = last()
        return nn.Sequential(OrderedDict(layers))

    return draw


def _square(momentum: float | None = 0.1, normalise: bool = True) -> Callable[[np.random.Generator], Any]:
    def draw(rng: np.random.Generator) -> Any:
        shared = _linear(SQUARE, SQUARE, rng)
        layers = {"fc1": _linear(SQUARE, SQUARE, rng), "relu1": nn.ReLU(), "shared": shared}
        layers |= {"relu2": nn.ReLU(), "again": shared}
        if normalise:
            layers["bn1"] = nn.BatchNorm1d(SQUARE, momentum=momentum)
            layers["drop"] = nn.Dropout(0.3, generator=rng)
        layers["fc2"] = _linear(SQUARE, SQUARE, rng)
        return nn.Sequential(OrderedDict(layers))

    return draw


def _plain_square(rng: np.random.Generator) -> Any:
    layers = {"fc1": _linear(SQUARE, SQUARE, rng), "relu1": nn.ReLU(), "fc2": _linear(SQUARE, SQUARE, rng)}
    return nn.Sequential(OrderedDict(layers))


def _images(pool: Callable[[], Any] | None, second: Mapping[str, Any], normalise: bool = False) -> Any:
    """Return what draws two convolutions (the second as said), pooling perhaps, and a linear layer."""

    def draw(rng: np.random.Generator) -> Any:
        layers: dict[str, Any] = {"conv1": nn.Conv2d(1, 4, 3, padding=1, generator=rng)}
        if normalise:
            layers["bn1"] = nn.BatchNorm2d(4)
        layers["relu1"] = nn.ReLU()
        if pool is not None:
            layers["pool1"] = pool()
        layers["conv2"] = nn.Conv2d(4, 6, 3, generator=rng, **second)
        layers["relu2"] = nn.ReLU()
        layers["flatten"] = nn.Flatten()
        blank = np.zeros((1, 1, SIDE, SIDE), np.float32)
        inputs = nn.Sequential(OrderedDict(layers)).eval()(blank).shape[1]
        layers["fc"] = _linear(inputs, 10, rng)
        return nn.Sequential(OrderedDict(layers))

    return draw


_MLP = Setting("196-32-10, ReLU; cross-entropy; SGD 0.05, momentum 0.9", _mlp(nn.ReLU))
_STRIDED = {"stride": 2, "padding": 2, "dilation": 2}


def _activation(words: str, make: Callable[[], Any]) -> Setting:
    return _loss(f"{words}; cross-entropy", 0.05, nn.CrossEntropyLoss, network=_mlp(make))


def _loss(words: str, rate: float, loss: Callable[[], Any], targets: str = "labels", **more: Any) -> Setting:
    return replace(
        _MLP,
        words=f"196-32-10, {words}; SGD {rate}, momentum 0.9",
        loss=loss,
        targets=targets,
        options={"lr": rate, "momentum": 0.9},
        **more,
    )


_WEIGHTS = np.linspace(0.3, 3.0, 10, dtype=np.float32)
_CONV = Setting(
    "conv 4, conv 6 (stride 2, padding 2, dilation 2), linear; cross-entropy; SGD 0.05, momentum 0.9",
    _images(None, _STRIDED),
)


def _pooled(words: str, make: Callable[[], Any]) -> Setting:
    return replace(
        _CONV, words=f"conv 4, {words}, conv 6, linear; cross-entropy; SGD 0.05, momentum 0.9",
        network=_images(make, {}),
    )  # fmt: skip


BY_OPERATION: dict[str, Setting] = {
    "Linear": _MLP,
    "ReLU": _MLP,
    "LeakyReLU": _activation("LeakyReLU of slope 0.3", lambda: nn.LeakyReLU(0.3)),
    "Sigmoid": _activation("sigmoid", nn.Sigmoid),
    "Tanh": _activation("tanh", nn.Tanh),
    "ELU": _activation("ELU with alpha 2", lambda: nn.ELU(2.0)),
    "SiLU": _activation("SiLU", nn.SiLU),
    "GELU": _activation("GELU", nn.GELU),
    "GELU-tanh": _activation("GELU by tanh", lambda: nn.GELU("tanh")),
    "Identity": _activation("ReLU, identity", lambda: nn.Sequential(nn.ReLU(), nn.Identity())),
    "Dropout": _loss(
        "ReLU, dropout 0.3; cross-entropy", 0.05, nn.CrossEntropyLoss, network=_mlp(nn.ReLU, "dropout")
    ),
    "BatchNorm1d": _loss(
        "batch norm, ReLU; cross-entropy",
        0.05,
        nn.CrossEntropyLoss,
        network=_mlp(lambda: nn.BatchNorm1d(32), nn.ReLU),
    ),
    "BatchNorm2d": replace(
        _CONV,
        words="conv 4, batch norm, conv 6 (stride 2), linear; cross-entropy; SGD 0.05, momentum 0.9",
        network=_images(None, {"stride": 2}, normalise=True),
    ),
    "Conv2d": _CONV,
    "Flatten": _CONV,
    "MaxPool2d": _pooled("max-pool 3 (stride 2, padding 1)", lambda: nn.MaxPool2d(3, 2, 1)),
    "AvgPool2d": _pooled(
        "average-pool 3 (stride 2, padding 1)", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    ),
    "Softmax": _loss(
        "ReLU, softmax; mean squared error",
        1.0,
        nn.MSELoss,
        "one-hot",
        network=_mlp(nn.ReLU, last=lambda: nn.Softmax(1)),
    ),
    "LogSoftmax": _loss(
        "ReLU, log-softmax; negative log-likelihood",
        0.05,
        nn.NLLLoss,
        network=_mlp(nn.ReLU, last=lambda: nn.LogSoftmax(1)),
    ),
    "CrossEntropyLoss": _MLP,
    "CrossEntropyLoss-probabilities": _loss(
        "ReLU; cross-entropy of probabilities", 0.05, nn.CrossEntropyLoss, "one-hot"
    ),
    "NLLLoss": _loss(
        "ReLU, log-softmax; negative log-likelihood, weights 0.3 to 3, a fifth of the labels ignored",
        0.05,
        lambda: nn.NLLLoss(_WEIGHTS),
        "some ignored",
        network=_mlp(nn.ReLU, last=lambda: nn.LogSoftmax(1)),
    ),
    "MSELoss": _loss("ReLU; mean squared error", 0.5, nn.MSELoss, "one-hot"),
    # Without the softmax it would learn to say 0 of everything: the median of nine zeros and a one.
    "L1Loss": _loss(
        "ReLU, softmax; mean absolute error",
        0.5,
        nn.L1Loss,
        "one-hot",
        network=_mlp(nn.ReLU, last=lambda: nn.Softmax(1)),
    ),
    "BCEWithLogitsLoss": _loss(
        "ReLU; binary cross-entropy, weight 2 for yes",
        0.3,
        lambda: nn.BCEWithLogitsLoss(pos_weight=np.full(10, 2, np.float32)),
        "one-hot",
    ),
}

# Mistakes that show with other arguments than those of their operation.
_BY_NAME: dict[str, Setting] = {
    "CrossEntropyLoss: smoothing in the forward only": _loss(
        "ReLU; cross-entropy, label smoothing 0.3", 0.05, lambda: nn.CrossEntropyLoss(label_smoothing=0.3)
    ),
    **{
        f"CrossEntropyLoss: {name}": _loss(
            "ReLU; cross-entropy, class weights 0.3 to 3", 0.05, lambda: nn.CrossEntropyLoss(_WEIGHTS)
        )
        for name in ("weights not in the normaliser", "class weights forgotten")
    },
    "CrossEntropyLoss-probabilities: class weights forgotten": _loss(
        "ReLU; cross-entropy of probabilities, class weights 0.3 to 3",
        0.05,
        lambda: nn.CrossEntropyLoss(_WEIGHTS),
        "one-hot",
    ),
}

_NETWORK = Setting(
    "49-49-49-49-49, ReLU, the middle layer used twice, batch norm, dropout; cross-entropy; "
    "SGD 0.05, momentum 0.9",
    _square(),
    square=True,
)
_PLAIN_SQUARE = replace(
    _NETWORK, words="49-49-49, ReLU; cross-entropy; SGD 0.05, momentum 0.9", network=_plain_square
)


def settings_of(mutant: Mutant) -> tuple[Setting, ...]:
    """Return the settings to try, in this order, until the mistake runs at all."""
    if mutant.name in _BY_NAME:
        return (_BY_NAME[mutant.name],)
    if mutant.kind is Kind.OPTIMIZER:
        return (_of_optimizer(mutant),)
    if mutant.kind is Kind.NETWORK:
        if mutant.name == "batches-not-counted":
            words = _NETWORK.words.replace("batch norm", "batch norm without momentum")
            return (replace(_NETWORK, words=words, network=_square(None)),)
        return (_NETWORK,)
    setting = BY_OPERATION[mutant.operation]
    return (setting, _PLAIN_SQUARE) if mutant.operation == "Linear" else (setting,)


def _of_optimizer(mutant: Mutant) -> Setting:
    shown = SHOWN_BY[mutant.name]
    options = dict(shown.settings)
    if shown.name == "SGD":
        options["lr"] = 0.05
    said = [f"{key} {value}" for key, value in options.items()]
    if shown.scheduler:
        name, arguments = shown.scheduler
        said.append(f"{name} {', '.join(f'{key} {value}' for key, value in arguments.items())}")
    if shown.clip:
        said.append(f"clipped to {shown.clip}")
    return replace(
        _MLP,
        words=f"196-32-10, ReLU; cross-entropy; {shown.name} {', '.join(said)}",
        optimizer=shown.name,
        options=options,
        scheduler=shown.scheduler,
        clip=shown.clip,
    )


def build_optimizer(setting: Setting, network: Any) -> tuple[Any, Any]:
    """Return the optimizer and its scheduler, which is stepped after each epoch (or None)."""
    optimizer = getattr(optim, setting.optimizer)(network.parameters(), **setting.options)
    if setting.scheduler is None:
        return optimizer, None
    name, arguments = setting.scheduler
    return optimizer, getattr(optim.lr_scheduler, name)(optimizer, **arguments)
