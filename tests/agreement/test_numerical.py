"""check_gradients: what a backward must be, found from its own forward alone."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn_reference as nn
from agreement import check_gradients
from nn_reference import gelu, linear, relu, softmax


class Tanh:
    """With a scale, to have a parameter."""

    def __init__(self):
        self.scale = np.full(3, 2.0)

    def forward(self, x):
        self.y = np.tanh(self.scale * x)
        self.x = x
        return self.y

    def backward(self, grad):
        self.dscale = (grad * (1 - self.y**2) * self.x).sum(0)
        return grad * (1 - self.y**2) * self.scale


def cube(x):
    return (x**3).sum()


LABELS = np.array([1, 0, 2, 2])
BY_COMPLEX_STEP = [
    (Tanh(), (4, 3)),
    ((linear.forward, linear.backward), [(4, 3), (2, 3), (2,)]),
    ((lambda x: softmax.forward(x, 1), softmax.backward), (4, 3)),
    (nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), (6, 5)),
    (nn.BatchNorm1d(3), (5, 3)),
    (nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh()), (6, 5)),
    (nn.Conv2d(2, 3, 3, padding=1), (2, 2, 4, 5)),
    (nn.CrossEntropyLoss(), [(4, 3), LABELS]),
    (nn.Dropout(0.4, generator=np.random.default_rng(0)), (4, 3)),
    ((relu.forward, relu.backward), (4, 3)),
    ((gelu.forward, gelu.backward), (4, 3)),
    (nn.MaxPool2d(2), (2, 2, 4, 6)),
]
BY_DIFFERENCES = [
    ((lambda x: np.abs(x), lambda g, x: g * np.sign(x)), (4, 3)),
    ((lambda x: np.linalg.norm(x, axis=1), lambda g, x: g[:, None] * x / np.linalg.norm(x, axis=1)[:, None]),
     (4, 3)),
    ((lambda x: np.float64(x) ** 2, lambda g, x: 2 * g * x), (4, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("code", "inputs"), BY_COMPLEX_STEP)
def test_right_code_agrees_by_complex_step(code, inputs):
    report = check_gradients(code, inputs)
    assert report.agrees, str(report)
    assert "by complex step" in report.title
    assert all(row.largest_value > 0 for row in report.rows)


@pytest.mark.parametrize(("code", "inputs"), BY_DIFFERENCES)
def test_right_code_agrees_by_differences(code, inputs):
    report = check_gradients(code, inputs)
    assert report.agrees, str(report)
    assert "by differences" in report.title
    assert all(row.limit < 1e-3 for row in report.rows)


def test_a_number_and_its_gradient():
    assert check_gradients(cube, (4, 3), gradient=lambda x: 3 * x**2).agrees
    report = check_gradients(cube, (4, 3), gradient=lambda x: x**2)
    assert "a constant factor of 0.333333" in str(report)
    two = check_gradients(lambda x, y: (x * y).sum(), [(3,), (3,)], gradient=lambda x, y: (y, x))
    assert [row.name for row in two.rows if "along" not in row.name and "ties" not in row.name] == [
        "d/dx",
        "d/dy",
    ]
    assert two.agrees
    assert not check_gradients(lambda x, y: (x * y).sum(), [(3,), (3,)], gradient=lambda x, y: (x, y)).agrees
    assert "expected one number" in str(check_gradients(lambda x: x, (3,), gradient=lambda x: x))


def wrong(backward, forward=lambda x: x**3):
    return (forward, backward)


MISTAKES = [
    (lambda g, x: -3 * x**2 * g, "the sign is turned"),
    (lambda g, x: 3 * x**2 * g / 4, "4 times too small: divided by the batch size"),
    (lambda g, x: 0 * g, "all zeros"),
    (lambda g, x: 3 * x**2 * g * (1 + 1e-9), "a constant factor of 1 + 1e-09"),
    (lambda g, x: 3 * x**2 * g * (np.arange(3) != 1), "wrong only in column 1"),
    (lambda g, x: 3 * x**2 * g + np.where(np.arange(12).reshape(4, 3) == 7, np.nan, 0), "NaN"),
    (lambda g, x: (3 * x**2 * g).T, "d/dx has shape (3, 4), expected (4, 3): transposed"),
    (lambda g, x: None, "no gradient of x was found, and the output depends on it"),
]


@pytest.mark.parametrize(("backward", "words"), MISTAKES, ids=[words[:30] for _, words in MISTAKES])
def test_a_mistake_is_named(backward, words):
    report = check_gradients(wrong(backward), (4, 3))
    assert not report.agrees
    assert words in str(report)


def test_the_place_of_a_wrong_element_is_given():
    def backward(g, x):
        grad = 3 * x**2 * g
        grad[2, 1] += 1
        return grad

    assert check_gradients(wrong(backward), (4, 3)).wrong[0].worst is not None
    assert "WRONG  d/dx at [2, 1]: yours" in str(check_gradients(wrong(backward), (4, 3)))


# -- tiny gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-9, 1e-30, 1e-200])
@pytest.mark.parametrize("claimed", [0.0, 2.0])
def test_tiny_gradients_fool_nobody(size, claimed):
    right = (lambda x: size * x**3, lambda g, x: 3 * size * g * x**2)
    assert check_gradients(right, (4, 3)).agrees
    assert not check_gradients((right[0], lambda g, x: claimed * right[1](g, x)), (4, 3)).agrees


def test_a_tiny_gradient_beside_a_large_one_fools_nobody():
    """Below 1e-13 of the other, but with all its digits: no rounding."""

    def forward(x, y):
        return (1e10 * x.sum() + 1e-10 * (y**3).sum()) * np.ones(2)

    def claim(factor):
        return lambda g, x, y: (1e10 * g.sum() * np.ones(3), factor * 3e-10 * g.sum() * y**2)

    assert check_gradients((forward, claim(1)), [(3,), (3,)]).agrees
    assert not check_gradients((forward, claim(0)), [(3,), (3,)]).agrees


def test_what_differences_cannot_see_is_undecided_not_right():
    def forward(x):
        return np.abs(1.0 + 1e-15 * x**3)  # abs: no complex step

    for factor in (0.0, 1.0):
        report = check_gradients((forward, lambda g, x, f=factor: f * 3e-15 * g * x**2), (4, 3))
        assert not report.agrees
        assert "undecided: differences are uncertain" in str(report)


# -- large arrays ---------------------------------------------------------------------------------------


def test_a_large_array_is_covered_by_directions():
    right = (lambda x: x**3, lambda g, x: 3 * g * x**2)
    assert check_gradients(right, (500, 400), directions=2, elements=4).agrees

    def one_wrong(g, x):
        grad = 3 * g * x**2
        grad[123, 256] += 1
        return grad

    for backward in (one_wrong, lambda g, x: 0 * g, lambda g, x: 3 * g * x**2 * (1 + 1e-6)):
        report = check_gradients((right[0], backward), (500, 400), directions=2, elements=4)
        assert "d/dx along 2 directions" in [row.name for row in report.wrong]


# -- kinks and ties -------------------------------------------------------------------------------------


def test_at_a_kink_any_slope_between_is_right_and_it_is_said():
    forward = lambda x: np.abs(x)  # noqa: E731
    x = np.array([[0.0, 1.0, -2.0], [3.0, 0.5, 0.0]])
    for slope, agrees in ((0.0, True), (0.7, True), (-1.0, True), (1.5, False)):
        backward = lambda g, x, s=slope: g * np.where(x == 0, s, np.sign(x))  # noqa: E731
        report = check_gradients((forward, backward), x)
        assert report.agrees is agrees, str(report)
        assert "x has a kink at [0, 0] and 1 more" in str(report)


def test_ties_to_all_is_caught_though_each_element_alone_would_pass():
    x = np.array([[1.0, 2.0, 2.0], [3.0, 3.0, 0.0]])

    def share(ties):
        def backward(g, x):
            won = x == x.max(1, keepdims=True)
            return g[:, None] * (won / won.sum(1, keepdims=True) if ties == "shared" else won)

        return (lambda x: x.max(1), backward)

    assert check_gradients(share("shared"), x).agrees
    report = check_gradients(share("all"), x)
    assert [row.name for row in report.wrong] == ["d/dx, ties moved together"]


# -- the rest -------------------------------------------------------------------------------------------


def test_a_bias_before_batchnorm_is_no_false_alarm():
    report = check_gradients(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh()), (6, 5))
    assert report.agrees
    assert any("zero but for rounding" in remark for remark in report.remarks.values())


def test_other_faults():
    rng = np.random.default_rng(0)
    report = check_gradients((lambda x: x * rng.random(), lambda g, x: g), (4, 3))
    assert "two forwards on the same inputs differ" in str(report)
    report = check_gradients((lambda x: x / 0, lambda g, x: g), (4, 3))
    assert "forward gives NaN or infinity" in str(report)
    report = check_gradients((lambda x: x @ x, lambda g, x: g), (4, 3))
    assert "forward raises ValueError: matmul" in str(report)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
def test_no_false_alarm(seed, n, m):
    code = nn.Sequential(nn.Linear(m, 3), nn.ReLU(), nn.Linear(3, 4), nn.LogSoftmax(1))
    report = check_gradients(code, (n, m), seed=seed)
    assert report.agrees, str(report)


def test_it_needs_no_torch():
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import nn_reference as nn, agreement\n"
        "assert agreement.check_gradients(nn.Linear(3, 2), (4, 3)).agrees\n"
        "try: agreement.compare(nn.Linear(3, 2), None, (4, 3))\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "agreement.compare needs PyTorch: pip install 'chainrule[torch]'", (
        result.stderr
    )


# -- what people hand over late at night ----------------------------------------------------------------


def squares(x):
    return (x**2).sum()


@pytest.mark.parametrize(
    ("function", "inputs", "gradient", "problem"),
    [
        (squares, (3, 4), lambda x: None, "gradient returns None"),
        (squares, np.arange(6), lambda x: 2 * x, "nothing to differentiate"),
        (squares, (0, 4), lambda x: 2 * x, "nothing to differentiate"),
        (lambda x: np.log(-np.abs(x)).sum(), (3,), lambda x: 1 / x, "forward gives NaN"),
        (
            lambda x: (x * np.random.default_rng().random(x.shape)).sum(),
            (3,),
            lambda x: x,
            "two forwards on the same inputs differ",
        ),
    ],
)
def test_what_cannot_be_checked_is_said_once(function, inputs, gradient, problem):
    report = check_gradients(function, inputs, gradient=gradient)
    assert not report.agrees
    assert len(report.problems) == 1
    assert report.problems[0].startswith(problem)


def test_one_gradient_of_two_that_is_none_is_missed():
    report = check_gradients(lambda a, b: (a * b).sum(), [(3,), (3,)], gradient=lambda a, b: (b, None))
    assert report.problems == ["no gradient of b was found, and the output depends on it"]


def test_an_infinite_gradient_is_wrong_without_a_warning():
    report = check_gradients(
        squares, np.array([0.0, 1.0, 2.0]), gradient=lambda x: np.where(x == 0, np.inf, 2 * x)
    )
    assert report.remarks["d/dx"] == "1 of 3 elements are infinite, the first at [0]"


def test_a_function_without_its_gradient_is_refused():
    with pytest.raises(TypeError, match=r"found the function squares alone, .*gradient="):
        check_gradients(squares, (3,))
