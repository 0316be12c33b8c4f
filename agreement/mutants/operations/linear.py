"""Mistakes in the affine map. x (..., in), weight (out, in), grad_y (..., out)."""

import numpy as np

from agreement.measures import Array
from agreement.mutants.mutant import Kind
from agreement.mutants.operations._register import mistake
from nn_reference import linear

Grads = tuple[Array | None, Array, Array]
backward = linear.backward  # the right one, as long as it is in its place


def rows_of(cache: linear.Cache, grad_y: Array) -> tuple[Array, Array]:
    """Return x and grad_y as matrices (N, in) and (N, out)."""
    return cache[0].reshape(-1, cache[0].shape[-1]), grad_y.reshape(-1, grad_y.shape[-1])


@mistake(
    "Linear",
    linear,
    right="grad_x = grad_y weight",
    wrong="grad_x = grad_y weight.T",
)
def transposed_weight(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The weight is transposed on the way back, too; only a square one lets that pass unnoticed
    (where it is not square, it is read as if it had been stored transposed)."""
    weight = cache[1].T.reshape(cache[1].shape)
    return backward((cache[0], weight), grad_y, need_grad_x)


@mistake(
    "Linear",
    linear,
    right="grad_weight = grad_y.T x",
    wrong="grad_weight = x.T grad_y",
)
def transposed_delta(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The two factors of the weight's gradient are swapped, which gives its transpose
    (read as (out, in) where it is not square)."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x)
    return grad_x, np.ascontiguousarray(grad_weight.T).reshape(grad_weight.shape), grad_bias


@mistake(
    "Linear",
    linear,
    right="grad_x[n, i] = sum_j grad_y[n, j] weight[j, i]",
    wrong="grad_x[n, i] = sum_j grad_y[n, j] weight[j, in - 1 - i]",
)
def input_gradient_in_reverse(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The gradients of the inputs are right numbers at the wrong inputs, in reverse order."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x)
    return None if grad_x is None else grad_x[..., ::-1], grad_weight, grad_bias


@mistake(
    "Linear",
    linear,
    right="grad_weight = grad_y.T x",
    wrong="grad_weight = grad_y.T x / N",
)
def one_over_n_too_many(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The weight's gradient is divided by the batch size, which the loss's mean has already done."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x)
    return grad_x, grad_weight / len(rows_of(cache, grad_y)[1]), grad_bias


@mistake(
    "Linear",
    linear,
    right="grad_bias = sum_n grad_y[n]",
    wrong="grad_bias = mean_n grad_y[n]",
)
def mean_for_sum_in_the_bias(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The bias is in every row, so its gradient is the sum over the rows, not their mean."""
    grad_x, grad_weight, _ = backward(cache, grad_y, need_grad_x)
    return grad_x, grad_weight, rows_of(cache, grad_y)[1].mean(0)


@mistake(
    "Linear",
    linear,
    right="grad_bias = sum_n grad_y[n]    (out,)",
    wrong="grad_bias = grad_y    (N, out)",
)
def bias_not_summed(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The bias was broadcast over the batch in the forward; the backward must sum over it."""
    grad_x, grad_weight, _ = backward(cache, grad_y, need_grad_x)
    return grad_x, grad_weight, rows_of(cache, grad_y)[1].copy()


@mistake(
    "Linear",
    linear,
    right="grad_bias = sum_n grad_y[n]",
    wrong="grad_bias = grad_y[0]",
)
def bias_of_one_row(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The bias's gradient has the right shape because a single row of the batch was taken."""
    grad_x, grad_weight, _ = backward(cache, grad_y, need_grad_x)
    return grad_x, grad_weight, rows_of(cache, grad_y)[1][0].copy()


@mistake(
    "Linear",
    linear,
    right="grad_weight = grad_y.T x",
    wrong="grad_weight = 0",
)
def weight_gets_no_gradient(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The gradient is never written; checkers with an absolute tolerance accept a zero for a small one."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x)
    return grad_x, np.zeros_like(grad_weight), grad_bias


@mistake(
    "Linear",
    linear,
    right="s = sum over blocks of (sum over the rows of a block)",
    wrong="s = 0;  for each row: s = s + grad_y[n]",
    kind=Kind.PRECISION,
    shows_in=("long batches",),
)
def one_running_sum(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """Thousands of rows are added to one float32 number: the larger it grows, the more of each row is rounded
    away."""
    grad_x, grad_weight, _ = backward(cache, grad_y, need_grad_x)
    return grad_x, grad_weight, np.cumsum(rows_of(cache, grad_y)[1], axis=0)[-1]


@mistake(
    "Linear",
    linear,
    right="grad_weight = grad_y.T x, in the dtype of x",
    wrong="grad_weight = float16(grad_y).T float16(x)",
    kind=Kind.PRECISION,
)
def half_precision_product(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """The factors are stored in half precision, as mixed-precision training does, which keeps 3 digits."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x)
    x, g = (a.real.astype(np.float16).astype(grad_weight.dtype) for a in rows_of(cache, grad_y))
    return grad_x, g.T @ x, grad_bias


@mistake(
    "Linear",
    linear,
    right="grad_x = grad_y weight, in the dtype of grad_y",
    wrong="grad_x = float32(grad_y weight)",
    kind=Kind.PRECISION,
    shows_in=("float64",),
)
def float32_in_between(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """A buffer was made with dtype float32, so a float64 gradient loses half its digits on the way."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x)
    if grad_x is not None:
        grad_x = grad_x.astype(np.float32).astype(grad_x.dtype)
    return grad_x, grad_weight, grad_bias


@mistake(
    "Linear",
    linear.Linear,
    right="weight.grad += grad_weight",
    wrong="weight.grad = grad_weight",
    attribute="_backward",
)
def gradient_not_added(
    self: linear.Linear, cache: linear.Cache, grad_y: Array, need_grad_x: bool
) -> Array | None:
    """The layer writes its gradients itself: of a batch in two halves only the second counts."""
    grad_x, grad_weight, grad_bias = linear.backward(cache, grad_y, need_grad_x)
    self.weight.grad = grad_weight
    if self.bias is not None:
        self.bias.grad = grad_bias
    return grad_x


@mistake(
    "Linear",
    linear,
    right="if need_grad_x: grad_x = grad_y weight",
    wrong="if need_grad_x: grad_x = grad_y weight;  grad_weight = grad_y.T x",
)
def first_layer_does_not_learn(cache: linear.Cache, grad_y: Array, need_grad_x: bool = True) -> Grads:
    """Where the gradient of the input is not needed, that of the weight is left out with it. Every test that
    asks for the gradient of the input passes."""
    grad_x, grad_weight, grad_bias = backward(cache, grad_y, need_grad_x)
    return grad_x, grad_weight if need_grad_x else np.zeros_like(grad_weight), grad_bias


@mistake(
    "Linear",
    linear.Linear,
    right="bias.grad += grad_bias",
    wrong="bias.grad += grad_bias;  bias -= lr grad_bias",
    attribute="_backward",
)
def bias_moved_by_backward(
    self: linear.Linear, cache: linear.Cache, grad_y: Array, need_grad_x: bool
) -> Array | None:
    """Backward takes the step as well, as loops without an optimizer do. All gradients are right."""
    grad_x, grad_weight, grad_bias = linear.backward(cache, grad_y, need_grad_x)
    self._accumulate(weight=grad_weight, bias=grad_bias)
    if self.bias is not None:
        self.bias.data -= 0.1 * grad_bias
    return grad_x
