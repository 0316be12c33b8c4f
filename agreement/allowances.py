"""How far two correct engines may differ, at each point of one step that both take from the same state.

Relative to a tensor's largest element first (`agreement.measures.backward_limit`). That is strict, and unfair
where the tensor is what remains of large terms that cancel; there, what counts is the size of the terms.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agreement.measures import FLOAT64_LIMIT, Array, unit_roundoff
from agreement.tracing import AutogradEngine, Pass, Point, Snapshot

UNITS = 16  # u of the terms that an operation adds up
FORWARD_UNITS = 64  # u of the largest output: a forward is several operations, one after the other
DRAWS = 4  # how often the state is moved by an ulp to see what rounding can do


def forward_limit(dtype: Any) -> float:
    """Return how far outputs may differ, relative to the largest: 1e-12, in float32 64 u."""
    u = unit_roundoff(dtype)
    return FLOAT64_LIMIT if u < FLOAT64_LIMIT else FORWARD_UNITS * u


def sum_limit(terms: int, dtype: Any) -> float:
    """Return how far a sum may be off, relative to the sum of the sizes of its terms.

    16 u, or 4 sqrt(n) u for n terms: added one after the other their roundings are like the steps of a random
    walk (Higham and Mary 2019).
    """
    return max(UNITS, 4 * math.sqrt(terms)) * unit_roundoff(dtype)


@dataclass(frozen=True)
class Sum:
    """A gradient that is a sum of products: its true value, and how far from it rounding may carry it."""

    truth: Array
    allowance: float


def sums(ours: Pass, theirs: Pass) -> dict[Point, Sum]:
    """Return what our layers should have given for the inputs and gradients that they had.

    In float64, by PyTorch. The gradient of a bias before batch normalisation is zero in exact arithmetic, a
    sum of terms that cancel: what is left is rounding, in any engine, and a limit relative to it would be
    relative to nothing. So for grad_weight = G.T X the allowance is ``sum_limit |G|.T |X|``; likewise for the
    other gradients of Linear and Conv2d, whose backward of absolute values adds up the sizes of the terms,
    for those of BatchNorm, and for smooth activations: Tanh's 1 - y^2 is a difference of terms of size 1.
    Layers that only choose and scale have nothing that cancels. As each layer is judged by what it was given,
    none is blamed for what came to it; what it was given should be what the layer after it gave.

    The truth, and not PyTorch's float32: over the 12,544 pixels of a batch of digits its gradient of a
    convolution's weight was 85 u |G|.T |X| away from it, ours 0.8 u.
    """
    found: dict[Point, Sum] = {}
    after: Array | None = None  # the gradient that the layer after this one gave
    for label, module in reversed(theirs.layers.items()):
        if label in ours.grad_outputs and after is not None:
            found[Point("backward", label, "grad_output")] = Sum(after, 0.0)
        after = ours.trace.get(Point("backward", label, "grad_input"))
        if label not in ours.grad_outputs:
            continue
        x, g = ours.inputs[label], ours.grad_outputs[label]
        layer, _, call = label.partition(" (call ")
        if layer in ours.masks:
            mask = ours.masks[layer][int(call[:-1]) - 1 if call else 0]
            found[Point("backward", label, "grad_input")] = Sum(g * mask, 0.0)
            continue
        weight = getattr(module, "weight", None)
        factor = sum_limit(1 if weight is None else g.size // len(weight), g.dtype)
        sizes = _sizes(module, x, g)
        for name, truth in _gradients(module, x, g).items() if sizes else ():
            point = Point("backward", label if name == "grad_input" else layer, name)
            before = found.get(point, Sum(np.zeros_like(truth), 0.0))
            found[point] = Sum(before.truth + truth, before.allowance + factor * sizes[name])
    return found


def _gradients(module: Any, x: Array, g: Array, *, absolute: bool = False) -> dict[str, Array]:
    """Return the gradients of input and parameters of a copy of a torch layer, in float64."""
    import torch

    twin = copy.deepcopy(module).double()
    for parameter in twin.parameters():
        parameter.grad = None
        if absolute:
            parameter.data.abs_()
    size = np.abs if absolute else np.asarray
    inputs = torch.tensor(size(x).astype(np.float64), requires_grad=True)
    twin(inputs).backward(torch.tensor(size(g).astype(np.float64)))
    gradients = {"grad_input": inputs.grad, **{name: p.grad for name, p in twin.named_parameters()}}
    return {name: value.numpy() for name, value in gradients.items() if value is not None}


def _sizes(module: Any, x: Array, g: Array) -> dict[str, float]:
    """Return the largest sum of sizes of terms in each gradient of a layer; none for other layers."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
        return {name: float(a.max()) for name, a in _gradients(module, x, g, absolute=True).items()}
    if isinstance(module, torch.nn.Tanh | torch.nn.Sigmoid | torch.nn.SiLU | torch.nn.GELU | torch.nn.ELU):
        return {"grad_input": float((np.abs(g) * (1 + np.abs(x))).max())}  # as large as any term of theirs
    if isinstance(module, torch.nn.ReLU | torch.nn.LeakyReLU | torch.nn.Flatten | torch.nn.MaxPool2d):
        return {"grad_input": float(np.abs(g).max())}
    if not isinstance(module, _BatchNorm) or module.weight is None:
        return {}
    # grad_x = weight / std (g - mean(g) - x^ mean(g x^)): see nn_reference.batchnorm
    axes, x = (0, *range(2, x.ndim)), x.astype(np.float64)
    std = np.sqrt(x.var(axes, keepdims=True) + module.eps)
    g, normal = np.abs(g), np.abs(x - x.mean(axes, keepdims=True)) / std
    weight = np.abs(module.weight.detach().numpy()).reshape(std.shape)
    terms = g + g.mean(axes, keepdims=True) + normal * (g * normal).mean(axes, keepdims=True)
    return {
        "grad_input": float((weight / std * terms).max()),
        "weight": float((g * normal).sum(axes).max()),
        "bias": float(g.sum(axes).max()),
    }


def rounding_noise(
    engine: AutogradEngine, before: Snapshot, right: Pass, again: Callable[[], Pass]
) -> dict[Point, float]:
    """Return how far each tensor moves when every parameter moves by one ulp: what rounding can do to it.

    A good algorithm gives the exact result of an input that is within rounding of the given one (Higham 2002,
    section 1.5), so such an input shows how much a tensor may be off where large terms cancel in it: going
    back through batch normalisation, for one. The engine is left as it was after the pass.
    """
    after, gradients = engine.snapshot(), engine.gradients()
    noise = dict.fromkeys(right.trace, 0.0)
    for draw in range(DRAWS):
        engine.restore(replace(before, network=one_ulp_away(before.network, draw)))
        for point, value in again().trace.items():
            noise[point] = max(noise[point], float(np.abs(value - right.trace[point]).max(initial=0)))
    engine.restore(after)
    engine.take_gradients(gradients)
    return noise


def one_ulp_away(arrays: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Move every floating-point number to the next one, up or down at random; zeros stay."""
    rng = np.random.default_rng([seed, 3])
    moved = {}
    for name, value in arrays.items():
        if np.issubdtype(value.dtype, np.floating):
            towards = np.where(rng.integers(0, 2, value.shape), np.inf, -np.inf).astype(value.dtype)
            value = np.where(value == 0, value, np.nextafter(value, towards))
        moved[name] = value
    return moved


def update_magnitudes(
    w: Array,
    new_w: Array,
    g: Array,
    old: Mapping[str, Array],
    new: Mapping[str, Array],
    settings: Mapping[str, Any],
) -> dict[str, Array]:
    """Return for each moment and the parameter the sizes of the terms that were added up, element by element.

    As state and gradient are equal in both engines, an update differs by rounding alone: each operation by u
    of its result. Sums may cancel, and what is left is then judged by its terms. (Without handing over the
    gradient no limit would do: in Adam's first step, ``lr g / (|g| + eps)``, the derivative with respect to g
    is lr / eps at g = 0, some 10^5, so a gradient that is rounding alone moves a weight by any part of lr.)
    With s = |m old| + |m new| + |g|::

        a moment of the gradient, m = beta m + (1 - beta) g     s
        of its square, v = beta v + (1 - beta) g^2              v old + v new + g^2
        SGD: w - lr m                                           |w| + |w new| + lr s
        Adam: w - lr m^ / (sqrt(v^) + eps)                      |w| + |w new| + lr s^ / (sqrt(v^) + eps)

    where ^ is the bias correction, also of s. With weight decay c added to the gradient, ``c |w|`` is not
    listed: it is at most |g| + |g + c w|, which are. A dozen roundings make up an update; 16 u are allowed.
    """
    sizes = {key: np.abs(value) for key, value in new.items() if key != "step"}
    sizes = {key: np.abs(old[key]) + size if key in old else size for key, size in sizes.items()}
    magnitudes = {key: size + (g * g if "sq" in key else np.abs(g)) for key, size in sizes.items()}
    terms = magnitudes.get("exp_avg", magnitudes.get("momentum_buffer", np.abs(g)))
    if "exp_avg_sq" in new:
        t, (beta1, beta2) = int(new["step"]), settings["betas"]
        v = new.get("max_exp_avg_sq", new["exp_avg_sq"])
        terms = terms / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + settings["eps"])
    return {**magnitudes, "parameter": np.abs(w) + np.abs(new_w) + settings["lr"] * terms}
