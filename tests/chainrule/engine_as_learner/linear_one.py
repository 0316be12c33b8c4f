"""The exercise linear-one, done by the engine."""

from nn_reference import linear


def forward(x, weight, bias):
    y, cache = linear.forward(x[None], weight, bias)
    return y[0], cache


def backward(cache, grad_y):
    grad_x, grad_weight, grad_bias = linear.backward(cache, grad_y[None])
    return grad_x[0], grad_weight, grad_bias
