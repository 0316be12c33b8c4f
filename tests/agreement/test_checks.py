"""The checkers: no false alarm on the engine, no blind spot, and a new operation by one new row."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import nn_reference as nn
from agreement import checks
from agreement.checks import CHECKERS, LONG_BATCH, check
from agreement.mutants import OPERATIONS as MUTANTS
from agreement.mutants import Kind, Mutant
from agreement.running import run_reference
from agreement.table import OPERATIONS, PRODUCTS, ROWS, Draw, Example, Row
from nn_reference.layer import Layer
from nn_reference.module import Parameter

# PyTorch pads by a copy there, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

seeds = st.integers(0, 2**32 - 1)
every_row = pytest.mark.parametrize("row", OPERATIONS, ids=str)


def examples(number):
    return settings(
        max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


def assert_all_agree(found, what):
    wrong = [row for row in found if not row.agrees]
    assert not wrong, f"{what}: {wrong}"
    assert len(found) >= 1


# -- no false alarm -------------------------------------------------------------------------------


@every_row
def test_float64_agrees_with_autograd(row):
    @examples(100)
    @given(seeds, st.booleans())
    @example(29396490, True)  # an NLLLoss whose terms cancelled, before it drew log-probabilities
    def run(seed, edges):
        assert_all_agree(checks.autograd(row, row.example(seed, edges=edges)), row)

    run()


SLOW = [
    pytest.param(checker, row, id=f"{checker}-{row}")
    for checker in CHECKERS
    for row in OPERATIONS
    if checker.applies(row) and checker.run is not checks.autograd
]


@pytest.mark.parametrize(("checker", "row"), SLOW)
def test_no_false_alarm(checker, row):
    @examples(4 if "2d" in row.name or "GELU" in row.name else 8)
    @given(seeds, st.booleans())
    def run(seed, edges):
        assert_all_agree(checker(row, seed, edges=edges), f"{row} {seed} {edges}")

    run()


def test_check_runs_every_checker_that_applies():
    found = check(ROWS["ReLU"], 0)
    assert list(found) == [c.name for c in CHECKERS if c.name not in ("complex_step", "float32_sums")]
    assert all(row.agrees for rows in found.values() for row in rows)
    assert "complex_step" in check(ROWS["Linear"], 0)


def test_what_is_compared():
    linear = ROWS["Linear"]
    seed = next(s for s in range(20) if linear.example(s).ours.bias is not None)
    names = {name: {row.name for row in rows} for name, rows in check(linear, seed).items()}
    gradients = {"grad of input", "grad of weight", "grad of bias"}
    assert names["complex_step"] == names["finite_differences"] == gradients
    for name in ("autograd", "longdouble", "float32", "float32_sums", "float32_autograd"):
        assert names[name] == gradients | {"output"}
    norm = ROWS["BatchNorm1d"]
    seed = next(s for s in range(20) if norm.example(s).ours.running_mean is not None)
    found = {row.name for row in checks.autograd(norm, norm.example(seed))}
    assert {"running_mean", "running_var", "num_batches_tracked"} <= found


# -- who is right ---------------------------------------------------------------------------------


def test_the_gradient_of_the_label_is_far_more_exact_than_pytorchs():
    """By design: it is a sum of the other probabilities, where PyTorch subtracts 1."""
    row = ROWS["CrossEntropyLoss"]
    x = np.zeros((4, 10))
    labels = np.array([3, 1, 4, 1])
    x[np.arange(4), labels] = [11, 12, 13, 14]
    example = Example(nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss, (x, labels))
    grad = next(r for r in checks.float32_autograd(row, example) if r.name == "grad of input")
    assert grad.reference_error < 16 * 2**-24
    assert grad.autograd_error > 100 * grad.reference_error


@every_row
def test_both_engines_errors_against_the_truth_are_given(row):
    for found in checks.float32_autograd(row, row.example(0)):
        if "num_batches" not in found.name:
            assert 0 <= found.reference_error <= row.float32.units * 2**-24 * 10
            assert found.autograd_error is not None
            assert found.autograd_error < 1e-4


def test_the_truth_of_longdouble_does_not_come_from_the_backward():
    mutant = next(m for m in MUTANTS if m.name == "Sigmoid: one minus y dropped")
    with mutant.planted():
        assert not all(row.agrees for row in checks.longdouble(ROWS["Sigmoid"], ROWS["Sigmoid"].example(0)))


# -- what is wrong with a row but not its values --------------------------------------------------


class Doubled(Layer):
    """y = 2 x, whose backward can be spoilt."""

    def _forward(self, x):
        return 2 * x, (x,)

    def _backward(self, cache, grad_y, need_grad_x):
        return 2 * grad_y


def doubled(cls):
    x = np.random.default_rng(0).normal(size=(3, 4))
    return Example(cls(), lambda: lambda t: 2 * t, (x,))


ROW = Row("Doubled", lambda draw: doubled(Doubled), "none", PRODUCTS)


def failing(cls, checker=checks.autograd):
    return [row.name for row in checker(ROW, doubled(cls)) if not row.agrees]


@pytest.mark.parametrize("checker", [c for c in CHECKERS if c.applies(ROW)], ids=str)
def test_changes_in_place_are_reported_by_every_checker(checker):
    class InPlace(Doubled):
        def _backward(self, cache, grad_y, need_grad_x):
            grad_y *= 2
            return grad_y

    class CacheInPlace(Doubled):
        def _backward(self, cache, grad_y, need_grad_x):
            cache[0][...] += 1
            return 2 * grad_y

    class InputInPlace(Doubled):
        def _forward(self, x):
            y = 2 * x
            x *= 2
            return y, ()

    assert failing(Doubled, checker.run) == []
    assert "gradient of output, after backward" in failing(InPlace, checker.run)
    assert failing(CacheInPlace, checker.run) == ["input, after backward", "cache[0], after backward"]
    assert failing(InputInPlace, checker.run) == ["input, after backward"]


def test_another_dtype_is_reported():
    class Rounded(Doubled):
        def _backward(self, cache, grad_y, need_grad_x):
            return 2 * grad_y.astype(np.float32)

    class Promoted(Doubled):
        def _backward(self, cache, grad_y, need_grad_x):
            return grad_y * np.float64(2)

    class Constant(Doubled):
        def _backward(self, cache, grad_y, need_grad_x):
            return grad_y.astype(np.float64) * 2

    assert "dtype of grad of input" in failing(Rounded)
    assert failing(Promoted, checks.float32) == ["dtype of grad of input"]
    assert failing(Constant, checks.float32) == ["dtype of grad of input"]
    assert failing(Constant, checks.longdouble)[-1] == "dtype of grad of input"


def test_a_parameter_without_gradient_is_reported():
    class Scaled(Doubled):
        def __init__(self):
            self.factor = Parameter(np.array([2.0]))

        def _forward(self, x):
            return x * self.factor.data, (x,)

    assert failing(Scaled, checks.finite_differences) == ["grad of factor, missing"]
    assert failing(Scaled, checks.complex_step) == ["grad of factor, missing"]


# -- mistakes that are in no catalogue ------------------------------------------------------------

# How far one element must be off to be reported, relative to the tensor's largest.
RESOLUTION = {
    "autograd": 2e-12,
    "complex_step": 2e-13,
    "longdouble": 2e-13,
    "finite_differences": 2e-9,
    "one_sided": 2e-5,
    "float32": 1e-3,
    "float32_autograd": 1e-3,
}


@pytest.mark.parametrize("tensor", ["input", "weight", "bias"])
@pytest.mark.parametrize("name", RESOLUTION)
def test_one_element_that_is_off_is_reported(name, tensor, monkeypatch):
    checker = next(c for c in CHECKERS if c.name == name)

    def spoil(grad):
        chosen = np.random.default_rng(grad.size).integers(grad.size)
        grad.flat[chosen] += np.abs(grad).max() * RESOLUTION[name]

    for row in filter(checker.applies, OPERATIONS):
        drawn = [row.example(seed) for seed in range(9)]
        gradients = [run_reference(e).tensors.get(f"grad of {tensor}", np.zeros(1)) for e in drawn]
        if not any(grad.any() for grad in gradients):  # no such parameter
            continue
        example = next(e for e, grad in zip(drawn, gradients, strict=True) if grad.any())
        right = type(example.ours)._backward

        def wrong(self, cache, grad_y, need_grad_x, right=right):
            if tensor == "input":
                grad_x = right(self, cache, grad_y, True).copy()
                spoil(grad_x)
                return grad_x
            parameter = getattr(self, tensor)
            before, parameter.grad = parameter.grad, None
            grad_x = right(self, cache, grad_y, need_grad_x)
            spoil(parameter.grad)
            parameter.grad = parameter.grad if before is None else before + parameter.grad
            return grad_x

        monkeypatch.setattr(type(example.ours), "_backward", wrong)
        named = {found.name for found in checker.run(row, example) if not found.agrees}
        monkeypatch.undo()
        assert named == {f"grad of {tensor}"}, row


# -- blind spots of other checkers ----------------------------------------------------------------

ZERO = next(m for m in MUTANTS if m.name == "Linear: weight gets no gradient")
GRADIENT_CHECKERS = [c for c in CHECKERS if c.name != "float32_sums"]


def caught_by(mutant, example, row=None):
    """The checkers that report the mutant on this very example, and the tensors that they name."""
    row = row or ROWS[mutant.operation]
    found = {}
    with mutant.planted():
        for checker in GRADIENT_CHECKERS:
            if checker.claims(row, mutant):
                found[checker.name] = [r.name for r in checker.run(row, example) if not r.agrees]
    return found


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e-20])
def test_a_zero_gradient_is_caught_however_small_the_right_one_is(scale):
    example = replace(ROWS["Linear"].example(3), scale=scale)
    grad = run_reference(example).tensors["grad of weight"]
    assert scale == 1.0 or np.abs(grad).max() < 1e-7
    assert set(map(tuple, caught_by(ZERO, example).values())) == {("grad of weight",)}
    for checker in GRADIENT_CHECKERS:
        if checker.applies(ROWS["Linear"]):
            assert_all_agree(checker.run(ROWS["Linear"], example), checker)


@every_row
def test_no_operation_may_return_zero_for_a_gradient_below_1e_8(row, monkeypatch):
    tiny = (replace(row.example(seed), scale=1e-9) for seed in range(9))
    example = next(e for e in tiny if run_reference(e).tensors["grad of input"].any())
    assert np.abs(run_reference(example).tensors["grad of input"]).max() < 1e-8
    claiming = [c for c in GRADIENT_CHECKERS if c.applies(row) and c.batch is None]
    assert len(claiming) >= 5
    for checker in claiming:
        assert_all_agree(checker.run(row, example), checker)
    layer = type(example.ours)
    right = layer._backward
    monkeypatch.setattr(layer, "_backward", lambda self, cache, g, need: 0 * right(self, cache, g, True))
    for checker in claiming:
        wrong = [found.name for found in checker.run(row, example) if not found.agrees]
        assert wrong == ["grad of input"], checker


def linear_example(shape, out, seed=0):
    rng = np.random.default_rng(seed)
    ours = nn.Linear(shape[-1], out).double()
    ours.load_state_dict({"weight": rng.normal(size=(out, shape[-1])), "bias": rng.normal(size=out)})

    def theirs():
        layer = torch.nn.Linear(shape[-1], out).double()
        layer.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
        return layer

    return Example(ours, theirs, (rng.normal(size=shape),), seed)


def test_a_zero_gradient_of_a_million_elements_is_caught():
    example = linear_example((2, 1000), 1000)
    with ZERO.planted():
        found = checks.autograd(ROWS["Linear"], example)
    assert [row.name for row in found if not row.agrees] == ["grad of weight"]
    assert_all_agree(checks.autograd(ROWS["Linear"], example), "Linear")


@pytest.mark.parametrize("name", ["transposed weight", "transposed delta"])
def test_square_weights_hide_no_transposition(name):
    mutant = next(m for m in MUTANTS if m.name == f"Linear: {name}")
    assert all(caught_by(mutant, linear_example((3, 4), 4)).values())


@pytest.mark.parametrize(
    "name",
    [
        "Softmax: jacobian forgotten",
        "Softmax: sum without probabilities",
        "Softmax: diagonal only",
        "Softmax: normaliser is constant",
        "Identity: derivative for gradient",
        "Sigmoid: upstream forgotten",
        "LogSoftmax: sum forgotten",
    ],
)
def test_the_upstream_gradient_of_a_sum_would_hide_it_but_ours_does_not(name):
    """The gradient of ``softmax(x).sum()`` is zero; a derivative alone equals its gradient from ones."""
    mutant = next(m for m in MUTANTS if m.name == name)
    example = ROWS[mutant.operation].example(1)
    caught = caught_by(mutant, example)
    assert len(caught) >= 5
    assert all(caught.values())


@pytest.mark.parametrize("name", ["one over n too many", "mean for sum in the bias", "bias of one row"])
def test_one_row_would_hide_a_mistake_with_n_so_no_probe_has_one(name):
    mutant = next(m for m in MUTANTS if m.name == f"Linear: {name}")
    with mutant.planted():
        assert_all_agree(checks.autograd(ROWS["Linear"], linear_example((1, 4), 3)), "N = 1")
    assert all(len(row.example(seed).inputs[0]) > 1 for row in OPERATIONS for seed in range(20))


def test_a_loss_with_one_item_would_hide_a_mistake_with_n():
    mutant = next(m for m in MUTANTS if m.name == "CrossEntropyLoss: one over n missing")
    x = np.random.default_rng(0).normal(size=(1, 5))
    alone = Example(nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss, (x, np.array([2])))
    with mutant.planted():
        assert_all_agree(checks.autograd(ROWS["CrossEntropyLoss"], alone), "N = 1")
    together = replace(alone, inputs=(np.repeat(x, 3, 0), np.array([2, 0, 4])))
    assert all(caught_by(mutant, together).values())


# -- a new operation is one new row ---------------------------------------------------------------


class cube:
    """A new operation ``y = w x^3``, as a file of nn_reference would hold it."""

    @staticmethod
    def forward(x, weight):
        return weight * x * x * x, (x, weight)

    @staticmethod
    def backward(cache, grad_y):
        x, weight = cache
        over_rows = tuple(range(x.ndim - 1))
        return grad_y * 3 * weight * x * x, (grad_y * x * x * x).sum(over_rows)


class Cube(Layer):
    def __init__(self, features):
        self.weight = Parameter(np.ones(features))

    def _forward(self, x):
        return cube.forward(x, self.weight.data)

    def _backward(self, cache, grad_y, need_grad_x):
        grad_x, grad_weight = cube.backward(cache, grad_y)
        self.weight.accumulate(grad_weight)
        return grad_x


class TheirCube(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.from_numpy(weight.copy()))

    def forward(self, x):
        return self.weight * x**3


def draw_cube(draw: Draw) -> Example:
    shape = draw.shape()
    ours = Cube(shape[-1])
    ours.weight.data = draw.rng.normal(size=shape[-1])
    return Example(ours, lambda: TheirCube(ours.weight.data), (draw.values(shape),), draw.seed)


CUBE = Row(
    name="Cube",
    make=draw_cube,
    arguments="features",
    float32=PRODUCTS,
    mutants=(
        Mutant(
            "Cube: three forgotten",
            "Cube",
            Kind.OPERATION,
            "The exponent does not come down.",
            "3 w x^2 grad_y",
            "w x^2 grad_y",
            cube,
            "backward",
            lambda cache, g: (
                g * cache[1] * cache[0] ** 2,
                (g * cache[0] ** 3).sum(tuple(range(g.ndim - 1))),
            ),
        ),
    ),
)


@pytest.mark.parametrize("checker", [c for c in CHECKERS if c.applies(CUBE)], ids=str)
def test_a_new_operation_is_one_new_row(checker):
    for seed in range(10):
        assert_all_agree(checker(CUBE, seed), seed)
        assert_all_agree(checker(CUBE, seed, edges=True), seed)
    for mutant in CUBE.mutants:
        if checker.claims(CUBE, mutant):
            with mutant.planted():
                names = {row.name for row in checker(CUBE, 0) if not row.agrees}
            assert names == {"grad of input"}
    assert LONG_BATCH not in CUBE.example(0).inputs[0].shape
