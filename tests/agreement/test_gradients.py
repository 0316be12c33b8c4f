"""The comparison of two networks: right ones agree, and each wrong gradient is seen."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

import nn_reference as nn
from agreement import FLOAT64_LIMIT, compare_networks, compare_tensors

LAYERS = [
    ("flatten", "Flatten", ()),
    ("fc1", "Linear", (6, 5)),
    ("relu1", "ReLU", ()),
    ("fc2", "Linear", (5, 4)),
]


def network(namespace):
    return namespace.Sequential(
        OrderedDict((name, getattr(namespace, kind)(*sizes)) for name, kind, sizes in LAYERS)
    )


def batch(rng):
    inputs = rng.standard_normal((7, 2, 3))
    inputs[0] = 0  # a planted zero: every unit of the first example sits at its bias
    return inputs, rng.integers(0, 4, size=7)


def compare(reference, rng):
    return compare_networks(
        reference, nn.CrossEntropyLoss(), network(torch.nn), torch.nn.CrossEntropyLoss(), *batch(rng)
    )


def with_wrong_gradient(name, mistake):
    """A network of which one gradient is changed after the fact; all else is the real thing."""

    class Wrong(nn.Sequential):
        def backward(self, grad_output, input_grad=True):
            grad = super().backward(grad_output, input_grad)
            parameter = dict(self.named_parameters())[name]
            parameter.grad = mistake(parameter.grad)
            return grad

    return Wrong(OrderedDict((name, getattr(nn, kind)(*sizes)) for name, kind, sizes in LAYERS))


@pytest.mark.parametrize("seed", range(5))
def test_the_two_engines_agree(seed):
    rng = np.random.default_rng(seed)
    rows = compare(network(nn), rng).rows
    assert [row.name for row in rows] == [
        "outputs",
        "loss",
        "d loss / d fc1.weight",
        "d loss / d fc1.bias",
        "d loss / d fc2.weight",
        "d loss / d fc2.bias",
        "d loss / d inputs",
    ]
    assert all(row.agrees for row in rows), rows
    assert all(row.largest_value > 0 for row in rows), "a comparison of zeros proves nothing"


@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("fc1.weight", np.zeros_like),
        ("fc1.weight", lambda grad: grad * (1 + 1e-10)),
        ("fc1.bias", lambda grad: grad / 7),
        ("fc1.bias", lambda grad: -grad),
        ("fc2.weight", lambda grad: grad * 7),
        ("fc2.weight", lambda grad: grad.astype(np.float32).astype(np.float64)),
        ("fc2.weight", lambda grad: grad[::-1]),
        ("fc2.bias", lambda grad: np.where(np.arange(4) == 2, np.nan, grad)),
        ("fc2.bias", lambda grad: np.where(np.arange(4) == 2, np.inf, grad)),
    ],
)
def test_a_wrong_gradient_is_seen_and_named(name, mistake):
    rows = compare(with_wrong_gradient(name, mistake), np.random.default_rng(0)).rows
    assert [row.name for row in rows if not row.agrees] == [f"d loss / d {name}"]


def test_a_small_gradient_is_held_to_the_same_measure():
    # An absolute tolerance of 1e-8 would pass both of these.
    tiny = np.full(1000, 1e-12)
    assert not compare_tensors("tiny", tiny, np.zeros(1000)).agrees
    assert compare_tensors("tiny", tiny, tiny * (1 + 2e-16)).agrees


def test_zeros_agree_with_zeros_and_with_nothing_else():
    zeros = np.zeros((3, 2))
    assert compare_tensors("zeros", zeros, zeros).agrees
    assert compare_tensors("zeros", zeros, np.full((3, 2), 5e-324)).error == pytest.approx(1)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"bias: the reference's shape is \(4,\), autograd's \(1, 4\)"):
        compare_tensors("bias", np.zeros(4), np.zeros((1, 4)))


def test_the_limit_is_the_documented_one():
    assert FLOAT64_LIMIT == 1e-12
