"""One training step and one evaluation in PyTorch, on the CPU or on CUDA."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Data:
    """Images (N, ...), normalised, in float32, and labels (N,), on the engine's device."""

    images: Tensor
    labels: Tensor


class TorchEngine:
    """A network, its loss and its optimizer, all from PyTorch.

    ``chainrule.engines.NumpyEngine`` has the same methods, so that one loop trains both.
    """

    name = "torch"
    optim: ModuleType = torch.optim

    def __init__(
        self, network: nn.Module, criterion: nn.Module, optimizer: torch.optim.Optimizer, device: str
    ):
        self.network = network
        self.criterion = criterion
        self.optimizer = optimizer
        self.device = torch.device(device)

    def put(self, images: np.ndarray, labels: np.ndarray, mean: float, std: float) -> Data:
        """Return uint8 images as ``(pixel / 255 - mean) / std`` on the device, with their labels."""
        pixels = torch.from_numpy(images).to(self.device).float()
        return Data(pixels.div_(255).sub_(mean).div_(std), torch.from_numpy(labels).to(self.device).long())

    def train_step(self, data: Data, batch: np.ndarray) -> tuple[Any, Any, Any]:
        """Learn from the examples whose indices are ``batch``.

        Returns their mean loss, how many were read correctly, and the norm of the gradient, before the step,
        as scalars on the device (in float64 what is to be summed): nothing waits for them until somebody
        looks.
        """
        indices = torch.from_numpy(batch).to(self.device)
        images, labels = data.images[indices], data.labels[indices]
        self.network.train()
        logits = self.network(images)
        loss = self.criterion(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        grads = (parameter.grad for parameter in self.network.parameters())
        norm = nn.utils.get_total_norm(grad for grad in grads if grad is not None)
        self.optimizer.step()
        return loss.detach().double(), (logits.detach().argmax(1) == labels).sum(), norm.double()

    @torch.no_grad()
    def evaluate(self, data: Data, batch_size: int = 1000) -> tuple[float, np.ndarray]:
        """Return the mean loss over ``data`` and the network's outputs, (N, classes), in eval mode."""
        self.network.eval()
        total, outputs = 0.0, []
        for start in range(0, len(data.labels), batch_size):
            labels = data.labels[start : start + batch_size]
            logits = self.network(data.images[start : start + batch_size])
            total += self.criterion(logits, labels).item() * len(labels)
            outputs.append(logits)
        return total / len(data.labels), torch.cat(outputs).cpu().numpy()

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
        torch.set_rng_state(torch.from_numpy(state["random"]["cpu"].copy()))
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(torch.from_numpy(state["random"]["cuda"].copy()), self.device)
