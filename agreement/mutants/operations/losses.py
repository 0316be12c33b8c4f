"""Mistakes in the losses. "mean" divides by N, or by what stands in its place."""

from typing import Any

import numpy as np

from agreement.measures import Array
from agreement.mutants.mutant import Kind
from agreement.mutants.operations._register import mistake
from nn_reference import bce_with_logits, cross_entropy, l1, mse, nll, sigmoid
from nn_reference.loss import reduce, spread

Entropy = cross_entropy.Cache
CROSS_ENTROPY = "CrossEntropyLoss"
PROBABILITIES = "CrossEntropyLoss-probabilities"
entropy_backward, nll_backward = cross_entropy.backward, nll.backward
mse_backward, bce_backward = mse.backward, bce_with_logits.backward


def items(cache: Entropy) -> int:
    """Return the number of items, ignored ones included."""
    return cache.probabilities.size // cache.probabilities.shape[cache.axis]


# -- cross-entropy: target t holds weights and smoothing, T is its sum -------------------------------


@mistake((CROSS_ENTROPY, PROBABILITIES), cross_entropy, right="(T p - t) / N", wrong="(t - T p) / N")
def sign_turned(cache: Entropy, grad_loss: Array) -> Array:
    """Target minus prediction: the loss rises at every step."""
    return -entropy_backward(cache, grad_loss)


@mistake((CROSS_ENTROPY, PROBABILITIES), cross_entropy, right="(T p - t) / N", wrong="T p - t")
def one_over_n_missing(cache: Entropy, grad_loss: Array) -> Array:
    """The mean of the forward has no counterpart: the gradient grows with the batch."""
    return entropy_backward(cache._replace(divisor=1.0), grad_loss)


@mistake((CROSS_ENTROPY, PROBABILITIES), cross_entropy, right="(T p - t) / N", wrong="(T p - t) / N^2")
def one_over_n_squared(cache: Entropy, grad_loss: Array) -> Array:
    """The mean is taken twice: once in the loss's gradient, once more after it."""
    return entropy_backward(cache._replace(divisor=cache.divisor**2), grad_loss)


@mistake(CROSS_ENTROPY, cross_entropy, right="(T p - t) / N", wrong="2 (T p - t) / N")
def factor_two(cache: Entropy, grad_loss: Array) -> Array:
    """The 2 of the squared error's derivative has come along."""
    return 2 * entropy_backward(cache, grad_loss)


@mistake(
    (CROSS_ENTROPY, PROBABILITIES), cross_entropy, right="p = softmax(x)", wrong="p = softmax(softmax(x))"
)
def softmax_applied_twice(cache: Entropy, grad_loss: Array) -> Array:
    """The scores are already probabilities when they come to a loss that applies softmax itself."""
    e = np.exp(cache.probabilities)
    return entropy_backward(cache._replace(probabilities=e / e.sum(cache.axis, keepdims=True)), grad_loss)


@mistake(CROSS_ENTROPY, cross_entropy, right="(T p - t) / N", wrong="T p / N")
def target_not_taken_off(cache: Entropy, grad_loss: Array) -> Array:
    """The gradient lacks the -1 at the label, so every score is pushed down."""
    T = cache.target.sum(cache.axis, keepdims=True)
    per_item = spread(grad_loss, cache.reduction, cache.divisor)
    return T * cache.probabilities * (np.expand_dims(per_item, cache.axis) if np.ndim(per_item) else per_item)


@mistake(
    CROSS_ENTROPY,
    cross_entropy,
    right="t = (1 - eps) [j = k] + eps / C",
    wrong="t = [j = k]",
)
def smoothing_in_the_forward_only(cache: Entropy, grad_loss: Array) -> Array:
    """The loss smooths its labels, the gradient is that of hard ones."""
    top = np.expand_dims(cache.target.argmax(cache.axis), cache.axis)
    hard = np.zeros_like(cache.target)
    np.put_along_axis(hard, top, cache.target.sum(cache.axis, keepdims=True), cache.axis)
    return entropy_backward(cache._replace(target=hard), grad_loss)


@mistake(
    CROSS_ENTROPY,
    cross_entropy,
    right="divide by the sum of the weights of the labels that count",
    wrong="divide by the number of items",
)
def weights_not_in_the_normaliser(cache: Entropy, grad_loss: Array) -> Array:
    """With class weights (or ignored labels) "mean" is a weighted mean; N items is another number."""
    return entropy_backward(cache._replace(divisor=items(cache)), grad_loss)


@mistake(
    (CROSS_ENTROPY, PROBABILITIES),
    cross_entropy,
    right="T p - t with T = sum(t)",
    wrong="(p - t / T), as if T were 1",
)
def class_weights_forgotten(cache: Entropy, grad_loss: Array) -> Array:
    """The loss weights its classes, the gradient counts all alike."""
    T = cache.target.sum(cache.axis, keepdims=True)
    target = np.divide(cache.target, T, out=np.zeros_like(cache.target), where=T != 0)
    return entropy_backward(cache._replace(target=target), grad_loss)


@mistake(
    PROBABILITIES,
    cross_entropy,
    right="divide by the number of items",
    wrong="divide by the number of items times classes",
)
def mean_over_classes_too(cache: Entropy, grad_loss: Array) -> Array:
    """The mean is taken over all numbers, as in the squared error, but a loss is the sum over the classes."""
    return entropy_backward(cache._replace(divisor=cache.probabilities.size), grad_loss)


@mistake(
    CROSS_ENTROPY,
    cross_entropy,
    right="-t sum of the other p, at the label",
    wrong="p - 1, at the label",
    kind=Kind.PRECISION,
    shows_in=("float32", "long batches"),
)
def p_minus_one(cache: Entropy, grad_loss: Array) -> Array:
    """The formula of the textbook: right, but p is rounded near 1, and when the loss is 1e-4 three digits of
    p - 1 are left."""
    p, t, axis, reduction, divisor = cache
    per_item = spread(grad_loss, reduction, divisor)
    grad = t.sum(axis, keepdims=True) * p - t
    return grad * (np.expand_dims(per_item, axis) if reduction == "none" else per_item)


# -- negative log-likelihood ------------------------------------------------------------------------


@mistake("NLLLoss", nll, right="-weight / (sum of weights)", wrong="-weight / (number of labels)")
def weights_not_in_the_mean(cache: nll.Cache, grad_loss: Array) -> Array:
    """With class weights "mean" divides by the sum of the weights of the labels, not by their number."""
    return nll_backward(cache._replace(divisor=(cache.row_weight != 0).sum()), grad_loss)


@mistake("NLLLoss", nll, right="-weight, at the label", wrong="weight, at the label")
def minus_forgotten(cache: nll.Cache, grad_loss: Array) -> Array:
    """The loss is minus the log-probability; without the sign it is made as unlikely as can be."""
    return -nll_backward(cache, grad_loss)


@mistake("NLLLoss", nll, right="0 at an ignored label", wrong="-1 at an ignored label")
def ignored_labels_count(cache: nll.Cache, grad_loss: Array) -> Array:
    """Items that the loss leaves out still get a gradient."""
    return nll_backward(
        cache._replace(row_weight=np.where(cache.row_weight == 0, 1, cache.row_weight)), grad_loss
    )


# -- losses of a difference: MSE keeps (x - target, reduction), L1 (sign, reduction) -----------------


@mistake("MSELoss", mse, right="2 (x - target) / n", wrong="(x - target) / n")
def two_forgotten(cache: mse.Cache, grad_loss: Array) -> Array:
    """The derivative of a square has a factor 2, unless the loss was written with 1/2."""
    return mse_backward(cache, grad_loss) / 2


@mistake("MSELoss", mse, right="2 (x - target) / n", wrong="2 (target - x) / n")
def difference_turned(cache: mse.Cache, grad_loss: Array) -> Array:
    """The square hides which is taken from which; the derivative does not."""
    return -mse_backward(cache, grad_loss)


@mistake("MSELoss", mse, right="n: the number of elements", wrong="n: the number of rows")
def mean_over_rows(cache: mse.Cache, grad_loss: Array) -> Array:
    """ "mean" is over all elements, outputs included, not over the batch alone."""
    grad = mse_backward(cache, grad_loss)
    return grad * (cache[0].size / len(cache[0])) if cache[1] == "mean" else grad


@mistake("L1Loss", l1, right="sign(x - target) / n", wrong="sign(x - target) / n^2")
def divided_twice(cache: l1.Cache, grad_loss: Array) -> Array:
    """The mean over the elements is taken twice."""
    sign, reduction = cache
    return sign * spread(grad_loss, reduction, sign.size**2)


def forward_that_keeps(x: Array, target: Array, reduction: str = "mean") -> tuple[Array, Any]:
    """Compute the mean absolute error, and keep the difference in place of its sign."""
    d = x - target
    return reduce(d * np.sign(d.real), reduction), (d, reduction)


@mistake(
    "L1Loss",
    l1,
    right="sign(x - target) / n",
    wrong="(x - target) / n",
    forward=forward_that_keeps,
)
def difference_for_sign(cache: l1.Cache, grad_loss: Array) -> Array:
    """The gradient of an absolute value does not grow with it; this is half the squared error's."""
    return cache[0] * spread(grad_loss, cache[1], cache[0].size)


@mistake(
    "L1Loss",
    l1,
    right="0 where x = target",
    wrong="1 where x = target",
    kind=Kind.KINK,
)
def slope_from_above(cache: l1.Cache, grad_loss: Array) -> Array:
    """At the kink the slope from above is taken, where PyTorch takes the middle, 0."""
    sign, reduction = cache
    return np.where(sign >= 0, 1, sign) * spread(grad_loss, reduction, sign.size)


# -- binary cross-entropy -----------------------------------------------------------------------------


@mistake("BCEWithLogitsLoss", bce_with_logits, right="no s - yes (1 - s)", wrong="the same without weights")
def weights_dropped(cache: bce_with_logits.Cache, grad_loss: Array) -> Array:
    """The loss weights elements and positive answers, the gradient counts all alike."""
    total = cache.yes + cache.no
    yes = np.divide(cache.yes, total, out=np.zeros_like(total), where=total != 0)
    return bce_backward(cache._replace(yes=yes, no=1 - yes), grad_loss)


@mistake("BCEWithLogitsLoss", bce_with_logits, right="s - t", wrong="(s - t) s (1 - s)")
def sigmoids_derivative_once_more(cache: bce_with_logits.Cache, grad_loss: Array) -> Array:
    """Right for the squared error of a sigmoid; with the logarithm that factor has cancelled."""
    s = sigmoid.forward(cache.x)[0]
    return bce_backward(cache, grad_loss) * s * (1 - s)


@mistake("BCEWithLogitsLoss", bce_with_logits, right="s - t", wrong="t - s")
def target_minus_prediction(cache: bce_with_logits.Cache, grad_loss: Array) -> Array:
    """The sign is turned: the loss rises at every step."""
    return -bce_backward(cache, grad_loss)


@mistake("BCEWithLogitsLoss", bce_with_logits, right="(s - t) / n", wrong="s - t")
def mean_forgotten(cache: bce_with_logits.Cache, grad_loss: Array) -> Array:
    """The mean of the forward has no counterpart: the gradient grows with the batch."""
    return bce_backward(cache._replace(reduction="sum"), grad_loss)


@mistake(
    "BCEWithLogitsLoss",
    bce_with_logits,
    right="no s(x) - yes s(-x)",
    wrong="(no + yes) s(x) - yes",
    kind=Kind.PRECISION,
    shows_in=("float32", "long batches"),
)
def sigmoid_minus_target(cache: bce_with_logits.Cache, grad_loss: Array) -> Array:
    """The formula of the textbook: right, but s is rounded near 1, and little is left of s - 1."""
    x, yes, no, reduction = cache
    slope = (no + yes) * sigmoid.forward(x)[0] - yes
    return slope * spread(grad_loss, reduction, x.size)
