"""CUDA graphs: a whole training step, recorded once and replayed with one launch from Python.

A small network's step is some sixty kernels of a few microseconds each, which Python hands over more slowly
than the device works them off. A recorded step is handed over as one. The rules of "CUDA Graphs" in PyTorch's
notes on CUDA semantics decide what stands here: the first steps run eagerly on a stream of their own; what a
recording reads and writes stays where it is in memory; numbers that Python passes are baked in.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Results = tuple[Tensor, Tensor, Tensor]
Step = Callable[[Any, Tensor], Results]

_EAGER_STEPS = 3  # in which libraries set themselves up and the optimizer makes its moments


class Recorder:
    """Takes the steps of one optimizer on one data set, the first few eagerly, the others by replaying.

    Every step is one of the training: nothing is done twice or undone. The learning rate may change from step
    to step; while anything else of the optimizer's settings does (OneCycleLR moves the momentum too), and on
    other data, steps are eager. An optimizer must allow it (Adam: ``capturable=True``; SGD: ``fused=True``).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, step: Step):
        self._optimizer = optimizer
        self._step = step
        self._indices: Any = None  # what a recorded step reads and writes
        self._results: Any = None
        self.forget()

    def forget(self) -> None:
        """Drop the recording: what it reads and writes has moved."""
        self._eager = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._data: Any = None
        self._settings: list[dict[str, Any]] = []
        self._rates: list[float] = []
        self._device_rates: list[Tensor] = []

    def step(self, data: Any, indices: Tensor) -> Results:
        """Take a step, as ``step(data, indices)`` would; the indices are as many each time."""
        if self._eager < _EAGER_STEPS:
            self._eager += 1
            return self._on_a_side_stream(data, indices)
        if self._graph is None:
            self._record(data, indices)
        if self._graph is None or data is not self._data or self._settings_now() != self._settings:
            return self._step(data, indices)
        self._indices.copy_(indices)
        for group, rate, device_rate in zip(
            self._optimizer.param_groups, self._rates, self._device_rates, strict=True
        ):
            if group["lr"] != rate:
                device_rate.fill_(group["lr"])
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._graph.replay()
        results: Results = self._results
        return results

    def _settings_now(self) -> list[dict[str, Any]]:
        """Everything of the optimizer that a recording bakes in."""
        return [
            {key: value for key, value in group.items() if key not in ("params", "lr")}
            for group in self._optimizer.param_groups
        ]

    def _on_a_side_stream(self, data: Any, indices: Tensor) -> Results:
        cuda: Any = torch.cuda  # half of it is without types
        side, current = cuda.Stream(), cuda.current_stream()
        side.wait_stream(current)
        with cuda.stream(side):
            results = self._step(data, indices)
        current.wait_stream(side)
        return results

    def _record(self, data: Any, indices: Tensor) -> None:
        """Record a step without taking it; it reads the learning rates on the device."""
        groups = self._optimizer.param_groups
        self._data, self._settings, self._indices = data, self._settings_now(), indices.clone()
        self._rates = [group["lr"] for group in groups]
        self._device_rates = [torch.tensor(float(rate), device=indices.device) for rate in self._rates]
        self._optimizer.zero_grad()  # so that the gradients are made in the recording's own memory
        graph = torch.cuda.CUDAGraph()
        try:
            for group, device_rate in zip(groups, self._device_rates, strict=True):
                group["lr"] = device_rate
            with torch.cuda.graph(graph):
                self._results = self._step(data, self._indices)
        finally:
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"] = rate
        self._graph = graph
