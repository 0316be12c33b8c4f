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


def torch_engine(device="cpu", lr=0.1, optimizer=torch.optim.SGD, p=0.5, settings=None, **options):
    torch.manual_seed(0)
    network = torch.nn.Sequential(layers(torch.nn)).to(device)
    network.dropout1.p = p
    made = optimizer(network.parameters(), lr=lr, **(settings or {}))
    return TorchEngine(network, torch.nn.CrossEntropyLoss(), made, device, **options)


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


def after_steps(engine, images, labels, steps=6):
    """The losses of a few steps on batches of 20, and the parameters and buffers after them."""
    data = engine.put(images, labels, 0.1307, 0.3081)
    order = engine.indices(np.random.default_rng(2).permutation(50))
    starts = [0, 20, 40] * (steps // 3)  # of the last one 10 images are left
    losses = [float(engine.train_step(data, order[start : start + 20])[0]) for start in starts]
    return losses, engine.state_dict()


def assert_close(found, expected, rel):
    assert found[0] == pytest.approx(expected[0], rel=rel)
    for name, value in expected[1].items():
        assert np.abs(found[1][name] - value).max() <= rel * np.abs(value).max(), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {}), (torch.optim.AdamW, {})],
)
def test_a_fused_optimizer_takes_the_same_steps(images, labels, device, optimizer, settings):
    plain, fused = (
        torch_engine(device, 0.01, optimizer, p=0.0, settings={**settings, "fused": fused})
        for fused in (False, True)
    )
    assert_close(after_steps(fused, images, labels), after_steps(plain, images, labels), 1e-4)


def test_indices_on_the_device_are_as_good_as_an_array(images, labels):
    ours, theirs = torch_engine(p=0.0), torch_engine(p=0.0)
    data, batch = ours.put(images, labels, 0.5, 0.5), np.arange(7, 30)
    one, other = ours.train_step(data, batch), theirs.train_step(data, theirs.indices(batch))
    assert [float(value) for value in one] == [float(value) for value in other]


# --- how it computes ---


class Convolution:
    """A small CNN on images of 6 x 6, and the engine of each option."""

    def __init__(self):
        random = np.random.default_rng(0)
        self.images = random.integers(0, 256, (50, 1, 6, 6), dtype=np.uint8)
        self.labels = random.integers(0, 10, 50, dtype=np.uint8)

    def learn(self, device="cpu", **options):
        torch.manual_seed(0)
        nn = torch.nn
        network = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1)),
            *(nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)),
        ).to(device)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        engine = TorchEngine(network, nn.CrossEntropyLoss(), optimizer, device, **options)
        return after_steps(engine, self.images, self.labels), engine


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last_changes_the_memory_and_not_the_numbers(device):
    expected, _ = Convolution().learn(device)
    found, engine = Convolution().learn(device, channels_last=True)
    assert engine.network[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert found[1]["3.weight"].flags.c_contiguous, "what is saved is in the usual order"
    assert_close(found, expected, 1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_rounds_the_products_and_nothing_else(device):
    expected, _ = Convolution().learn(device)
    found, engine = Convolution().learn(device, precision="bf16")
    assert all(parameter.dtype == torch.float32 for parameter in engine.network.parameters())
    assert found[0] != pytest.approx(expected[0], rel=1e-6), "it would be float32"
    assert found[0] == pytest.approx(expected[0], rel=2e-2)
    loss, outputs = engine.evaluate(engine.put(Convolution().images, Convolution().labels, 0.0, 1.0))
    assert outputs.dtype == np.float32
    assert isinstance(loss, float)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tf32_rounds_products_and_float32_does_not():
    images = np.random.default_rng(0).integers(0, 256, (256, 28, 28), dtype=np.uint8)
    outputs = {}
    for precision in ("tf32", "float32"):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 512)).to("cuda")
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        engine = TorchEngine(network, torch.nn.CrossEntropyLoss(), optimizer, "cuda", precision=precision)
        _, outputs[precision] = engine.evaluate(engine.put(images, np.zeros(256, np.uint8), 0.0, 1.0))
        exact = network.double()(torch.from_numpy(images).to("cuda").double() / 255).detach().cpu().numpy()
    errors = {key: np.abs(value - exact).max() / np.abs(exact).max() for key, value in outputs.items()}
    assert errors["float32"] < 2e-6 < errors["tf32"] < 2e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, as inductor is loaded
@pytest.mark.parametrize("device", DEVICES)
def test_a_compiled_step_does_what_an_eager_one_does(images, labels, device, monkeypatch):
    if device == "cpu":  # the graph is traced and run as it is: inductor would compile C++ for half a minute
        compile = torch.compile
        monkeypatch.setattr(torch, "compile", lambda f, **how: compile(f, backend="aot_eager", **how))
    expected = after_steps(torch_engine(device, p=0.0), images, labels)
    assert_close(after_steps(torch_engine(device, p=0.0, compile=True), images, labels), expected, 1e-4)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"precision is 'fp8', expected one of float32, tf32, bf16"):
        torch_engine(precision="fp8")
