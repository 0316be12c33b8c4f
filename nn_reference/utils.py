"""``torch.nn.utils``: clipping of gradients."""

from collections.abc import Iterable

import numpy as np

from nn_reference._arrays import Array
from nn_reference.module import Parameter


def clip_grad_norm_(
    parameters: Parameter | Iterable[Parameter],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Array:
    """Scale all gradients by one factor, so that together they have at most the norm ``max_norm``.

    Seen as one vector, the gradient keeps its direction. Returns the norm before, as a scalar of the
    gradients' dtype (0.0 if there are none). As in PyTorch the factor is ``max_norm / (norm + 1e-6)``, at
    most 1. Raises ValueError for a norm that is infinite or nan if ``error_if_nonfinite``. Source: Pascanu,
    Mikolov and Bengio (2013).
    """
    parameters = [parameters] if isinstance(parameters, Parameter) else parameters
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return np.asarray(0.0, np.float32)[()]
    norms = np.array([np.linalg.norm(g.reshape(-1), norm_type) for g in grads], grads[0].dtype)
    total: Array = np.asarray(np.linalg.norm(norms, norm_type), grads[0].dtype)[()]
    if error_if_nonfinite and not np.isfinite(total):
        raise ValueError(f"clip_grad_norm_: the norm of the gradients is {total}")
    factor = np.minimum(max_norm / (total + 1e-6), 1)
    for grad in grads:
        grad *= factor
    return total
