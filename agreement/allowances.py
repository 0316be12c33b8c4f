"""How far two correct engines may differ, at each point of one step that both take from the same state.

Relative to a tensor's largest element first (`agreement.measures.backward_limit`). That is strict, and unfair
where the tensor is what remains of large terms that cancel; there, what counts is the size of the terms.
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
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
    walk (Higham and Mary 2019). PyTorch's float32 gradient of a convolution's weight over 12,544 pixels was
    measured at 85 u on one batch of digits, where ours, which adds image by image, was at 0.8 u.
    """
    return max(UNITS, 4 * math.sqrt(terms)) * unit_roundoff(dtype)


def sum_allowance(ours: Pass, theirs: Pass) -> dict[Point, float]:
    """Return how far each gradient that is a sum of products may differ.

    The gradient of a bias before batch normalisation is zero in exact arithmetic, a sum of terms that cancel.
    What is left is rounding, in any engine, and a limit relative to it would be relative to nothing. For
    grad_weight = G.T X, where the engines have G and G + dG, X and X + dX (judged in rows of their own)::

        |difference| <= sum_limit |G|.T |X| + |dG|.T |X| + |G|.T |dX|

    and in the same way for the other gradients of Linear and Conv2d, and for those of BatchNorm's parameters.
    """
    allowed: dict[Point, float] = {}
    for label, module in theirs.layers.items():
        if getattr(module, "weight", None) is None or label not in ours.grad_outputs:
            continue
        x, g = theirs.inputs[label], theirs.grad_outputs[label]
        dx, dg = ours.inputs[label] - x, ours.grad_outputs[label] - g
        limit, gradients = sum_limit(g.size // len(module.weight), g.dtype), ("grad_input", "weight", "bias")
        for factor, a, b, which in ((limit, x, g, gradients), (1, x, dg, gradients), (1, dx, g, ("weight",))):
            for name, size in _sums_of_sizes(module, x, a, b).items():
                if name in which:
                    owner = label if name == "grad_input" else label.partition(" (call")[0]
                    point = Point("backward", owner, name)
                    allowed[point] = allowed.get(point, 0.0) + factor * size
    return allowed


def _sums_of_sizes(module: Any, x: Array, a: Array, b: Array) -> dict[str, float]:
    """Return, for each gradient of a layer with input a and upstream b, the largest sum of sizes of terms."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    sizes, upstream = torch.tensor(np.abs(a), requires_grad=True), torch.tensor(np.abs(b))
    found: dict[str, Any] = {}
    if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
        twin = copy.deepcopy(module)  # its backward of absolute values adds up the sizes
        for parameter in twin.parameters():
            parameter.data.abs_()
            parameter.grad = None
        twin(sizes).backward(upstream)
        found = {"grad_input": sizes.grad, **{name: p.grad for name, p in twin.named_parameters()}}
    elif isinstance(module, _BatchNorm) and a is x:
        normal = torch.nn.functional.batch_norm(
            sizes.new_tensor(x), None, None, training=True, eps=module.eps
        )
        axes = [0, *range(2, normal.ndim)]
        found = {"weight": (upstream * normal.abs()).sum(axes), "bias": upstream.sum(axes)}
    return {name: float(value.max()) for name, value in found.items()}


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
