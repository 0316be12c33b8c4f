"""Several processes that train one network: each takes a part of every batch, and a part of the optimizer.

A step of W workers on a batch of N examples, in memory that all of them see:

    1. worker w takes N / W of the examples forward and backward. Its loss is weighted by its share of the
       batch, so that the workers' gradients add up to that of the whole batch's mean;
    2. all wait for each other;
    3. worker w adds up the gradients for its part of the parameter vector, and its own optimizer updates that
       part. Every formula of an optimizer is element by element: cut up, it gives the same numbers;
    4. all wait for each other.

The same functions do the work as in one process. What differs is the order in which sums are rounded, and
that each worker's Dropout draws from a generator of its own. Worker 0 is the process that trains.
"""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

import nn_reference
from chainrule.engines import (
    Data,
    NumpyEngine,
    generator_states,
    keep_memory,
    load_generators,
    load_optimizer,
    threads,
)
from chainrule.errors import ChainruleError
from chainrule.recipe import Recipe
from nn_reference.utils import Vector

# what worker 0 asks the others to do, and where it says so
_STEP, _SEND_STATE, _STOP = 1.0, 2.0, 3.0
_COMMAND, _COUNT, _LR, _MOMENTUM, _BETA1 = range(5)

_CONTEXT = multiprocessing.get_context("spawn")


class Memory:
    """Arrays that all workers see; one that is sent to a new process opens there on the same memory."""

    def __init__(self) -> None:
        self._raw: dict[str, tuple[Any, tuple[int, ...], str]] = {}
        self._arrays: dict[str, np.ndarray] = {}

    def add(self, name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        """Return a new array of zeros, known under this name."""
        raw = _CONTEXT.RawArray("b", max(1, math.prod(shape) * np.dtype(kind).itemsize))
        self._raw[name] = (raw, shape, kind)
        self._arrays.pop(name, None)
        return self[name]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raw, shape, kind = self._raw[name]
            self._arrays[name] = np.frombuffer(raw, kind, math.prod(shape)).reshape(shape)
        return self._arrays[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"_raw": self._raw, "_arrays": {}}


class Gate:
    """Where workers wait for each other.

    They look at each other's count of arrivals, because waking a process takes longer than its part of a
    step; the longer they wait the less often they look. The lock makes what a worker wrote before it arrived
    visible to those that have seen it arrive, on every processor.
    """

    def __init__(self, arrivals: np.ndarray, rank: int, lock: Any) -> None:
        self._arrivals = arrivals.data.cast("B").cast("q")  # (W, 16): two workers never write to one line
        self._mine, self._lock = 16 * rank, lock

    def meet(self, check: Callable[[], None]) -> None:
        """Return when every worker has called this as often as this one; ``check`` is called now and then."""
        arrivals = self._arrivals
        self._acquire(check)
        arrivals[self._mine] += 1
        self._lock.release()
        awaited = arrivals[self._mine]
        for other in range(0, len(arrivals), 16):
            looks = 0
            while arrivals[other] < awaited:
                looks += 1
                if looks < 5000:
                    _let_others_run()
                else:
                    time.sleep(0.0002 if looks < 6000 else 0.005)
                    if looks % 100 == 0:
                        check()
        self._acquire(check)
        self._lock.release()

    def _acquire(self, check: Callable[[], None]) -> None:
        while not self._lock.acquire(timeout=1.0):
            check()


def _let_others_run() -> None:
    """Give the processor to whoever waits for it; not every system has a call for just that."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()
    else:
        time.sleep(0)


class Part:
    """One worker's share of the work. ``memory`` holds

    images (N, ...), labels (N,)    the training data
    weights (P,), grads (W, P)      the parameter vector, and each worker's gradient of it
    batch (B,), orders (5,)         the indices of the batch, and what is to be done
    results (W, 16)                 each worker's loss, correct answers and squared norm of its part
    """

    def __init__(self, recipe: Recipe, seed: int, memory: Memory, rank: int, gate: Gate) -> None:
        self.memory, self.rank, self.gate = memory, rank, gate
        masks = np.random.default_rng([seed, 2, rank] if rank else [seed, 2])
        generator = np.random.default_rng([seed, 0])
        self.network = recipe.build(nn_reference, generator=generator, mask_generator=masks)
        self.criterion = recipe.build_loss(nn_reference)
        workers, size = memory["grads"].shape
        self.vector = Vector(self.network.parameters(), memory["weights"], memory["grads"][rank])
        self.mine = slice(size * rank // workers, size * (rank + 1) // workers)
        self.parameter = nn_reference.Parameter(memory["weights"][self.mine])
        self.optimizer = recipe.build_optimizer(nn_reference.optim, [self.parameter])
        self.images = np.empty(0, np.float32)

    def step(self, count: int, check: Callable[[], None]) -> None:
        """Take this worker's part of the first ``count`` indices of the batch, and of the update."""
        memory, rank, grads = self.memory, self.rank, self.memory["grads"]
        batch = memory["batch"][count * rank // len(grads) : count * (rank + 1) // len(grads)]
        loss, correct = 0.0, 0
        self.vector.grad = None
        if len(batch):
            if len(self.images) < len(batch):
                self.images = np.empty((len(batch), *memory["images"].shape[1:]), np.float32)
            out = self.images[: len(batch)]
            images, labels = memory["images"].take(batch, 0, out, "clip"), memory["labels"][batch]
            share = len(batch) / count
            self.network.train()
            logits = self.network(images)
            loss = share * float(self.criterion(logits, labels))
            self.network.backward(self.criterion.backward(share), input_grad=False)
            correct = int(np.count_nonzero(logits.argmax(1) == labels))
        if self.vector.grad is None:  # to ask for it brings all gradients into the vector
            grads[rank] = 0
        self.gate.meet(check)
        grad = grads[0, self.mine] + grads[1, self.mine]
        for other in grads[2:]:
            grad += other[self.mine]
        self.parameter.grad = grad
        memory["results"][rank, :3] = loss, correct, np.vdot(grad, grad)
        self.optimizer.step()
        self.gate.meet(check)

    def state(self) -> dict[str, Any]:
        """Return what this worker's next step depends on, besides weights and data."""
        return {"optimizer": self.optimizer.state_dict(), "random": generator_states(self.network)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was called; the keys may have become text."""
        load_optimizer(self.optimizer, state["optimizer"])
        load_generators(self.network, state["random"])


def work(
    recipe: Recipe, seed: int, memory: Memory, rank: int, lock: Any, connection: Connection, parent: int
) -> None:
    """Be worker ``rank``, until worker 0 says stop or is no longer there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for worker 0, which finishes its step

    def check() -> None:
        if os.getppid() != parent:
            raise SystemExit(1)

    keep_memory()
    gate = Gate(memory["arrivals"], rank, lock)
    weights = memory["weights"].copy()
    part = Part(recipe, seed, memory, rank, gate)
    memory["weights"][...] = weights  # building the network drew the weights of the beginning
    state = connection.recv()
    if state is not None:
        part.load_state(state)
    orders = memory["orders"]
    with threads(1), np.errstate(over="ignore", invalid="ignore"):
        gate.meet(check)
        while True:
            gate.meet(check)
            if orders[_COMMAND] == _STOP:
                return
            if orders[_COMMAND] == _SEND_STATE:
                connection.send(part.state())
                continue
            group = part.optimizer.param_groups[0]
            group["lr"] = float(orders[_LR])
            if "momentum" in group:
                group["momentum"] = float(orders[_MOMENTUM])
            if "betas" in group:
                group["betas"] = (float(orders[_BETA1]), group["betas"][1])
            part.step(int(orders[_COUNT]), check)


class WorkersEngine(NumpyEngine):
    """`NumpyEngine` whose training steps are shared by ``workers`` processes.

    The others start with the first step. Raises ChainruleError for a network with batch normalisation, and
    when a worker has ended.
    """

    def __init__(self, recipe: Recipe, seed: int, workers: int) -> None:
        norm = next((layer.type for layer in recipe.layers if layer.type.startswith("BatchNorm")), None)
        if norm is not None:
            raise ChainruleError(
                f"--workers {workers}: {recipe.source} has {norm}, whose mean and variance are those of the "
                "whole batch, which no worker sees; use --workers 1"
            )
        self._recipe, self._seed, self._workers = recipe, seed, workers
        size = sum(p.data.size for p in recipe.build(nn_reference).parameters())
        self._memory = memory = Memory()
        for name, shape in (("grads", (workers, size)), ("weights", (size,))):
            memory.add(name, shape, "f4")
        memory.add("batch", (recipe.batch_size,), "i8")
        memory.add("arrivals", (workers, 16), "i8")
        memory.add("results", (workers, 16), "f8")
        memory.add("orders", (5,), "f8")
        self._lock = _CONTEXT.Lock()
        self._gate = Gate(memory["arrivals"], 0, self._lock)
        self._part = Part(recipe, seed, memory, 0, self._gate)
        self._others: list[tuple[Any, Connection]] = []
        self._loaded: dict[int, Any] = {}
        self._data: Data | None = None
        super().__init__(self._part.network, self._part.criterion, self._part.optimizer)

    def train_step(self, data: Data, batch: np.ndarray) -> tuple[Any, Any, Any]:
        """Learn from the examples whose indices are ``batch``, as `NumpyEngine` does."""
        if self._data is not data:
            self._start(data)
        memory, group = self._memory, self.optimizer.param_groups[0]
        memory["batch"][: len(batch)] = batch
        settings = group["lr"], group.get("momentum", 0), group.get("betas", (0,))[0]
        memory["orders"][:] = _STEP, len(batch), *settings
        self._gate.meet(self._check)
        self._part.step(len(batch), self._check)
        loss, correct, squares = memory["results"][:, :3].sum(0)
        return float(loss), int(correct), math.sqrt(squares)

    def training_state(self) -> dict[str, Any]:
        """Return `NumpyEngine`'s state, and that of the other workers."""
        if self._others:
            self._memory["orders"][_COMMAND] = _SEND_STATE
            self._gate.meet(self._check)
            self._loaded = {rank: connection.recv() for rank, (_, connection) in enumerate(self._others, 1)}
        return {**super().training_state(), "workers": self._loaded}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Go on from where ``training_state`` was called; the keys may have become text."""
        super().load_training_state(state)
        self._loaded = {int(rank): theirs for rank, theirs in state["workers"].items()}

    def _start(self, data: Data) -> None:
        """Put the data into memory that all workers see, and start the others if they are not there."""
        shared = self._memory
        if self._others and shared["images"].shape == data.images.shape:
            shared["images"][...], shared["labels"][...] = data.images, data.labels
            self._data = data
            return
        self.training_state()  # of the workers that are there: what the new ones go on from
        self.close()
        for name, array in (("images", data.images), ("labels", data.labels)):
            shared.add(name, array.shape, array.dtype.str)[...] = array
        self._data = data
        for rank in range(1, self._workers):
            mine, theirs = _CONTEXT.Pipe()
            arguments = (self._recipe, self._seed, shared, rank, self._lock, theirs, os.getpid())
            process = _CONTEXT.Process(target=work, args=arguments, daemon=True)
            process.start()
            mine.send(self._loaded.get(rank))
            self._others.append((process, mine))
        self._gate.meet(self._check)

    def _check(self) -> None:
        for rank, (process, _) in enumerate(self._others, 1):
            if process.exitcode is not None:
                raise ChainruleError(f"worker {rank} has ended, with exit status {process.exitcode}")

    def close(self) -> None:
        """Let the other workers end; when there are none it does nothing."""
        others, self._others = self._others, []
        if others and all(process.is_alive() for process, _ in others):
            self._memory["orders"][_COMMAND] = _STOP
            self._gate.meet(lambda: None)
        for process, connection in others:
            process.join(2)
            process.kill()
            connection.close()
