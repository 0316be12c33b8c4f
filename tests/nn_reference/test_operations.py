"""What is special about single operations: kinks, the ends of the range, infinities, kernels that do not fit.

That all of them agree with torch.autograd, the complex step and the truth, in every dtype, is tested from the
layer table in tests/agreement/test_checks.py.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nn_checks import seeds

import nn_reference as nn
from agreement.table import LOSSES, Draw
from agreement.table.layers import avg_pool2d, conv2d, fits, max_pool2d

few = settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(
    ("name", "arguments"), [("Conv2d", conv2d), ("MaxPool2d", max_pool2d), ("AvgPool2d", avg_pool2d)]
)
# PyTorch pads by a copy there, and says so.
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_a_kernel_that_does_not_fit_is_refused_where_torch_refuses(name, arguments):
    @settings(max_examples=200, deadline=None, database=None)
    @given(seeds)
    def run(seed):
        draw = Draw(seed, edges=True)
        shape = (*draw.choice(((), (2,))), 2 * draw.integer(1, 2), draw.integer(1, 4), draw.integer(1, 4))
        args, keywords = arguments(draw, shape)
        try:
            getattr(torch.nn, name)(*args, **keywords)(torch.zeros(shape))
        except RuntimeError:
            refused.append(seed)
            assert not fits(name, args, keywords, shape)
            with pytest.raises(ValueError, match="the kernel spans"):
                getattr(nn, name)(*args, **keywords)(np.zeros(shape, np.float32))
        else:
            assert fits(name, args, keywords, shape)

    refused: list[int] = []
    run()
    assert refused


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


@pytest.mark.parametrize("row", LOSSES, ids=str)
def test_backward_of_a_mean_starts_from_one(row):
    @few
    @given(seeds)
    def run(seed):
        example = row.example(seed, edges=True)
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
