"""The comparison of two networks: right ones agree, and each wrong gradient is seen."""

from collections import OrderedDict

import numpy as np
import pytest
import torch

import nn_reference as nn
from agreement import FLOAT64_LIMIT, compare_networks, compare_tensors, compare_training
from nn_reference import dropout

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


# -- everything, in both precisions ---------------------------------------------------------------------


def both(layers):
    return [
        library.Sequential(OrderedDict((name, getattr(library, kind)(*args)) for name, kind, args in layers))
        for library in (nn, torch.nn)
    ]


def everything(ours, theirs, x, labels, **options):
    options = {"intermediates": True, "truth": True, **options}
    return compare_networks(
        ours, nn.CrossEntropyLoss(), theirs, torch.nn.CrossEntropyLoss(), x, labels, **options
    )


DEEP = [
    ("fc1", "Linear", (6, 5)), ("bn", "BatchNorm1d", (5,)), ("relu", "ReLU", ()), ("drop", "Dropout", (0.4,)),
    ("fc2", "Linear", (5, 3)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_dropout_and_batchnorm_in_train_mode(dtype):
    """The mask is handed over, running statistics are compared, and a gradient of zero is recognised."""
    ours, theirs = both(DEEP)
    rng = np.random.default_rng(0)
    adam = (nn.optim.Adam, torch.optim.Adam)
    report = everything(
        ours, theirs, rng.normal(size=(8, 6)), rng.integers(0, 3, 8), dtype=dtype, optimizers=adam
    )
    assert report.agrees, str(report)
    rows = {row.name: row for row in report.rows}
    assert {"bn.running_mean", "bn.running_var", "drop.output", "d loss / d relu.output"} <= set(rows)
    assert "fc1.weight after 1 step" in rows
    assert "zero but for rounding" in report.remarks["d loss / d fc1.bias"]
    assert np.count_nonzero(ours.training) == 1
    assert all(row.reference_error is not None for row in report.rows if " after " not in row.name)


def test_a_dropout_that_forgets_to_scale_both_ways_is_seen(monkeypatch):
    monkeypatch.setattr(
        dropout, "draw_mask", lambda shape, p, dtype, rng: (rng.random(shape) >= p).astype(dtype)
    )
    ours, theirs = both(DEEP)
    rng = np.random.default_rng(0)
    report = everything(ours, theirs, rng.normal(size=(8, 6)), rng.integers(0, 3, 8))
    assert "drop.output" in [row.name for row in report.wrong]


def test_what_is_zero_but_for_rounding_is_no_blind_spot():
    """The bias before BatchNorm: nothing that is really there passes."""
    for size in (1e-3, 1e-9, 1e-13):
        network, theirs = both(DEEP)
        network.__class__ = type(
            "Wrong", (nn.Sequential,), {"backward": lambda s, g, input_grad=True, size=size: _add(s, g, size)}
        )
        rng = np.random.default_rng(0)
        report = everything(network, theirs, rng.normal(size=(8, 6)), rng.integers(0, 3, 8), truth=False)
        assert [row.name for row in report.wrong] == ["d loss / d fc1.bias"], size


def _add(network, grad, size):
    result = nn.Sequential.backward(network, grad)
    network.fc1.bias.grad = network.fc1.bias.grad + size
    return result


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_ties_that_rounding_breaks_are_handed_over(dtype):
    """On blank paper all sums of a convolution are equal but for their order, and max-pool must choose."""
    ours, theirs = both(
        [
            ("conv", "Conv2d", (3, 8, 3)),
            ("pool", "MaxPool2d", (2,)),
            ("flat", "Flatten", ()),
            ("fc", "Linear", (800, 3)),
        ]
    )
    rng = np.random.default_rng(0)
    x = np.full((4, 3, 22, 22), 0.37)
    x[:, :, 5:9, 5:9] = rng.normal(size=(4, 3, 4, 4))
    report = everything(ours, theirs, x, rng.integers(0, 3, 4), dtype=dtype)
    assert report.agrees, str(report)
    assert max(row.limit for row in report.rows) < 1e-4, "no limit may hide what a tie does"
    counts = [int(note.split()[1].replace(",", "")) for note in report.notes if note.startswith("pool")]
    assert sum(counts) <= 2 * 4 * 8 * 100, "at most two inputs of each window: one loses it, one wins"


def test_a_relu_within_rounding_of_its_kink_is_handed_over():
    ours, theirs = both([("fc", "Linear", (40, 30)), ("relu", "ReLU", ()), ("out", "Linear", (30, 3))])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 40)).astype(np.float32)
    weight = ours.fc.weight.data
    for row in range(6):  # unit 5 row: 0 but for rounding, on each example
        weight[5 * row] -= (weight[5 * row] @ x[row]) / (x[row] @ x[row]) * x[row]
    ours.fc.bias.data[...] = 0
    report = everything(ours, theirs, x, rng.integers(0, 3, 6), dtype="float32")
    assert report.agrees, str(report)
    assert max(row.limit for row in report.rows) < 1e-4, "no limit may hide what a flip does"


def test_a_relu_that_is_really_wrong_is_not_handed_over(monkeypatch):
    from nn_reference import relu

    right = relu.forward
    ours, theirs = both([("fc", "Linear", (4, 6)), ("relu", "ReLU", ()), ("out", "Linear", (6, 3))])
    monkeypatch.setattr(relu, "forward", lambda x, out=None: right(x + 1e-3))
    rng = np.random.default_rng(0)
    report = everything(ours, theirs, rng.normal(size=(50, 4)), rng.integers(0, 3, 50), truth=False)
    assert report.wrong[0].error > 1e-5
    assert "relu.output" in [row.name for row in report.wrong]


def test_the_report_says_where_the_two_part():
    network = with_wrong_gradient("fc1.weight", lambda grad: grad * 7)
    rng = np.random.default_rng(0)
    inputs, targets = batch(rng)
    _, theirs = both(LAYERS)
    report = everything(network, theirs, inputs, targets)
    assert report.remarks["d loss / d fc1.weight"] == (
        "7 times too large: not divided by the batch size, or multiplied by it twice"
    )
    assert "the first gradient to part is d loss / d fc1.weight" in report.notes[0]


def test_nothing_of_the_callers_is_changed():
    ours, theirs = both(DEEP)
    before = ours.state_dict()
    rng = np.random.default_rng(0)
    everything(
        ours,
        theirs,
        rng.normal(size=(8, 6)),
        rng.integers(0, 3, 8),
        optimizers=(nn.optim.SGD, torch.optim.SGD),
    )
    assert all(p.grad is None and p.dtype == np.float32 for p in ours.parameters())
    assert all(np.array_equal(value, before[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_training_agrees_and_a_wrong_optimizer_does_not(name, dtype):
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(8, 6)), rng.integers(0, 3, 8)) for _ in range(20)]
    ours, theirs = both(DEEP)
    losses = nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss()

    def optimizers(lr):
        return (lambda p: getattr(nn.optim, name)(p, lr=lr), lambda p: getattr(torch.optim, name)(p, lr=0.01))

    right = compare_training(ours, losses[0], theirs, losses[1], optimizers(0.01), batches, dtype=dtype)
    assert right.agrees, str(right)
    wrong = compare_training(ours, losses[0], theirs, losses[1], optimizers(0.0103), batches, dtype=dtype)
    assert not wrong.agrees


# -- what would widen a limit, or leave a gradient out --------------------------------------------------


class WrongLoss(nn.CrossEntropyLoss):
    """The right gradient, but the loss is said to be next to nothing."""

    def _forward(self, x, target):
        loss, cache = super()._forward(x, target)
        return loss * 0 + np.asarray(1e-20, loss.dtype), cache


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_wrong_loss_is_wrong_and_widens_no_limit(dtype):
    report = compare_networks(
        with_wrong_gradient("fc1.weight", np.zeros_like),
        WrongLoss(),
        network(torch.nn),
        torch.nn.CrossEntropyLoss(),
        *batch(np.random.default_rng(0)),
        dtype=dtype,
    )
    assert {row.name for row in report.wrong} == {"loss", "d loss / d fc1.weight"}


class EarlyReturn(nn.Sequential):
    """The backward ends before the first layer's."""

    def backward(self, grad_output, input_grad=True):
        for layer in reversed(list(self.children())[2:]):
            grad_output = layer.backward(grad_output)


def test_gradients_that_are_never_computed_are_missed():
    rng = np.random.default_rng(0)
    layers = OrderedDict((name, getattr(nn, kind)(*sizes)) for name, kind, sizes in LAYERS)
    report = compare(EarlyReturn(layers), rng)
    assert not report.agrees
    assert "d loss / d fc1.weight: the reference has none, autograd's is not zero" in report.problems


def test_a_gradient_of_another_shape_is_a_problem_and_no_exception():
    rng = np.random.default_rng(0)
    wrong = with_wrong_gradient("fc1.weight", np.transpose)
    sgd = (lambda p: nn.optim.SGD(p, 0.1)), (lambda p: torch.optim.SGD(p, 0.1))
    report = compare_networks(
        wrong, nn.CrossEntropyLoss(), network(torch.nn), torch.nn.CrossEntropyLoss(), *batch(rng),
        optimizers=sgd,
    )  # fmt: skip
    assert report.problems == ["d loss / d fc1.weight has shape (6, 5), expected (5, 6)"]


@pytest.mark.parametrize("factor", [0.0, 2.0, -1.0])
def test_where_float32_leaves_no_digits_a_wrong_gradient_does_not_pass(factor):
    """At a loss of 3e-8 autograd's float32 gradient is 0 or twice as large; the reference's is right."""
    labels = np.array([0, 2, 1, 0, 2])
    inputs = 18.0 * np.eye(3)[labels]

    class Linear(nn.Linear):
        factor = 1.0

        def _backward(self, cache, grad_y, need_grad_x):
            grad_x = super()._backward(cache, grad_y, need_grad_x)
            self.weight.grad = self.weight.grad * np.asarray(self.factor, grad_y.dtype)
            return grad_x

    reference = nn.Sequential(Linear(3, 3))
    reference[0].weight.data = np.eye(3)
    reference[0].bias.data = np.zeros(3)
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 3))

    def found():
        return compare_networks(
            reference, nn.CrossEntropyLoss(), theirs, torch.nn.CrossEntropyLoss(), inputs, labels,
            dtype="float32",
        )  # fmt: skip

    assert found().agrees, str(found())
    reference[0].factor = factor
    report = found()
    assert not report.agrees
    assert "d loss / d 0.weight" in " ".join([*report.problems, *(row.name for row in report.wrong)])


def test_a_statistic_that_changes_its_dtype_while_training_is_a_problem(monkeypatch):
    track = nn.BatchNorm1d._track

    def wrong(self, *arguments):
        track(self, *arguments)
        self.running_var = self.running_var.astype(np.float32)

    monkeypatch.setattr(nn.BatchNorm1d, "_track", wrong)
    ours, theirs = both([("fc", "Linear", (4, 6)), ("bn", "BatchNorm1d", (6,)), ("out", "Linear", (6, 3))])
    rng = np.random.default_rng(0)
    report = compare_training(
        ours, nn.CrossEntropyLoss(), theirs, torch.nn.CrossEntropyLoss(),
        ((lambda p: nn.optim.SGD(p, 0.1)), (lambda p: torch.optim.SGD(p, 0.1))),
        [(rng.normal(size=(5, 4)), rng.integers(0, 3, 5))] * 2,
    )  # fmt: skip
    assert report.problems == [
        "bn.running_var after 2 steps is float32 of shape (6,), expected float64 of shape (6,)"
    ]
