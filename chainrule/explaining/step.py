"""One step of the optimizer from these gradients, and what it does to the loss."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import nn_reference
from chainrule.errors import ChainruleError, WrongUsage
from chainrule.explaining.subject import Subject
from chainrule.explaining.trace import Trace
from chainrule.recipe import Recipe
from chainrule.recipe_parts import Part


@dataclass(frozen=True)
class Step:
    """The update of all parameters, and the loss of the same examples before and after it.

    ``first_order`` is the sum of gradient times change over all parameters: the change of the loss if it were
    straight. Dropout has the same masks before and after.
    """

    optimizer: str
    arguments: dict[str, Any]  # all of them, the defaults too
    formula: str
    after: dict[str, np.ndarray] = field(repr=False)
    loss_before: float
    loss_after: float
    first_order: float


def with_optimizer(plan: Recipe, kind: str | None, learning_rate: float | None) -> Recipe:
    """Return the recipe with another optimizer, or the same with another learning rate.

    An optimizer that is not the recipe's has its own defaults, but for the learning rate.
    """
    part = plan.optimizer
    arguments = dict(part.arguments)
    if kind is not None and kind != part.type:
        arguments = {key: arguments[key] for key in ("lr",) if key in arguments}
        part = Part(kind, arguments)
    if learning_rate is not None:
        arguments["lr"] = learning_rate
    return replace(plan, optimizer=Part(part.type, arguments))


def step(subject: Subject, trace: Trace) -> Step:
    """Let the optimizer of the subject's recipe take its first step, from the engine's gradients.

    Raises WrongUsage if it cannot be made, ChainruleError if the step overflows.
    """
    network, _ = subject.fresh()
    parameters = dict(network.named_parameters())
    gradients = trace.gradients()
    for name, parameter in parameters.items():
        parameter.grad = gradients[name].copy()
    try:
        optimizer = subject.recipe.build_optimizer(nn_reference.optim, parameters.values())
    except (TypeError, ValueError) as error:
        raise WrongUsage(f"{subject.recipe.source}: {error}") from None
    with np.errstate(over="ignore", invalid="ignore"):
        optimizer.step()
        # The networks's masks have not been drawn yet: they are those of the trace.
        criterion = subject.recipe.build_loss(nn_reference)
        loss_after = float(criterion(network(subject.x), subject.target))
    if not np.isfinite(loss_after):
        raise ChainruleError(f"the loss after the step is {loss_after}: take a smaller --lr")
    after = {name: parameter.data for name, parameter in parameters.items()}
    before = trace.parameters()
    first_order = sum(float(np.vdot(gradients[name], after[name] - before[name])) for name in after)
    settings = dict(optimizer.param_groups[0])
    settings.pop("params")
    settings = {key: value for key, value in settings.items() if not isinstance(value, np.ndarray)}
    part = subject.recipe.optimizer
    formula = _formula(part.type, settings)
    return Step(part.type, settings, formula, after, trace.loss, loss_after, first_order)


def _formula(kind: str, settings: dict[str, Any]) -> str:
    decay = settings["weight_decay"]
    if kind == "SGD":
        gradient = "(dL/dw + decay w)" if decay else "dL/dw"
        momentum = " (the first step: momentum has nothing to add yet)" if settings["momentum"] else ""
        if settings["nesterov"]:
            gradient, momentum = f"(1 + momentum) {gradient}", " (Nesterov, the first step)"
        return f"w <- w - lr · {gradient}{momentum}"
    gradient = "g = dL/dw + decay w" if decay and kind == "Adam" else "g = dL/dw"
    shrunk = "(1 - lr decay) w" if decay and kind == "AdamW" else "w"
    return f"w <- {shrunk} - lr · g / (|g| + eps), {gradient} (the first step: m^ = g, v^ = g²)"
