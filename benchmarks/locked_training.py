"""The table and the picture of docs/locked-training.md: both engines side by side for 1,000 steps.

`python benchmarks/locked_training.py` takes the embedded digits; `--root ../shared/datasets --data mnist` is
MNIST; `--networks 784-128-10 --optimizers SGD --picture FILE` draws the picture.
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np

import nn_reference
from agreement import TrainingReport, Twins, locked_training
from agreement.plots import distances
from chainrule import datasets
from chainrule.engines import threads

OPTIMIZERS = {
    "SGD": lambda optim, parameters: optim.SGD(parameters, lr=0.05, momentum=0.9),
    "Adam": lambda optim, parameters: optim.Adam(parameters, lr=1e-3),
    "AdamW": lambda optim, parameters: optim.AdamW(parameters, lr=1e-3),
}


def mlp(nn, **random):
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            fc1=nn.Linear(784, 128, **random),
            relu1=nn.ReLU(),
            fc2=nn.Linear(128, 10, **random),
        )
    )


def cnn(nn, **random):
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False, **random),
            bn1=nn.BatchNorm2d(8),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            drop1=nn.Dropout(0.25),
            fc1=nn.Linear(8 * 7 * 7, 10, **random),
        )
    )


NETWORKS = {"784-128-10": mlp, "CNN": cnn}


COLUMNS = (
    "network",
    "optimizer",
    "dtype",
    "distance",
    "control",
    "first flip",
    "worst locked",
    "beyond strict",
    "flips",
    "loss",
    "",
)


def twins(network, optimizer) -> Twins:
    import torch

    pair = network(nn_reference, generator=np.random.default_rng(0)), network(torch.nn)
    return Twins(pair, lambda nn: nn.CrossEntropyLoss(), optimizer)


def row(network: str, optimizer: str, report: TrainingReport) -> str:
    """One line of the table; the worst locked step as a share of its limit."""
    flip = report.parted.step if report.parted else "-"
    worst = "-"
    if report.worst:
        step, point, agreement = report.worst[0]
        worst = f"{agreement.error:.1e} ({agreement.error / agreement.limit:.0%}; {point}; step {step})"
    cells = [
        network,
        optimizer,
        report.dtype,
        f"{report.distance.max():.1e}",
        f"{report.control.max():.1e}",
        flip,
        worst,
        f"{report.widened} of {report.points}" if report.compared else "-",
        len(report.flips) if report.compared else "-",
        f"{report.losses[-1]:.1e}",
        "agree" if report.agrees else "DISAGREE",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits")
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), choices=list(OPTIMIZERS))
    parser.add_argument("--dtypes", nargs="+", default=["float64", "float32"])
    parser.add_argument("--picture", type=Path, help="draw the MLP with SGD here")
    arguments = parser.parse_args()
    data = datasets.load(arguments.data, arguments.root)
    pixels = data.train_images[:, None].astype(float)
    # On blank paper whole windows of a max pooling tie but for rounding: part of a grey level decides there.
    grainy = pixels + np.random.default_rng(0).random(pixels.shape)
    print(f"{data.title}: {arguments.steps} steps of 64")
    print(f"| {' | '.join(COLUMNS)} |")
    print("| --- " * len(COLUMNS) + "|")
    drawn = {}
    for network in arguments.networks:
        images = ((grainy if network == "CNN" else pixels) / 255 - 0.1307) / 0.3081
        for optimizer in arguments.optimizers:
            for dtype in arguments.dtypes:
                pair = twins(NETWORKS[network], OPTIMIZERS[optimizer])
                report = locked_training(pair, images, data.train_labels, steps=arguments.steps, dtype=dtype)
                print(row(network, optimizer, report), flush=True)
                if report.difference:
                    print(f"    {report.difference}", flush=True)
                if network == "784-128-10" and optimizer == "SGD":
                    drawn[dtype] = report
    if arguments.picture:
        arguments.picture.write_bytes(
            distances(drawn, "Our engine and PyTorch's, 784-128-10, SGD with momentum")
        )


if __name__ == "__main__":
    with threads(1):
        main()
