"""The logarithm of softmax: scores to log-probabilities."""

import numpy as np

from nn_reference._arrays import Array
from nn_reference.softmax import Cache, Softmax, exponentials


def forward(x: Array, dim: int) -> tuple[Array, Cache]:
    """Compute ``y_i = log softmax(x)_i = x_i - log sum_j exp(x_j)`` along ``dim``; x, y (*), any shape."""
    y, _, rest = exponentials(x, dim)
    y -= np.log1p(rest)
    return y, (y, dim)


def backward(cache: Cache, grad_y: Array) -> Array:
    """Return ``grad_x = grad_y - exp(y) sum_i grad_y_i``.

    ``dy_i/dx_j = [i = j] - softmax(x)_j``, and softmax(x) is exp(y), so

        dL/dx_j = sum_i grad_y_i ([i = j] - exp(y_j)) = grad_y_j - exp(y_j) sum_i grad_y_i

    Source: Bishop (2006), section 4.3.4.
    """
    y, dim = cache
    return grad_y - np.exp(y) * grad_y.sum(dim, keepdims=True)


class LogSoftmax(Softmax):
    """``torch.nn.LogSoftmax``; ``dim`` must be given."""

    def _forward(self, x: Array) -> tuple[Array, Cache]:
        return forward(x, self.dim)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
