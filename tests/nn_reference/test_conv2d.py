"""Convolution and pooling: blocks of pixels, orders in memory, and float32 element by element."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nn_reference as nn
from agreement import checks
from agreement.table import ROWS
from nn_reference import conv2d, max_pool2d
from nn_reference._windows import Windows, blocks

CONV2D = ROWS["Conv2d"]
U = 2.0**-24
quick = settings(database=None, deadline=None)


def orders(x):
    """The same images in three orders in memory: as given, batch innermost, and neither."""
    return (
        x,
        np.ascontiguousarray(np.moveaxis(x, 0, -1)).transpose(3, 0, 1, 2),
        x[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1],
    )


@given(*[st.integers(1, 9)] * 3, st.integers(1, 200))
@quick
def test_blocks_cover_each_pixel_once_and_lie_in_one_piece(rows, columns, images, size):
    seen = np.zeros((2, rows, columns, images), int)
    for block in blocks(seen, size):
        piece = seen[block]
        pixels = piece[0].size
        assert pixels <= max(size, images)
        assert np.shares_memory(piece[0].reshape(-1), seen)  # no copy: it is one piece
        piece += 1
    assert (seen == 1).all()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("size", [1, 6, 20])
def test_blocks_of_any_size_give_autograds_gradients(size, monkeypatch):
    """The images that the table of operations draws are so small that each is one block."""
    monkeypatch.setattr(conv2d, "blocks", partial(blocks, size=size))
    for seed in range(40):
        results = checks.autograd(CONV2D, CONV2D.example(seed, edges=seed % 2 == 0))
        assert all(result.agrees for result in results), results


@given(st.data())
@quick
def test_forward_is_the_sum_in_its_docstring(data):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    groups, in_channels, out_channels = (draw(st.integers(1, 3)) for _ in range(3))
    pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))
    borders = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)
    windows = Windows(draw(st.tuples(*[st.integers(1, 3)] * 2)), draw(pairs), draw(pairs), draw(borders))
    dtype = draw(st.sampled_from([np.float64, np.longdouble, np.complex128]))
    x = rng.normal(size=(2, groups * in_channels, 5, 6)).astype(dtype)
    weight = rng.normal(size=(groups * out_channels, in_channels, *windows.kernel)).astype(dtype)
    bias = rng.normal(size=groups * out_channels).astype(dtype)
    y, _ = conv2d.forward(x, weight, bias, windows, groups)
    assert y.dtype == dtype
    padded = np.pad(x, [(0, 0), (0, 0), *windows.border])
    for n, o, r, c in np.ndindex(y.shape):
        expected = bias[o]
        for k, i, j in np.ndindex(weight.shape[1:]):
            row = r * windows.stride[0] + i * windows.dilation[0]
            column = c * windows.stride[1] + j * windows.dilation[1]
            expected = (
                expected + weight[o, k, i, j] * padded[n, o // out_channels * in_channels + k, row, column]
            )
        assert abs(y[n, o, r, c] - expected) < 1e-13


@pytest.mark.parametrize(
    "layer",
    [
        "Conv2d(4, 6, 3, padding=1, groups=2)",
        "Conv2d(4, 6, 2, stride=2)",
        "MaxPool2d(2)",
        "MaxPool2d(3, 2, 1)",
        "AvgPool2d(2)",
    ],
)
def test_the_order_in_memory_changes_nothing(layer):
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(scale=2, size=(3, 4, 6, 8)))
    module = eval(f"nn.{layer}", {"nn": nn})
    module.double()
    results = []
    for ordered in orders(x):
        y = module(ordered)
        grad_y = np.random.default_rng(1).normal(size=y.shape)
        for upstream in orders(grad_y):
            module.zero_grad()
            module(ordered)
            grad_x = module.backward(upstream)
            results.append([y, grad_x, *(p.grad for p in module.parameters())])
    for found in results[1:]:
        for a, b in zip(found, results[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def test_images_stay_innermost_through_convolution_and_pooling():
    """No layer between two convolutions turns the arrays round in memory."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3))
    with nn.Tape(network) as tape:
        y = network(np.ones((5, 1, 8, 8), np.float32))
    network.backward(np.ones_like(y))
    for call in tape.calls:
        assert call.output.transpose(1, 2, 3, 0).flags.c_contiguous, call.name
        assert call.name == "0" or call.grad_input.strides[0] == call.grad_input.itemsize, call.name


@pytest.mark.parametrize("images", [1, 5, 64])
def test_float32_element_by_element(images):
    """Within 16 u |A||B| of longdouble, also beside large pixels and where a window holds only zeros."""
    rng = np.random.default_rng(images)
    x = rng.normal(size=(images, 8, 9, 10)) * (rng.random((images, 8, 9, 10)) < 0.3)
    x[:, :, :5] *= (rng.random((images, 1, 5, 10)) < 0.1) * 1e4
    x = x.astype(np.float32)
    weight = rng.normal(size=(6, 8, 3, 3)).astype(np.float32)
    windows = Windows((3, 3), border=((1, 1), (1, 1)))
    grad_y = rng.normal(size=(images, 6, 9, 10)).astype(np.float32)
    y, cache = conv2d.forward(x, weight, None, windows)
    found = [y, *conv2d.backward(cache, grad_y)]

    def products(*arrays):
        x, weight, grad_y = (a.astype(np.longdouble) for a in arrays)
        y, cache = conv2d.forward(x, weight, None, windows)
        return [y, *conv2d.backward(cache, grad_y)]

    true = products(x, weight, grad_y)
    sizes = products(*(np.abs(a) for a in (x, weight, grad_y)))
    for name, a, b, size in zip(("y", "x", "weight", "bias"), found, true, sizes, strict=True):
        assert a.dtype == np.float32
        assert (np.abs(a - b) <= 16 * U * size).all(), name


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 1),
    st.booleans(),
    st.sampled_from([0, 1, 2]),
    st.integers(0, 99),
)
@quick
def test_pooling_ties_infinities_and_nan_in_any_order(kernel, stride, padding, ceil_mode, order, seed):
    padding = min(padding, kernel // 2)
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (2, 3, 6, 7)).astype(float)
    for value in (-np.inf, np.inf, np.nan):
        x[rng.random(x.shape) < 0.1] = value
    x[1, :, :4, :4] = -np.inf
    x[0, 0] = np.random.default_rng(seed).choice([0.0, -0.0], x[0, 0].shape)
    keywords = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    t = torch.from_numpy(x.copy()).requires_grad_()
    their_y = torch.nn.MaxPool2d(**keywords)(t)
    ours = nn.MaxPool2d(**keywords)
    y = ours(orders(x)[order])
    np.testing.assert_array_equal(y, their_y.detach())
    g = rng.normal(size=y.shape)
    if seed % 2:
        g[rng.random(g.shape) < 0.3] = np.inf
    their_y.backward(torch.from_numpy(g))
    np.testing.assert_allclose(ours.backward(g), t.grad, rtol=1e-13, atol=1e-13)


def test_the_winner_is_the_first_slice_that_holds_the_largest_pixel():
    x = np.array([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 3.0, 3.0]])[None]
    _, (shape, winner, _) = max_pool2d.forward(x, Windows((2, 2), (2, 2)))
    assert shape == (1, 2, 4)
    np.testing.assert_array_equal(winner, [[[0, 2]]])
