"""Somebody's own layer against autograd: right ones pass, each wrong one is named, element and cause."""

import sys
from operator import mul

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import agreement
import nn_reference as nn
from nn_reference import batchnorm, cross_entropy, linear, relu, softmax

F = torch.nn.functional


class Linear:
    """As people write it: W is (in, out), the bias a row, gradients in attributes."""

    def __init__(self, i=7, o=5):
        self.W = np.random.default_rng(3).normal(size=(i, o))
        self.b = np.zeros((1, o))

    def forward(self, x):
        self.x = x
        return x @ self.W + self.b

    def backward(self, grad):
        self.dW = self.x.T @ grad
        self.db = grad.sum(0, keepdims=True)
        return grad @ self.W.T


def check(layer, autograd=None, inputs=(4, 7), **options):
    return agreement.compare(layer, autograd or torch.nn.Linear(7, 5), inputs, **options)


def causes(report):
    return " | ".join(
        [*(f"{row.name}: {report.remarks[row.name]}" for row in report.wrong), *report.problems]
    )


# -- what is understood ---------------------------------------------------------------------------------


class Params:
    """A dict of parameters and one of gradients, called rather than `forward`."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.params = {"W": rng.normal(size=(7, 5)), "b": rng.normal(size=5)}
        self.grads = {}

    def __call__(self, x):
        self._x = x
        return x @ self.params["W"] + self.params["b"]

    def backward(self, grad):
        self.grads = {"W": self._x.T @ grad, "b": grad.sum(0)}
        return grad @ self.params["W"].T


class Returned(Linear):
    """All gradients returned."""

    def backward(self, grad):
        return grad @ self.W.T, self.x.T @ grad, grad.sum(0, keepdims=True)


class ReturnedByName(Linear):
    def backward(self, grad):
        return {"db": grad.sum(0, keepdims=True), "dW": self.x.T @ grad, "dx": grad @ self.W.T}


class Adding(Linear):
    """Gradients add up, as in PyTorch."""

    def __init__(self):
        super().__init__()
        self.grad_W, self.grad_b = np.zeros_like(self.W), np.zeros_like(self.b)

    def backward(self, grad):
        self.grad_W = self.grad_W + self.x.T @ grad
        self.grad_b = self.grad_b + grad.sum(0, keepdims=True)
        return grad @ self.W.T


class Network:
    """Two layers in a list."""

    def __init__(self):
        self.layers = [Linear(7, 6), Linear(6, 5)]

    def forward(self, x):
        for layer in self.layers:
            x = np.tanh(layer.forward(x)) if layer is self.layers[0] else layer.forward(x)
            if layer is self.layers[0]:
                self.h = x
        return x

    def backward(self, grad):
        grad = self.layers[1].backward(grad)
        return self.layers[0].backward(grad * (1 - self.h**2))


def two_layers():
    return torch.nn.Sequential(torch.nn.Linear(7, 6), torch.nn.Tanh(), torch.nn.Linear(6, 5))


def torch_linear(x, w, b):
    return x @ w + b


PAIR = (linear.forward, linear.backward)
SOFTMAX = (lambda x: softmax.forward(x, 1), softmax.backward)
LABELS = np.array([2, 0, 6, 2])
RIGHT = [
    (Linear(), torch.nn.Linear(7, 5), (4, 7)),
    (Linear(7, 7), torch.nn.Linear(7, 7), (4, 7)),  # square: forward tells which way round W is
    (Linear(), torch_linear, (4, 7)),
    (Params(), torch.nn.Linear(7, 5), (4, 7)),
    (Returned(), torch.nn.Linear(7, 5), (4, 7)),
    (ReturnedByName(), torch.nn.Linear(7, 5), (4, 7)),
    (Adding(), torch.nn.Linear(7, 5), (4, 7)),
    (Network(), two_layers(), (4, 7)),
    (nn.Linear(7, 7), torch.nn.Linear(7, 7), (1, 7)),
    (nn.Conv2d(2, 3, 3), torch.nn.Conv2d(2, 3, 3), (2, 2, 6, 5)),
    (nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3), (2, 3, 4, 5)),
    (nn.MaxPool2d(2), torch.nn.MaxPool2d(2), (2, 3, 6, 4)),
    (nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss(), [(4, 7), LABELS]),
    (nn.MSELoss(), lambda x, t: F.mse_loss(x, t.detach()), [(4, 7), np.ones((4, 7))]),
    (PAIR, torch.nn.Linear(7, 5), (4, 7)),
    (PAIR, F.linear, [(4, 7), (5, 7), (5,)]),
    ((relu.forward, relu.backward), torch.relu, (4, 7)),
    (SOFTMAX, torch.nn.Softmax(-1), (4, 7)),
    ((batchnorm.forward, batchnorm.backward), lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
     [(5, 3), (3,), (3,)]),
    ((cross_entropy.forward, cross_entropy.backward), F.cross_entropy, [(4, 7), LABELS]),
    ((lambda x: x * x, lambda g, x: 2 * x * g), torch.square, (4, 7)),  # no cache: backward gets the inputs
    ((lambda x: (np.log(x), x), lambda dout, cache: dout / cache), torch.log, (4, 7)),  # cs231n's order
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("reference", "autograd", "inputs"), RIGHT)
def test_right_code_agrees(reference, autograd, inputs, dtype):
    report = agreement.compare(reference, autograd, inputs, dtype=dtype)
    assert report.agrees, str(report)
    assert report.rows[0].name == "output"
    assert len(report.rows) >= 2
    assert all(row.largest_value > 0 for row in report.rows), "a comparison of zeros proves nothing"


def test_nothing_of_the_callers_is_changed():
    layer, module, x = Linear(), torch.nn.Linear(7, 5), np.ones((4, 7))
    before = layer.W.copy(), module.weight.detach().clone()
    check(layer, module, x)
    np.testing.assert_array_equal(layer.W, before[0])
    assert torch.equal(module.weight, before[1])
    assert set(vars(layer)) == {"W", "b"}
    assert module.weight.dtype == torch.float32


def test_the_truth_shows_who_is_right():
    report = agreement.compare(nn.Linear(7, 5), torch.nn.Linear(7, 5), (4, 7))
    assert all(0 <= row.reference_error < 1e-15 for row in report.rows)
    report = agreement.compare(Linear(), torch.nn.Linear(7, 5), (4, 7), dtype="float32")
    assert all(0 <= row.autograd_error < 1e-6 for row in report.rows)


def test_explicit_names():
    class Odd:
        def __init__(self):
            self.alpha, self.omega = np.ones((5, 7)), np.ones(5)

        def forward(self, x):
            self.x = x
            return x @ self.alpha.T + self.omega

        def backward(self, grad):
            self.result = {"first": grad.T @ self.x}
            self.second = grad.sum(0)
            return grad @ self.alpha

    names = {"weight": "alpha", "bias": "omega"}
    report = check(Odd(), parameters=names, gradients={"alpha": "result.first", "omega": "second"})
    assert report.agrees, str(report)
    report = check(Odd(), parameters=names)
    assert "no gradient of alpha was found" in str(report)
    with pytest.raises(ValueError, match="parameters: there is no 'wieght'; known: weight, bias"):
        check(Odd(), parameters={"wieght": "alpha"})


def test_the_order_of_a_functions_gradients_can_be_stated():
    def backward(cache, grad):
        x, weight = cache
        return grad.sum(0), grad.T @ x, grad @ weight

    stated = ("bias", "weight", "x")
    assert check((linear.forward, backward), gradients=stated).agrees
    report = check((linear.forward, backward))
    assert report.agrees, str(report)
    assert report.notes == ["backward returns the gradients in the order bias, weight, x, by their shapes"]
    square = (5, 5), torch.nn.Linear(5, 5)  # here shapes tell nothing, and the arguments' order holds
    assert not agreement.compare((linear.forward, backward), square[1], square[0]).agrees
    assert agreement.compare((linear.forward, backward), square[1], square[0], gradients=stated).agrees


@pytest.mark.parametrize("sizes", [(7, 5), (5, 5)])
def test_functions_may_take_the_weight_transposed(sizes):
    def forward(x, w, b):
        return x @ w + b, (x, w)

    def backward(grad, cache):
        x, w = cache
        return grad @ w.T, x.T @ grad, grad.sum(0)

    def wrong(grad, cache):
        grad_x, grad_w, grad_b = backward(grad, cache)
        return grad_x, grad_w / len(grad), grad_b

    theirs = torch.nn.Linear(*sizes)
    report = agreement.compare((forward, backward), theirs, (4, sizes[0]))
    assert report.agrees, str(report)
    report = agreement.compare((forward, wrong), theirs, (4, sizes[0]))
    assert [row.name for row in report.wrong] == ["d/dw"]
    assert "divided by the batch size" in report.remarks["d/dw"]


class Lists:
    """No array anywhere: lists of floats, as in a first lesson."""

    def __init__(self):
        self.w = [[0.1 * (i - o) for i in range(7)] for o in range(5)]
        self.b = [0.0] * 5

    def forward(self, x):
        self.x = x
        return [[sum(map(mul, w, row)) + b for w, b in zip(self.w, self.b, strict=True)] for row in x]

    def backward(self, grad):
        examples = range(len(grad))
        self.dw = [[sum(grad[n][o] * self.x[n][i] for n in examples) for i in range(7)] for o in range(5)]
        self.db = [self.share * sum(grad[n][o] for n in examples) for o in range(5)]
        return [[sum(g[o] * self.w[o][i] for o in range(5)) for i in range(7)] for g in grad]

    share = 1


def test_a_layer_of_lists_is_understood():
    report = check(Lists())
    assert report.agrees, str(report)
    report = check(type("Half", (Lists,), {"share": 0.5})())
    assert [row.name for row in report.wrong] == ["d/db"]


def test_a_list_of_unequal_rows_is_a_problem():
    ragged = lambda x: [[1.0], [1.0, 2.0]]  # noqa: E731
    report = agreement.compare((ragged, lambda grad, x: grad), torch.nn.ReLU(), (4, 7))
    assert report.problems == ["forward gives lists of unequal lengths, expected an array"]


def test_code_that_ends_the_program_is_a_problem():
    assert "backward raises SystemExit: 3" in str(check(mistaken(lambda self, grad: sys.exit(3))))


# -- what is wrong is seen, and said --------------------------------------------------------------------


def mistaken(backward, base=Linear):
    return type("Mistaken", (base,), {"backward": backward})()


def with_dw(function):
    def backward(self, grad):
        self.dW, self.db = function(self, grad), grad.sum(0, keepdims=True)
        return grad @ self.W.T

    return mistaken(backward)


def with_db(function):
    def backward(self, grad):
        self.dW, self.db = self.x.T @ grad, function(self, grad)
        return grad @ self.W.T

    return mistaken(backward)


def with_dx(function):
    def backward(self, grad):
        self.dW, self.db = self.x.T @ grad, grad.sum(0, keepdims=True)
        return function(self, grad)

    return mistaken(backward)


WRONG = [
    (with_dw(lambda s, g: s.x.T @ g / 4), "d/dW: 4 times too small: divided by the batch size once too"),
    (with_dw(lambda s, g: s.x.T @ g * 4), "d/dW: 4 times too large: not divided by the batch size"),
    (with_dw(lambda s, g: s.x.T @ g / 16), "d/dW: 4² times too small"),
    (with_dw(lambda s, g: s.x.T @ g / 20), "20 times too small: divided by the number of elements of"),
    (with_dw(lambda s, g: -s.x.T @ g), "d/dW: the sign is turned (a factor of -1)"),
    (with_dw(lambda s, g: -s.x.T @ g / 4), "divided by the batch size once too often, and the sign"),
    (with_dw(lambda s, g: s.x.T @ g * 2), "d/dW: a factor of 2"),
    (with_dw(lambda s, g: s.x.T @ g * 1.000001), "d/dW: a constant factor of 1 + 1e-06"),
    (with_dw(lambda s, g: g.T @ s.x), "d/dW has shape (5, 7), expected (7, 5): transposed"),
    (with_dw(lambda s, g: 0 * s.W), "d/dW: all zeros"),
    (with_dw(lambda s, g: np.full_like(s.W, np.nan)), "d/dW: 35 of 35 elements are NaN"),
    (with_dw(lambda s, g: (s.x.T @ g).astype(np.float32)), "d/dW is float32, expected float64"),
    (with_dw(lambda s, g: (s.x.T @ g).astype(np.float32).astype(float)), "d/dW: as exact as float32"),
    (with_dw(lambda s, g: (s.x.T @ g)[::-1]), "d/dW: reversed along axis 0"),
    (with_dw(lambda s, g: (s.x.T @ g) * (np.arange(5) != 2)), "d/dW: wrong only in column 2"),
    (with_dw(lambda s, g: s.x.T @ (g / (np.abs(g).sum(0) + 1))), "each index of axis 1 has its own factor"),
    (with_dw(lambda s, g: s.x[:, :, None] * g[:, None]), "(7, 5): right, if it were summed over the batch"),
    (with_db(lambda s, g: g.mean(0, keepdims=True)), "d/db: 4 times too small"),
    (with_db(lambda s, g: g), "(4, 5), expected (1, 5): right, if it were summed over the batch"),
    (with_db(lambda s, g: g[:1]), "d/db: it is the first row of the upstream gradient alone"),
    (with_db(lambda s, g: g.sum(0)), "d/db has shape (5,), expected (1, 5): right, but of shape"),
    (with_dx(lambda s, g: (g @ s.W.T) * (s.x > 0)), "d/dx: wrong only where x is not positive"),
    (with_dx(lambda s, g: None), "no gradient of x was found"),
    (with_dx(lambda s, g: [1.0]), "d/dx has shape (1,), expected (4, 7)"),
    (with_dx(lambda s, g: tuple(g @ s.W.T)), "backward returns 4 gradients, expected at most 3: x, W, b"),
    (with_dx(lambda s, g: g @ s.W), "backward raises ValueError: matmul"),
    (with_dx(lambda s, g: np.multiply(g, 2, out=g) @ s.W.T / 2), "changes the upstream gradient in place"),
    (with_dx(lambda s, g: (s.x.fill(0), g @ s.W.T)[1]), "backward changes x in place"),
    (with_dx(lambda s, g: (s.W.fill(0), g @ s.W.T)[1]), "backward changes W in place"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_a_mistake_is_named(layer, words):
    report = check(layer)
    assert not report.agrees
    assert words in causes(report), str(report)


class Stale(Linear):
    """Remembers its first input for ever."""

    def forward(self, x):
        if not hasattr(self, "x"):
            self.x = x
        return x @ self.W + self.b


class HalfAdding(Linear):
    """Adds up the weight's gradient at half its value."""

    def backward(self, grad):
        self.dW = self.x.T @ grad + getattr(self, "dW", 0) / 2
        self.db = grad.sum(0, keepdims=True)
        return grad @ self.W.T


class Restless(Linear):
    def forward(self, x):
        return super().forward(x) * np.random.default_rng().random()


class Scaled(Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class InPlace(Linear):
    def forward(self, x):
        x *= 2
        return super().forward(x / 2)


class Broken(Linear):
    def forward(self, x):
        raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Stale(), "of a second forward and backward is not that of a fresh object"),
        (
            HalfAdding(),
            "d/dW of a second forward and backward is not that of a fresh object nor the sum of both",
        ),
        (Restless(), "two runs on the same inputs differ"),
        (Scaled(), "output: a factor of 2"),
        (InPlace(), "forward changes x in place"),
        (Broken(), "forward raises KeyError: 'no such thing' (test_compare.py, line "),
    ],
)
def test_a_fault_of_behaviour_is_named(layer, words):
    report = check(layer)
    assert not report.agrees
    assert words in causes(report), str(report)


def test_the_message_of_the_assertion_says_all_that_is_needed():
    with pytest.raises(agreement.GradientsDisagree) as caught:
        agreement.assert_gradients_agree(
            with_dw(lambda s, g: s.x.T @ g / 4), torch.nn.Linear(7, 5), (4, 7), seed=12
        )
    text = str(caught.value)
    row = caught.value.report.wrong[0]
    assert f"WRONG  d/dW at {list(row.worst)}: yours {row.reference_value:.10g}, autograd" in text
    assert f"autograd {row.autograd_value:.10g}" in text
    assert "likely cause: 4 times too small: divided by the batch size once too often" in text
    assert "seed=12" in text
    assert "(4, 7)" in text
    agreement.assert_gradients_agree(Linear(), torch.nn.Linear(7, 5), (4, 7))


def test_a_report_is_data_too():
    data = check(with_dw(lambda s, g: np.full_like(s.W, np.nan))).to_dict()
    assert data["agrees"] is False
    row = next(row for row in data["tensors"] if row["name"] == "d/dW")
    assert (row["error"], row["agrees"]) == (None, False)


@pytest.mark.parametrize(
    ("reference", "inputs", "message"),
    [
        (Linear, (4, 7), "found the class Linear, expected an object"),
        (3, (4, 7), "found a int, expected an object with forward and backward"),
        (Linear(), "4,7", "inputs is '4,7', expected an array"),
        (Linear(), [[1.0]], "an input is a list, expected a NumPy array or a shape"),
    ],
)
def test_wrong_arguments(reference, inputs, message):
    with pytest.raises(TypeError, match=message.replace("(", r"\(")):
        agreement.compare(reference, torch.nn.Linear(7, 5), inputs)


def test_parameters_without_a_counterpart():
    with pytest.raises(ValueError, match=r"the autograd model's bias \(6,\) has no counterpart.*W \(7, 6\)"):
        layer = Linear(7, 6)
        del layer.b
        agreement.compare(layer, torch.nn.Linear(7, 6), (4, 7))


# -- the known blind spots ------------------------------------------------------------------------------


def test_a_zero_gradient_on_a_million_elements_is_caught():
    pair = (lambda x: x * 1.0, lambda g, x: 0 * g)
    report = agreement.compare(pair, lambda x: x * 1.0, (1000, 1000))
    assert "all zeros" in causes(report)


def test_one_wrong_element_of_a_million_is_caught():
    def backward(g, x):
        grad = g * 1.0
        grad[123, 456] = 0
        return grad

    report = agreement.compare((lambda x: x * 1.0, backward), lambda x: x * 1.0, (1000, 1000))
    assert report.wrong[0].worst == (123, 456)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradients_all_below_1e_8_are_caught(dtype):
    for factor in (0.0, 1.001):
        pair = (
            lambda x: x * x * x.dtype.type(1e-12),
            lambda g, x, f=factor: 2 * f * x * g * g.dtype.type(1e-12),
        )
        report = agreement.compare(pair, lambda x: x * x * 1e-12, (4, 7), dtype=dtype)
        assert report.rows[1].largest_value < 1e-8
        assert [row.name for row in report.wrong] == ["d/dx"]


def test_a_softmax_backward_that_is_right_for_the_sum_alone_is_caught():
    """For an upstream gradient of ones softmax's gradient is zero, so returning zeros is right there."""
    report = agreement.compare((SOFTMAX[0], lambda cache, g: 0 * g), torch.nn.Softmax(-1), (4, 7))
    assert "d/dx: all zeros" in causes(report)


def test_what_a_batch_of_one_hides_is_caught():
    layer = with_dw(lambda s, g: s.x.T @ g / len(g))
    report = check(layer, inputs=np.ones((1, 7)))
    assert "3 times too small: divided by the batch size" in causes(report)
    assert "seen with a batch of 3" in causes(report)
    assert check(layer, inputs=np.ones((1, 7)), drawn=False).agrees  # which is why values are drawn


def test_what_square_weights_hide_is_caught():
    def transposed_dw(self, grad):
        self.dW, self.db = grad.T @ self.x, grad.sum(0, keepdims=True)
        return grad @ self.W.T

    def transposed_dx(self, grad):
        self.dW, self.db = self.x.T @ grad, grad.sum(0, keepdims=True)
        return grad @ self.W

    for backward, name in ((transposed_dw, "W"), (transposed_dx, "x")):
        layer = type("Square", (Linear,), {"backward": backward})(7, 7)
        layer.W = np.eye(7)  # even where the weights given are symmetric
        report = check(layer, torch.nn.Linear(7, 7))
        assert f"d/d{name}" in [row.name for row in report.wrong]
    assert "d/dW: transposed" in causes(
        check(type("S", (Linear,), {"backward": transposed_dw})(7, 7), torch.nn.Linear(7, 7))
    )


def test_weights_of_zero_hide_nothing():
    layer = with_dx(lambda s, g: 0 * s.x)
    layer.W[...] = 0
    assert "d/dx: all zeros" in causes(check(layer))


def test_zeros_and_ties_are_planted():
    pair = (lambda x: np.maximum(x, 0), lambda g, x: g * (x >= 0))
    assert "wrong only where x is exactly 0" in causes(agreement.compare(pair, torch.relu, (4, 7)))


def test_a_gradient_of_zero_but_for_rounding_is_no_false_alarm():
    """A bias before BatchNorm changes nothing, so all digits of its gradient are rounding."""
    ours = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Tanh())
    theirs = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.BatchNorm1d(5), torch.nn.Tanh())
    for dtype in ("float64", "float32"):
        report = agreement.compare(ours, theirs, (6, 7), dtype=dtype)
        assert report.agrees, str(report)
        assert "zero but for rounding" in report.remarks["d/d0.bias"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_no_false_alarm_whatever_the_sizes(seed, n, i, o):
    for dtype in ("float64", "float32"):
        report = agreement.compare(PAIR, torch.nn.Linear(i, o), (n, i), seed=seed, dtype=dtype)
        assert report.agrees, str(report)
