"""Mistakes in softmax and its logarithm; sums are over the classes, along the cache's axis."""

import numpy as np

from agreement.measures import Array
from agreement.mutants.operations._register import mistake
from nn_reference import log_softmax, softmax

Cache = softmax.Cache


@mistake("Softmax", softmax, right="y (grad_y - sum(grad_y y))", wrong="grad_y y (1 - y)")
def diagonal_only(cache: Cache, grad_y: Array) -> Array:
    """Each probability depends on all scores; the derivative of sigmoid is only the Jacobian's diagonal."""
    return grad_y * cache[0] * (1 - cache[0])


@mistake("Softmax", softmax, right="y (grad_y - sum(grad_y y))", wrong="grad_y")
def jacobian_forgotten(cache: Cache, grad_y: Array) -> Array:
    """Right only where the loss's gradient p - y already is with respect to the scores."""
    return grad_y.copy()


@mistake("Softmax", softmax, right="y (grad_y - sum(grad_y y))", wrong="y (grad_y - sum(grad_y))")
def sum_without_probabilities(cache: Cache, grad_y: Array) -> Array:
    """What is taken off must be the mean of grad_y weighted by y."""
    y, dim = cache
    return y * (grad_y - grad_y.sum(dim, keepdims=True))


@mistake("Softmax", softmax, right="y (grad_y - sum(grad_y y))", wrong="y grad_y")
def normaliser_is_constant(cache: Cache, grad_y: Array) -> Array:
    """The sum in the denominator is treated as a number that does not depend on x."""
    return cache[0] * grad_y


@mistake("LogSoftmax", log_softmax, right="grad_y - p sum(grad_y)", wrong="grad_y - p grad_y")
def sum_forgotten(cache: Cache, grad_y: Array) -> Array:
    """Each score is in the normaliser of every class, so all their gradients must be summed."""
    return grad_y - np.exp(cache[0]) * grad_y


@mistake("LogSoftmax", log_softmax, right="p = exp(y)", wrong="p = y")
def log_for_probability(cache: Cache, grad_y: Array) -> Array:
    """The output is taken for the probability, but it is its logarithm."""
    y, dim = cache
    return grad_y - y * grad_y.sum(dim, keepdims=True)


@mistake("LogSoftmax", log_softmax, right="grad_y - p sum(grad_y)", wrong="p (grad_y - sum(grad_y p))")
def backward_of_softmax(cache: Cache, grad_y: Array) -> Array:
    """The logarithm has no derivative: this is the gradient of softmax alone."""
    p = np.exp(cache[0])
    return p * (grad_y - (grad_y * p).sum(cache[1], keepdims=True))
