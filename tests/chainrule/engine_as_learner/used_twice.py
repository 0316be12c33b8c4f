"""The exercise used-twice, done by the engine: one module in two places, one gradient for both."""

import nn_reference as nn


def forward(x, weight):
    shared = nn.Linear(*weight.shape, bias=False, dtype=weight.dtype)
    shared.weight.data = weight.copy()
    network = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh())
    return network(x), (network, shared)


def backward(cache, grad_y):
    network, shared = cache
    network.zero_grad()
    return network.backward(grad_y), shared.weight.grad
