"""An epoch of MNIST by hand and by PyTorch, bit for bit, for several seeds: see docs/bit-for-bit.md.

    CHAINRULE_DATA=folder python benchmarks/exact_epoch.py [--layers 784,512,256,128,10] [--pixels 256]

``folder`` holds mnist/ as `chainrule download mnist` leaves it. For each seed: whether PyTorch's own layers
start from the same bits, how many elements of parameters, gradients and anything else differ, summed over the
steps, and what differed first. ``--pixels`` is what the bytes are divided by. At the end the same network as
anyone would write it, in float32 throughout: how much differs after the first step.
"""

import argparse
import time
from itertools import pairwise

import numpy as np
import torch

import nn_reference as nn
from agreement.exact import exact_training
from chainrule import datasets
from nn_reference import torch_random


def build(sizes: list[int], namespace, **options) -> list:
    return [namespace.Linear(a, b, **options) for a, b in pairwise(sizes)]


def same_start(ours: list, theirs: list) -> bool:
    return all(
        np.array_equal(a.weight.data, b.weight.detach().numpy())
        and np.array_equal(a.bias.data, b.bias.detach().numpy())
        for a, b in zip(ours, theirs, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", default="784,128,10")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--pixels", type=float, default=255)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--fused-loss", action="store_true")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.layers.split(",")]

    mnist = datasets.load("mnist")
    images = mnist.train_images.astype(np.float32) / np.float32(arguments.pixels)
    labels = mnist.train_labels.astype(np.int64)
    print("| seed | same start | compared | parameters | velocities | gradients | loss | outputs | first |")
    print("|---|---|---|---|---|---|---|---|---|")
    reports = []
    start = time.perf_counter()
    for seed in range(arguments.seeds):
        torch.manual_seed(seed)
        rng = torch_random.Generator(seed)
        linears = build(sizes, nn, generator=rng)
        same = same_start(linears, build(sizes, torch.nn))
        report = exact_training(
            nn.Sequential(*interleave(linears, nn.ReLU)),
            images,
            labels,
            steps=-(-len(images) // 64),
            generator=rng,
            lr=arguments.lr,
            momentum=arguments.momentum,
            fused_loss=arguments.fused_loss,
        )
        kinds = dict.fromkeys(("parameters", "velocities", "gradients", "loss", "outputs"), 0)
        for counts in report.differing:
            for name, n in counts.items():
                kinds[kind_of(name)] += n
        figures = " | ".join(map(str, kinds.values()))
        print(
            f"| {seed} | {'yes' if same else 'no'} | {report.elements} | {figures} | {report.first or '-'} |"
        )
        reports.append((report, kinds))
    print(
        f"\n{sum(report.identical for report, _ in reports)} of {len(reports)} seeds identical in everything,"
    )
    for kind in ("parameters", "gradients"):
        print(f"{sum(not kinds[kind] for _, kinds in reports)} in the {kind} at every step,")
    print(f"of {reports[0][0].steps} steps; {time.perf_counter() - start:.0f} s.")
    print_plain(sizes, images, labels, arguments.lr, arguments.momentum)


def print_plain(sizes: list[int], images: np.ndarray, labels: np.ndarray, lr: float, momentum: float) -> None:
    """Print how many elements differ after one step without any float64, from the bits of seed 0."""
    rng = torch_random.Generator(0)
    linears = build(sizes, nn, generator=rng)
    ours = nn.Sequential(*interleave(linears, nn.ReLU))
    theirs = torch.nn.Sequential(*interleave(build(sizes, torch.nn), torch.nn.ReLU))
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    criterion, optimizer = nn.CrossEntropyLoss(), nn.optim.SGD(ours.parameters(), lr, momentum)
    their_optimizer = torch.optim.SGD(theirs.parameters(), lr, momentum)
    batch = rng.randperm(len(images))[:64]
    x, target = images[batch].reshape(64, -1), labels[batch]

    criterion(ours(x), target)
    ours.backward(criterion.backward(), input_grad=False)
    optimizer.step()
    torch.nn.CrossEntropyLoss()(theirs(torch.from_numpy(x)), torch.from_numpy(target)).backward()
    their_optimizer.step()

    grads = values = total = 0
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        total += p.data.size
        grads += int((p.grad.view(np.uint32) != q.grad.numpy().view(np.uint32)).sum())
        values += int((p.data.view(np.uint32) != q.detach().numpy().view(np.uint32)).sum())
    print("\nIn float32 throughout, after one step,", end=" ")
    print(f"{grads} of {total} elements of the gradients differ, and {values} of the parameters.")


def interleave(linears: list, relu) -> list:
    return [layer for linear in linears for layer in (linear, relu())][:-1]


def kind_of(name: str) -> str:
    if name in ("loss", "logsumexp"):
        return "loss"
    for ending, kind in ((".momentum_buffer", "velocities"), (".grad", "gradients"), (".output", "outputs")):
        if name.endswith(ending):
            return kind
    return "parameters"


if __name__ == "__main__":
    main()
