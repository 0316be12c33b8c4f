"""The checker itself: it must notice every one of these wrong backward functions, one mistake each.

Each mutant takes the place of a file's ``backward`` while the very check of test_operations runs.
"""

import numpy as np
import pytest
from nn_checks import OPERATIONS, check

import nn_reference as nn
from nn_reference import (
    avg_pool2d,
    batchnorm,
    bce_with_logits,
    conv2d,
    cross_entropy,
    dropout,
    elu,
    flatten,
    gelu,
    l1,
    leaky_relu,
    linear,
    log_softmax,
    max_pool2d,
    mse,
    nll,
    relu,
    sigmoid,
    silu,
    softmax,
    tanh,
)

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
ROWS = {operation.name: operation for operation in OPERATIONS}
right = {
    file: file.backward
    for file in (
        avg_pool2d,
        batchnorm,
        bce_with_logits,
        conv2d,
        cross_entropy,
        linear,
        max_pool2d,
        nll,
        softmax,
    )
}


def changed(file, position, change):
    """The right gradients, but for one of them."""

    def backward(cache, grad_y, *args):
        grads = list(right[file](cache, grad_y, *args))
        grads[position] = change(grads[position]) if grads[position] is not None else None
        return tuple(grads)

    return backward


def with_cache(file, **fields):
    """The right backward, of a cache with wrong contents."""
    return lambda cache, grad_y, *args: right[file](cache._replace(**fields), grad_y, *args)


def batchnorm_without(*, mean_path=True, variance_path=True):
    def backward(cache, grad_y):
        shape = (1, -1, *(1,) * (grad_y.ndim - 2))
        axes = (0, *range(2, grad_y.ndim))
        weight = 1.0 if cache.weight is None else cache.weight.reshape(shape)
        mean_g = grad_y.mean(axes, keepdims=True) * (cache.of_batch and mean_path)
        mean_gx = (grad_y * cache.normalised).mean(axes, keepdims=True) * (cache.of_batch and variance_path)
        _, grad_weight, grad_bias = right[batchnorm](cache, grad_y)
        return (
            weight * cache.inverse_std * (grad_y - mean_g - cache.normalised * mean_gx),
            grad_weight,
            grad_bias,
        )

    return backward


def pool_to_all_ties(cache, grad_y):
    """Every pixel that is as large as the winner gets the gradient: only ties show it."""
    padded_shape, winner, windows = cache
    return right[max_pool2d]((padded_shape, np.maximum(winner, 1), windows), grad_y)


def in_place(cache, grad_y):
    grad_y *= cache > 0
    return grad_y


MUTANTS = [
    ("Linear", linear, "grad_x transposed product", changed(linear, 0, lambda g: g[..., ::-1])),
    ("Linear", linear, "grad_weight has a 1/N too many", lambda c, g, *a: _mean_weight(c, g, *a)),
    ("Linear", linear, "mean for sum in the bias", changed(linear, 2, lambda g: g / 2)),
    ("Linear", linear, "zero", changed(linear, 1, np.zeros_like)),
    ("ReLU", relu, ">= for >", lambda cache, g: g * (cache >= 0)),
    ("ReLU", relu, "no mask", lambda cache, g: g * 1.0),
    ("ReLU", relu, "upstream gradient changed in place", in_place),
    ("LeakyReLU", leaky_relu, "slope forgotten", lambda cache, g: np.where(cache[0], g, 0.0)),
    ("LeakyReLU", leaky_relu, "1 at the kink", lambda cache, g: np.where(cache[0], g, 0.01 * g)),
    (
        "Sigmoid",
        sigmoid,
        "derivative at the wrong quantity",
        lambda y, g: g * np.exp(-y) / (1 + np.exp(-y)) ** 2,
    ),
    ("Tanh", tanh, "1 - y", lambda y, g: g * (1 - y)),
    ("ELU", elu, "alpha forgotten", lambda c, g: np.where(c[0] > 0, g, g * np.exp(np.minimum(c[0], 0)))),
    (
        "ELU",
        elu,
        "1 at the kink",
        lambda c, g: np.where(c[0] >= 0, g, g * c[1] * np.exp(np.minimum(c[0], 0))),
    ),
    ("SiLU", silu, "x ds/dx dropped", lambda cache, g: g * cache[1]),
    ("GELU", gelu, "x phi(x) dropped", lambda cache, g: g * cache[1]),
    (
        "GELU-tanh",
        gelu,
        "derivative of the exact form",
        lambda c, g: g * (c[1] + c[0] * gelu.normal_density(c[0])),
    ),
    ("Flatten", flatten, "wrong order", lambda shape, g: g.reshape(shape, order="F")),
    ("Dropout", dropout, "mask forgotten", lambda mask, g: g * 1.0),
    ("Dropout", dropout, "scale forgotten", lambda mask, g: g * (mask > 0)),
    ("Softmax", softmax, "the diagonal only", lambda cache, g: g * cache[0] * (1 - cache[0])),
    ("Softmax", softmax, "identity", lambda cache, g: g * 1.0),
    ("LogSoftmax", log_softmax, "sum forgotten", lambda cache, g: g - np.exp(cache[0]) * g),
    ("BatchNorm1d", batchnorm, "mean path dropped", batchnorm_without(mean_path=False)),
    ("BatchNorm2d", batchnorm, "variance path dropped", batchnorm_without(variance_path=False)),
    ("BatchNorm1d", batchnorm, "gamma dropped", with_cache(batchnorm, weight=None)),
    (
        "BatchNorm2d",
        batchnorm,
        "running statistics taken for the batch's",
        with_cache(batchnorm, of_batch=True),
    ),
    ("BatchNorm2d", batchnorm, "zero", changed(batchnorm, 0, np.zeros_like)),
    ("Conv2d", conv2d, "kernel flipped", changed(conv2d, 1, lambda g: g[..., ::-1, ::-1])),
    ("Conv2d", conv2d, "grad_x moved by a pixel", changed(conv2d, 0, lambda g: np.roll(g, 1, axis=-1))),
    ("Conv2d", conv2d, "bias summed over images only", changed(conv2d, 2, lambda g: g / 2)),
    ("MaxPool2d", max_pool2d, "not to the first of ties", pool_to_all_ties),
    ("MaxPool2d", max_pool2d, "zero", lambda cache, g: right[max_pool2d](cache, g) * 0),
    (
        "AvgPool2d",
        avg_pool2d,
        "divisor forgotten",
        lambda c, g: right[avg_pool2d]((c[0], np.ones(()), c[2]), g),
    ),
    ("CrossEntropyLoss", cross_entropy, "sign turned", lambda c, g: -right[cross_entropy](c, g)),
    ("CrossEntropyLoss", cross_entropy, "1/N missing", with_cache(cross_entropy, divisor=1.0)),
    (
        "CrossEntropyLoss",
        cross_entropy,
        "smoothing in the forward only",
        lambda c, g: right[cross_entropy](_without_smoothing(c), g),
    ),
    ("CrossEntropyLoss-probabilities", cross_entropy, "no 1/N", with_cache(cross_entropy, divisor=1.0)),
    ("NLLLoss", nll, "weights not in the normaliser", lambda c, g: right[nll](_count_rows(c), g)),
    ("MSELoss", mse, "2 forgotten", lambda c, g: c[0] * (g / c[0].size if c[1] == "mean" else g)),
    ("L1Loss", l1, "1/N twice", lambda c, g: c[0] * (g / c[0].size ** 2 if c[1] == "mean" else g)),
    (
        "BCEWithLogitsLoss",
        bce_with_logits,
        "weights dropped",
        lambda c, g: right[bce_with_logits](_plain(c), g),
    ),
]


def _mean_weight(cache, grad_y, *args):
    grad_x, grad_weight, grad_bias = right[linear](cache, grad_y, *args)
    return grad_x, grad_weight / max(1, grad_y.size // grad_y.shape[-1]), grad_bias


def _without_smoothing(cache):
    top = np.expand_dims(cache.target.argmax(cache.axis), cache.axis)
    hard = np.zeros_like(cache.target)
    np.put_along_axis(hard, top, cache.target.sum(cache.axis, keepdims=True), cache.axis)
    return cache._replace(target=hard)


def _count_rows(cache):
    return cache._replace(divisor=(cache.row_weight != 0).sum())


def _plain(cache):
    return cache._replace(yes=np.sign(cache.yes), no=np.sign(cache.no))


@pytest.mark.parametrize(
    ("name", "file", "mistake", "backward"), MUTANTS, ids=[f"{m[0]}: {m[2]}" for m in MUTANTS]
)
def test_the_checker_catches(name, file, mistake, backward, monkeypatch):
    monkeypatch.setattr(file, "backward", backward)
    with pytest.raises((AssertionError, ValueError)):
        check(ROWS[name], shrink=False)


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d"])
def test_the_checker_catches_a_biased_running_variance(name, monkeypatch):
    def track(self, mean, unbiased_var):
        if self.running_mean is not None:
            self.running_mean[...] = mean

    monkeypatch.setattr(getattr(nn, name), "_track", track)
    with pytest.raises(AssertionError):
        check(ROWS[name], shrink=False)
