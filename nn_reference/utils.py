"""``torch.nn.utils``: clipping of gradients; and all parameters as one vector."""

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


class Vector(Parameter):
    """Parameters laid end to end in one array, and their gradients in another.

    Given to an optimizer in place of the parameters themselves, it is updated in one go; every formula of an
    optimizer is element by element, so that nothing changes but the time. Each parameter's ``data`` becomes a
    view of this one's, with its own order in memory, and a layer computes its gradient where it belongs
    if it can. A parameter that has no gradient while others have one counts as having zeros. ``data`` and
    ``grad``, if given, are the arrays that it uses.
    """

    def __init__(
        self, parameters: Iterable[Parameter], data: Array | None = None, grad: Array | None = None
    ) -> None:
        self.parameters = list(parameters)
        super().__init__(np.concatenate([p.data.ravel("K") for p in self.parameters], out=data))
        self._grad = np.zeros_like(self.data) if grad is None else grad
        stop = 0
        for p in self.parameters:
            start, stop = stop, stop + p.data.size
            transposed = p.data.flags.f_contiguous
            shape = p.shape[::-1] if transposed else p.shape
            data, spare = (vector[start:stop].reshape(shape) for vector in (self.data, self._grad))
            p.data, p.spare = (data.T, spare.T) if transposed else (data, spare)

    @property
    def grad(self) -> Array | None:
        """The gradients of all parameters, or None if none has one."""
        if all(p.grad is None for p in self.parameters):
            return None
        for p in self.parameters:
            if p.grad is not p.spare and p.spare is not None:
                p.spare[...] = 0 if p.grad is None else p.grad
                p.grad = p.spare
        return self._grad

    @grad.setter
    def grad(self, value: Array | None) -> None:
        for p in self.parameters:
            p.grad = None if value is None else p.spare
        if value is not None:
            self._grad[...] = value
