"""``chainrule explain neuron``: the classic single step, every factor by name and number, on the screen."""

import json
import math
from dataclasses import asdict, astuple
from typing import Any

import numpy as np

from chainrule import neuron as one
from chainrule.engines import torch_is_installed
from chainrule.errors import ChainruleError, WrongUsage
from chainrule.neuron import Neuron, Step


def show(x: str, w: str, b: float, activation: str, target: str, learning_rate: float, as_json: bool) -> None:
    """Print one step of the neuron; the texts are what a person wrote.

    Raises WrongUsage for texts that are no numbers, ChainruleError for numbers that overflow.
    """
    inputs, weights, targets = _numbers("--x", x), _numbers("--w", w), _numbers("--target", target)
    if len(inputs) != len(weights):
        found = f"found {len(inputs)} and {len(weights)}"
        raise WrongUsage(f"--x and --w need as many numbers, one weight for each input: {found}")
    if len(targets) != 1:
        raise WrongUsage(f"--target of a neuron is one number, found '{target}'")
    if activation not in one.ACTIVATIONS:
        known = ", ".join(f"'{name}'" for name in one.ACTIVATIONS)
        raise WrongUsage(f"--activation of a neuron: '{activation}' is not one of {known}")
    for name, value in (("--b", b), ("--learning-rate", learning_rate)):
        if not math.isfinite(value):
            raise WrongUsage(f"{name} must be a finite number, found {value}")
    neuron = Neuron(inputs, weights, b, targets[0], activation)
    with np.errstate(over="ignore", invalid="ignore"):
        step = one.step(neuron, learning_rate)
        others = {"finite difference": one.finite_difference(neuron)}
    if torch_is_installed():
        others = {"autograd": one.autograd(neuron), **others}
    numbers = np.hstack([*astuple(step), *(np.hstack(pair) for pair in others.values())])
    if not np.isfinite(numbers).all():
        raise ChainruleError("numbers as large as these overflow in the square of the loss: use smaller ones")
    if as_json:
        print(json.dumps(_as_json(neuron, step, learning_rate, others), indent=2))
    else:
        _print(neuron, step, learning_rate, others, one.straddles_kink(neuron, step.z))


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part.replace("_", "?")) for part in text.split(","))
    except ValueError:
        raise WrongUsage(f"{option} takes numbers separated by commas, such as 1,2; found '{text}'") from None
    if not all(map(math.isfinite, values)):
        raise WrongUsage(f"{option} takes finite numbers, found '{text}'")
    return values


def _as_json(
    neuron: Neuron, step: Step, learning_rate: float, others: dict[str, tuple[tuple[float, ...], float]]
) -> dict[str, Any]:
    gradients = {name.replace(" ", "_"): {"dL_dw": dw, "dL_db": db} for name, (dw, db) in others.items()}
    return {**asdict(neuron), "learning_rate": learning_rate, **asdict(step), **gradients}


def _print(
    neuron: Neuron,
    step: Step,
    learning_rate: float,
    others: dict[str, tuple[tuple[float, ...], float]],
    near_kink: bool,
) -> None:
    products = " + ".join(
        f"{_number(w, signed=True)}·{_number(x, signed=True)}"
        for w, x in zip(neuron.w, neuron.x, strict=True)
    )
    f = neuron.activation
    local = {
        "relu": "1 where z > 0, else 0",
        "sigmoid": "a(1 - a)",
        "tanh": "1 - a²",
    }[f]
    lines = [
        ("Forward", "", ""),
        ("z = w·x + b", f"{products} + {_number(neuron.b, signed=True)}", _number(step.z)),
        (f"a = {f}(z)", f"{f}({_number(step.z)})", _number(step.a)),
        (
            "L = (a - target)²",
            f"({_number(step.a)} - {_number(neuron.target, signed=True)})²",
            _number(step.loss),
        ),
        ("", "", ""),
        ("Backward: from the loss to each parameter, upstream times local", "", ""),
        (
            "dL/da = 2(a - target)",
            f"2({_number(step.a)} - {_number(neuron.target, signed=True)})",
            _number(step.dL_da),
        ),
        ("da/dz", local, _number(step.da_dz)),
        ("dL/dz = dL/da · da/dz", f"{_number(step.dL_da)} · {_number(step.da_dz)}", _number(step.dL_dz)),
        ("dz/dw = x", "", _vector(step.dz_dw)),
        ("dL/dw = dL/dz · dz/dw", f"{_number(step.dL_dz)} · {_vector(step.dz_dw)}", _vector(step.dL_dw)),
        ("dz/db", "", "1"),
        ("dL/db = dL/dz · dz/db", f"{_number(step.dL_dz)} · 1", _number(step.dL_db)),
    ]
    if near_kink:
        lines.append(("", "", ""))
        lines.append(
            ("z is at relu's kink, where da/dz jumps from 0 to 1: a difference sees both sides", "", "")
        )
    name_width = max(len(name) for name, _, value in lines if value)
    sum_width = max(len(put_in) for _, put_in, _ in lines)
    for name, put_in, value in lines:
        print(f"  {name:{name_width}}  {put_in:{sum_width}}  = {value}" if value else name)

    print("\nThe same derivatives, found in other ways")
    columns = {"chain rule": (step.dL_dw, step.dL_db), **others}
    print(f"  {'':8}" + "".join(f"{name:>20}" for name in columns))
    for index in range(len(neuron.w)):
        print(
            f"  dL/dw{_subscript(index)}  "
            + "".join(f"{_number(dw[index]):>20}" for dw, _ in columns.values())
        )
    print("  dL/db   " + "".join(f"{_number(db):>20}" for _, db in columns.values()))

    rate = _number(learning_rate, signed=True)
    print(f"\nOne step of gradient descent, learning rate {_number(learning_rate)}")
    print(
        f"  w <- w - {rate} · dL/dw  = {_vector(neuron.w)} - {rate} · {_vector(step.dL_dw)}"
        f" = {_vector(step.w_after)}"
    )
    print(
        f"  b <- b - {rate} · dL/db  = {_number(neuron.b)} - {rate} · {_number(step.dL_db, signed=True)}"
        f" = {_number(step.b_after)}"
    )
    print(f"  loss: {_number(step.loss)} before, {_number(step.loss_after)} after")


def _number(value: float, *, signed: bool = False) -> str:
    """Ten significant digits; ``signed`` puts a negative one in brackets, to stand after an operator."""
    text = f"{value + 0.0:.10g}"  # + 0.0 turns -0 into 0
    return f"({text})" if signed and value < 0 else text


def _vector(values: tuple[float, ...]) -> str:
    return f"({', '.join(_number(value) for value in values)})"


def _subscript(index: int) -> str:
    """w₁ for the first weight, as textbooks count."""
    return str(index + 1).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
