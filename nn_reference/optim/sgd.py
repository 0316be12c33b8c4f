"""Stochastic gradient descent."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nn_reference._arrays import Array
from nn_reference.module import Parameter
from nn_reference.optim.optimizer import Optimizer, Params


class SGD(Optimizer):
    """``torch.optim.SGD``.

    With gradient g (plus ``weight_decay`` w, the gradient of weight_decay |w|^2 / 2), velocity b and momentum
    mu::

        b = mu b + (1 - dampening) g        (b = g the first time)
        w = w - lr b                        (nesterov: w - lr (g + mu b))

    A step along b goes on in the direction of the last ones, so that what alternates cancels. ``maximize``
    turns the sign of g. Sources: Polyak (1964); Sutskever et al. (2013), whose b has the learning rate
    inside.
    """

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
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "maximize": maximize,
            },
        )

    def _check(self, settings: Mapping[str, Any]) -> None:
        super()._check(settings)
        if settings["nesterov"] and (settings["momentum"] <= 0 or settings["dampening"] != 0):
            raise ValueError("SGD: nesterov needs a momentum and no dampening")

    def _update(self, parameter: Parameter, grad: Array, group: Mapping[str, Any]) -> None:
        lr, momentum = float(group["lr"]), float(group["momentum"])
        if group["maximize"]:
            grad = -grad
        if group["weight_decay"]:
            grad = grad + float(group["weight_decay"]) * parameter.data
        if momentum:
            state = self.state.setdefault(parameter, {})
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = np.copy(grad)
            else:
                state["momentum_buffer"] *= momentum
                state["momentum_buffer"] += (1 - float(group["dampening"])) * grad
            buffer = state["momentum_buffer"]
            grad = grad + momentum * buffer if group["nesterov"] else buffer
        parameter.data -= lr * grad
