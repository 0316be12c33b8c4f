"""One training step and one evaluation in PyTorch, on the CPU or on CUDA.

The pixels lie on the device once, as the bytes they are. A step takes its images from there by their indices
and normalises them: the same numbers as normalising all of them before, from a quarter of the memory.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torch_impl.recording import Recorder

PRECISIONS = ("float32", "tf32", "bf16")


@dataclass(frozen=True)
class Data:
    """Pixels (N, ...) in uint8 and labels (N,) in int64, on the engine's device.

    The network sees ``(pixel / 255 - mean) / std``.
    """

    pixels: Tensor
    labels: Tensor
    mean: float
    std: float

    def normalised(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Return some of the pixels as the network sees them; each operation rounds once, as NumPy's."""
        images = pixels.to(dtype).div_(255)
        if self.mean != 0:
            images.sub_(self.mean)
        return images if self.std == 1 else images.div_(self.std)


class TorchEngine:
    """A network, its loss and its optimizer, all from PyTorch.

    ``chainrule.engines.NumpyEngine`` has the same methods, so that one loop trains both.

    ``precision`` is that of the products in a training step: "float32"; "tf32", on CUDA, which rounds their
    factors to 11 bits; or "bf16", to 8 bits (autocast: parameters, losses and the optimizer stay in float32).
    Whether CUDA takes TF32 is a setting of the whole process, which making an engine sets. ``compile`` puts
    forward and backward through ``torch.compile``, ``channels_last`` keeps images in memory pixel by pixel,
    and ``cuda_graphs`` records a whole step and replays it. Steps of another size than the first one's (an
    epoch's last) are neither compiled nor recorded. An evaluation is always eager and without autocast.
    """

    name = "torch"
    optim: ModuleType = torch.optim

    def __init__(
        self,
        network: nn.Module,
        criterion: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: str,
        *,
        precision: str = "float32",
        compile: bool = False,
        channels_last: bool = False,
        cuda_graphs: bool = False,
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        self.network = network
        self._model = network  # what a training step calls
        self.criterion = criterion
        self.optimizer = optimizer
        self.device = torch.device(device)
        self._parameters = list(network.parameters())
        self._dtype = self._parameters[0].dtype
        self._autocast = precision == "bf16"
        self._channels_last = channels_last
        if channels_last:
            for parameter in self._parameters:
                if parameter.dim() == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self._compiled: Callable[[Data, Tensor], tuple[Any, Tensor]] | None = None
        if compile:
            self._compiled = torch.compile(self._loss, dynamic=False)
        self._recorder = Recorder(optimizer, self._step) if cuda_graphs else None
        self._usual_size = 0  # of a batch: the first one's

    def put(self, images: np.ndarray, labels: np.ndarray, mean: float, std: float) -> Data:
        """Bring uint8 images and their labels to the device."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        return Data(pixels, torch.from_numpy(labels).to(self.device).long(), mean, std)

    def indices(self, order: np.ndarray) -> Tensor:
        """Bring the order of an epoch's examples to the device, to hand slices of it to ``train_step``."""
        return torch.from_numpy(order).to(self.device)

    def train_step(self, data: Data, batch: np.ndarray | Tensor) -> tuple[Any, Any, Any]:
        """Learn from the examples whose indices are ``batch``.

        Returns their mean loss, how many were read correctly, and the norm of the gradient, before the step,
        as scalars on the device (in float64 what is to be summed): nothing waits for them until somebody
        looks. Those of a recorded step are overwritten by the next one.
        """
        indices = batch if isinstance(batch, Tensor) else self.indices(batch)
        self._usual_size = self._usual_size or len(indices)
        if self._recorder is not None and len(indices) == self._usual_size:
            return self._recorder.step(data, indices)
        return self._step(data, indices)

    def _step(self, data: Data, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step, in which nothing waits for the device."""
        if not self.network.training:
            self.network.train()
        self.optimizer.zero_grad()
        loss, correct = self._gradient(data, indices)
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        self.optimizer.step()
        return loss, correct, norm.double()

    def _gradient(self, data: Data, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Run forward and backward; returns the mean loss, and how many examples were read correctly."""
        loss, correct = self._forward(len(indices))(data, indices)
        loss.backward()
        return loss.detach().double(), correct

    def _forward(self, size: int) -> Callable[[Data, Tensor], tuple[Any, Tensor]]:
        """Return `_loss` for batches of this size, compiled where that is wanted and worth it."""
        return self._compiled if self._compiled is not None and size == self._usual_size else self._loss

    def _loss(self, data: Data, indices: Tensor) -> tuple[Any, Tensor]:
        """Return the mean loss of some examples, and how many of them were read correctly."""
        labels = data.labels.index_select(0, indices)
        images = self._seen(data, data.pixels.index_select(0, indices))
        with self._cast():
            logits = self._model(images)
        logits = logits.to(self._dtype)
        return self._mean_loss(logits, labels), (logits.detach().argmax(1) == labels).sum()

    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Any:
        return self.criterion(logits, labels)

    def _seen(self, data: Data, pixels: Tensor) -> Tensor:
        images = data.normalised(pixels, self._dtype)
        if self._channels_last and images.dim() == 4:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def _cast(self) -> AbstractContextManager[Any]:
        if not self._autocast:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    @torch.no_grad()
    def evaluate(self, data: Data, batch_size: int = 1000) -> tuple[float, np.ndarray]:
        """Return the mean loss over ``data`` and the network's outputs, (N, classes), in eval mode."""
        total, outputs = self._evaluate(data, batch_size)
        return total.item() / len(data.labels), outputs.cpu().numpy()

    def _evaluate(self, data: Data, batch_size: int) -> tuple[Tensor, Tensor]:
        """Return the sum of the examples' losses, and the outputs; nothing in it waits for the device."""
        self.network.eval()
        total, outputs = torch.zeros((), dtype=torch.float64, device=self.device), []
        for start in range(0, len(data.labels), batch_size):
            labels = data.labels[start : start + batch_size]
            logits = self.network(self._seen(data, data.pixels[start : start + batch_size]))
            total += self.criterion(logits, labels).double() * len(labels)
            outputs.append(logits)
        return total, torch.cat(outputs)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return copies of the network's parameters and buffers as arrays, under PyTorch's keys."""
        return {name: value.cpu().numpy().copy() for name, value in self.network.state_dict().items()}

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Take parameters and buffers from arrays under PyTorch's keys."""
        self.network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})

    def training_state(self) -> dict[str, Any]:
        """Return parameters, buffers, the optimizer's state, and where the masks of Dropout come from."""
        optimizer = self.optimizer.state_dict()
        entries = {
            number: {key: v.cpu().numpy().copy() if isinstance(v, Tensor) else v for key, v in entry.items()}
            for number, entry in optimizer["state"].items()
        }
        random = {"cpu": torch.get_rng_state().numpy()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device).numpy()
        return {"model": self.state_dict(), "optimizer": {**optimizer, "state": entries}, "random": random}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Go on from where ``training_state`` was called; the keys may have become text."""
        self.load_state_dict(state["model"])
        entries = {
            int(number): {
                key: torch.from_numpy(v.copy()) if isinstance(v, np.ndarray) else v
                for key, v in entry.items()
            }
            for number, entry in state["optimizer"]["state"].items()
        }
        self.optimizer.load_state_dict({**state["optimizer"], "state": entries})
        if self._recorder is not None:
            self._recorder.forget()  # the moments lie elsewhere now
        torch.set_rng_state(torch.from_numpy(state["random"]["cpu"].copy()))
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(torch.from_numpy(state["random"]["cuda"].copy()), self.device)
