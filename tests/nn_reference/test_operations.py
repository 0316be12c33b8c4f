"""Every operation against torch.autograd, complex step, and one-sided differences; and in every dtype."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nn_checks import (
    LOSSES,
    OPERATIONS,
    as_dtype,
    assert_close,
    check,
    fits,
    run_ours,
)

import nn_reference as nn

# PyTorch pads by a copy there, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

few = settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


@every_operation
def test_float64_agrees_with_autograd(operation):
    check(operation)


@every_operation
def test_float32_in_float32_out(operation):
    @few
    @given(operation.examples)
    def run(example):
        if not fits(example):
            return
        ours, inputs = as_dtype(example, np.float32)
        y, grad_x = run_ours(ours, inputs, example.upstream)
        assert y.dtype == grad_x.dtype == np.float32
        assert {value.dtype for value in ours.state_dict().values()} <= {np.dtype("f4"), np.dtype("i8")}
        assert all(p.grad.dtype == np.float32 for p in ours.parameters())

    run()


@every_operation
def test_longdouble_runs_in_longdouble(operation):
    """float64 and longdouble agree to the rounding of float64."""

    @few
    @given(operation.examples)
    def run(example):
        if not fits(example):
            return
        ours, inputs = as_dtype(example, np.longdouble)
        y, grad_x = run_ours(ours, inputs, example.upstream)
        assert y.dtype == grad_x.dtype == np.longdouble
        double, inputs = as_dtype(example, np.float64)
        y_double, grad_x_double = run_ours(double, inputs, example.upstream)
        assert_close("output", y_double, y, 1e-13)
        assert_close("grad of input", grad_x_double, grad_x, 1e-13)

    run()


@pytest.mark.parametrize("operation", [op for op in OPERATIONS if op.smooth], ids=str)
def test_complex_step(operation):
    """For an analytic f, Im f(x + ih) / h is df/dx without cancellation, as exact as f itself.

    The error counts relative to the largest gradient, that coming from above included.
    """

    @few
    @given(operation.examples)
    def run(example):
        if not fits(example):
            return
        real, inputs = as_dtype(example, np.float64)
        template, complex_inputs = as_dtype(example, np.complex128)
        y, grad_x = run_ours(real, inputs, example.upstream)
        upstream = example.upstream(y.shape)
        h, scale = 1e-40, np.abs(upstream).max()

        def derivatives(which):
            """dL/d(every element) of the array that ``which(module, input)`` names."""
            found = np.empty(which(template, complex_inputs[0]).shape)
            for index in np.ndindex(found.shape):
                module, x = copy.deepcopy(template), complex_inputs[0].copy()
                which(module, x)[index] += 1j * h
                found[index] = (upstream * module(x, *complex_inputs[1:])).sum().imag / h
            return found

        assert_close("grad of input", grad_x, derivatives(lambda module, x: x), 1e-14, scale)
        for name, parameter in real.named_parameters():
            found = derivatives(lambda module, x, name=name: dict(module.named_parameters())[name].data)
            assert_close(f"grad of {name}", parameter.grad, found, 1e-14, scale)

    run()


@pytest.mark.parametrize(
    ("module", "x", "target", "side"),
    [
        (nn.ReLU(), [0.0, -1.0, 2.0, 0.0], None, "left"),
        (nn.LeakyReLU(0.25), [0.0, -1.0, 2.0, 0.0], None, "left"),
        (nn.LeakyReLU(-0.5), [0.0, -1.0, 2.0, 0.0], None, "left"),
        (nn.ELU(0.5), [0.0, 2.0, 0.0, 1.0], None, "left"),
        (nn.L1Loss(reduction="sum"), [1.0, 2.0, -3.0], [1.0, 1.0, -3.0], "middle"),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_one_sided_differences_at_kinks(module, x, target, side):
    """At a kink our derivative is the one that the docstring names, and between the two one-sided ones."""
    x = np.array(x)
    others = () if target is None else (np.array(target),)
    module.double()
    y = module(x, *others)
    grad = module.backward(np.ones_like(y))
    h = 2.0**-30
    slopes = {}
    for name, step in (("left", -h), ("right", h)):
        moved = [module(x + step * np.eye(len(x))[i], *others).sum() - y.sum() for i in range(len(x))]
        slopes[name] = np.array(moved) / step
    expected = slopes["left"] if side == "left" else (slopes["left"] + slopes["right"]) / 2
    np.testing.assert_allclose(grad, expected, atol=1e-8)
    assert (slopes["left"] != slopes["right"]).any()


def test_max_pool_gives_a_tie_to_the_first_pixel():
    pool = nn.MaxPool2d(2)
    x = np.array([[[1.0, 3.0], [3.0, 3.0]]])
    y = pool(x)
    grad = pool.backward(np.array([[[5.0]]]))
    np.testing.assert_array_equal(grad, [[[0.0, 5.0], [0.0, 0.0]]])
    h = 2.0**-30
    raised, lowered = x.copy(), x.copy()
    raised[0, 0, 1] += h
    lowered[0, 0, 1] -= h
    assert (pool(raised) - y)[0, 0, 0] / h == pytest.approx(1.0)
    assert (pool(lowered) - y)[0, 0, 0] / h == 0.0  # another 3 takes over: a kink


@given(st.sampled_from(["float32", "float64", "longdouble"]))
@settings(database=None)
def test_nothing_overflows_at_the_ends_of_the_range(dtype):
    """Warnings are errors in this suite."""
    x = np.array([[-700.0, 700.0, 0.0, -50.0], [30.0, -80.0, 88.0, -600.0]], dtype)
    for module in (nn.Sigmoid(), nn.SiLU(), nn.Tanh(), nn.ELU(), nn.GELU(), nn.Softmax(1), nn.LogSoftmax(-1)):
        y = module(x)
        assert np.isfinite(y).all()
        assert np.isfinite(module.backward(np.ones_like(y))).all()
    for loss, target in (
        (nn.CrossEntropyLoss(), np.array([0, 3])),
        (nn.BCEWithLogitsLoss(), np.array([[0.0, 1, 0, 1], [1, 0, 0.5, 1]], dtype)),
    ):
        assert np.isfinite(loss(x, target))
        assert np.isfinite(loss.backward()).all()


@pytest.mark.parametrize("operation", LOSSES, ids=str)
def test_backward_of_a_mean_starts_from_one(operation):
    @few
    @given(operation.examples)
    def run(example):
        if example.ours.reduction == "none":
            return
        example.ours(*example.inputs)
        from_default = example.ours.backward()
        example.ours(*example.inputs)
        np.testing.assert_array_equal(from_default, example.ours.backward(1.0))

    run()


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss"])
def test_an_ignored_item_may_hold_infinity(name):
    x = np.array([[-np.inf, 0.0, 1.0], [0.0, 1.0, 2.0]])
    labels = np.array([-100, 1])
    ours, theirs = getattr(nn, name)(), getattr(torch.nn, name)()
    t = torch.from_numpy(x).requires_grad_()
    loss = theirs(t, torch.from_numpy(labels))
    loss.backward()
    assert ours(x, labels) == pytest.approx(loss.item(), rel=1e-15)
    np.testing.assert_allclose(ours.backward(), t.grad, atol=1e-15)


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss"])
def test_a_mean_over_ignored_items_only_has_no_gradient(name):
    ours = getattr(nn, name)()
    assert np.isnan(ours(np.ones((2, 3)), np.array([-100, -100])))
    np.testing.assert_array_equal(ours.backward(), np.zeros((2, 3)))


@pytest.mark.parametrize("module", [nn.Softmax(0), nn.LogSoftmax(0)], ids=repr)
def test_divergence_is_not_hidden(module):
    with np.errstate(invalid="ignore"):
        assert np.isnan(module(np.array([np.inf, 0.0, 0.0]))).all()
        criterion = nn.CrossEntropyLoss()
        assert np.isnan(criterion(np.array([np.inf, 0.0, 0.0]), np.array(1)))
        assert np.isnan(criterion.backward()).all()


@pytest.mark.parametrize("keywords", [{}, {"padding": 1}, {"stride": 1, "padding": 1, "ceil_mode": True}])
def test_infinities_and_nan_go_where_torchs_go(keywords):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 6, 7))
    for value in (-np.inf, np.inf, np.nan):
        x[rng.random(x.shape) < 0.2] = value
    x[0, 0, :3, :3] = -np.inf
    for name, args in (("MaxPool2d", (3,)), ("ReLU", ())):
        ours, theirs = (
            getattr(library, name)(*args, **(keywords if args else {})) for library in (nn, torch.nn)
        )
        x = x if args else np.nan_to_num(x)
        t = torch.from_numpy(x).requires_grad_()
        their_y = theirs(t)
        y = ours(x)
        g = np.where(rng.random(y.shape) < 0.5, np.inf, 1.0)
        their_y.backward(torch.from_numpy(g))
        np.testing.assert_array_equal(y, their_y.detach())
        np.testing.assert_array_equal(ours.backward(g), t.grad)
