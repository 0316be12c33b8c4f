"""The exercise batchnorm, done by the engine."""

from nn_reference import batchnorm


def forward(x, weight, bias, eps=1e-5):
    y, cache, _ = batchnorm.forward(x, weight, bias, eps)
    return y, cache


def backward(cache, grad_y):
    return batchnorm.backward(cache, grad_y)
