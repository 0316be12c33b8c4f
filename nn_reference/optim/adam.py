"""Adam and AdamW: a step size for each element of its own."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nn_reference._arrays import Array, refuse
from nn_reference.module import Parameter
from nn_reference.optim.optimizer import Optimizer, Params, pieces


def update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    v_max: Array | None = None,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> None:
    """Change the parameter w and the moments m and v in place, all of one shape; g is left as it is.

    With t = ``step``, counted from 1::

        m = beta1 m + (1 - beta1) g         average of the gradient
        v = beta2 v + (1 - beta2) g^2       average of its square
        m^ = m / (1 - beta1^t)              m and v start at 0: this makes up for it,
        v^ = v / (1 - beta2^t)              since E(m) = (1 - beta1^t) E(g) for a constant E(g)
        w = w - lr m^ / (sqrt(v^) + eps)

    so an element moves by about lr whatever the size of its gradient. With ``v_max`` (amsgrad) the largest v
    so far takes its place. ``weight_decay`` adds ``weight_decay w`` to the gradient or, decoupled, shrinks w
    by the factor ``1 - lr weight_decay`` instead. Sources: Kingma and Ba (2015), algorithm 1; Reddi, Kale and
    Kumar (2018).
    """
    beta1, beta2 = betas
    if maximize:
        g = -g
    if weight_decay and decoupled_weight_decay:
        w *= 1 - lr * weight_decay
    elif weight_decay:
        g = g + weight_decay * w
    scratch = np.subtract(g, m, out=np.empty_like(w))
    scratch *= 1 - beta1
    m += scratch  # beta1 m + (1 - beta1) g = m + (1 - beta1) (g - m)
    np.multiply(g, g, out=scratch)
    scratch *= 1 - beta2
    v *= beta2
    v += scratch
    if v_max is not None:
        v = np.maximum(v_max, v, out=v_max)
    # m^ / (sqrt(v^) + eps) with both fractions taken out, which saves a pass over the array
    root = math.sqrt(1 - beta2**step)
    np.sqrt(v, out=scratch)
    scratch += eps * root
    np.divide(m, scratch, out=scratch)
    scratch *= lr * root / (1 - beta1**step)
    w -= scratch


class Adam(Optimizer):
    """``torch.optim.Adam``; `update` has the formulas."""

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        **unsupported: Any,
    ) -> None:
        refuse(type(self).__name__, **unsupported)
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad}
        ways = {"maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, settings | ways)

    def _check(self, settings: Mapping[str, Any]) -> None:
        super()._check(settings)
        betas = settings["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{type(self).__name__}: {betas=}, expected two numbers in [0, 1)")

    def _update(self, parameter: Parameter, grad: Array, settings: Mapping[str, Any]) -> None:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if settings["amsgrad"] else [])]
        if parameter not in self.state:
            self.state[parameter] = {"step": 0, **{name: np.zeros_like(parameter.data) for name in names}}
        state = self.state[parameter]
        state["step"] += 1
        moments = [state[name] for name in names]
        options = {key: settings[key] for key in self.defaults if key != "amsgrad"}
        options["betas"] = tuple(map(float, options["betas"]))
        for w, g, m, v, *v_max in pieces(parameter.data, grad, *moments):
            update(w, g, m, v, *v_max, step=state["step"], **options)


class AdamW(Adam):
    """``torch.optim.AdamW``: Adam whose weight decay does not pass through the moments.

    Added to the gradient, the decay would be divided by sqrt(v) like the rest, and weights with large
    gradients would decay least. Source: Loshchilov and Hutter (2019).
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **keywords: Any,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True, **keywords
        )
