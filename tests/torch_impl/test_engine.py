"""The PyTorch engine does what the NumPy engine does, to the same arrays."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

import nn_reference
from chainrule.engines import NumpyEngine
from torch_impl import TorchEngine

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    ),
]


def layers(nn):
    return OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.Linear(12, 8),
        relu1=nn.ReLU(),
        dropout1=nn.Dropout(0.5),
        fc2=nn.Linear(8, 10),
    )


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, size=(50, 3, 4), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, 10, size=50, dtype=np.uint8)


def torch_engine(device="cpu", lr=0.1):
    network = torch.nn.Sequential(layers(torch.nn)).to(device)
    return TorchEngine(
        network, torch.nn.CrossEntropyLoss(), torch.optim.SGD(network.parameters(), lr=lr), device
    )


def numpy_engine(lr=0.1):
    network = nn_reference.Sequential(layers(nn_reference))
    optimizer = nn_reference.optim.SGD(network.parameters(), lr=lr)
    return NumpyEngine(network, nn_reference.CrossEntropyLoss(), optimizer)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.1307, 0.3081), (0.5, 0.5)])
def test_both_engines_see_the_same_bits(images, labels, mean, std):
    ours, theirs = (engine.put(images, labels, mean, std) for engine in (numpy_engine(), torch_engine()))
    assert ours.images.dtype == np.float32
    assert theirs.pixels.dtype == torch.uint8
    assert np.array_equal(ours.images, theirs.normalised(theirs.pixels, torch.float32).numpy())
    assert np.array_equal(ours.labels, theirs.labels.numpy())
    assert ours.images == pytest.approx((images / 255 - mean) / std, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("make", ["numpy", *DEVICES])
def test_evaluation_is_in_eval_mode_and_changes_nothing(images, labels, make):
    engine = numpy_engine() if make == "numpy" else torch_engine(make)
    before = engine.state_dict()
    data = engine.put(images, labels, 0.0, 1.0)
    loss, outputs = engine.evaluate(data, batch_size=7)
    assert outputs.shape == (50, 10)
    whole, same = engine.evaluate(data)  # with dropout on, two evaluations would differ
    assert outputs == pytest.approx(same, rel=1e-5, abs=1e-6)
    assert loss == pytest.approx(whole, rel=1e-6)
    assert all(np.array_equal(before[name], value) for name, value in engine.state_dict().items())


@pytest.mark.parametrize("device", DEVICES)
def test_a_state_dict_moves_between_the_engines(images, labels, device):
    ours, theirs = numpy_engine(), torch_engine(device)
    theirs.load_state_dict(ours.state_dict())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    loss, outputs = ours.evaluate(ours.put(images, labels, 0.5, 0.5))
    their_loss, their_outputs = theirs.evaluate(theirs.put(images, labels, 0.5, 0.5))
    assert outputs == pytest.approx(their_outputs, rel=1e-4, abs=1e-6)
    assert loss == pytest.approx(their_loss, rel=1e-5)
    ours.load_state_dict(theirs.state_dict())
    assert np.array_equal(ours.evaluate(ours.put(images, labels, 0.5, 0.5))[1], outputs)


@pytest.mark.parametrize("device", DEVICES)
def test_a_step_reports_what_was_before_it_and_learns(images, labels, device):
    engine = torch_engine(device, lr=0.5)
    engine.network.dropout1.p = 0.0
    data = engine.put(images, labels, 0.0, 1.0)
    batch = np.arange(20, 40)
    part = engine.put(images[batch], labels[batch], 0.0, 1.0)
    expected, outputs = engine.evaluate(part)
    loss, correct, norm = engine.train_step(data, batch)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert int(correct) == np.count_nonzero(outputs.argmax(1) == labels[batch])
    assert loss.dtype == norm.dtype == torch.float64
    assert engine.evaluate(part)[0] < expected


@pytest.mark.parametrize("make", ["numpy", *DEVICES])
def test_the_norm_is_that_of_the_whole_gradient(images, labels, make):
    engine = numpy_engine() if make == "numpy" else torch_engine(make)
    *_, norm = engine.train_step(engine.put(images, labels, 0.0, 1.0), np.arange(50))
    grads = [np.asarray(parameter.grad.tolist()).ravel() for parameter in engine.network.parameters()]
    assert len(grads) == 4
    assert float(norm) == pytest.approx(np.linalg.norm(np.concatenate(grads)), rel=1e-5)
