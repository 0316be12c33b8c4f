"""The exercise neuron, done by the engine."""

import numpy as np

from nn_reference import linear, sigmoid


def forward(x, w, b):
    z, first = linear.forward(x[None], w[None], np.atleast_1d(b))
    y, second = sigmoid.forward(z)
    return y[0, 0], (first, second)


def backward(cache, grad_y):
    first, second = cache
    grad_z = sigmoid.backward(second, np.reshape(grad_y, (1, 1)))
    grad_x, grad_w, grad_b = linear.backward(first, grad_z)
    return grad_x[0], grad_w[0], grad_b[0]
