"""The affine map: each output is a weighted sum of all inputs, plus a bias."""

import math

import numpy as np
import numpy.typing as npt

from nn_reference import init
from nn_reference._arrays import Array, floating, refuse
from nn_reference.layer import Layer
from nn_reference.module import Parameter

Cache = tuple[Array, Array]


def forward(
    x: Array, weight: Array, bias: Array | None = None, out: Array | None = None
) -> tuple[Array, Cache]:
    """Compute ``y = x weight.T + bias``.

        x       (..., in)
        weight  (out, in)
        bias    (out,)
        y       (..., out)

    ``out``, if given, is a C-contiguous array that receives y.
    """
    n = math.prod(x.shape[:-1])
    rows = x.reshape(n, weight.shape[1])  # (N, in)
    y = np.matmul(rows, weight.T, out=None if out is None else out.reshape(n, weight.shape[0]))
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0]), (x, weight)


def backward(
    cache: Cache,
    grad_y: Array,
    need_grad_x: bool = True,
    out: tuple[Array | None, Array | None, Array | None] = (None, None, None),
) -> tuple[Array | None, Array, Array]:
    """Return ``grad_x, grad_weight, grad_bias``; the first is None if not ``need_grad_x``.

    With one row n and the sum written out, ``y[n, j] = sum_i x[n, i] weight[j, i] + bias[j]``, so

        dL/dx[n, i]      = sum_j dL/dy[n, j] dy[n, j]/dx[n, i]      = sum_j grad_y[n, j] weight[j, i]
        dL/dweight[j, i] = sum_n dL/dy[n, j] dy[n, j]/dweight[j, i] = sum_n grad_y[n, j] x[n, i]
        dL/dbias[j]      = sum_n dL/dy[n, j] dy[n, j]/dbias[j]      = sum_n grad_y[n, j]

    The sums over n are there because every row uses the same weight and bias. As products:

        grad_x      = grad_y weight      (N, in)  = (N, out) (out, in)
        grad_weight = grad_y.T x         (out, in) = (out, N) (N, in)
        grad_bias   = 1.T grad_y         (out,)   = (N,) (N, out), where 1 is a vector of ones

    ``out`` holds arrays for the three, or None. Source: Goodfellow, Bengio and Courville, *Deep Learning*
    (2016), section 6.5.6.
    """
    x, weight = cache
    out_features, in_features = weight.shape
    n = math.prod(x.shape[:-1])
    rows = x.reshape(n, in_features)  # (N, in)
    grad_rows = grad_y.reshape(n, out_features)  # (N, out)
    out_x, out_weight, out_bias = out
    if out_weight is None:  # in the order in memory that the weight has: optimizers go over both together
        out_weight = np.empty_like(weight, np.result_type(grad_rows, rows))
    grad_weight = np.matmul(grad_rows.T, rows, out=out_weight)
    grad_bias = sum_rows(grad_rows, out_bias)
    if not need_grad_x:
        return None, grad_weight, grad_bias
    if out_x is not None:
        out_x = out_x.reshape(n, in_features)
    return np.matmul(grad_rows, weight, out=out_x).reshape(x.shape), grad_weight, grad_bias


def sum_rows(a: Array, out: Array | None = None) -> Array:
    """Return the sum of (N, M) over N, as products with a vector of ones.

    The sums of about sqrt(N) rows are summed: in float32 that rounds less than N sums, each of one row more.
    """
    block = max(1, math.isqrt(len(a)))
    blocks, rest = divmod(len(a), block)
    ones = np.ones(max(block, blocks), a.dtype)
    sums = ones[:block] @ a[: block * blocks].reshape(blocks, block, a.shape[1])  # (blocks, M)
    total = np.matmul(ones[:blocks], sums, out=out)
    if rest:
        total += ones[:rest] @ a[-rest:]
    return total


class Linear(Layer):
    """``torch.nn.Linear``: x (*, in_features) to y (*, out_features), for any leading shape."""

    _shown = ("in_features", "out_features", "bias")

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: None = None,
        dtype: npt.DTypeLike | None = None,
        generator: init.Generator | None = None,
    ) -> None:
        refuse("Linear", device=device)
        dtype = floating("Linear", dtype)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(
            np.empty((in_features, out_features), dtype).T
        )  # as x weight.T reads it fastest
        self.bias = Parameter(np.empty(out_features, dtype)) if bias else None
        init.reset_affine(self.weight, self.bias, generator)

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"Linear: input has shape {x.shape}, expected (*, {self.in_features})")
        return forward(x, self.weight.data, None if self.bias is None else self.bias.data)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array | None:
        spare = None if self.weight.grad is not None else self.weight.spare
        if spare is None:
            grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x)
        else:
            out = (None, spare, None if self.bias is None else self.bias.spare)
            grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x, out)
        self._accumulate(weight=grad_weight, bias=grad_bias)
        return grad_x
