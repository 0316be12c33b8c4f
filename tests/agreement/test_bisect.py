"""The bisector: it names step, operation, tensor and element; and it tells a flip from a mistake."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

import nn_reference as nn
from agreement import Twins, first_difference, locked_training
from agreement.bisect import find_flips, locked_step
from agreement.mutants import OPERATIONS as MUTANTS
from agreement.tracing import Pass, Point


def sgd(optim, parameters):
    return optim.SGD(parameters, lr=0.05, momentum=0.9)


def network(library):
    return library.Sequential(
        OrderedDict(
            conv1=library.Conv2d(2, 3, 3),
            relu1=library.ReLU(),
            pool1=library.MaxPool2d(2),
            flatten=library.Flatten(),
            fc1=library.Linear(12, 4),
        )
    )


def twins(optimizer=sgd, build=network):
    return Twins(build, lambda library: library.CrossEntropyLoss(), optimizer)


def data(count=48):
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, 2, 6, 7)), rng.integers(0, 4, count)


def find(**more):
    return first_difference(twins(), *data(), steps=6, batch_size=8, **more)


def in_step(wrong_call, wrong, right):
    """A method that is wrong in one of its calls only."""
    calls = iter(range(1, 1000))

    def method(*arguments):
        return (wrong if next(calls) == wrong_call else right)(*arguments)

    return method


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_right_engines_have_no_difference(dtype):
    assert find(dtype=dtype) is None


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_step_operation_tensor_and_element_are_named(dtype, monkeypatch):
    right = nn.Conv2d._backward

    def wrong(self, cache, grad_y, need_grad_x):
        grad_x = right(self, cache, grad_y, need_grad_x)
        self.weight.grad[2, 0, 1, 2] += 0.25
        return grad_x

    monkeypatch.setattr(nn.Conv2d, "_backward", in_step(4, wrong, right))
    found = find(dtype=dtype)
    assert (found.step, found.point) == (4, Point("backward", "conv1", "weight"))
    assert found.element == (2, 0, 1, 2)
    assert found.row.reference_value - found.row.autograd_value == pytest.approx(0.25, rel=1e-5)
    assert found.flip is None
    assert str(found).startswith("step 4, backward of conv1, weight[2, 0, 1, 2]: reference ")


@pytest.mark.parametrize(
    ("layer", "point"),
    [
        (nn.Conv2d, ("forward", "conv1", "output")),
        (nn.ReLU, ("forward", "relu1", "output")),
        (nn.MaxPool2d, ("forward", "pool1", "output")),
        (nn.Linear, ("forward", "fc1", "output")),
        (nn.CrossEntropyLoss, ("forward", "loss", "output")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_wrong_forward_is_named_and_not_what_follows_from_it(layer, point, monkeypatch):
    right = layer._forward

    def wrong(self, *inputs):
        y, cache = right(self, *inputs)
        return y * (1 + 1e-9), cache

    monkeypatch.setattr(layer, "_forward", wrong)
    found = find()
    assert (found.step, found.point) == (1, point)


@pytest.mark.parametrize("layer", [nn.ReLU, nn.MaxPool2d, nn.Linear, nn.Flatten, nn.CrossEntropyLoss])
def test_a_wrong_backward_is_named_and_not_what_follows_from_it(layer, monkeypatch):
    right = layer._backward
    names = {"ReLU": "relu1", "MaxPool2d": "pool1", "Linear": "fc1", "Flatten": "flatten"}

    def wrong(self, *arguments):
        return right(self, *arguments) * (1 + 1e-9)

    monkeypatch.setattr(layer, "_backward", wrong)
    found = find()
    name = names.get(layer.__name__, "loss")
    assert (found.step, found.point) == (1, Point("backward", name, "grad_input"))


def kinked(kind):
    """A task whose inputs lie on a kink, so that rounding decides on which side an engine passes it."""
    layers = {"ReLU": lambda library: library.ReLU(), "max-pool": lambda library: library.MaxPool2d((1, 2))}
    build = lambda library: library.Sequential(  # noqa: E731
        OrderedDict(
            conv1=library.Conv2d(1, 1, 1),
            kink=layers[kind](library),
            flatten=library.Flatten(),
            fc1=library.Linear(4 if kind == "ReLU" else 2, 3),
        )
    )
    start = {
        "conv1.weight": np.ones((1, 1, 1, 1)),
        "conv1.bias": np.full(1, -1.0),
        "fc1.weight": np.random.default_rng(1).standard_normal((3, 4 if kind == "ReLU" else 2)),
        "fc1.bias": np.zeros(3),
    }
    pair = Twins(build, lambda library: library.CrossEntropyLoss(), sgd, start=start)
    inputs = np.array([[[[0.4, 3.0], [5.0, 1.0]]], [[[0.3, 2.5], [0.1, 0.7]]]], np.float32)
    if kind == "max-pool":
        inputs[0, 0, 0] = 3.0
    return pair, inputs, np.array([0, 2])


@pytest.mark.parametrize(("kind", "element"), [("ReLU", (0, 0, 1, 1)), ("max-pool", (0, 0, 0, 0))])
def test_a_flip_is_told_from_a_mistake(kind, element, monkeypatch):
    pair, inputs, targets = kinked(kind)
    right = nn.Conv2d._forward

    def rounded_otherwise(self, x):
        y, cache = right(self, x)
        y[0, 0, 1, 1] += np.float32(1e-7) if kind == "ReLU" else 0
        y[0, 0, 0, 1] += np.float32(3e-7) if kind == "max-pool" else 0
        return y, cache

    monkeypatch.setattr(nn.Conv2d, "_forward", rounded_otherwise)
    found = first_difference(pair, inputs, targets, steps=1, batch_size=2, dtype=np.float32)
    assert found.flip is not None, str(found)
    assert (found.flip.kind, found.flip.operation) == (kind, "kink")
    assert (found.step, found.point) == (1, Point("backward", "kink", "grad_input"))
    assert len(found.flip.element) == len(element)
    assert "not a mistake" in str(found)
    assert f"{kind} flip in kink" in str(found)
    report = locked_training(pair, inputs, targets, steps=1, batch_size=2, dtype=np.float32, control=False)
    assert report.agrees, str(report)
    assert report.flips
    assert report.parted.operation == "kink"


def test_a_mistake_in_the_same_step_as_a_flip_is_still_a_mistake(monkeypatch):
    pair, inputs, targets = kinked("ReLU")
    right = nn.Conv2d._forward

    def rounded_otherwise(self, x):
        y, cache = right(self, x)
        y[0, 0, 1, 1] += np.float32(1e-7)
        return y, cache

    wrong = nn.Linear._backward
    monkeypatch.setattr(nn.Conv2d, "_forward", rounded_otherwise)
    monkeypatch.setattr(nn.Linear, "_backward", lambda self, *arguments: 1.5 * wrong(self, *arguments))
    found = first_difference(pair, inputs, targets, steps=1, batch_size=2, dtype=np.float32)
    assert found.flip is None
    assert found.point == ("backward", "fc1", "grad_input")


def test_a_wrong_mask_is_no_flip(monkeypatch):
    # ReLU's mask turned round at one element far from zero: the inputs of both engines are the same.
    right = nn.ReLU._backward

    def wrong(self, cache, grad_y, need_grad_x):
        cache = cache.copy()
        cache[np.unravel_index(cache.argmax(), cache.shape)] = 0
        return right(self, cache, grad_y, need_grad_x)

    monkeypatch.setattr(nn.ReLU, "_backward", wrong)
    for dtype in (np.float32, np.float64):
        found = find(dtype=dtype)
        assert found.flip is None
        assert found.point == ("backward", "relu1", "grad_input")


def test_a_wrong_winner_is_no_flip():
    """Which pixel wins is found without the layer under test, whose cache may hold anything."""
    mutant = next(m for m in MUTANTS if m.name == "MaxPool2d: to all ties")
    with mutant.planted():  # after ReLU windows of zeros alone are common
        found = find(dtype=np.float32)
    assert found.flip is None
    assert found.point == ("backward", "pool1", "grad_input")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_parameter_moved_before_the_update_is_named(dtype):
    mutant = next(m for m in MUTANTS if m.name == "Linear: bias moved by backward")
    with mutant.planted():
        found = find(dtype=dtype)
    assert (found.step, found.point) == (1, ("backward", "fc1", "bias itself"))


def test_a_gradient_of_the_wrong_shape_is_named():
    mutant = next(m for m in MUTANTS if m.name == "Linear: bias not summed")
    with (
        mutant.planted(),
        pytest.raises(
            ValueError, match=r"backward of fc1: the gradient of bias is \(8, 4\), expected \(4,\)"
        ),
    ):
        locked_training(twins(), *data(), steps=1, batch_size=8)


def test_inputs_that_differ_by_more_than_rounding_are_no_flip():
    a = np.array([[1e-3, -2.0, 3.0]])
    passes = [
        Pass(1.0, {}, inputs={"relu1": x}, layers={"relu1": nn.ReLU()})
        for x in (a, a - np.array([2e-3, 0, 0]))
    ]
    assert find_flips(1, *passes) == []
    (flip,) = find_flips(1, *passes, locked=False)
    assert flip.element == (0, 0)
    assert str(flip) == (
        "step 1: ReLU flip in relu1[0, 0]: pre-activation is 0.001 in the reference, -0.001 in autograd"
    )


def test_every_number_of_a_step_is_compared_in_the_order_of_the_computation():
    inputs, targets = data(8)
    pair = twins()
    step = locked_step(pair.reference(np.float64), pair.autograd(np.float64), 1, inputs, targets)
    layers = ["conv1", "relu1", "pool1", "flatten", "fc1", "loss"]
    expected = [("forward", name, "output") for name in layers]
    for name in reversed(layers):
        expected.append(("backward", name, "grad_output"))
        if name in ("conv1", "fc1"):
            expected += [("backward", name, "weight"), ("backward", name, "bias")]
        expected.append(("backward", name, "grad_input"))
    for name in ("conv1.weight", "conv1.bias", "fc1.weight", "fc1.bias"):
        expected += [("update", "SGD", f"{name} momentum_buffer"), ("update", "SGD", name)]
    expected += [("update", "scheduler", "lr"), ("update", "scheduler", "momentum")]
    assert [tuple(point) for point, _ in step.rows] == expected


def test_a_layer_used_twice_is_listed_by_call():
    def build(library):
        same = library.Linear(5, 5)
        return library.Sequential(OrderedDict(a=same, b=library.Tanh(), c=same))

    pair = Twins(build, lambda library: library.CrossEntropyLoss(), sgd)
    x, y = np.random.default_rng(0).standard_normal((6, 5)), np.arange(6) % 5
    step = locked_step(pair.reference(np.float64), pair.autograd(np.float64), 1, x, y)
    points = [tuple(point) for point, _ in step.rows]
    assert points.count(("backward", "a", "weight")) == 1
    assert points.index(("backward", "a (call 2)", "grad_input")) < points.index(("backward", "a", "weight"))
    assert step.difference is None
    assert all(row.largest_value > 0 for _, row in step.rows), "a comparison of zeros proves nothing"


def test_hooks_are_removed_and_torch_is_left_alone():
    theirs = twins().autograd(np.float64)
    inputs, targets = data(8)
    theirs.compute(inputs, targets, {})
    modules = [*theirs.network.modules(), theirs.criterion]
    assert all(not module._forward_hooks and not module._backward_hooks for module in modules)
    assert all(isinstance(p, torch.nn.Parameter) for p in theirs.network.parameters())
