"""What all losses share: the reduction to one number, and a backward that starts from 1."""

from typing import Any

import numpy as np
import numpy.typing as npt

from nn_reference._arrays import Array, check_choice, check_floating
from nn_reference.layer import Layer


def reduce(losses: Array, reduction: str, count: Any = None) -> Array:
    """Return the losses themselves ("none"), their sum, or their sum divided by ``count`` ("mean").

    ``count`` is their number if None; with class weights it is the sum of the weights. The mean of no losses
    is nan, as in PyTorch.
    """
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else divide(total, losses.size if count is None else count)


def spread(grad_loss: Array, reduction: str, count: Any) -> Array:
    """Return the gradient of each loss before the reduction, which broadcasts against the losses.

    The derivative of a sum with respect to each term is 1, of the mean 1 / count (of no losses 0, as in
    PyTorch).
    """
    if reduction == "mean":
        return divide(grad_loss, count) if count else np.zeros_like(grad_loss)
    return grad_loss


def divide(a: Array, count: Any) -> Array:
    """Divide in the dtype of ``a``, quietly giving nan for 0 / 0 (a batch without losses)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(a / np.asarray(count, a.dtype))[()]


class Loss(Layer):
    """A layer whose last step is a reduction: ``loss = criterion(input, target)``."""

    def __init__(self, reduction: str = "mean") -> None:
        check_choice(type(self).__name__, "reduction", reduction, ("none", "mean", "sum"))
        self.reduction = reduction

    def forward(self, input: Array, target: Any) -> Array:
        """Compute the loss and remember what `backward` needs."""
        return super().forward(input, target)[()]

    def backward(self, grad_output: npt.ArrayLike | None = None, input_grad: bool = True) -> Array | None:
        """Return the gradient with respect to the input, in its shape and dtype.

        ``grad_output``, the gradient of what is minimised with respect to this loss, is 1 if None; with
        ``reduction="none"`` it must be given, in the shape of the losses.
        """
        pending = self._last_pending()
        if grad_output is None:
            if pending.output_shape != ():
                name = type(self).__name__
                raise ValueError(f"{name}.backward: reduction='none' needs the gradient of each loss")
            grad_output = 1
        return super().backward(np.asarray(grad_output, pending.output_dtype), input_grad)

    def _register(self, name: str, weight: Any) -> None:
        """Keep a weight as a buffer; TypeError unless it is None or an array of floating-point numbers."""
        if weight is not None:
            check_floating(type(self).__name__, name, weight)
        self.register_buffer(name, weight)

    def _check_same(self, x: Array, target: Any) -> None:
        """Raise unless ``target`` has the shape of ``x`` and would not change its dtype."""
        name = type(self).__name__
        if np.shape(target) != x.shape:
            raise ValueError(f"{name}: target has shape {np.shape(target)}, expected {x.shape} as the input")
        if np.result_type(x, target) != x.dtype:
            raise TypeError(f"{name}: target is {target.dtype} but the input is {x.dtype}")
