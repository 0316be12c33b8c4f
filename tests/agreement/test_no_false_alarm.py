"""Correct networks, trained to losses from 2 down to 1e-4, are never called wrong.

A few are drawn here; CHAINRULE_NETWORKS=500 draws so many.
"""

import os

import numpy as np
import pytest
import torch

import nn_reference as nn
from agreement import compare_networks

NETWORKS = int(os.environ.get("CHAINRULE_NETWORKS", "20"))
ACTIVATIONS = ["ReLU", "Tanh", "Sigmoid", "LeakyReLU", "ELU", "SiLU", "GELU"]


def drawn(seed):
    """Return the same random network in both libraries, with a batch and the loss to train to."""
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(4, 17)), int(rng.integers(2, 7))
    layers, shape = [], (int(rng.integers(2, 12)),)
    if rng.random() < 0.4:
        shape = (int(rng.integers(1, 4)), 6, 8)
        out = int(rng.integers(2, 5))
        layers.append(("Conv2d", (shape[0], out, 3, 1, 1)))
        layers += [("BatchNorm2d", (out,))] * int(rng.random() < 0.3)
        layers.append((str(rng.choice(ACTIVATIONS)), ()))
        layers.append((str(rng.choice(["MaxPool2d", "AvgPool2d"])), (2,)))
        layers.append(("Flatten", ()))
        width = out * 12
    else:
        width = shape[0]
    for _ in range(int(rng.integers(1, 4))):
        out = int(rng.integers(3, 20))
        layers.append(("Linear", (width, out)))
        layers += [("BatchNorm1d", (out,))] * int(rng.random() < 0.3)
        layers.append((str(rng.choice(ACTIVATIONS)), ()))
        layers += [("Dropout", (0.3,))] * int(rng.random() < 0.2)
        width = out
    layers.append(("Linear", (width, classes)))
    networks = [
        library.Sequential(*(getattr(library, kind)(*args) for kind, args in layers))
        for library in (nn, torch.nn)
    ]
    x = rng.normal(size=(n, *shape))
    x = np.where(rng.random(x.shape) < 0.3, np.round(x), x)  # zeros and ties
    for name, parameter in networks[0].named_parameters():
        size = 1 / np.sqrt(parameter.data[0].size) if parameter.data.ndim > 1 else 0.2
        parameter.data[...] = rng.normal(scale=size, size=parameter.shape)
        if parameter.data.ndim == 1 and name.endswith("weight"):  # BatchNorm's
            parameter.data += 1
    for module in networks[0].modules():
        if isinstance(module, nn.Dropout):
            module.generator = rng
    return networks, x, rng.integers(0, classes, n), 10 ** rng.uniform(-4, np.log10(2))


def train(network, x, labels, loss):
    """Train in float64 until the batch's loss is below ``loss``, for at most 500 steps; return it."""
    network.double()
    criterion, optimizer = nn.CrossEntropyLoss(), nn.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(500):
        found = float(criterion(network(x), labels))
        if found < loss:
            break
        optimizer.zero_grad()
        network.backward(criterion.backward())
        optimizer.step()
    return found


@pytest.mark.parametrize("seed", range(NETWORKS))
def test_a_correct_network_agrees(seed):
    (ours, theirs), x, labels, loss = drawn(seed)
    train(ours, x, labels, loss)
    for dtype in ("float64", "float32"):
        report = compare_networks(
            ours, nn.CrossEntropyLoss(), theirs, torch.nn.CrossEntropyLoss(), x, labels,
            dtype=dtype, intermediates=True, optimizers=(nn.optim.Adam, torch.optim.Adam),
        )  # fmt: skip
        assert report.agrees, str(report)


@pytest.mark.parametrize(("dtype", "factor"), [("float64", 1 + 1e-6), ("float32", 1.05), ("float32", 0.0)])
@pytest.mark.parametrize("seed", range(6))
def test_one_wrong_gradient_in_such_a_network_is_seen(seed, dtype, factor):
    """Each parameter's gradient times a factor is called wrong, and no other: what is allowed is rounding."""
    (ours, theirs), x, labels, loss = drawn(seed)
    train(ours, x, labels, loss)
    right = compare_networks(
        ours, nn.CrossEntropyLoss(), theirs, torch.nn.CrossEntropyLoss(), x, labels, dtype=dtype
    )
    names = [name for name, _ in ours.named_parameters() if f"d loss / d {name}" not in right.remarks]
    assert names

    class Wrong(nn.Sequential):
        def backward(self, grad_output, input_grad=True):
            grad = super().backward(grad_output, input_grad)
            parameter = dict(self.named_parameters())[name]
            parameter.grad = parameter.grad * np.asarray(factor, parameter.dtype)
            return grad

    ours.__class__ = Wrong
    for name in names:  # which backward reads
        report = compare_networks(
            ours, nn.CrossEntropyLoss(), theirs, torch.nn.CrossEntropyLoss(), x, labels, dtype=dtype
        )
        assert [row.name for row in report.wrong] == [f"d loss / d {name}"], str(report)
