"""The exercise mse, done by the engine."""

import numpy as np

from nn_reference import mse


def forward(x, target):
    return mse.forward(x, target)


def backward(cache, grad_loss=1.0):
    return mse.backward(cache, np.asarray(grad_loss))
