"""The exercise broadcast-bias, done by the engine: a linear layer whose weight is the identity."""

import numpy as np

from nn_reference import linear


def forward(x, bias):
    return linear.forward(x, np.eye(len(bias)), bias)


def backward(cache, grad_y):
    grad_x, _, grad_bias = linear.backward(cache, grad_y)
    return grad_x, grad_bias
