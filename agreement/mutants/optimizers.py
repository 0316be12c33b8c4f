"""Mistakes in the update, the clipping and the schedule: all gradients are right.

Most of them show only with certain settings (Nesterov's without Nesterov momentum is no mistake), so
`SHOWN_BY` gives for each the optimizer, schedule and clipping with which it does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.mutants.mutant import Kind, Mutant
from agreement.tracing import ReferenceEngine
from nn_reference.optim import adam, lr_scheduler, sgd


@dataclass(frozen=True)
class Setup:
    """An optimizer with its settings, a schedule with its own, and a norm to clip to."""

    name: str
    settings: Mapping[str, Any]
    scheduler: tuple[str, Mapping[str, Any]] | None = None
    clip: float | None = None

    def optimizer(self, optim: Any, parameters: Any) -> Any:
        """Return the optimizer of ``nn_reference.optim`` or ``torch.optim``."""
        return getattr(optim, self.name)(parameters, **self.settings)

    def schedule(self, schedulers: Any, optimizer: Any) -> Any:
        """Return the schedule, a constant one if there is none."""
        name, settings = self.scheduler or ("StepLR", {"step_size": 10**9})
        return getattr(schedulers, name)(optimizer, **settings)


_sgd, _adam = sgd.update, adam.update
_clip = nn.utils.clip_grad_norm_


def _dampened(w: Any, g: Any, b: Any, first: bool, **options: Any) -> None:
    _sgd(w, g, b, False, **{**options, "dampening": options["momentum"]})


def _no_look_ahead(w: Any, g: Any, b: Any, first: bool, **options: Any) -> None:
    _sgd(w, g, b, first, **{**options, "nesterov": False})


def _first_velocity_scaled(w: Any, g: Any, b: Any, first: bool, **options: Any) -> None:
    _sgd(w, g, b, False, **options)


def _maximize_ignored(w: Any, g: Any, b: Any, first: bool, **options: Any) -> None:
    _sgd(w, g, b, first, **{**options, "maximize": False})


def _decay_of_biases_only(w: Any, g: Any, b: Any, first: bool, **options: Any) -> None:
    _sgd(w, g, b, first, **{**options, "weight_decay": options["weight_decay"] * (w.ndim == 1)})


def _decay_sign_turned(w: Any, g: Any, b: Any, first: bool, **options: Any) -> None:
    _sgd(w, g, b, first, **{**options, "weight_decay": -options["weight_decay"]})


def _decay_past_the_velocity(w: Any, g: Any, b: Any, first: bool, **options: Any) -> None:
    w *= 1 - options["lr"] * options["weight_decay"]
    _sgd(w, g, b, first, **{**options, "weight_decay": 0})


def _rate_inside_velocity(w: Any, g: Any, b: Any, first: bool, lr: float, **options: Any) -> None:
    _sgd(w, lr * g, b, first, lr=1.0, **options)


def _velocity_unused(w: Any, g: Any, b: Any, first: bool, **options: Any) -> None:
    _sgd(w.copy(), g, b, first, **options)
    w -= options["lr"] * g


def _eps_inside_root(w: Any, g: Any, m: Any, v: Any, v_max: Any = None, *, step: int, **options: Any) -> None:
    lr, (beta1, beta2), eps = options["lr"], options["betas"], options["eps"]
    _adam(w.copy(), g, m, v, v_max, step=step, **options)  # moves the moments
    w -= lr * m / (1 - beta1**step) / np.sqrt(v / (1 - beta2**step) + eps)


def _eps_before_correction(
    w: Any, g: Any, m: Any, v: Any, v_max: Any = None, *, step: int, **options: Any
) -> None:
    correction = np.sqrt(1 - options["betas"][1] ** step).item()
    _adam(w, g, m, v, v_max, step=step, **{**options, "eps": options["eps"] / correction})


def _no_bias_correction(
    w: Any, g: Any, m: Any, v: Any, v_max: Any = None, *, step: int, **options: Any
) -> None:
    _adam(w, g, m, v, v_max, step=10**9, **options)  # where beta^t is 0


def _second_uncorrected(
    w: Any, g: Any, m: Any, v: Any, v_max: Any = None, *, step: int, **options: Any
) -> None:
    lr = options["lr"] / (1 - options["betas"][0] ** step)
    _adam(w, g, m, v, v_max, step=10**9, **{**options, "lr": lr})


def _powers_off_by_one(
    w: Any, g: Any, m: Any, v: Any, v_max: Any = None, *, step: int, **options: Any
) -> None:
    _adam(w, g, m, v, v_max, step=step + 1, **options)


def _betas_swapped(w: Any, g: Any, m: Any, v: Any, v_max: Any = None, *, step: int, **options: Any) -> None:
    _adam(w, g, m, v, v_max, step=step, **{**options, "betas": options["betas"][::-1]})


def _not_squared(w: Any, g: Any, m: Any, v: Any, v_max: Any = None, *, step: int, **options: Any) -> None:
    old = v.copy()
    _adam(w.copy(), g, m, v, v_max, step=step, **options)
    beta1, beta2 = options["betas"]
    v[...] = beta2 * old + (1 - beta2) * np.abs(g)
    w -= options["lr"] * m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + options["eps"])


def _largest_forgotten(w: Any, g: Any, m: Any, v: Any, v_max: Any = None, **options: Any) -> None:
    _adam(w, g, m, v, None, **options)


def _decoupled(w: Any, g: Any, m: Any, v: Any, v_max: Any = None, **options: Any) -> None:
    _adam(w, g, m, v, v_max, **{**options, "decoupled_weight_decay": True})


def _coupled(w: Any, g: Any, m: Any, v: Any, v_max: Any = None, **options: Any) -> None:
    _adam(w, g, m, v, v_max, **{**options, "decoupled_weight_decay": False})


def _decay_without_rate(w: Any, g: Any, m: Any, v: Any, v_max: Any = None, **options: Any) -> None:
    w *= 1 - options["weight_decay"]
    _adam(w, g, m, v, v_max, **{**options, "weight_decay": 0.0})


_adam_update = adam.Adam._update


def _count_forgotten(self: Any, parameter: Any, grad: Any, settings: Any) -> None:
    _adam_update(self, parameter, grad, settings)
    self.state[parameter]["step"] = 0


def _one_step_early(self: Any, group: Any) -> Any:
    due = (self.last_epoch + 1) % self.step_size == 0
    return group["lr"] * self.gamma if due else group["lr"]


def _from_last_rate_times_t(self: Any, group: Any) -> Any:
    return group["lr"] * self.gamma**self.last_epoch


def _clip_too_late(self: Any) -> None:
    """Do nothing: what is clipped after the step is forgotten by the next zero_grad."""


def _clip_each_alone(self: Any) -> None:
    if self.max_norm is not None:
        for parameter in self.network.parameters():
            _clip(parameter, self.max_norm)


SHOWN_BY: dict[str, Setup] = {}


def _optimizer(
    name: str,
    setup: Setup,
    mistake: str,
    right: str,
    wrong: str,
    place: tuple[Any, str],
    function: Any,
    operation: str = "",
) -> Mutant:
    SHOWN_BY[name] = setup
    return Mutant(name, operation or setup.name, Kind.OPTIMIZER, mistake, right, wrong, *place, function)


_SGD, _ADAM = (sgd, "update"), (adam, "update")
_MOMENTUM = {"lr": 0.1, "momentum": 0.9}
_DEFAULTS = {"lr": 0.01}

OPTIMIZERS: tuple[Mutant, ...] = (
    _optimizer(
        "sgd-momentum-dampened",
        Setup("SGD", _MOMENTUM),
        "The velocity is written as an average, as in Adam, so that it is ten times shorter.",
        "b = mu b + g",
        "b = mu b + (1 - mu) g",
        _SGD,
        _dampened,
    ),
    _optimizer(
        "sgd-velocity-unused",
        Setup("SGD", _MOMENTUM),
        "The velocity is kept, but the step is taken along the gradient.",
        "w = w - lr b",
        "w = w - lr g",
        _SGD,
        _velocity_unused,
    ),
    _optimizer(
        "sgd-first-velocity-scaled",
        Setup("SGD", {**_MOMENTUM, "dampening": 0.3}),
        "The first velocity is dampened like the others, though there is nothing yet to dampen against.",
        "b = g the first time",
        "b = (1 - dampening) g the first time",
        _SGD,
        _first_velocity_scaled,
    ),
    _optimizer(
        "sgd-no-look-ahead",
        Setup("SGD", {**_MOMENTUM, "nesterov": True}),
        "Nesterov's step is taken along the velocity, without looking ahead.",
        "w = w - lr (g + mu b)",
        "w = w - lr b",
        _SGD,
        _no_look_ahead,
    ),
    _optimizer(
        "sgd-rate-inside-velocity",
        Setup("SGD", _MOMENTUM, ("StepLR", {"step_size": 2})),
        "The learning rate goes into the velocity, which then remembers old rates when the rate changes.",
        "b = mu b + g, w = w - lr b",
        "b = mu b + lr g, w = w - b",
        _SGD,
        _rate_inside_velocity,
    ),
    _optimizer(
        "sgd-maximize-ignored",
        Setup("SGD", {**_MOMENTUM, "maximize": True}),
        "What should grow is made to fall.",
        "g = -g if maximize",
        "g = g",
        _SGD,
        _maximize_ignored,
    ),
    _optimizer(
        "sgd-decay-of-biases-only",
        Setup("SGD", {**_MOMENTUM, "weight_decay": 0.01}),
        "The test for what must not decay is the wrong way round: biases decay, weights do not.",
        "g = g + c w for every w",
        "g = g + c w for biases only",
        _SGD,
        _decay_of_biases_only,
    ),
    _optimizer(
        "sgd-decay-sign-turned",
        Setup("SGD", {**_MOMENTUM, "weight_decay": 0.01}),
        "The decay is subtracted from the gradient, so that weights grow.",
        "g = g + c w",
        "g = g - c w",
        _SGD,
        _decay_sign_turned,
    ),
    _optimizer(
        "sgd-decay-past-the-velocity",
        Setup("SGD", {**_MOMENTUM, "weight_decay": 0.01}),
        "The decay shrinks the weight itself, past the velocity, as only AdamW does.",
        "b = mu b + g + c w, w = w - lr b",
        "b = mu b + g, w = (1 - lr c) w - lr b",
        _SGD,
        _decay_past_the_velocity,
    ),
    _optimizer(
        "adam-eps-inside-root",
        Setup("Adam", _DEFAULTS),
        "eps is added before the root, where 1e-8 acts as 1e-4 does outside.",
        "w = w - lr m^ / (sqrt(v^) + eps)",
        "w = w - lr m^ / sqrt(v^ + eps)",
        _ADAM,
        _eps_inside_root,
    ),
    _optimizer(
        "adam-eps-before-correction",
        Setup("Adam", {**_DEFAULTS, "eps": 1e-4}),
        "eps is added to sqrt(v) before the bias correction, which then enlarges it too.",
        "w = w - lr m^ / (sqrt(v) / sqrt(1 - beta2^t) + eps)",
        "w = w - lr m^ / ((sqrt(v) + eps) / sqrt(1 - beta2^t))",
        _ADAM,
        _eps_before_correction,
    ),
    _optimizer(
        "adam-no-bias-correction",
        Setup("Adam", _DEFAULTS),
        "The moments start at 0, and nothing makes up for it.",
        "m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)",
        "m^ = m, v^ = v",
        _ADAM,
        _no_bias_correction,
    ),
    _optimizer(
        "adam-second-uncorrected",
        Setup("Adam", _DEFAULTS),
        "Only the first moment is corrected; the first steps are thirty times too long.",
        "v^ = v / (1 - beta2^t)",
        "v^ = v",
        _ADAM,
        _second_uncorrected,
    ),
    _optimizer(
        "adam-powers-off-by-one",
        Setup("Adam", _DEFAULTS),
        "The step is counted once more before its powers are taken.",
        "m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)",
        "m^ = m / (1 - beta1^(t+1)), v^ = v / (1 - beta2^(t+1))",
        _ADAM,
        _powers_off_by_one,
    ),
    _optimizer(
        "adam-count-forgotten",
        Setup("Adam", _DEFAULTS),
        "The count of steps is kept in a local variable: every step is corrected as if it were the first.",
        "t = t + 1, kept",
        "t = 1",
        (adam.Adam, "_update"),
        _count_forgotten,
    ),
    _optimizer(
        "adam-betas-swapped",
        Setup("Adam", _DEFAULTS),
        "The two betas change places.",
        "m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2",
        "m = beta2 m + (1 - beta2) g, v = beta1 v + (1 - beta1) g^2",
        _ADAM,
        _betas_swapped,
    ),
    _optimizer(
        "adam-not-squared",
        Setup("Adam", _DEFAULTS),
        "The second moment averages |g| instead of its square.",
        "v = beta2 v + (1 - beta2) g^2",
        "v = beta2 v + (1 - beta2) |g|",
        _ADAM,
        _not_squared,
    ),
    _optimizer(
        "adam-amsgrad-largest-forgotten",
        Setup("Adam", {**_DEFAULTS, "amsgrad": True}),
        "amsgrad divides by the second moment itself, not by the largest so far.",
        "v^ = max of all v so far / (1 - beta2^t)",
        "v^ = v / (1 - beta2^t)",
        _ADAM,
        _largest_forgotten,
    ),
    _optimizer(
        "adam-decay-decoupled",
        Setup("Adam", {**_DEFAULTS, "weight_decay": 0.01}),
        "Adam's decay is AdamW's.",
        "g = g + c w",
        "w = (1 - lr c) w",
        _ADAM,
        _decoupled,
    ),
    _optimizer(
        "adamw-decay-coupled",
        Setup("AdamW", _DEFAULTS),
        "AdamW's decay goes through the moments, as Adam's does.",
        "w = (1 - lr c) w",
        "g = g + c w",
        _ADAM,
        _coupled,
    ),
    _optimizer(
        "adamw-decay-without-rate",
        Setup("AdamW", _DEFAULTS),
        "The decay forgets the learning rate, and is a hundred times too strong.",
        "w = (1 - lr c) w",
        "w = (1 - c) w",
        _ADAM,
        _decay_without_rate,
    ),
    _optimizer(
        "step-lr-one-early",
        Setup("SGD", _MOMENTUM, ("StepLR", {"step_size": 3})),
        "The rate falls one step early.",
        "lr = lr gamma if t % step_size == 0",
        "lr = lr gamma if (t + 1) % step_size == 0",
        (lr_scheduler.StepLR, "_next"),
        _one_step_early,
        "StepLR",
    ),
    _optimizer(
        "exponential-lr-compounded",
        Setup("SGD", _MOMENTUM, ("ExponentialLR", {"gamma": 0.9})),
        "The closed form is applied to the last rate instead of the first.",
        "lr_t = lr_(t-1) gamma = lr_0 gamma^t",
        "lr_t = lr_(t-1) gamma^t",
        (lr_scheduler.ExponentialLR, "_next"),
        _from_last_rate_times_t,
        "ExponentialLR",
    ),
    _optimizer(
        "clip-after-step",
        Setup("SGD", _MOMENTUM, clip=0.05),
        "The gradients are clipped after the step that they should have shortened.",
        "clip_grad_norm_(parameters); optimizer.step()",
        "optimizer.step(); clip_grad_norm_(parameters)",
        (ReferenceEngine, "clip"),
        _clip_too_late,
        "clip_grad_norm_",
    ),
    _optimizer(
        "clip-each-alone",
        Setup("SGD", _MOMENTUM, clip=0.05),
        "Each tensor is clipped by its own norm, which turns the direction of the whole.",
        "factor = max_norm / norm of all gradients",
        "factor = max_norm / norm of this gradient",
        (ReferenceEngine, "clip"),
        _clip_each_alone,
        "clip_grad_norm_",
    ),
)
