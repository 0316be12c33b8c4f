"""The classic single step: one neuron, one example, every factor of the chain rule by name and number.

    z = w·x + b        a = f(z)        L = (a - target)²

    dL/dw = dL/da · da/dz · dz/dw = 2(a - target) · f'(z) · x
    dL/db = dL/da · da/dz · dz/db = 2(a - target) · f'(z) · 1

Each number comes from the engine's own forward and backward; nothing is derived a second time here.
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from nn_reference import linear, mse, relu, sigmoid, tanh

ACTIVATIONS: dict[str, ModuleType] = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh}


@dataclass(frozen=True)
class Neuron:
    """A neuron of n inputs with the example it learns from: ``x`` and ``w`` of length n."""

    x: tuple[float, ...]
    w: tuple[float, ...]
    b: float
    target: float
    activation: str = "relu"


@dataclass(frozen=True)
class Step:
    """Every value and derivative of one step of gradient descent. ``dz_dw`` is x, ``dz_db`` is 1."""

    z: float
    a: float
    loss: float
    dL_da: float
    da_dz: float
    dL_dz: float
    dz_dw: tuple[float, ...]
    dL_dw: tuple[float, ...]
    dL_db: float
    w_after: tuple[float, ...]
    b_after: float
    loss_after: float


def step(neuron: Neuron, learning_rate: float) -> Step:
    """Send the example forward and backward, and take one step ``w <- w - learning_rate * dL/dw``."""
    f = ACTIVATIONS[neuron.activation]
    x, w, b, target = _arrays(neuron)
    z, linear_cache = linear.forward(x, w, b)  # (1, 1)
    a, activation_cache = f.forward(z)  # (1, 1)
    loss, loss_cache = mse.forward(a, target)

    grad_a = mse.backward(loss_cache, np.ones_like(loss))  # (1, 1)
    grad_z = f.backward(activation_cache, grad_a)  # (1, 1)
    _, grad_w, grad_b = linear.backward(linear_cache, grad_z)  # (1, n), (1,)
    # The local derivative alone is the backward of an upstream gradient of 1.
    da_dz = f.backward(activation_cache, np.ones_like(a))

    w_after, b_after = w - learning_rate * grad_w, b - learning_rate * grad_b
    return Step(
        z=z.item(),
        a=a.item(),
        loss=loss.item(),
        dL_da=grad_a.item(),
        da_dz=da_dz.item(),
        dL_dz=grad_z.item(),
        dz_dw=neuron.x,
        dL_dw=tuple(grad_w[0].tolist()),
        dL_db=grad_b.item(),
        w_after=tuple(w_after[0].tolist()),
        b_after=b_after.item(),
        loss_after=_loss(neuron, w_after, b_after),
    )


def _arrays(neuron: Neuron) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x (1, n), w (1, n), b (1,) and target (1, 1): a layer of one unit, a batch of one example."""
    numbers = ([neuron.x], [neuron.w], [neuron.b], [[neuron.target]])
    x, w, b, target = (np.array(number, dtype=np.float64) for number in numbers)
    return x, w, b, target


def _loss(neuron: Neuron, w: np.ndarray, b: np.ndarray) -> float:
    """Return L with other parameters, w (1, n) and b (1,)."""
    x, _, _, target = _arrays(neuron)
    z, _ = linear.forward(x, w, b)
    a, _ = ACTIVATIONS[neuron.activation].forward(z)
    return float(mse.forward(a, target)[0])


def straddles_kink(neuron: Neuron, z: float) -> bool:
    """Whether relu's kink at z = 0 lies between the two points of a finite difference."""
    slopes = zip((*neuron.w, neuron.b), (*neuron.x, 1.0), strict=True)
    return neuron.activation == "relu" and abs(z) <= max(_step_size(p) * abs(dz_dp) for p, dz_dp in slopes)


def _step_size(value: float) -> float:
    """Return h: the cube root of the machine epsilon, where rounding and the formula err alike."""
    return float(np.cbrt(np.finfo(np.float64).eps)) * max(1.0, abs(value))


def finite_difference(neuron: Neuron) -> tuple[tuple[float, ...], float]:
    """Return dL/dw and dL/db as central differences: (L(p + h) - L(p - h)) / 2h."""
    parameters = np.array([*neuron.w, neuron.b])
    slopes = []
    for index, value in enumerate(parameters):
        h = _step_size(value)
        up, down = parameters.copy(), parameters.copy()
        up[index], down[index] = value + h, value - h
        difference = _loss(neuron, up[None, :-1], up[-1:]) - _loss(neuron, down[None, :-1], down[-1:])
        slopes.append(float(difference / (up[index] - down[index])))
    return tuple(slopes[:-1]), slopes[-1]


def autograd(neuron: Neuron) -> tuple[tuple[float, ...], float]:
    """Return dL/dw and dL/db as PyTorch's autograd finds them."""
    import torch

    x = torch.tensor(neuron.x, dtype=torch.float64)
    w = torch.tensor(neuron.w, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(neuron.b, dtype=torch.float64, requires_grad=True)
    a = getattr(torch, neuron.activation)(w @ x + b)
    ((a - neuron.target) ** 2).backward()
    assert w.grad is not None
    assert b.grad is not None
    return tuple(w.grad.tolist()), b.grad.item()
