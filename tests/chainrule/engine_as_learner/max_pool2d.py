"""The exercise max-pool2d, done by the engine."""

import nn_reference as nn


def forward(x, kernel_size=2, stride=2):
    layer = nn.MaxPool2d(kernel_size, stride)
    return layer(x), layer


def backward(cache, grad_y):
    return cache.backward(grad_y)
