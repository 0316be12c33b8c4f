"""The two engines behind one interface: what the training loop needs of either."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np

import nn_reference
from chainrule.errors import ChainruleError
from chainrule.recipe import Recipe


class Engine(Protocol):
    """A network, its loss and its optimizer. ``data`` is whatever ``put`` returned."""

    name: str
    optim: ModuleType  # where its schedulers are
    optimizer: Any

    def put(self, images: np.ndarray, labels: np.ndarray, mean: float, std: float) -> Any:
        """Bring uint8 images (N, ...) and labels (N,) to where the engine computes, normalised."""

    def indices(self, order: np.ndarray) -> Any:
        """Bring the order of an epoch's examples to where the engine computes; slices of it are batches."""

    def train_step(self, data: Any, batch: Any) -> tuple[Any, Any, Any]:
        """Learn from the examples with these indices, an array or a slice of what ``indices`` returned.

        Returns their mean loss, how many were right, and the norm of the gradient, all before the step.
        """

    def evaluate(self, data: Any, batch_size: int = 1000) -> tuple[float, np.ndarray]:
        """Return the mean loss and the outputs, (N, classes)."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return parameters and buffers under PyTorch's keys."""

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Take parameters and buffers under PyTorch's keys."""

    def training_state(self) -> dict[str, Any]:
        """Return all that the next step depends on, besides the data: arrays and plain values, nested."""

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Go on from where ``training_state`` was called; the keys may have become text."""


@dataclass(frozen=True)
class TorchOptions:
    """How PyTorch computes a training step; `torch_impl.TorchEngine` says what each of these does.

    The defaults are what measured fastest on a CPU for the recipes here (benchmarks/README.md) without
    touching the precision. ``fused`` takes the optimizers that go over all parameters in one kernel.
    """

    precision: str = "float32"
    compile: bool = False
    channels_last: bool = False
    cuda_graphs: bool = False
    fused: bool = True


@dataclass(frozen=True)
class Data:
    """Images (N, ...), normalised, in float32, and labels (N,) in int64."""

    images: np.ndarray
    labels: np.ndarray


class NumpyEngine:
    """A network, its loss and its optimizer from ``nn_reference``."""

    name = "numpy"
    optim: ModuleType = nn_reference.optim

    def __init__(self, network: Any, criterion: Any, optimizer: Any):
        self.network = network
        self.criterion = criterion
        self.optimizer = optimizer
        self._images = np.empty(0, np.float32)  # receives the images of each batch
        keep_memory()

    def put(self, images: np.ndarray, labels: np.ndarray, mean: float, std: float) -> Data:
        """Return uint8 images as ``(pixel / 255 - mean) / std`` in float32, with their labels."""
        pixels = images.astype(np.float32)
        pixels /= 255
        pixels -= mean
        pixels /= std
        return Data(pixels, labels.astype(np.int64))

    def indices(self, order: np.ndarray) -> np.ndarray:
        """Return the order of an epoch's examples as it is."""
        return order

    def train_step(self, data: Data, batch: np.ndarray) -> tuple[Any, Any, Any]:
        """Learn from the examples whose indices are ``batch``.

        Returns their mean loss, how many were read correctly, and the norm of the gradient, before the step.
        """
        images, labels = self._take(data.images, batch), data.labels[batch]
        self.network.train()
        logits = self.network(images)
        loss = self.criterion(logits, labels)
        self.optimizer.zero_grad()
        self.network.backward(self.criterion.backward(), input_grad=False)
        norm = self._gradient_norm()
        self.optimizer.step()
        return float(loss), np.count_nonzero(logits.argmax(1) == labels), norm

    def _take(self, images: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Return ``images[batch]``, in the array that the last batch was in."""
        if len(self._images) < len(batch) or self._images.shape[1:] != images.shape[1:]:
            self._images = np.empty((len(batch), *images.shape[1:]), images.dtype)
        return np.take(images, batch, axis=0, out=self._images[: len(batch)], mode="clip")

    def _gradient_norm(self) -> float:
        """Return the length of the gradient, all parameters taken as one vector."""
        grads = (parameter.grad for parameter in self.optimizer.param_groups[0]["params"])
        return math.sqrt(sum(float(np.vdot(grad, grad)) for grad in grads))

    def evaluate(self, data: Data, batch_size: int = 1000) -> tuple[float, np.ndarray]:
        """Return the mean loss over ``data`` and the network's outputs, (N, classes), in eval mode."""
        self.network.eval()
        total, outputs = 0.0, []
        with nn_reference.no_grad():
            for start in range(0, len(data.labels), batch_size):
                labels = data.labels[start : start + batch_size]
                logits = self.network(data.images[start : start + batch_size])
                total += float(self.criterion(logits, labels)) * len(labels)
                outputs.append(logits)
        return total / len(data.labels), np.concatenate(outputs)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the network's parameters and buffers as arrays, under PyTorch's keys."""
        return dict(self.network.state_dict())

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Take parameters and buffers from arrays under PyTorch's keys."""
        self.network.load_state_dict(state)

    def training_state(self) -> dict[str, Any]:
        """Return parameters, buffers, the optimizer's state, and where the masks of Dropout come from."""
        return {
            "model": self.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": generator_states(self.network),
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Go on from where ``training_state`` was called; the keys may have become text."""
        self.load_state_dict(state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        load_generators(self.network, state["random"])


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Give an optimizer of ``nn_reference`` its ``state_dict`` back; the keys may have become text."""
    numbered = {int(number): entry for number, entry in state["state"].items()}
    optimizer.load_state_dict({**state, "state": numbered})


def generator_states(network: Any) -> dict[str, Any]:
    """Return where the masks of each Dropout come from, by its name; several may share a generator."""
    return {name: module.generator.bit_generator.state for name, module in _dropouts(network)}


def load_generators(network: Any, states: dict[str, Any]) -> None:
    """Give each Dropout's generator the state that `generator_states` returned."""
    for name, module in _dropouts(network):
        module.generator.bit_generator.state = states[name]


def _dropouts(network: Any) -> Iterator[tuple[str, Any]]:
    modules = network.named_modules()
    return ((name, module) for name, module in modules if isinstance(module, nn_reference.Dropout))


def keep_memory() -> None:
    """Let the C library keep the memory of arrays of up to 32 MB, instead of returning it between two steps.

    To get it back, the system must clear every page anew: half the time of a step with a large batch. glibc
    keeps blocks of the size of the largest one that it has seen freed; elsewhere this does nothing.
    """
    np.empty(31 << 20, np.uint8)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let NumPy's linear algebra, and PyTorch where it is loaded, use ``count`` threads while inside.

    The matrices of these networks are small, so that a second thread gains little; and threads that wait for
    each other lose far more as soon as another program takes one of their cores.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(count):
        torch = sys.modules.get("torch")
        if torch is None:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def rehearse(recipe: Recipe, name: str, device: str, steps_per_epoch: int = 100) -> None:
    """Take one step on a black and a white image, so that a recipe's mistakes show before a run begins.

    PyTorch takes it without options: compiling or recording a step of two images would be for nothing.
    Raises ChainruleError, which names the recipe's file, for whatever goes wrong.
    """
    images = np.zeros((2, *recipe.input_shape), np.uint8)
    images[1] = 255
    try:
        with np.errstate(all="ignore"):
            engine = build(recipe, name, seed=0, device=device)
            data = engine.put(images, np.arange(2), recipe.mean, recipe.std)
            scheduler = recipe.build_scheduler(engine.optim, engine.optimizer, steps_per_epoch)
            loss = float(engine.train_step(data, np.arange(2))[0])
            if scheduler is not None:
                scheduler.step(*([loss] if recipe.waits_for_plateau else []))
    except ChainruleError:
        raise
    except Exception as error:
        raise ChainruleError(f"{recipe.source}: the {name} engine cannot train it: {error}") from None
    if not np.isfinite(loss):
        raise ChainruleError(
            f"{recipe.source}: the loss of two blank images is {loss}: look at input.mean and std"
        )


def torch_is_installed() -> bool:
    """Tell whether PyTorch is installed, without importing it (that takes seconds)."""
    from importlib.util import find_spec

    return find_spec("torch") is not None


def build(
    recipe: Recipe,
    name: str,
    *,
    seed: int,
    device: str = "cpu",
    workers: int = 1,
    options: TorchOptions | None = None,
    parallel: bool = False,
) -> Engine:
    """Return the engine ``name`` ("numpy" or "torch") for a recipe, with all that is random from ``seed``.

    The weights are drawn by ``nn_reference``, whichever the engine: two engines with one seed start equal.
    The masks of Dropout are each engine's own: NumPy's come from ``default_rng([seed, 2])``, PyTorch's from
    its global generator, which is seeded here. (``[seed, 0]`` draws the weights, ``[seed, 1, epoch]`` the
    order of the examples, ``[seed, 3]`` which of them are kept back for validation.)

    ``workers`` above 1 share the NumPy engine's steps; with ``parallel`` PyTorch's engine is one of several
    ranks that compute together (`torch_impl.parallel`).

    Raises ChainruleError when PyTorch has no such device, and when a network cannot be trained by several
    workers.
    """
    if name == "numpy" and workers > 1:
        from chainrule.workers import WorkersEngine

        return WorkersEngine(recipe, seed, workers)
    network = recipe.build(
        nn_reference,
        generator=np.random.default_rng([seed, 0]),
        mask_generator=np.random.default_rng([seed, 2]),
    )
    if name == "numpy":
        criterion = recipe.build_loss(nn_reference)
        parameters = [nn_reference.utils.Vector(network.parameters())]
        return NumpyEngine(network, criterion, recipe.build_optimizer(nn_reference.optim, parameters))
    engine = _build_torch(recipe, device, seed, options or TorchOptions(), parallel)
    engine.load_state_dict(dict(network.state_dict()))
    return engine


def _build_torch(recipe: Recipe, device: str, seed: int, options: TorchOptions, parallel: bool) -> Engine:
    import torch

    from torch_impl import TorchEngine

    if device == "cuda" and not torch.cuda.is_available():
        raise ChainruleError(
            f"--device cuda: PyTorch {torch.__version__} finds no CUDA device here; use --device cpu"
        )
    network = recipe.build(torch.nn).to(device)
    torch.manual_seed(seed)  # building drew weights from the same generator, to be replaced
    # A recorded step must find the learning rate and the number of steps on the device.
    more = {"fused": True} if options.fused or options.cuda_graphs else {}
    if options.cuda_graphs and recipe.optimizer.type != "SGD":
        more["capturable"] = True
    optimizer = recipe.build_optimizer(torch.optim, network.parameters(), **more)
    how = {key: value for key, value in asdict(options).items() if key != "fused"}
    criterion = recipe.build_loss(torch.nn)
    if parallel:
        from torch_impl.parallel import ParallelEngine

        return ParallelEngine(network, criterion, optimizer, device, seed=seed, **how)
    return TorchEngine(network, criterion, optimizer, device, **how)
