"""How exact: the label's gradient, Phi, float32 against float64, and the memory of a training step."""

import itertools
import tracemalloc

import mpmath
import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import nn_reference as nn
from nn_reference import batchnorm, gelu, linear, optim, relu

WIDTHS = (784, 512, 256, 128, 10)
BATCH = 512


def mlp(library, widths=WIDTHS, **keywords):
    layers = []
    for n, m in itertools.pairwise(widths[:-1]):
        layers += [library.Linear(n, m, **keywords), library.ReLU()]
    return library.Sequential(*layers, library.Linear(*widths[-2:], **keywords))


def batch(seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.random((BATCH, WIDTHS[0])) * (rng.random((BATCH, WIDTHS[0])) < 0.2)
    return pixels.astype(np.float32), rng.integers(0, 10, BATCH)


# -- cross-entropy --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [1e-2, 1e-4, 1e-6])
def test_the_gradient_at_the_label_does_not_cancel(loss):
    """In float32, on scores whose loss is about this; the truth is the same formula in longdouble.

    At the label p - 1 is wrong by up to 2^-25 however small it should be: a relative error of about 3e-8 /
    loss.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 256)
    rows = np.arange(256)
    x[rows, labels] += np.float32(-np.log(loss / 9))
    truth, fast = nn.CrossEntropyLoss(), nn.CrossEntropyLoss()
    truth(x.astype(np.longdouble), labels)
    true_grad = truth.backward()[rows, labels]
    fast(x, labels)
    ours = fast.backward()[rows, labels]
    t = torch.from_numpy(x).requires_grad_()
    torch.nn.functional.cross_entropy(t, torch.from_numpy(labels)).backward()
    theirs = t.grad.numpy()[rows, labels]
    our_error = np.abs(ours / true_grad - 1).max()
    their_error = np.abs(theirs / true_grad - 1).max()
    assert our_error < 20 * 2**-24  # exp of a score that was rounded: a few units
    assert their_error > 0.3 * 2**-25 / loss
    assert our_error < their_error / 3


def test_a_tiny_loss_is_not_rounded_to_zero():
    x = np.array([[20.0, 0.0, -1.0]], np.float32)
    loss = nn.CrossEntropyLoss()(x, np.array([0]))
    assert loss == pytest.approx(np.exp(-20.0) + np.exp(-21.0), rel=1e-6)
    assert torch.nn.functional.cross_entropy(torch.from_numpy(x), torch.tensor([0])) == 0.0


def test_a_soft_target_near_one_class_does_not_cancel():
    """One-hot probabilities give the gradient of the label; nearly one-hot ones that of longdouble."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 10)).astype(np.float32)
    labels = rng.integers(0, 10, 64)
    x[np.arange(64), labels] += np.float32(16)
    criterion = nn.CrossEntropyLoss()
    one_hot = np.eye(10, dtype=np.float32)[labels]
    criterion(x, one_hot)
    found = criterion.backward()
    criterion(x, labels)
    np.testing.assert_allclose(found, criterion.backward(), rtol=20 * 2**-24)
    nearly = np.where(one_hot > 0, np.float32(1), np.float32(1e-9))
    criterion(x, nearly)
    found = criterion.backward()
    criterion(x.astype(np.longdouble), nearly.astype(np.longdouble))
    np.testing.assert_allclose(found, criterion.backward(), rtol=60 * 2**-24)


# -- float32 against longdouble -------------------------------------------------------------------

U = 2.0**-24


def both_precisions(make, x, *others):
    """Output and input gradient in float32, and the truth from the same numbers in longdouble."""
    results = []
    for dtype in (np.float32, np.longdouble):
        module = make()
        y = module(x.astype(dtype), *(a.astype(dtype) for a in others))
        results += [y, module.backward(np.ones_like(y))]
    return results


def worst(found, true):
    return float(np.max(np.abs(found - true) / np.abs(true)))


def test_bce_is_accurate_where_the_network_is_right():
    """The relative error stays some units, however small loss and gradient: x to +-30 and near 0."""
    x = np.concatenate([np.linspace(-30, 30, 241), np.linspace(-1e-3, 1e-3, 21)]).astype(np.float32)
    for target in (np.zeros_like(x), np.ones_like(x)):
        make = lambda: nn.BCEWithLogitsLoss(reduction="none")  # noqa: E731
        y, grad, true_y, true_grad = both_precisions(make, x, target)
        assert worst(y, true_y) < 8 * U
        assert worst(grad, true_grad) < 8 * U


def test_log_softmax_is_accurate_where_one_class_is_sure():
    x = np.array([[t, 0.0, -1.0] for t in np.linspace(0.5, 30, 60)], np.float32)
    y, _, true_y, _ = both_precisions(lambda: nn.LogSoftmax(1), x)
    assert worst(y, true_y) < 16 * U


def test_gelu_tanh_is_accurate_in_the_left_tail():
    """Where 1 + tanh(u) would cancel; exp magnifies the rounding of u, by up to 2 |u|."""
    x = np.linspace(-4, -0.9, 63).astype(np.float32)
    y, _, true_y, _ = both_precisions(lambda: nn.GELU("tanh"), x)
    assert worst(y, true_y) < 60 * U


def test_elu_is_accurate_near_zero():
    x = -np.logspace(-12, 0, 49).astype(np.float32)
    y, grad, true_y, true_grad = both_precisions(nn.ELU, x)
    assert worst(y, true_y) < 4 * U
    assert worst(grad, true_grad) < 4 * U


def test_sums_over_a_large_batch_are_accurate():
    """Of 2^16 positive rows: a plain running sum errs by some hundred units."""
    a = np.random.default_rng(0).random((2**16, 3)).astype(np.float32)
    assert worst(linear.sum_rows(a), a.astype(np.longdouble).sum(0)) < 8 * U
    for n in (0, 1, 2, 3, 7, 16, 17):
        np.testing.assert_allclose(linear.sum_rows(a[:n]), a[:n].sum(0), rtol=8 * U)


@pytest.mark.parametrize("shape", [(60_000, 3), (6_000, 3, 10)])
def test_batchnorms_sums_over_a_large_batch_are_accurate(shape):
    """A running sum over 60,000 positive rows errs by a hundred units."""
    rng = np.random.default_rng(0)
    x, g = (rng.random(shape).astype(np.float32) for _ in range(2))
    _, cache, (mean, _) = batchnorm.forward(x)
    axes = (0, *range(2, x.ndim))
    assert worst(mean.ravel(), x.astype(np.longdouble).mean(axes)) < 8 * U
    assert worst(batchnorm.backward(cache, g)[2], g.astype(np.longdouble).sum(axes)) < 8 * U


# -- the normal distribution ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_normal_cdf_against_mpmath(dtype):
    mpmath.mp.dps = 40
    x = np.concatenate(
        [np.linspace(-9, 9, 181), np.linspace(-3.01, -2.99, 5), np.linspace(2.99, 3.01, 5)]
    ).astype(dtype)
    true = [mpmath.ncdf(mpmath.mpf(np.format_float_positional(v, unique=False, precision=45))) for v in x]
    found = [
        mpmath.mpf(np.format_float_positional(v, unique=False, precision=60)) for v in gelu.normal_cdf(x)
    ]
    assert max(abs(a - b) for a, b in zip(found, true, strict=True)) < 4 * float(np.finfo(dtype).eps)


# -- a whole step ---------------------------------------------------------------------------------


def gradients(network, x, labels):
    criterion = nn.CrossEntropyLoss()
    criterion(network(x), labels)
    grad_x = network.backward(criterion.backward())
    return [grad_x, *(p.grad for p in network.parameters())]


@pytest.mark.parametrize("seed", range(3))
def test_float32_gradients_of_a_step_are_near_float64(seed):
    x, labels = batch(seed)
    network = mlp(nn, generator=np.random.default_rng(seed))
    single = gradients(network, x, labels)
    network.zero_grad()
    double = gradients(network.double(), x.astype(np.float64), labels)
    joined = [np.concatenate([g.ravel() for g in grads]) for grads in (single[1:], double[1:])]
    assert np.linalg.norm(joined[0] - joined[1]) <= 5e-7 * np.linalg.norm(joined[1])


def our_peak(optimizer_name, monkeypatch):
    """Return the peak of all that was allocated, and the most that NumPy's arrays held after any backward."""
    network, criterion = mlp(nn), nn.CrossEntropyLoss()
    optimizer = getattr(optim, optimizer_name)(network.parameters())
    x, labels = batch()
    held = []

    def step():
        criterion(network(x), labels)
        optimizer.zero_grad()
        network.backward(criterion.backward(), input_grad=False)
        optimizer.step()

    def counted(backward):
        def run(*args):
            result = backward(*args)  # here its inputs, its cache and its results are alive
            snapshot = tracemalloc.take_snapshot()
            arrays = snapshot.filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
            held.append(sum(trace.size for trace in arrays.traces))
            return result

        return run

    def traced_step():
        tracemalloc.start()
        try:
            step()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    step()
    optimizer.zero_grad()
    peak = traced_step()
    optimizer.zero_grad()
    for file in (relu, linear):
        monkeypatch.setattr(file, "backward", counted(file.backward))
    traced_step()
    return peak, max(held)


def their_peak(optimizer_name):
    network, criterion = mlp(torch.nn), torch.nn.CrossEntropyLoss()
    optimizer = getattr(torch.optim, optimizer_name)(network.parameters())
    x, labels = (torch.from_numpy(a) for a in batch())

    def step():
        loss = criterion(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    optimizer.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        step()
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(np.cumsum(changes))


@pytest.mark.parametrize("optimizer_name", ["SGD", "Adam"])
def test_memory_of_a_training_step(optimizer_name, monkeypatch):
    """Bytes at the peak of the second step beyond what was held before it, with no gradients held.

    Counted, not sampled: every tensor that PyTorch allocates (its profiler), every array of NumPy's and all
    of Python (tracemalloc). Parameters, moments and the batch exist before; neither count has the scratch
    memory of the BLAS. With SGD both engines' peaks come while ReLU's backward runs, and their arrays are the
    same; what Python's objects and NumPy's buffer for casts take has no counterpart in PyTorch's count.
    """
    peak, arrays = our_peak(optimizer_name, monkeypatch)
    theirs = their_peak(optimizer_name)
    assert arrays <= theirs
    assert peak <= theirs + 16_000
