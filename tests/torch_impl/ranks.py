"""What each rank of test_parallel.py does, and what one process does with the whole batch."""

import os
from collections import OrderedDict

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from torch_impl import TorchEngine
from torch_impl.parallel import ParallelEngine

NETWORKS = ("mlp", "mlp-bn", "cnn-bn", "dropout")
# Whole batches, one that two ranks cannot halve, and one that leaves the second rank nothing.
BATCHES = (range(0, 24), range(24, 48), range(48, 57), range(57, 58))
COUNT = 58


def network(name):
    image = [nn.Flatten(), nn.Linear(36, 8), nn.ReLU()]
    layers = {
        "mlp": [*image, nn.Linear(8, 10), nn.LogSoftmax(1)],
        "mlp-bn": [nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)],
        "cnn-bn": [
            *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(36, 10)),
        ],
        "dropout": [*image, nn.Dropout(0.5), nn.Linear(8, 10)],
    }[name]
    return nn.Sequential(OrderedDict((f"layer{i}", layer) for i, layer in enumerate(layers)))


def examples():
    generator = np.random.default_rng(0)
    return (
        generator.integers(0, 256, (COUNT, 1, 6, 6), dtype=np.uint8),
        generator.integers(0, 10, COUNT, dtype=np.uint8),
    )


def engine_of(kind, name):
    torch.manual_seed(1)
    made = network(name).double()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9)
    return kind(made, nn.CrossEntropyLoss(), optimizer, "cpu")


def learn(kind, name):
    """Take a few steps in float64; returns all that came of them, by name."""
    engine = engine_of(kind, name)
    data, found = engine.put(*examples(), 0.1307, 0.3081), {}
    batches = BATCHES[:-1] if "bn" in name else BATCHES  # a single image has no variance
    for step, batch in enumerate(batches):
        loss, correct, norm = engine.train_step(data, np.array(batch))
        found |= {f"{step}.loss": loss, f"{step}.correct": correct, f"{step}.norm": norm}
        found |= {
            f"{step}.grad.{key}": value.grad.clone() for key, value in engine.network.named_parameters()
        }
    found["evaluated.loss"], found["outputs"] = engine.evaluate(data, batch_size=7)
    return {key: np.asarray(value) for key, value in (found | engine.state_dict()).items()}


def main(rank, port, folder):
    """Be one of two ranks; leave what was found in a file for each network."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for name in NETWORKS:
        np.savez(f"{folder}/{name}-{rank}.npz", **learn(ParallelEngine, name))
    engine = engine_of(ParallelEngine, "mlp-bn")
    if rank == 0:  # the other one does not take part any more
        engine.part()
        engine.evaluate(engine.put(*examples(), 0.1307, 0.3081))
    dist.destroy_process_group()


def alone(name):
    """Be the one process that has the whole batch."""
    return learn(TorchEngine, name)
