"""What the options of the PyTorch engine are worth: a training step of each, in turns, as ratios of medians.

    python benchmarks/torch_engine.py [--recipes ann cnn-same] [--device cuda] [--compile] [--rounds 40]

Each round takes some steps with every variant, in turn, so that a noisy neighbour disturbs all alike.
"before" is the engine as it was: images normalised beforehand in float32, indexed with ``[]``, no fused
optimizer. On the CPU the processor time of the process is measured, which other programs disturb less than
the wall clock; on CUDA the wall clock, from an idle device to an idle device.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from chainrule import engines, recipe
from chainrule.engines import TorchOptions
from torch_impl import TorchEngine


class Before(TorchEngine):
    """The engine before this page: all images as float32 on the device."""

    def train_step(self, data, batch):
        indices = torch.from_numpy(batch).to(self.device)
        images, labels = data.images[indices], data.labels[indices]
        self.network.train()
        logits = self.network(images)
        loss = self.criterion(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        grads = (parameter.grad for parameter in self.network.parameters())
        norm = torch.nn.utils.get_total_norm(grad for grad in grads if grad is not None)
        self.optimizer.step()
        return loss.detach().double(), (logits.detach().argmax(1) == labels).sum(), norm.double()


class Floats:
    def __init__(self, data):
        self.images, self.labels = data.normalised(data.pixels, torch.float32), data.labels


def variants(device, compiled):
    found = {
        "before": TorchOptions(fused=False),
        "now, not fused": TorchOptions(fused=False),
        "now": TorchOptions(),
        "channels_last": TorchOptions(channels_last=True),
        "bf16": TorchOptions(precision="bf16"),
        "bf16, channels_last": TorchOptions(precision="bf16", channels_last=True),
    }
    if device == "cuda":
        found |= {
            "tf32": TorchOptions(precision="tf32"),
            "CUDA graphs": TorchOptions(cuda_graphs=True),
            "CUDA graphs, tf32": TorchOptions(cuda_graphs=True, precision="tf32"),
            "CUDA graphs, bf16": TorchOptions(cuda_graphs=True, precision="bf16"),
        }
    if compiled:
        found |= {"compile": TorchOptions(compile=True)}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=["simplenet", "ann", "cnn-same"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=4, help="in each round, of each variant")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: a minute for each recipe")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{options.threads} thread(s)"
    print(f"PyTorch {torch.__version__}, {where}, batch {options.batch}, {options.rounds} rounds")
    for name in options.recipes:
        measure(recipe.load(name), options)


def measure(plan, options):
    random = np.random.default_rng(0)
    count = max(20_000, 4 * options.batch)
    # As dark as MNIST's: about a fifth of the pixels are not 0.
    pixels = random.integers(1, 256, (count, 28, 28), np.uint8) * (random.random((count, 28, 28)) < 0.19)
    labels = random.integers(0, 10, count, np.uint8)
    clock = time.perf_counter if options.device == "cuda" else time.process_time
    wait = torch.cuda.synchronize if options.device == "cuda" else lambda: None
    steps, times = {}, {}
    for name, how in variants(options.device, options.compile).items():
        engine = engines.build(plan, "torch", seed=0, device=options.device, options=how)
        if (
            (how.channels_last or how.precision != "float32")
            and options.device == "cpu"
            and not plan.input_shape[2:]
        ):
            continue  # for networks with convolutions
        data = engine.put(plan.examples(pixels.astype(np.uint8)), labels, plan.mean, plan.std)
        order = random.permutation(count)
        if name == "before":
            engine.__class__ = Before
            data = Floats(data)
        else:
            order = engine.indices(order)
        times[name] = []

        def step(i, engine=engine, data=data, order=order):
            start = i * options.batch % (count - options.batch)
            return engine.train_step(data, order[start : start + options.batch])

        steps[name] = step
    for step in steps.values():
        for i in range(10):
            step(i)
    for round_ in range(options.rounds):
        for name, step in steps.items():
            wait()
            began = clock()
            for i in range(options.steps):
                step(round_ * options.steps + i)
            wait()
            times[name].append((clock() - began) / options.steps)
    base = statistics.median(times["before"])
    print(f"\n{plan.name}: {plan.summary}\n")
    print(f"| {'':20} | ms a step | quartiles      | ratio to before |\n|---|---|---|---|")
    for name, found in times.items():
        low, middle, high = (1e3 * value for value in statistics.quantiles(found, n=4))
        spread = f"{low:.2f} to {high:.2f}"
        print(f"| {name:20} | {middle:9.2f} | {spread:14} | {middle / 1e3 / base:15.2f} |", flush=True)


if __name__ == "__main__":
    main()
