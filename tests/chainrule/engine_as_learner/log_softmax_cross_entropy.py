"""The exercise log-softmax-cross-entropy, done by the engine."""

import numpy as np

from nn_reference import cross_entropy


def forward(x, labels):
    return cross_entropy.forward(x, labels)


def backward(cache, grad_loss=1.0):
    return cross_entropy.backward(cache, np.asarray(grad_loss))
