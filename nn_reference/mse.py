"""Mean squared error."""

from nn_reference._arrays import Array
from nn_reference.loss import Loss, reduce, spread

Cache = tuple[Array, str]


def forward(x: Array, target: Array, reduction: str = "mean") -> tuple[Array, Cache]:
    """Compute ``(x - target)^2``, reduced; x and target (*) have one shape."""
    d = x - target
    return reduce(d * d, reduction), (d, reduction)


def backward(cache: Cache, grad_loss: Array) -> Array:
    """Return ``grad_x = 2 (x - target) grad_loss``, divided by the number of elements for "mean".

    By the chain rule with ``d = x - target``, ``d(d^2)/dx = 2 d dd/dx = 2 d``. Source: Bishop (2006), section
    3.1.1.
    """
    d, reduction = cache
    return 2 * d * spread(grad_loss, reduction, d.size)


class MSELoss(Loss):
    """``torch.nn.MSELoss``; input and target must have the same shape."""

    def _forward(self, x: Array, target: Array) -> tuple[Array, Cache]:
        self._check_same(x, target)
        return forward(x, target, self.reduction)

    def _backward(self, cache: Cache, grad_y: Array, need_grad_x: bool) -> Array:
        return backward(cache, grad_y)
