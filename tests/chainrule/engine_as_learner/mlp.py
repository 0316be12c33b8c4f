"""The exercise mlp, done by the engine."""

from nn_reference import linear, relu


def forward(x, w1, b1, w2, b2):
    h, first = linear.forward(x, w1, b1)
    a, active = relu.forward(h)
    y, second = linear.forward(a, w2, b2)
    return y, (first, active, second)


def backward(cache, grad_y):
    first, active, second = cache
    grad_a, grad_w2, grad_b2 = linear.backward(second, grad_y)
    grad_x, grad_w1, grad_b1 = linear.backward(first, relu.backward(active, grad_a))
    return grad_x, grad_w1, grad_b1, grad_w2, grad_b2
