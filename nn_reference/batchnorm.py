"""Batch normalisation: each channel brought to mean 0 and variance 1, then scaled and shifted."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nn_reference._arrays import Array, floating, plain, refuse
from nn_reference.layer import Layer
from nn_reference.linear import sum_rows
from nn_reference.module import Parameter


class Cache(NamedTuple):
    """What backward needs; C channels are on axis 1 of x, and statistics have shape (1, C, 1, ...)."""

    normalised: Array  # x^ in the shape of x
    inverse_std: Array
    weight: Array | None  # (C,)
    of_batch: bool  # whether mean and variance are those of x, so that they change with it


def forward(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    running: tuple[Array, Array] | None = None,
) -> tuple[Array, Cache, tuple[Array, Array]]:
    """Compute ``y = weight x^ + bias`` with ``x^ = (x - mean) / sqrt(var + eps)``, channel by channel.

        x             (N, C, *)
        weight, bias  (C,)
        y             (N, C, *)

    mean and var (divided by n, not n - 1) are taken over all axes but C; or, in evaluation, they are the two
    arrays (C,) of ``running``. They are returned last, with the shape (1, C, 1, ...).
    """
    if running is None:
        n = x.size // x.shape[1]
        mean = _per_channel(_sum(x) / n, x.ndim)
        centred = x - mean
        var = _per_channel(_sum(centred * centred) / n, x.ndim)
    else:
        mean, var = (_per_channel(statistic, x.ndim) for statistic in running)
        centred = x - mean
    inverse_std = 1 / np.sqrt(var + eps)
    normalised = np.multiply(centred, inverse_std, out=centred)
    y = normalised if weight is None else normalised * _per_channel(weight, x.ndim)
    if bias is not None:
        y = y + _per_channel(bias, x.ndim)
    return y, Cache(normalised, inverse_std, weight, running is None), (mean, var)


def backward(cache: Cache, grad_y: Array) -> tuple[Array, Array, Array]:
    """Return ``grad_x, grad_weight, grad_bias``.

    Sums and means over all axes but C are written sum and mean, n is the number of elements of a channel,
    s = 1 / sqrt(var + eps). As y = weight x^ + bias,

        grad_bias   = sum(grad_y)           (C,)
        grad_weight = sum(grad_y x^)        (C,)
        g           = grad_y weight         (N, C, *), the gradient of x^

    With running statistics x^ is linear in x, and grad_x = s g. With those of the batch, x acts in three
    ways: itself, through the mean (dmean/dx_i = 1/n), and through the variance (dvar/dx_i = 2 (x_i - mean) /
    n):

        dL/dvar  = sum(g (x - mean)) (-1/2) s^3 = -1/2 s^2 sum(g x^)
        dL/dmean = -s sum(g)            (x^ depends on it; var does not, as sum(x - mean) = 0)
        grad_x   = s g + dL/dmean / n + dL/dvar 2 (x - mean) / n
                 = s (g - mean(g) - x^ mean(g x^))

    So the gradient loses what would only move or scale the whole channel, because the normalisation undoes
    that. Source: Ioffe and Szegedy (2015), section 3.
    """
    normalised, inverse_std, weight, of_batch = cache
    grad_bias = _sum(grad_y)
    grad_weight = _sum(grad_y * normalised)
    scale = inverse_std if weight is None else inverse_std * _per_channel(weight, grad_y.ndim)
    if not of_batch:
        return grad_y * scale, grad_weight, grad_bias
    n = grad_y.size // len(grad_bias)
    mean_g = _per_channel(grad_bias / n, grad_y.ndim)
    mean_gx = _per_channel(grad_weight / n, grad_y.ndim)
    return scale * (grad_y - mean_g - normalised * mean_gx), grad_weight, grad_bias


def _sum(a: Array) -> Array:
    """Sum (N, C, *) over all axes but C, over N in two stages (see `sum_rows`)."""
    return sum_rows(a if a.ndim == 2 else a.reshape(*a.shape[:2], -1).sum(-1))


def _per_channel(a: Array, ndim: int) -> Array:
    """Give (C,) the shape (1, C, 1, ...)."""
    return a.reshape(1, -1, *(1,) * (ndim - 2))


class _BatchNorm(Layer):
    """What BatchNorm1d and BatchNorm2d share; they differ in the rank that they accept."""

    ranks: tuple[int, ...]
    expected: str
    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: Array | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        device: None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        refuse(type(self).__name__, device=device)
        dtype = floating(type(self).__name__, dtype)
        self.num_features, self.eps, self.momentum = num_features, plain(eps), plain(momentum)
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine and bias else None
        tracked = track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, dtype) if tracked else None)
        self.register_buffer("running_var", np.ones(num_features, dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", np.array(0) if tracked else None)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        name = type(self).__name__
        if x.ndim not in self.ranks or x.shape[1] != self.num_features:
            expected = self.expected.format(C=self.num_features)
            raise ValueError(f"{name}: input has shape {x.shape}, expected {expected}")
        weight = None if self.weight is None else self.weight.data
        bias = None if self.bias is None else self.bias.data
        if not self.training and self.running_mean is not None and self.running_var is not None:
            return forward(x, weight, bias, self.eps, (self.running_mean, self.running_var))[:2]
        n = x.size // self.num_features
        if n < 2:
            needs = "a batch's variance needs two values per channel"
            raise ValueError(f"{name}: input has shape {x.shape}, {needs}")
        y, cache, (mean, var) = forward(x, weight, bias, self.eps)
        if self.training:
            self._track(mean.reshape(-1), var.reshape(-1) * (n / (n - 1)))
        return y, cache

    def _track(self, mean: Array, unbiased_var: Array) -> None:
        """Move the running statistics towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased_var)):
            running *= 1 - momentum
            running += momentum * new

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        grad_x, grad_weight, grad_bias = backward(cache, grad_y)
        self._accumulate(weight=grad_weight, bias=grad_bias)
        return grad_x

    def extra_repr(self) -> str:
        """Return the arguments as torch shows them."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """``torch.nn.BatchNorm1d``: (N, C) or (N, C, L).

    ``running_var`` keeps the variance divided by n - 1. ``momentum`` is the weight of the newest batch; None
    gives every batch the same weight.
    """

    ranks = (2, 3)
    expected = "(N, {C}) or (N, {C}, L)"


class BatchNorm2d(_BatchNorm):
    """``torch.nn.BatchNorm2d``: (N, C, H, W); see `BatchNorm1d`."""

    ranks = (4,)
    expected = "(N, {C}, H, W)"
