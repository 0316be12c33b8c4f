"""The truth: is it true, and does it show who is right where the two engines differ?"""

import sys
from collections import OrderedDict

import numpy as np
import pytest
import torch

import nn_reference as nn
from agreement import compare_networks, error_against, truth


def small(rng, activation=nn.Tanh):
    network = nn.Sequential(nn.Linear(5, 4), activation(), nn.Linear(4, 3)).double()
    for parameter in network.parameters():
        parameter.data[...] = rng.normal(size=parameter.shape)
    layers = [(network[i].weight.data, network[i].bias.data) for i in (0, 2)]
    return network, layers, rng.normal(size=(6, 5)), rng.integers(0, 3, 6)


@pytest.mark.parametrize(("activation", "name"), [(nn.Tanh, "tanh"), (nn.ReLU, "relu")])
def test_longdouble_is_what_the_difference_quotient_in_50_digits_is(activation, name):
    network, layers, x, labels = small(np.random.default_rng(0), activation)
    exact = truth.mlp(layers, x, labels, activation=name)
    wide = truth.network(network, nn.CrossEntropyLoss(), x, labels)
    assert len(exact) == 7
    for key, value in exact.items():
        ours = wide[key.replace("d 1.", "d 2.")]  # the second affine layer is the network's third
        assert error_against(value, ours) < 100 * np.finfo(np.longdouble).eps, key


def test_the_truth_changes_nothing():
    network, _, x, labels = small(np.random.default_rng(0))
    before = network.state_dict()
    truth.network(network, nn.CrossEntropyLoss(), x, labels)
    assert all(p.grad is None and p.dtype == np.float64 for p in network.parameters())
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_wrong_formula_does_not_pass_50_digits():
    """In longdouble it would: the truth of `network` is the engine's own formulas."""
    network, layers, x, labels = small(np.random.default_rng(0))
    exact = truth.mlp(layers, x, labels, activation="tanh")["d loss / d 0.weight"]
    network(x)
    assert error_against(exact, exact * (1 + np.longdouble(1e-18))) > 5e-19


def test_without_mpmath_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpmath", None)
    with pytest.raises(ImportError, match="agreement.truth.mlp needs mpmath: pip install mpmath"):
        truth.mlp([], np.ones((1, 1)), np.zeros(1, int))


def scores_with_loss(loss, rng):
    """A network whose scores for a batch have a mean loss of about this: as after a long training."""
    x = rng.normal(size=(64, 10))
    labels = rng.integers(0, 10, 64)
    x[np.arange(64), labels] += -np.log(loss / 9)
    networks = []
    for library in (nn, torch.nn):
        networks.append(library.Sequential(OrderedDict(fc=library.Linear(10, 10))))
    networks[0].fc.weight.data[...] = np.eye(10)
    networks[0].fc.bias.data[...] = 0
    return networks, x.astype(np.float32), labels


@pytest.mark.parametrize("loss", [1e-2, 1e-4])
def test_a_small_loss_shows_who_is_right(loss):
    """PyTorch forms the label's gradient as p - 1, the reference as the sum of the other probabilities."""
    (ours, theirs), x, labels = scores_with_loss(loss, np.random.default_rng(0))
    report = compare_networks(
        ours, nn.CrossEntropyLoss(), theirs, torch.nn.CrossEntropyLoss(), x, labels,
        dtype=np.float32, intermediates=True, truth=True,
    )  # fmt: skip
    assert report.agrees, str(report)
    rows = {row.name: row for row in report.rows}
    assert loss / 3 < rows["loss"].largest_value < 3 * loss
    row = rows["d loss / d fc.output"]
    assert row.reference_error < 20 * 2.0**-24
    assert row.autograd_error > 0.01 * 2.0**-24 / loss
    if loss == 1e-4:
        assert row.autograd_error > 50 * row.reference_error
        worst = max(r.reference_error for r in report.rows if r.name.startswith("d loss"))
        assert worst < max(r.autograd_error for r in report.rows if r.name.startswith("d loss")) / 20
