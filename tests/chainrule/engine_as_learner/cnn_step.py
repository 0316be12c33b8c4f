"""The exercise cnn-step, done by the engine."""

import numpy as np

import nn_reference as nn


def forward(x, kernel, kernel_bias, weight, bias, labels):
    network = nn.Sequential(
        nn.Conv2d(1, len(kernel), 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(*weight.shape[::-1])
    )
    for parameter, value in zip(network.parameters(), (kernel, kernel_bias, weight, bias), strict=True):
        parameter.data = value.copy()
    criterion = nn.CrossEntropyLoss()
    return criterion(network(x), labels), (network, criterion)


def backward(cache, grad_loss=1.0):
    network, criterion = cache
    network.zero_grad()
    network.backward(criterion.backward(np.asarray(grad_loss)), input_grad=False)
    return tuple(parameter.grad for parameter in network.parameters())
