"""The subjects that are put together: a neuron, a broadcast bias, an MLP, a weight used twice."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.diagnosis.chain import Chain, Link, own
from agreement.diagnosis.layers import INPUT_OUTPUT, several
from agreement.diagnosis.subject import BIAS, WEIGHT, Layout, Probe, Subject, Suspect, Tensors, X, batch_first
from agreement.measures import Array

Change = Callable[[Probe, Tensors], Any]


# -- one neuron -----------------------------------------------------------------------------------------


def _neuron_draw(rng: np.random.Generator, i: int) -> Probe:
    inputs = (3, 3, 5, 4)[i]
    args = {
        "x": rng.normal(size=inputs),
        "weight": rng.normal(size=inputs),
        "bias": np.asarray(rng.normal()),
    }
    return Probe(args, np.asarray(rng.normal()), {}, ("weight", "bias"), (), {"in_features": inputs}, i, 1)


def _neuron(probe: Probe) -> Tensors:
    x, w, b = (probe.args[k] for k in ("x", "weight", "bias"))
    y = 1 / (1 + np.exp(-(w @ x + b)))
    d = probe.upstream * y * (1 - y)
    found = {"output": y, "grad of x": d * w, "grad of weight": d * x, "grad of bias": d}
    return {k: np.asarray(v) for k, v in found.items()}


def _neuron_suspects() -> list[Suspect]:
    def of(
        name: str, mistake: str, wrong: str, slope: Callable[[Any, Any, Any], Any], rank: int = 0
    ) -> Suspect:
        def change(p: Probe, t: Tensors) -> Any:
            z = p.args["weight"] @ p.args["x"] + p.args["bias"]
            d = slope(t["output"], z, p.upstream)
            return {"grad of x": d * p.args["weight"], "grad of weight": d * p.args["x"], "grad of bias": d}

        return own(name, mistake, wrong, _neuron, change, rank)

    def one(name: str, mistake: str, wrong: str, change: Change) -> Suspect:
        return own(name, mistake, wrong, _neuron, change, 0)

    return [
        of(
            "Sigmoid: derivative forgotten",
            "The gradient goes past the sigmoid as if it were not there.",
            "d = grad_y",
            lambda y, z, g: g,
        ),
        of(
            "Sigmoid: derivative at the output",
            "The formula for z is given y: the derivative is taken at the wrong place.",
            "d = grad_y s (1 - s) with s = sigmoid(y)",
            lambda y, z, g: g * (s := 1 / (1 + np.exp(-y))) * (1 - s),
        ),
        of(
            "Sigmoid: upstream forgotten",
            "The local derivative is returned alone; with an upstream gradient of ones nobody sees it.",
            "d = y (1 - y)",
            lambda y, z, g: y * (1 - y),
        ),
        of(
            "Sigmoid: one minus y dropped",
            "Half of the product is missing, as if sigmoid were exp.",
            "d = grad_y y",
            lambda y, z, g: g * y,
        ),
        of(
            "one factor of the product",
            "Only one factor of the derivative is there.",
            "d = grad_y (1 - y)",
            lambda y, z, g: g * (1 - y),
        ),
        of(
            "the input for the output",
            "The formula is one of the output y, but the weighted sum z was put into it.",
            "d = grad_y z (1 - z)",
            lambda y, z, g: g * z * (1 - z),
        ),
        of(
            "tanh's derivative",
            "This is the derivative of tanh, not that of the sigmoid.",
            "d = grad_y (1 - y^2)",
            lambda y, z, g: g * (1 - y * y),
        ),
        one(
            "x and weight change places",
            "The gradients of x and weight have changed places.",
            "grad_x = d x, grad_weight = d weight",
            lambda p, t: {"grad of x": t["grad of weight"], "grad of weight": t["grad of x"]},
        ),
        one(
            "the weight's gradient is the weight",
            "The product's other factor is what is left; here it is the weight itself.",
            "grad_weight = d weight",
            lambda p, t: {"grad of weight": t["grad of x"]},
        ),
        one(
            "the input's gradient is the input",
            "The product's other factor is what is left; here it is the input itself.",
            "grad_x = d x",
            lambda p, t: {"grad of x": t["grad of weight"]},
        ),
        one(
            "the bias multiplied by itself",
            "The bias is added, so its gradient has no factor of its own.",
            "grad_bias = d bias",
            lambda p, t: {"grad of bias": t["grad of bias"] * p.args["bias"]},
        ),
        one(
            "the bias's gradient past the sigmoid",
            "The bias is inside the sigmoid: its gradient goes through it, too.",
            "grad_bias = grad_y",
            lambda p, t: {"grad of bias": p.upstream},
        ),
        one(
            "the bias's gradient is one",
            "The derivative of a sum is 1, but the chain rule multiplies it by the gradient from above.",
            "grad_bias = 1",
            lambda p, t: {"grad of bias": np.ones(())},
        ),
        one(
            "the bias is forgotten in the forward",
            "The output is the sigmoid of the product alone.",
            "y = sigmoid(weight x)",
            lambda p, t: {"output": 1 / (1 + np.exp(-(p.args["weight"] @ p.args["x"])))},
        ),
    ]


ROW = "dL/dz = dL/dy · dy/dz      () = () · ()"
NEURON_WORDS = {
    "grad of x": (
        "The input reaches the output through the weighted sum and then the sigmoid.",
        "dL/dx[i] = dL/dy · dy/dz · dz/dx[i]      (D,) = () · () · (D,)",
    ),
    "grad of weight": (
        "The weight reaches the output through the weighted sum and then the sigmoid.",
        "dL/dweight[i] = dL/dy · dy/dz · dz/dweight[i]      (D,) = () · () · (D,)",
    ),
    "grad of bias": (
        "The bias reaches the output through the weighted sum and then the sigmoid.",
        "dL/dbias = dL/dy · dy/dz · dz/dbias      () = () · () · ()",
    ),
}

# -- a bias that is broadcast ---------------------------------------------------------------------------


def _broadcast_draw(rng: np.random.Generator, i: int) -> Probe:
    shape = ((3, 4, 5), (3, 4, 5), (4, 2, 3))[i]
    args = {"x": batch_first(rng, *shape), "bias": rng.normal(size=shape[-1])}
    return Probe(args, rng.normal(size=shape), {}, ("bias",), (), {"features": shape[-1]}, i, shape[0])


def _broadcast(probe: Probe) -> Tensors:
    g = probe.upstream
    return {
        "output": probe.args["x"] + probe.args["bias"],
        "grad of x": g.copy(),
        "grad of bias": g.sum((0, 1)),
    }


def _broadcast_suspects() -> list[Suspect]:
    def of(name: str, mistake: str, wrong: str, function: Callable[[Array], Any]) -> Suspect:
        return own(name, mistake, wrong, _broadcast, lambda p, t: {"grad of bias": function(p.upstream)}, 0)

    return [
        of(
            "bias not summed",
            "The bias was broadcast in the forward; the backward must sum over what it was spread to.",
            "grad_bias = grad_y",
            lambda g: g,
        ),
        of(
            "summed over the first axis alone",
            "The bias was spread over two axes, and only the first one is summed.",
            "grad_bias = sum_n grad_y    (T, D)",
            lambda g: g.sum(0),
        ),
        of(
            "summed over the second axis alone",
            "The bias was spread over two axes, and only the second one is summed.",
            "grad_bias = sum_t grad_y    (N, D)",
            lambda g: g.sum(1),
        ),
        of(
            "mean for sum in the bias",
            "The bias is in every row, so its gradient is the sum over the rows, not their mean.",
            "grad_bias = mean(grad_y)",
            lambda g: g.mean((0, 1)),
        ),
        of(
            "a mean over one of the axes",
            "One of the two axes is averaged where it should be summed.",
            "grad_bias = sum_t mean_n grad_y",
            lambda g: g.mean(0).sum(0),
        ),
        of(
            "a mean over the other axis",
            "One of the two axes is averaged where it should be summed.",
            "grad_bias = sum_n mean_t grad_y",
            lambda g: g.mean(1).sum(0),
        ),
        of(
            "bias of one row",
            "The bias's gradient has the right shape because a single row was taken.",
            "grad_bias = grad_y[0, 0]",
            lambda g: g[0, 0],
        ),
        of(
            "bias of the last row",
            "The bias's gradient has the right shape because a single row was taken.",
            "grad_bias = grad_y[-1, -1]",
            lambda g: g[-1, -1],
        ),
        of(
            "summed over everything",
            "The gradient is summed over the features too, which do not share a bias.",
            "grad_bias = sum(grad_y)",
            lambda g: g.sum(),
        ),
        of(
            "summed over the wrong axes",
            "The features are summed, which do not share a bias.",
            "grad_bias = sum over the last axis",
            lambda g: g.sum(-1),
        ),
    ]


BROADCAST_WORDS = {
    "grad of x": (
        "Each output has one x in it, as it is.",
        "dL/dx = dL/dy · dy/dx      (N, T, D), element by element",
    ),
    "grad of bias": (
        "A value that is used in several places gets the gradients of all of them.",
        "dL/dbias[d] = sum over n, t of dL/dy[n, t, d] · dy[n, t, d]/dbias[d]      (D,), from (N, T, D)",
    ),
}

# -- an MLP ---------------------------------------------------------------------------------------------

MLP_NAMES = {
    "w1": ["weight1", "W1", "weight_1", "w_1", "w_hidden", "first", "weights1"],
    "b1": ["bias1", "B1", "bias_1", "b_1", "b_hidden", "biases1"],
    "w2": ["weight2", "W2", "weight_2", "w_2", "w_out", "second", "weights2"],
    "b2": ["bias2", "B2", "bias_2", "b_2", "b_out", "biases2"],
}


def _mlp_draw(rng: np.random.Generator, i: int) -> Probe:
    n, inputs, hidden, outputs = ((4, 5, 6, 3), (4, 5, 6, 3), (6, 3, 7, 4))[i]
    args = {
        "x": batch_first(rng, n, inputs),
        "w1": rng.normal(size=(hidden, inputs)),
        "b1": rng.normal(size=hidden),
        "w2": rng.normal(size=(outputs, hidden)),
        "b2": rng.normal(size=outputs),
    }
    args["x"][0] = 0.0
    args["b1"][0] = 0.0  # a unit exactly at the kink
    sizes = {"in_features": inputs, "hidden_features": hidden, "out_features": outputs}
    return Probe(args, rng.normal(size=(n, outputs)), {}, ("w1", "b1", "w2", "b2"), (), sizes, i, n)


def _of(role: str) -> Callable[[Probe], nn.Module]:
    return lambda p: nn.Linear(p.args[role].shape[1], p.args[role].shape[0])


MLP = Chain(
    (
        Link(_of("w1"), "Linear", {"weight": "w1", "bias": "b1"}, "the first layer"),
        Link(lambda p: nn.ReLU(), "ReLU", {}, "the activation"),
        Link(_of("w2"), "Linear", {"weight": "w2", "bias": "b2"}, "the second layer"),
    )
)


def _mlp_parts(p: Probe) -> tuple[Array, ...]:
    a = p.args
    z = a["x"] @ a["w1"].T + a["b1"]
    h = np.maximum(z, 0)
    return a["x"], z, h, a["w1"], a["w2"], p.upstream


def _back(p: Probe, delta: Array) -> Any:
    """Return the gradients below the activation, of its gradient."""
    x, _, _, w1, _, _ = _mlp_parts(p)
    return {"grad of x": delta @ w1, "grad of w1": delta.T @ x, "grad of b1": delta.sum(0)}


def _mlp_suspects() -> list[Suspect]:
    def of(name: str, mistake: str, wrong: str, function: Callable[..., Any], rank: int = 1) -> Suspect:
        return own(name, mistake, wrong, MLP.everything, lambda p, t: function(p, *_mlp_parts(p)), rank)

    def moved(p: Probe, x: Array, z: Array, h: Array, w1: Array, w2: Array, g: Array, lr: float = 0.1) -> Any:
        return _back(p, (g @ (w2 - lr * (g.T @ h))) * (z > 0))

    return [
        *MLP.suspects(),
        of(
            "the sum before the activation for its output",
            "The second weight's gradient is made with z, before the ReLU; "
            "what the layer was given is h, after it.",
            "grad_w2 = grad_y.T z",
            lambda p, x, z, h, w1, w2, g: {"grad of w2": g.T @ z},
        ),
        of(
            "the input for the hidden values",
            "A weight's gradient is made with the input of another layer.",
            "grad_w1 = delta.T h",
            lambda p, x, z, h, w1, w2, g: {},
        ),
        replace(
            of(
                "update-before-input-gradient",
                "The weight is changed as soon as its gradient is there; the layer below sees the new one.",
                "delta = grad_y (w2 - lr grad_w2)",
                moved,
            ),
            any_rate=True,
        ),
        of(
            "early-return",
            "The loop over the layers stops one too early: the first layer never learns.",
            "grad_w1 = 0, grad_b1 = 0",
            lambda p, x, z, h, w1, w2, g: {"grad of w1": np.zeros_like(w1), "grad of b1": 0 * z[0]},
            0,
        ),
        of(
            "early-return",
            "The loop over the layers stops one too early: the first layer never learns.",
            "grad_w1 = 0, grad_b1 = 0",
            lambda p, x, z, h, w1, w2, g: {
                "grad of w1": np.zeros_like(w1),
                "grad of b1": 0 * z[0],
                "grad of x": 0 * x,
            },
            0,
        ),
        of(
            "the gradient goes past the second weight",
            "The gradient from above is taken for that of the hidden layer.",
            "delta = sum_j grad_y[:, j]",
            lambda p, x, z, h, w1, w2, g: _back(
                p, np.broadcast_to(g.sum(1, keepdims=True), h.shape) * (z > 0)
            ),
        ),
        of(
            "relu-mask-of-next-output",
            "The mask is taken from something else than what went into the ReLU.",
            "delta = (grad_y w2) [grad_h > 0]",
            lambda p, x, z, h, w1, w2, g: _back(p, np.maximum(g @ w2, 0)),
            2,
        ),
        of(
            "the mask before the weights, in the bias alone",
            "The first bias's gradient misses the ReLU's mask.",
            "grad_b1 = sum_n (grad_y w2)",
            lambda p, x, z, h, w1, w2, g: {"grad of b1": (g @ w2).sum(0)},
        ),
        of(
            "the mask forgotten in the first weight alone",
            "The first weight's gradient misses the ReLU's mask.",
            "grad_w1 = (grad_y w2).T x",
            lambda p, x, z, h, w1, w2, g: {"grad of w1": (g @ w2).T @ x},
        ),
        of(
            "the mask forgotten in the input alone",
            "The input's gradient misses the ReLU's mask.",
            "grad_x = grad_y w2 w1",
            lambda p, x, z, h, w1, w2, g: {"grad of x": g @ w2 @ w1},
        ),
        of(
            "sigmoid's derivative for the mask",
            "The derivative h (1 - h) is the sigmoid's; this layer is a ReLU.",
            "delta = (grad_y w2) h (1 - h)",
            lambda p, x, z, h, w1, w2, g: _back(p, g @ w2 * h * (1 - h)),
        ),
        of(
            "tanh's derivative for the mask",
            "The derivative 1 - h^2 is that of tanh; this layer is a ReLU.",
            "delta = (grad_y w2) (1 - h^2)",
            lambda p, x, z, h, w1, w2, g: _back(p, g @ w2 * (1 - h * h)),
        ),
        of(
            "no activation in the forward",
            "The ReLU is missing in the forward.",
            "y = (x w1.T + b1) w2.T + b2",
            lambda p, x, z, h, w1, w2, g: {"output": z @ w2.T + p.args["b2"]},
        ),
        of(
            "an activation after the last layer",
            "The output goes through the ReLU, too.",
            "y = relu(h w2.T + b2)",
            lambda p, x, z, h, w1, w2, g: {"output": np.maximum(h @ w2.T + p.args["b2"], 0)},
        ),
    ]


def _mlp_stored(args: Any) -> dict[str, Array]:
    return {k: np.ascontiguousarray(v.T) if k in ("w1", "w2") else v for k, v in args.items()}


LAYER = "dL/d{0} = sum_n dL/d{1}[n] · d{1}[n]/d{0}      ({2}), from (N, {3})"
MLP_WORDS = {
    "grad of w2": (
        "The second weight is used for every row, with the hidden values as its input.",
        "dL/dw2[j, k] = sum_n dL/dy[n, j] · dy[n, j]/dw2[j, k]      (out, hidden), from (N, out)",
    ),
    "grad of b2": (
        "The second bias is added to every row.",
        "dL/db2[j] = sum_n dL/dy[n, j] · dy[n, j]/db2[j]      (out,), from (N, out)",
    ),
    "grad of w1": (
        "The first weight reaches the output through the activation and the second layer.",
        "dL/dw1[k, i] = sum over n, j of dL/dy[n, j] · dy[n, j]/dh[n, k] · dh[n, k]/dz[n, k] · dz[n, "
        "k]/dw1[k, i]"
        "      (hidden, in), from (N, out)",
    ),
    "grad of b1": (
        "The first bias reaches the output through the activation and the second layer.",
        "dL/db1[k] = sum over n, j of dL/dy[n, j] · dy[n, j]/dh[n, k] · dh[n, k]/dz[n, k] · dz[n, k]/db1[k]"
        "      (hidden,), from (N, out)",
    ),
    "grad of x": (
        "The input reaches the output through both layers and the activation between them.",
        "dL/dx[n, i] = sum over j, k of dL/dy[n, j] · dy[n, j]/dh[n, k] · dh[n, k]/dz[n, k] · dz[n, "
        "k]/dx[n, i]"
        "      (N, in), from (N, out)",
    ),
}

# -- a weight that is used twice ------------------------------------------------------------------------


def _shared_draw(rng: np.random.Generator, i: int) -> Probe:
    n, d = ((3, 4), (3, 4), (5, 3))[i]
    args = {"x": batch_first(rng, n, d), "weight": rng.normal(size=(d, d)) / np.sqrt(d)}
    return Probe(args, rng.normal(size=(n, d)), {}, ("weight",), (), {"features": d}, i, n)


def _shared_parts(probe: Probe) -> tuple[Array, ...]:
    x, w, g = probe.args["x"], probe.args["weight"], probe.upstream
    h = np.tanh(x @ w.T)
    y = np.tanh(h @ w.T)
    d2 = g * (1 - y * y)
    d1 = (d2 @ w) * (1 - h * h)
    return x, w, h, y, g, d1, d2


def _shared(probe: Probe) -> Tensors:
    x, w, h, y, _, d1, d2 = _shared_parts(probe)
    return {"output": y, "grad of x": d1 @ w, "grad of weight": d2.T @ h + d1.T @ x}


def _shared_suspects() -> list[Suspect]:
    def of(name: str, mistake: str, wrong: str, function: Callable[..., Any], rank: int = 0) -> Suspect:
        return own(name, mistake, wrong, _shared, lambda p, t: function(*_shared_parts(p)), rank)

    def through(x: Any, w: Any, h: Any, d1: Any, d2: Any) -> Any:
        return {"grad of x": d1 @ w, "grad of weight": d2.T @ h + d1.T @ x}

    return [
        of(
            "accumulate-overwrites",
            "A weight is used twice, and the gradient of the second use takes the place of the first.",
            "weight.grad = grad",
            lambda x, w, h, y, g, d1, d2: {"grad of weight": d1.T @ x},
        ),
        of(
            "the second use alone",
            "A weight is used twice, and only what its last use gives is counted.",
            "grad_weight = d2.T h",
            lambda x, w, h, y, g, d1, d2: {"grad of weight": d2.T @ h},
        ),
        of(
            "accumulate-twice",
            "Each gradient is added twice.",
            "weight.grad += 2 grad",
            lambda x, w, h, y, g, d1, d2: {"grad of weight": 2 * (d2.T @ h + d1.T @ x)},
        ),
        of(
            "the mean of both uses",
            "The gradients of the two uses are averaged; a value that is used twice gets their sum.",
            "grad_weight = (d2.T h + d1.T x) / 2",
            lambda x, w, h, y, g, d1, d2: {"grad of weight": (d2.T @ h + d1.T @ x) / 2},
        ),
        of(
            "twice the last use",
            "One use is counted twice, the other not at all.",
            "grad_weight = 2 d2.T h",
            lambda x, w, h, y, g, d1, d2: {"grad of weight": 2 * d2.T @ h},
        ),
        of(
            "twice the first use",
            "One use is counted twice, the other not at all.",
            "grad_weight = 2 d1.T x",
            lambda x, w, h, y, g, d1, d2: {"grad of weight": 2 * d1.T @ x},
        ),
        of(
            "the same input for both uses",
            "Both uses are given the same input in the backward.",
            "grad_weight = d2.T x + d1.T x",
            lambda x, w, h, y, g, d1, d2: {"grad of weight": d2.T @ x + d1.T @ x},
        ),
        of(
            "the inputs of the uses swapped",
            "Each use is given the input of the other one.",
            "grad_weight = d2.T x + d1.T h",
            lambda x, w, h, y, g, d1, d2: {"grad of weight": d2.T @ x + d1.T @ h},
        ),
        of(
            "Linear: transposed weight",
            "The weight is transposed on the way back, too; only a square one lets that pass.",
            "grad_h = d2 weight.T",
            lambda x, w, h, y, g, d1, d2: {
                **through(x, w, h, (e := (d2 @ w.T) * (1 - h * h)), d2),
                "grad of x": e @ w.T,
            },
        ),
        of(
            "Linear: transposed weight, in the first use",
            "The weight is transposed on the way back, too.",
            "grad_x = d1 weight.T",
            lambda x, w, h, y, g, d1, d2: {"grad of x": d1 @ w.T},
        ),
        of(
            "Linear: transposed weight, in the second use",
            "The weight is transposed on the way back, too.",
            "grad_h = d2 weight.T",
            lambda x, w, h, y, g, d1, d2: through(x, w, h, (d2 @ w.T) * (1 - h * h), d2),
        ),
        of(
            "Linear: transposed delta",
            "The two factors of the weight's gradient are swapped, which gives its transpose.",
            "grad_weight = h.T d2 + x.T d1",
            lambda x, w, h, y, g, d1, d2: {"grad of weight": (d2.T @ h + d1.T @ x).T},
        ),
        of(
            "Tanh: derivative forgotten",
            "The gradient goes past the tanh as if it were not there, both times.",
            "d = grad",
            lambda x, w, h, y, g, d1, d2: through(x, w, h, g @ w, g),
        ),
        of(
            "Tanh: derivative forgotten, the last",
            "The gradient goes past the last tanh as if it were not there.",
            "d2 = grad_y",
            lambda x, w, h, y, g, d1, d2: through(x, w, h, (g @ w) * (1 - h * h), g),
        ),
        of(
            "Tanh: derivative forgotten, the first",
            "The gradient goes past the first tanh as if it were not there.",
            "d1 = d2 weight",
            lambda x, w, h, y, g, d1, d2: through(x, w, h, d2 @ w, d2),
        ),
        of(
            "Tanh: square forgotten",
            "The square is missing: half of the formula of sigmoid has come in.",
            "d = grad (1 - y)",
            lambda x, w, h, y, g, d1, d2: through(x, w, h, ((e := g * (1 - y)) @ w) * (1 - h), e),
        ),
        of(
            "the weight's second factor moved",
            "The weight is changed between the two uses on the way back.",
            "d1 = d2 (weight - lr grad)",
            lambda x, w, h, y, g, d1, d2: through(
                x, w - 0.1 * d2.T @ h, h, (d2 @ (w - 0.1 * d2.T @ h)) * (1 - h * h), d2
            ),
        ),
    ]


SHARED_WORDS = {
    "grad of weight": (
        "A value that is used in two places gets the gradients of both.",
        "dL/dweight = sum over both uses u of sum_n dL/dz_u[n] · dz_u[n]/dweight      (D, D), from (N, D)",
    ),
    "grad of x": (
        "The input reaches the output through both uses of the weight.",
        "dL/dx = dL/dy · dy/dh · dh/dx      (N, D), from (N, D)",
    ),
}


STACKS = [
    Subject(
        "neuron",
        "one neuron, y = sigmoid(weight · x + bias)",
        ("neuron", "perceptron"),
        several(_neuron_draw, 4),
        _neuron,
        _neuron_suspects,
        {"x": X, "weight": WEIGHT, "bias": BIAS, **INPUT_OUTPUT},
        ("x", "weight", "bias"),
        {},
        NEURON_WORDS,
    ),
    Subject(
        "broadcast_bias",
        "a bias broadcast over two axes, y = x + bias",
        ("broadcast_bias", "broadcast", "bias"),
        several(_broadcast_draw, 3),
        _broadcast,
        _broadcast_suspects,
        {"x": X, "bias": BIAS},
        ("x", "bias"),
        {},
        BROADCAST_WORDS,
    ),
    Subject(
        "mlp",
        "a network of two layers, linear, ReLU, linear",
        ("mlp", "network", "net", "two_layer"),
        several(_mlp_draw, 3),
        MLP.everything,
        _mlp_suspects,
        {"x": X, **MLP_NAMES, **INPUT_OUTPUT},
        ("x", "w1", "b1", "w2", "b2"),
        {},
        MLP_WORDS,
        planned=MLP.everything,
        layouts=(
            Layout(
                "your weights are stored (in, out); that is as good as (out, in)",
                _mlp_stored,
                lambda name, a: a.T if name in ("grad of w1", "grad of w2") and a.ndim == 2 else a,
            ),
        ),
    ),
    Subject(
        "shared",
        "a weight used twice, tanh(tanh(x weight.T) weight.T)",
        ("shared", "twice", "tied", "recurrent", "rnn"),
        several(_shared_draw, 3),
        _shared,
        _shared_suspects,
        {"x": X, "weight": WEIGHT},
        ("x", "weight"),
        {},
        SHARED_WORDS,
    ),
]
