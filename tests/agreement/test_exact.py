"""Bit for bit with PyTorch: no element differs, and the smallest change of the arithmetic is seen."""

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import idx
import nn_reference as nn
from agreement import bits, exact
from agreement.exact import exact_training
from nn_reference import linear, relu, torch_random

DIGITS = Path(__file__).resolve().parents[2] / "data" / "digits"


@pytest.fixture(scope="module")
def digits():
    """The embedded digits. A pixel / 256 has 8 bits, so that even sums of many of them are nearly exact."""
    images = idx.read(DIGITS / "train-images-idx3-ubyte.gz").astype(np.float32) / np.float32(256)
    return images, idx.read(DIGITS / "train-labels-idx1-ubyte.gz").astype(np.int64)


def mlp(generator, *sizes, bias=True):
    layers = OrderedDict(flatten=nn.Flatten())
    for i, (n_in, n_out) in enumerate(pairwise(sizes), 1):
        layers[f"fc{i}"] = nn.Linear(n_in, n_out, bias, generator=generator)
        if i < len(sizes) - 1:
            layers[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(layers)


def train(digits, sizes=(784, 32, 10), steps=60, seed=0, bias=True, **options):
    generator = torch_random.Generator(seed)
    network = mlp(generator, *sizes, bias=bias)
    options = {"lr": 0.1, "momentum": 0.9, **options}
    return exact_training(network, *digits, steps=steps, generator=generator, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 300},
        {"sizes": (784, 32, 24, 10), "steps": 150},
        {"sizes": (784, 10)},
        {"bias": False},
        {"momentum": 0.0},
        {"dampening": 0.3},
        {"weight_decay": 1e-3, "dampening": 0.5},
        {"weight_decay": 1e-2, "nesterov": True, "batch_size": 50},
    ],
    ids=str,
)
def test_no_bit_differs(digits, options):
    report = train(digits, **options)
    assert report.identical, report
    assert report.total == 0
    assert report.losses[-1] < 0.6 * report.losses[0], "a network that does not learn proves little"
    assert str(report) == f"{options.get('steps', 60)} steps, {report.elements} elements compared, 0 differ"


def test_all_that_was_computed_is_compared(digits):
    reference = exact.Reference(mlp(torch_random.Generator(0), 784, 7, 10), exact.SGD(0.1, 0.9), False)
    images, labels = digits
    seen = reference.step(images[:5].reshape(5, -1), labels[:5])
    assert list(seen) == [
        *("fc1.output", "relu1.output", "fc2.output", "logsumexp", "loss"),
        *("fc2.output.grad", "fc2.weight.grad", "fc2.bias.grad"),
        *("relu1.output.grad", "fc1.output.grad", "fc1.weight.grad", "fc1.bias.grad"),
        *(f"fc1.{name}" for name in ("weight", "weight.momentum_buffer", "bias", "bias.momentum_buffer")),
        *(f"fc2.{name}" for name in ("weight", "weight.momentum_buffer", "bias", "bias.momentum_buffer")),
    ]
    assert all(value.dtype == np.float32 for value in seen.values())


def test_sums_of_short_pixels_do_not_depend_on_the_order(digits):
    """Why docs/bit-for-bit.md divides by 256: at the start no float64 sum of the first layer is rounded."""
    weight = nn.Linear(784, 128, generator=torch_random.Generator(0)).weight.data.astype(np.float64)
    order = torch_random.Generator(1).randperm(784)
    for divisor, least, most in ((256, 0, 0), (255, 0.5, 1)):
        pixels = (digits[0].reshape(-1, 784) * np.float32(256)) / np.float32(divisor)
        x = pixels.astype(np.float64)
        changed = np.mean(x @ weight.T != x[:, order] @ weight[:, order].T)
        assert least <= changed <= most


def test_an_epoch_of_mnist(shared):
    """From PyTorch's own start, made without PyTorch. Which near-ties there are depends on the BLAS."""
    images = idx.read(shared / "mnist" / "train-images-idx3-ubyte.gz").astype(np.float32) / np.float32(256)
    labels = idx.read(shared / "mnist" / "train-labels-idx1-ubyte.gz").astype(np.int64)
    torch.manual_seed(1)
    start = {"fc1": torch.nn.Linear(784, 128), "fc2": torch.nn.Linear(128, 10)}
    generator = torch_random.Generator(1)
    network = mlp(generator, 784, 128, 10)
    for key, value in network.state_dict().items():
        layer, kind = key.split(".")
        np.testing.assert_array_equal(value, getattr(start[layer], kind).detach().numpy())
    report = exact_training(
        network, images, labels, steps=938, generator=generator, lr=0.1, momentum=0.9, batch_size=64
    )
    assert report.steps == 938
    assert report.identical or report.first.cause.startswith("a near-tie"), report
    assert sum(map(bool, report.differing)) <= 5, report
    assert np.mean(report.losses[-100:]) < 0.2


def rounded_twice(a, b, c):
    return a * np.float32(b) + c


LINEAR_FORWARD, LINEAR_BACKWARD = linear.forward, linear.backward


def float32_products(x, *parameters):
    y, _ = LINEAR_FORWARD(x.astype(np.float32), *(p.astype(np.float32) for p in parameters))
    return y.astype(np.float64), (x, parameters[0])


def float32_gradients(cache, grad, need_grad_x):
    narrow = tuple(a.astype(np.float32) for a in cache)
    grads = LINEAR_BACKWARD(narrow, grad.astype(np.float32), need_grad_x)
    return tuple(None if g is None else g.astype(np.float64) for g in grads)


MUTANTS = {
    "multiply-add rounded twice": (exact, "multiply_add", rounded_twice, "fc1.weight"),
    "float32 sums in the products": (linear, "forward", float32_products, "fc1.output"),
    "float32 sums in the gradients": (linear, "backward", float32_gradients, "fc2.weight.grad"),
    "ReLU without a mask": (
        relu,
        "forward",
        lambda x: (np.maximum(x, 0), np.ones_like(x)),
        "fc1.output.grad",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_other_arithmetic_is_seen_and_named(digits, monkeypatch, mutant):
    module, name, wrong, tensor = MUTANTS[mutant]
    monkeypatch.setattr(module, name, wrong)
    report = train(digits, steps=5)
    assert report.first.tensor == tensor
    assert report.first.step <= 2
    assert report.first.cause.startswith("not a near-tie"), report
    assert report.total >= 1


@pytest.mark.parametrize("tensor", ["fc1.output", "fc2.weight.grad", "fc1.bias.grad", "loss", "logsumexp"])
def test_one_bit_is_found(digits, monkeypatch, tensor):
    """One element of one tensor, one float32 away, at step 3: the report names it."""
    round_it, calls = exact.Reference._round, []

    def with_a_wrong_bit(self, name, value):
        rounded = round_it(self, name, value)
        if name == tensor:
            calls.append(name)
            if len(calls) == 3:
                rounded[(-1,) * rounded.ndim] = np.nextafter(rounded[(-1,) * rounded.ndim], np.float32(9))
        return rounded

    monkeypatch.setattr(exact.Reference, "_round", with_a_wrong_bit)
    report = train(digits, steps=4, batch_size=50)
    first = report.first
    shape = {"fc1.output": (50, 32), "fc2.weight.grad": (10, 32), "fc1.bias.grad": (32,), "logsumexp": (50,)}
    assert (first.step, first.tensor) == (3, tensor)
    assert first.index == tuple(n - 1 for n in shape.get(tensor, ()))
    assert np.nextafter(np.float32(first.autograd), np.float32(9)) == np.float32(first.reference)
    assert first.cause.startswith("not a near-tie")
    assert report.differing[:2] == [{}, {}]
    assert report.differing[2][tensor] == 1
    index = ", ".join(map(str, first.index))
    assert f"; step 3, {tensor}[{index}]: " in f"{report}"


def test_what_a_near_tie_is():
    a, b = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    middle = (float(a) + float(b)) / 2
    for ulps in (0, 3, 64):
        cause = bits.explain(a, b, np.array([0.5, middle - ulps * 2.0**-52]), (1,))
        assert (
            cause
            == f"a near-tie: the float64 sum is {ulps} float64 ulps of the tensor's maximum from the midpoint"
        )
    assert bits.explain(a, b, np.array([0.5, middle + 66 * 2.0**-52]), (1,)).startswith("not a near-tie")
    assert bits.explain(a, b, np.array([9e9, middle + 2.0**-30]), (1,)).startswith("a near-tie")
    assert bits.explain(a, b, None, ()).startswith("not a near-tie")


floats = st.floats(-(2.0**50), 2.0**50, width=32) | st.floats(-(2.0**-120), 2.0**-120, width=32)


@settings(max_examples=200, deadline=None, database=None)
@given(st.data())
def test_multiply_add_is_torchs(data):
    n = data.draw(st.sampled_from([1, 7, 16, 33, 64]))
    a, c = (data.draw(arrays(np.float32, n, elements=floats)) for _ in range(2))
    b = data.draw(st.floats(-2, 2))
    theirs = torch.add(torch.from_numpy(c), torch.from_numpy(a), alpha=b).numpy()
    np.testing.assert_array_equal(exact.multiply_add(a, b, c).view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("sign", [1, -1])
def test_multiply_add_just_beside_the_midpoint(sign):
    """c + a b is 2^-70 below the midpoint of two float32: float64 rounds it to the midpoint itself."""
    a = np.full(20, sign * 2.0**-24 * (1 + 2.0**-23), np.float32)
    b = float(np.float32(1 - 2.0**-23))
    c = np.full(20, sign * (1 + 2.0**-23), np.float32)
    ours = exact.multiply_add(a, b, c)
    np.testing.assert_array_equal(ours, c)
    np.testing.assert_array_equal(ours, torch.add(torch.from_numpy(c), torch.from_numpy(a), alpha=b).numpy())
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    assert not np.array_equal(ours, twice), "this case must tell rounding once from rounding twice"


def test_the_fused_loss_parts_sooner(digits):
    """PyTorch's p - 1 cancels in float64; with the loss written out the same training has no difference."""
    assert train(digits, steps=5, fused_loss=True).identical
    report = train(digits, steps=250, fused_loss=True)
    assert not report.identical
    assert report.first.tensor == "fc2.output.grad"


def test_the_network_is_not_changed(digits):
    generator = torch_random.Generator(0)
    network = mlp(generator, 784, 7, 10)
    before = network.state_dict()
    exact_training(network, *digits, steps=2, generator=generator, lr=0.1)
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("layers", "change", "error", "message"),
    [
        ([nn.Linear(4, 3), nn.Tanh()], {}, NotImplementedError, "'1' is a Tanh, expected Linear or ReLU"),
        ([nn.ReLU(), nn.Linear(4, 3)], {}, ValueError, "the network does not begin with a Linear"),
        ([], {}, ValueError, "the network does not begin with a Linear"),
        ([nn.Linear(4, 3).double()], {}, TypeError, "0.weight is float64, expected float32"),
        ([nn.Linear(4, 3)], {"images": np.zeros((6, 4))}, TypeError, "images is float64, expected float32"),
        ([nn.Linear(4, 3)], {"labels": np.zeros(6, np.int8)}, TypeError, "labels is int8, expected int64"),
        ([nn.Linear(4, 3)], {"labels": np.zeros(5, np.int64)}, ValueError, "6 images and 5 labels"),
        ([nn.Linear(4, 3)], {"lr": 1e38, "steps": 20}, FloatingPointError, "the loss is (inf|nan)"),
    ],
)
def test_what_is_refused(layers, change, error, message):
    images = np.ones((6, 4), np.float32)
    given = {"images": images, "labels": np.arange(6) % 3, "steps": 1, "lr": 0.1, "momentum": 0.9, **change}
    with pytest.raises(error, match=message), np.errstate(all="ignore"):
        exact_training(nn.Sequential(*layers), generator=torch_random.Generator(0), **given)
