"""The same gradients, found without the engine's backward: PyTorch's autograd, and finite differences."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

import nn_reference
from chainrule.errors import ChainruleError
from chainrule.explaining.subject import Subject
from chainrule.explaining.trace import Trace


def autograd(subject: Subject, trace: Trace) -> tuple[float, dict[str, np.ndarray]]:
    """Return the loss and every parameter's gradient as PyTorch finds them, in float64.

    Dropout's masks are those that the engine drew. PyTorch must be installed.
    """
    import torch

    plan = subject.recipe
    network = plan.build(torch.nn).double().train(subject.training)
    state = {key: torch.from_numpy(value) for key, value in subject.network.state_dict().items()}
    network.load_state_dict(state)
    x = torch.from_numpy(subject.x.copy())
    for (_, module), layer in zip(network.named_children(), trace.layers, strict=True):
        if layer.kind == "Dropout":
            x = x if layer.cache is None else x * torch.from_numpy(np.ascontiguousarray(layer.cache))
        else:
            x = module(x)
    criterion = plan.build_loss(torch.nn)
    loss = criterion(x, torch.from_numpy(subject.target.copy()))
    loss.backward()
    return loss.item(), {name: parameter.grad.numpy() for name, parameter in network.named_parameters()}


@dataclass(frozen=True)
class Difference:
    """A central difference: (L(w + h) - L(w - h)) / 2h, with everything that went into it.

    ``kink`` names the layer that has one between w - h and w + h (ReLU's zero, another winner of a window):
    then the difference mixes two slopes, and need not be the gradient.
    """

    h: float
    loss_above: float
    loss_below: float
    value: float
    kink: str | None = None


def differences(subject: Subject, parameter: str, indices: Iterable[tuple[int, ...]]) -> list[Difference]:
    """Return the finite difference of some elements of one parameter, such as "fc1.weight".

    h is the cube root of the machine epsilon, times the parameter's size where that is above 1: there
    rounding and the formula err alike. Source: Press et al., *Numerical Recipes* (2007), section 5.7.
    Raises ChainruleError if the loss overflows there.
    """
    network, criterion = subject.fresh()
    data = dict(network.named_parameters())[parameter].data
    found = []
    for index in indices:
        value = float(data[index])
        h = float(np.cbrt(np.finfo(np.float64).eps)) * max(1.0, abs(value))
        above, below = value + h, value - h
        sides = []
        for moved in (above, below):
            data[index] = moved
            sides.append(_forward(subject, network, criterion))
        data[index] = value
        (up, pattern_up), (down, pattern_down) = sides
        if not (np.isfinite(up) and np.isfinite(down)):
            raise ChainruleError(f"the loss overflows beside {parameter}: use smaller numbers")
        kink = next(
            (name for name in pattern_up if not np.array_equal(pattern_up[name], pattern_down[name])), None
        )
        found.append(Difference(h, up, down, (up - down) / (above - below), kink))
    return found


def _forward(subject: Subject, network: Any, criterion: Any) -> tuple[float, dict[str, np.ndarray]]:
    """Return the loss, and on which side of its kinks each layer is; draw the masks anew, but the same."""
    draws = [module.generator for module in network.modules() if isinstance(module, nn_reference.Dropout)]
    states = {id(generator): (generator, copy.deepcopy(generator.bit_generator.state)) for generator in draws}
    tape = nn_reference.Tape(network)
    with np.errstate(over="ignore", invalid="ignore"), nn_reference.no_grad(), tape:
        loss = float(criterion(network(subject.x), subject.target))
    for generator, state in states.values():
        generator.bit_generator.state = state
    sides = {}
    for call in tape.calls:
        if isinstance(call.layer, nn_reference.ReLU | nn_reference.LeakyReLU):
            sides[call.name] = call.inputs[0] > 0
        elif isinstance(call.layer, nn_reference.MaxPool2d):
            sides[call.name] = call.cache[1]
    return loss, sides
