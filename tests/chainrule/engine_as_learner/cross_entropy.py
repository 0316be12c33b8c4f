"""The exercise cross-entropy, done by the engine: the negative log-likelihood of the logarithm."""

import numpy as np

from nn_reference import nll


def forward(p, labels):
    loss, cache = nll.forward(np.log(p), labels)
    return loss, (p, cache)


def backward(cache, grad_loss=1.0):
    p, cache = cache
    return nll.backward(cache, np.asarray(grad_loss)) / p
