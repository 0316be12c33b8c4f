"""Stochastic gradient descent."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nn_reference._arrays import Array, refuse
from nn_reference.module import Parameter
from nn_reference.optim.optimizer import Optimizer, Params, pieces


def update(
    w: Array,
    g: Array,
    b: Array | None,
    first: bool,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
) -> None:
    """Change the parameter w and, if there is momentum, the velocity b in place; g is left as it is.

    With gradient g (plus ``weight_decay`` w, the gradient of weight_decay |w|^2 / 2), velocity b and momentum
    mu::

        b = mu b + (1 - dampening) g        (b = g the first time)
        w = w - lr b                        (nesterov: w - lr (g + mu b))

    A step along b goes on in the direction of the last ones, so that what alternates cancels. ``maximize``
    turns the sign of g. Sources: Polyak (1964); Sutskever et al. (2013), whose b has the learning rate
    inside.
    """
    if maximize:
        g = -g
    if weight_decay:
        g = g + weight_decay * w
    if b is not None:
        b *= momentum
        b += g if first else (1 - dampening) * g
        g = g + momentum * b if nesterov else b
    w -= lr * g


class SGD(Optimizer):
    """``torch.optim.SGD``; `update` has the formulas."""

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        **unsupported: Any,
    ) -> None:
        refuse("SGD", **unsupported)
        settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "nesterov": nesterov, "maximize": maximize})

    def _check(self, settings: Mapping[str, Any]) -> None:
        super()._check(settings)
        if settings["nesterov"] and (settings["momentum"] <= 0 or settings["dampening"] != 0):
            raise ValueError("SGD: nesterov needs a momentum and no dampening")

    def _update(self, parameter: Parameter, grad: Array, settings: Mapping[str, Any]) -> None:
        buffer, first = None, False
        if settings["momentum"]:
            state = self.state.setdefault(parameter, {})
            first = "momentum_buffer" not in state
            buffer = state.setdefault("momentum_buffer", np.zeros_like(parameter.data))
        options = {key: settings[key] for key in self.defaults}
        for w, g, b in pieces(parameter.data, grad, buffer):
            update(w, g, b, first, **options)
