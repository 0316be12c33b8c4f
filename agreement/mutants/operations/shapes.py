"""Mistakes where numbers are only moved, or dropped."""

import numpy as np

from agreement.measures import Array
from agreement.mutants.operations._register import mistake
from nn_reference import dropout, flatten


@mistake("Flatten", flatten, right="grad_y in the shape of x", wrong="the same, column by column")
def wrong_order(cache: tuple[int, ...], grad_y: Array) -> Array:
    """The shape is that of x, but the numbers went in another order than forward took them out."""
    return grad_y.reshape(cache, order="F")


@mistake(
    "Identity",
    flatten.Identity,
    right="grad_x = 1 grad_y",
    wrong="grad_x = 1",
    attribute="_backward",
)
def derivative_for_gradient(self: flatten.Identity, cache: None, grad_y: Array, need_grad_x: bool) -> Array:
    """The derivative of x is 1, but the chain rule multiplies it by the gradient from above."""
    return np.ones_like(grad_y)


@mistake("Dropout", dropout, right="grad_x = grad_y mask", wrong="grad_x = grad_y")
def dropout_mask_forgotten(cache: Array, grad_y: Array) -> Array:
    """Units that were dropped learn from what they had no part in."""
    return grad_y.copy()


@mistake("Dropout", dropout, right="mask is 0 or 1 / (1 - p)", wrong="mask is 0 or 1")
def scale_forgotten(cache: Array, grad_y: Array) -> Array:
    """Forward scales what it keeps by 1 / (1 - p); so must backward."""
    return grad_y * (cache > 0)


@mistake("Dropout", dropout, right="mask is 0 or 1 / (1 - p)", wrong="mask is 0 or 1 - p")
def scale_turned_over(cache: Array, grad_y: Array) -> Array:
    """The scale is divided by where it should multiply."""
    return grad_y * np.divide(1, cache, out=np.zeros_like(cache), where=cache != 0)


@mistake("Dropout", dropout, right="the mask of the forward", wrong="a mask drawn anew")
def mask_drawn_anew(cache: Array, grad_y: Array) -> Array:
    """Backward draws its own units to drop."""
    return grad_y * np.roll(cache.reshape(-1), 1).reshape(cache.shape)
