"""The subjects that are one layer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.diagnosis.chain import Chain, Link, own
from agreement.diagnosis.subject import BIAS, WEIGHT, Layout, Probe, Subject, Suspect, X, batch_first
from agreement.measures import Array
from agreement.mutants.operations import mutants_of

Draw = Callable[[np.random.Generator, int], Probe]
ELEMENTS = "dL/dx[i] = dL/dy[i] · dy[i]/dx[i]      (*) = (*) · (*)"


def several(draw: Draw, variants: int) -> Callable[[int], list[Probe]]:
    """Return what draws one probe for each variant, from one seed."""
    return lambda seed: [draw(np.random.default_rng([seed, i]), i) for i in range(variants)]


def layer(
    name: str,
    title: str,
    link: Link,
    draw: Draw,
    *,
    variants: int = 4,
    extra: Callable[[Chain], list[Suspect]] = lambda chain: [],
    aliases: Mapping[str, list[str]] | None = None,
    options: Mapping[str, Any] | None = None,
    explain: Mapping[str, tuple[str, str]] | None = None,
    names: tuple[str, ...] = (),
    **rest: Any,
) -> Subject:
    """Return the subject of one layer, whose mutants are those of its row."""
    chain = Chain((link,))
    return Subject(
        name,
        title,
        (name, *names),
        several(draw, variants),
        chain.everything,
        lambda: chain.suspects() + extra(chain),
        {"x": X, "weight": WEIGHT, "bias": BIAS, **(aliases or {})},
        ("x", *link.roles.values()),
        {"need_grad_x": True, **(options or {})},
        explain
        or {"grad of x": ("Each output depends on the input in the same place and on no other.", ELEMENTS)},
        planned=chain.everything,
        **rest,
    )


# -- element by element ---------------------------------------------------------------------------------

# The first two alike, so that a stale cache shows.
SHAPES = ((5, 4), (5, 4), (3, 7), (6, 2))


def elements(
    name: str,
    title: str,
    kind: str,
    *,
    keywords: tuple[tuple[str, Any], ...] = (),
    others: Mapping[str, Any] | None = None,
    row: str = "",
    extra: Callable[[Chain], list[Suspect]] = lambda chain: [],
    aliases: Mapping[str, list[str]] | None = None,
    names: tuple[str, ...] = (),
) -> Subject:
    """Return the subject of an activation. ``others`` are options that one probe has instead of the usual."""

    def draw(rng: np.random.Generator, i: int) -> Probe:
        shape = SHAPES[i]
        upstream = rng.normal(size=shape)
        chosen = dict(others or {}) if i == 3 else {}
        if i == 1:
            upstream = np.asfortranarray(upstream)
        return Probe({"x": batch_first(rng, *shape)}, upstream, chosen, seed=i, batch=shape[0])

    defaults = dict(keywords)

    def make(probe: Probe) -> nn.Module:
        given = {k: v for k, v in {**defaults, **probe.options}.items() if k in defaults}
        return getattr(nn, kind)(**given)

    def usual(chain: Chain) -> list[Suspect]:
        def at_output(probe: Probe) -> Array:
            from dataclasses import replace

            y = chain.evaluate(probe)["output"]
            return chain.evaluate(replace(probe, args={**probe.args, "x": y}))["grad of x"]

        return [
            own(
                "the derivative at the output",
                "The derivative is taken at the output y, where it belongs to the input x.",
                f"grad_x = grad_y {name}'(y)",
                chain.everything,
                lambda p, t: {"grad of x": at_output(p)},
                rank=2,
            ),
            own(
                "the function in place of its derivative",
                "The gradient is multiplied by the output itself, not by its derivative.",
                f"grad_x = grad_y {name}(x)",
                chain.everything,
                lambda p, t: {"grad of x": p.upstream * t["output"]},
                rank=2,
            ),
            *extra(chain),
        ]

    return layer(
        name,
        title,
        Link(make, row or kind, {}),
        draw,
        extra=usual,
        options=defaults,
        names=names,
        aliases=aliases,
    )


def of_x(
    name: str, mistake: str, wrong: str, slope: Callable[[Array, Array], Array]
) -> Callable[[Chain], Suspect]:
    """Return a suspect that takes ``slope(x, y)`` for dy/dx."""
    return lambda chain: own(
        name,
        mistake,
        wrong,
        chain.everything,
        lambda p, t: {"grad of x": p.upstream * slope(p.args["x"], t["output"])},
    )


def all_of(*makers: Callable[[Chain], Suspect]) -> Callable[[Chain], list[Suspect]]:
    """Return all of them."""
    return lambda chain: [make(chain) for make in makers]


ELEMENTWISE = [
    elements("identity", "the identity y = x", "Identity"),
    elements(
        "relu",
        "ReLU, y = max(x, 0)",
        "ReLU",
        extra=all_of(
            of_x(
                "the mask turned round",
                "The gradient passes where the unit was off, and not where it was on.",
                "grad_x = grad_y [x <= 0]",
                lambda x, y: (x <= 0) * 1.0,
            ),
            of_x(
                "the input for the mask",
                "The gradient is multiplied by the input itself where that is positive, or everywhere.",
                "grad_x = grad_y x",
                lambda x, y: x,
            ),
            of_x(
                "the sign for the mask",
                "The sign of x takes the place of the mask: units that were off get minus the gradient.",
                "grad_x = grad_y sign(x)",
                lambda x, y: np.sign(x),
            ),
        ),
    ),
    elements(
        "leaky_relu",
        "leaky ReLU",
        "LeakyReLU",
        keywords=(("negative_slope", 0.01),),
        others={"negative_slope": 0.3},
        aliases={"negative_slope": ["slope", "alpha", "a", "leak", "k"]},
        names=("leaky",),
    ),
    elements(
        "sigmoid",
        "the sigmoid",
        "Sigmoid",
        extra=all_of(
            of_x(
                "the input for the output",
                "The formula is one of the output y, but the input x was put into it.",
                "grad_x = grad_y x (1 - x)",
                lambda x, y: x * (1 - x),
            ),
            of_x(
                "tanh's derivative",
                "This is the derivative of tanh, not that of the sigmoid.",
                "grad_x = grad_y (1 - y^2)",
                lambda x, y: 1 - y * y,
            ),
            of_x(
                "one factor of the product",
                "Only one factor of the derivative is there.",
                "grad_x = grad_y (1 - y)",
                lambda x, y: 1 - y,
            ),
            of_x(
                "a sign within the product",
                "A minus within the derivative has become a plus.",
                "grad_x = grad_y y (1 + y)",
                lambda x, y: y * (1 + y),
            ),
        ),
    ),
    elements(
        "tanh",
        "tanh",
        "Tanh",
        extra=all_of(
            of_x(
                "the input for the output",
                "The formula is one of the output y, but the input x was put into it.",
                "grad_x = grad_y (1 - x^2)",
                lambda x, y: 1 - x * x,
            ),
            of_x(
                "the sigmoid's derivative",
                "This is the derivative of the sigmoid, not that of tanh.",
                "grad_x = grad_y y (1 - y)",
                lambda x, y: y * (1 - y),
            ),
            of_x(
                "a sign within the derivative",
                "A minus within the derivative has become a plus.",
                "grad_x = grad_y (1 + y^2)",
                lambda x, y: 1 + y * y,
            ),
        ),
    ),
    elements(
        "elu", "ELU", "ELU", keywords=(("alpha", 1.0),), others={"alpha": 0.4}, aliases={"alpha": ["a"]}
    ),
    elements("silu", "SiLU, y = x sigmoid(x)", "SiLU", names=("swish",)),
    elements("gelu", "GELU", "GELU"),
]


def _gelu_tanh() -> Subject:
    base = elements("gelu_tanh", "GELU by its approximation with tanh", "GELU")
    chain = Chain((Link(lambda p: nn.GELU(approximate="tanh"), "GELU-tanh", {}),))
    from dataclasses import replace

    return replace(base, evaluate=chain.everything, suspects=chain.suspects)


def _flatten() -> Subject:
    def draw(rng: np.random.Generator, i: int) -> Probe:
        shape = ((3, 2, 4, 5), (3, 2, 4, 5), (4, 3, 2, 5))[i]
        upstream = rng.normal(size=(shape[0], int(np.prod(shape[1:]))))
        return Probe({"x": batch_first(rng, *shape)}, upstream, batch=shape[0], seed=i)

    reason = (
        "Each output is one of the inputs in another place, and its gradient goes back to that place.",
        "dL/dx[n, c, h, w] = dL/dy[n, k], k the place where x[n, c, h, w] went      (N, C, H, W)",
    )
    return layer(
        "flatten",
        "flattening",
        Link(lambda p: nn.Flatten(), "Flatten", {}),
        draw,
        variants=3,
        explain={"grad of x": reason},
    )


# -- linear ---------------------------------------------------------------------------------------------

LINEAR_WORDS = {
    "grad of x": (
        "Every output of a row depends on every input of that row, so an input collects the gradients of "
        "all outputs.",
        "dL/dx[n, i] = sum_j dL/dy[n, j] · dy[n, j]/dx[n, i]      (N, in), from (N, out)",
    ),
    "grad of weight": (
        "Every row of the batch uses the same weight, so its gradient is a sum over the rows.",
        "dL/dweight[j, i] = sum_n dL/dy[n, j] · dy[n, j]/dweight[j, i]      (out, in), from (N, out)",
    ),
    "grad of bias": (
        "Every row of the batch uses the same bias, so its gradient is a sum over the rows.",
        "dL/dbias[j] = sum_n dL/dy[n, j] · dy[n, j]/dbias[j]      (out,), from (N, out)",
    ),
}
INPUT_OUTPUT = {
    "in_features": [
        "n_in",
        "in_size",
        "input_size",
        "fan_in",
        "d_in",
        "in_dim",
        "input_dim",
        "nin",
        "inputs_count",
        "in_",
    ],
    "out_features": [
        "n_out",
        "out_size",
        "output_size",
        "fan_out",
        "d_out",
        "out_dim",
        "output_dim",
        "nout",
        "hidden",
    ],
}


def _stored_in_out(args: Mapping[str, Array]) -> dict[str, Array]:
    return {**args, "weight": np.ascontiguousarray(args["weight"].T)}


TRANSPOSED = Layout(
    "your weight is stored (in, out); that is as good as (out, in)",
    _stored_in_out,
    lambda name, a: a.T if name == "grad of weight" and a.ndim == 2 else a,
)


def _linear_draw(rng: np.random.Generator, i: int) -> Probe:
    n, inputs, outputs = ((4, 6, 3), (4, 6, 3), (5, 2, 7), (3, 5, 4))[i]
    args = {
        "x": batch_first(rng, n, inputs),
        "weight": rng.normal(size=(outputs, inputs)),
        "bias": rng.normal(size=outputs),
    }
    options = {"need_grad_x": False} if i == 3 else {}
    sizes = {"in_features": inputs, "out_features": outputs}
    return Probe(args, rng.normal(size=(n, outputs)), options, ("weight", "bias"), (), sizes, i, n)


def _reshaped_for_transposed(chain: Chain) -> list[Suspect]:
    """Return the products in which a matrix was brought into shape by reshape where .T belongs."""

    def turned(a: Array) -> Array:
        return a.reshape(a.shape[::-1])

    def suspect(of: str, wrong: str, make: Callable[[Array, Array, Array], Array]) -> Suspect:
        def change(p: Probe, t: Any) -> Any:
            x, weight, g = np.atleast_2d(p.args["x"]), p.args["weight"], np.atleast_2d(p.upstream)
            return {f"grad of {of}": make(x, weight, g).reshape(p.args[of].shape)}

        return own(
            "reshaped for transposed",
            "A matrix was brought into the other shape by reshape: that fits, but cuts its rows into others, "
            "so that the numbers no longer stand where their indices say.",
            wrong,
            chain.everything,
            change,
        )

    return [
        suspect("x", "weight.reshape(in, out)", lambda x, w, g: g @ turned(w).T),
        suspect("x", "grad_y.reshape(out, N)", lambda x, w, g: (w.T @ turned(g)).T),
        suspect("weight", "grad_y.reshape(out, N)", lambda x, w, g: turned(g) @ x),
        suspect("weight", "x.reshape(in, N)", lambda x, w, g: (turned(x) @ g).T),
    ]


def _linear_extra(chain: Chain) -> list[Suspect]:
    return [
        *_reshaped_for_transposed(chain),
        own(
            "the bias summed over the outputs",
            "The bias's gradient is summed over the outputs of a row; the rows are what shares the bias.",
            "grad_bias = sum_j grad_y[:, j]",
            chain.everything,
            lambda p, t: {"grad of bias": p.upstream.sum(-1)},
        ),
        own(
            "the bias's gradient is a single number",
            "The bias's gradient is summed over everything, the outputs too.",
            "grad_bias = sum(grad_y)",
            chain.everything,
            lambda p, t: {"grad of bias": p.upstream.sum()},
        ),
        own(
            "the bias is forgotten in the forward",
            "The output is the product alone: the bias is not added.",
            "y = x weight.T",
            chain.everything,
            lambda p, t: {"output": t["output"] - p.args["bias"]},
        ),
        own(
            "the bias is subtracted in the forward",
            "The bias is taken off where it should be added.",
            "y = x weight.T - bias",
            chain.everything,
            lambda p, t: {"output": t["output"] - 2 * p.args["bias"]},
        ),
        own(
            "the weight's gradient without the input",
            "The upstream gradient stands where its product with the input should be.",
            "grad_weight[j, i] = sum_n grad_y[n, j]",
            chain.everything,
            lambda p, t: {
                "grad of weight": np.broadcast_to(p.upstream.sum(0)[:, None], p.args["weight"].shape)
            },
        ),
        own(
            "the input's gradient without the weight",
            "The upstream gradient is summed over the outputs without the weights that lead to them.",
            "grad_x[n, i] = sum_j grad_y[n, j]",
            chain.everything,
            lambda p, t: {"grad of x": np.broadcast_to(p.upstream.sum(1)[:, None], p.args["x"].shape)},
        ),
    ]


def _one_sample(rng: np.random.Generator, i: int) -> Probe:
    inputs, outputs = ((6, 3), (6, 3), (2, 7), (5, 4))[i]
    args = {
        "x": batch_first(rng, inputs),
        "weight": rng.normal(size=(outputs, inputs)),
        "bias": rng.normal(size=outputs),
    }
    sizes = {"in_features": inputs, "out_features": outputs}
    return Probe(args, rng.normal(size=outputs), {}, ("weight", "bias"), (), sizes, i, 1)


ONE_WORDS = {
    "grad of x": (
        "Every output depends on every input, so an input collects the gradients of all outputs.",
        "dL/dx[i] = sum_j dL/dy[j] · dy[j]/dx[i]      (in,), from (out,)",
    ),
    "grad of weight": (
        "weight[j, i] is in the output j alone, where it is multiplied by one input.",
        "dL/dweight[j, i] = dL/dy[j] · dy[j]/dweight[j, i]      (out, in), from (out,)",
    ),
    "grad of bias": (
        "bias[j] is in the output j alone, and is added there.",
        "dL/dbias[j] = dL/dy[j] · dy[j]/dbias[j]      (out,), from (out,)",
    ),
}
AFFINE = {"weight": "weight", "bias": "bias"}


def _affine(probe: Probe) -> nn.Module:
    weight = probe.args["weight"]
    return nn.Linear(weight.shape[-1], weight.shape[0])


# -- dropout, softmax -----------------------------------------------------------------------------------


class _Masked(nn.Dropout):
    """Dropout with a mask that is given, so that the learner's can be handed over."""

    def __init__(self, mask: Array, p: float) -> None:
        super().__init__(p)
        self.given = mask

    def _forward(self, x: Array) -> tuple[Array, Any]:
        from nn_reference import dropout

        return dropout.forward(x, (self.given / (1 - self.p)).astype(x.dtype))


def _dropout_draw(rng: np.random.Generator, i: int) -> Probe:
    shape, p = (((5, 4), 0.3), ((5, 4), 0.3), ((3, 7), 0.6))[i]
    x = rng.uniform(0.5, 2.0, shape) * rng.choice((-1.0, 1.0), shape)  # no zeros: a zero output was dropped
    mask = (rng.random(shape) >= p).astype(float)
    mask.flat[:2] = (0.0, 1.0)
    args = {"x": x, "mask": mask}
    return Probe(
        args, rng.normal(size=shape), {"p": p, "training": True}, batch=shape[0], seed=i, random=True
    )


def _observe_mask(probe: Probe, output: Array) -> Probe:
    """Take the mask that the learner's forward drew itself, to be seen in where its output is zero."""
    from dataclasses import replace

    if output.shape != probe.args["x"].shape:
        return probe
    return replace(probe, args={**probe.args, "mask": (output != 0).astype(float)})


def _another_mask(evidence: Sequence[Any]) -> tuple[str, str, str] | None:
    """Recognise a gradient that was masked and scaled, but with another mask."""
    name, other = "grad of x", False
    for e in evidence:
        found, scale = e.found.get(name), 1 / (1 - e.probe.options["p"])
        if found is None or found.shape != e.right[name].shape:
            return None
        mask = found / (e.probe.upstream * scale)
        if not np.all((np.abs(mask) < 1e-6) | (np.abs(mask - 1) < 1e-6)) or mask.all() or not mask.any():
            return None
        other = other or bool((np.round(mask) != e.probe.args["mask"]).any())
    mutant = next(m for m in mutants_of("Dropout") if m.name == "Dropout: mask drawn anew")
    return (mutant.name, mutant.mistake, mutant.wrong) if other else None


def _dropout_extra(chain: Chain) -> list[Suspect]:
    def factors(p: Probe) -> tuple[Array, float]:
        return p.args["mask"], float(p.options["p"])

    def of_forward(scale: Callable[[float], float], both: bool) -> Callable[[Probe, Any], Any]:
        def change(p: Probe, t: Any) -> Any:
            mask, rate = factors(p)
            changed = {"output": p.args["x"] * mask * scale(rate)}
            return {**changed, "grad of x": p.upstream * mask * scale(rate)} if both else changed

        return change

    words = (
        "What is kept is not scaled by 1 / (1 - p) in the forward, so the mean changes between training and "
        "evaluation."
    )
    return [
        own(
            "dropout-not-scaled",
            words,
            "y = x mask",
            chain.everything,
            of_forward(lambda p: 1.0, True),
            rank=0,
        ),
        own(
            "the forward is not scaled",
            words,
            "y = x mask",
            chain.everything,
            of_forward(lambda p: 1.0, False),
        ),
        own(
            "scaled by p",
            "What is kept is divided by the probability of dropping instead of that of keeping.",
            "mask is 0 or 1 / p",
            chain.everything,
            of_forward(lambda p: 1 / p, True),
        ),
        own(
            "scaled by 1 - p",
            "What is kept is multiplied by 1 - p where it should be divided by it.",
            "y = x mask (1 - p)",
            chain.everything,
            of_forward(lambda p: 1 - p, True),
        ),
        own(
            "scaled by p in the backward",
            "What is kept is divided by the probability of dropping instead of that of keeping.",
            "grad_x = grad_y mask / p",
            chain.everything,
            lambda p, t: {"grad of x": p.upstream * p.args["mask"] / p.options["p"]},
        ),
        own(
            "the mask turned round",
            "The gradient passes where the unit was dropped, and not where it was kept.",
            "grad_x = grad_y (1 - mask) / (1 - p)",
            chain.everything,
            lambda p, t: {"grad of x": p.upstream * (1 - p.args["mask"]) / (1 - p.options["p"])},
        ),
        own(
            "scaled twice",
            "The scale 1 / (1 - p) comes in twice: once with the mask, and once more.",
            "grad_x = grad_y mask / (1 - p)^2",
            chain.everything,
            lambda p, t: {"grad of x": p.upstream * p.args["mask"] / (1 - p.options["p"]) ** 2},
        ),
        own(
            "scaled, but not masked",
            "The scale is there, but the mask is not: units that were dropped get a gradient.",
            "grad_x = grad_y / (1 - p)",
            chain.everything,
            lambda p, t: {"grad of x": p.upstream / (1 - p.options["p"])},
        ),
    ]


def _scores_draw(rng: np.random.Generator, i: int) -> Probe:
    shape = ((4, 5), (4, 5), (3, 7), (6, 3))[i]
    return Probe({"x": batch_first(rng, *shape)}, rng.normal(size=shape), {"dim": -1}, batch=shape[0], seed=i)


AXIS = {"dim": ["axis", "ax"]}


def _softmax(x: Array, axis: Any) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


INPUT_FOR_OUTPUT: dict[str, Callable[[Array, Array, Array], Array]] = {
    "y (grad_y - sum(grad_y x))": lambda x, y, g: y * (g - (g * x).sum(-1, keepdims=True)),
    "x (grad_y - sum(grad_y y))": lambda x, y, g: x * (g - (g * y).sum(-1, keepdims=True)),
    "x (grad_y - sum(grad_y x))": lambda x, y, g: x * (g - (g * x).sum(-1, keepdims=True)),
}


def _input_for_output(f: Callable[[Array, Array, Array], Array]) -> Callable[[Probe, Any], Any]:
    return lambda p, t: {"grad of x": f(p.args["x"], t["output"], p.upstream)}


def _softmax_extra(chain: Chain) -> list[Suspect]:
    def through(s: Array, g: Array, axis: Any) -> Array:
        return s * (g - (g * s).sum(axis, keepdims=True))

    return [
        own(
            "summed over the batch",
            "The sum runs over the rows of the batch; the classes are what depends on one another.",
            "y (grad_y - sum_n(grad_y y))",
            chain.everything,
            lambda p, t: {"grad of x": through(t["output"], p.upstream, 0)},
        ),
        own(
            "summed over everything",
            "The sum runs over all rows and classes at once: a row's probabilities depend on its own scores "
            "only.",
            "y (grad_y - sum(grad_y y)), over everything",
            chain.everything,
            lambda p, t: {"grad of x": through(t["output"], p.upstream, None)},
        ),
        *(
            own(
                "the input for the output",
                "The formula is one of the output y, but the input x was put into it.",
                wrong,
                chain.everything,
                _input_for_output(f),
            )
            for wrong, f in INPUT_FOR_OUTPUT.items()
        ),
        own(
            "the mean for the sum",
            "The mean over the classes stands where the sum over them should.",
            "y (grad_y - mean(grad_y y))",
            chain.everything,
            lambda p, t: {
                "grad of x": t["output"] * (p.upstream - (p.upstream * t["output"]).mean(-1, keepdims=True))
            },
        ),
        own(
            "the outer factor forgotten",
            "The difference lacks the factor y before it.",
            "grad_y - sum(grad_y y)",
            chain.everything,
            lambda p, t: {"grad of x": p.upstream - (p.upstream * t["output"]).sum(-1, keepdims=True)},
        ),
        own(
            "a plus for the minus",
            "The two parts of the Jacobian are added; the one off the diagonal is negative.",
            "y (grad_y + sum(grad_y y))",
            chain.everything,
            lambda p, t: {
                "grad of x": t["output"] * (p.upstream + (p.upstream * t["output"]).sum(-1, keepdims=True))
            },
        ),
        own(
            "softmax over the batch",
            "The forward normalises over the rows of the batch instead of the classes.",
            "y = exp(x) / sum_n exp(x)",
            chain.everything,
            lambda p, t: {"output": _softmax(p.args["x"], 0)},
        ),
        own(
            "softmax over the batch, in both directions",
            "Forward and backward normalise over the rows of the batch instead of the classes.",
            "y = exp(x) / sum_n exp(x)",
            chain.everything,
            lambda p, t: {
                "output": (s := _softmax(p.args["x"], 0)),
                "grad of x": through(s, p.upstream, 0),
            },
        ),
        own(
            "softmax over everything",
            "The forward normalises over all rows and classes at once.",
            "y = exp(x) / sum(exp(x)), over everything",
            chain.everything,
            lambda p, t: {"output": _softmax(p.args["x"], None)},
        ),
    ]


def _log_softmax_extra(chain: Chain) -> list[Suspect]:
    return [
        own(
            "summed over the batch",
            "The sum runs over the rows of the batch; the classes are what depends on one another.",
            "grad_y - p sum_n(grad_y)",
            chain.everything,
            lambda p, t: {"grad of x": p.upstream - np.exp(t["output"]) * p.upstream.sum(0, keepdims=True)},
        ),
        own(
            "the normaliser is constant",
            "The normaliser is treated as a number that does not depend on the scores.",
            "grad_x = grad_y",
            chain.everything,
            lambda p, t: {"grad of x": p.upstream},
        ),
        own(
            "the probability forgotten",
            "The sum is taken off without the probability that belongs before it.",
            "grad_y - sum(grad_y)",
            chain.everything,
            lambda p, t: {"grad of x": p.upstream - p.upstream.sum(-1, keepdims=True)},
        ),
        own(
            "the mean for the sum",
            "The mean over the classes stands where the sum over them should.",
            "grad_y - p mean(grad_y)",
            chain.everything,
            lambda p, t: {"grad of x": p.upstream - np.exp(t["output"]) * p.upstream.mean(-1, keepdims=True)},
        ),
        own(
            "weighted by the probabilities",
            "The sum is that of softmax's backward, weighted by the probabilities.",
            "grad_y - p sum(grad_y p)",
            chain.everything,
            lambda p, t: {
                "grad of x": p.upstream
                - np.exp(t["output"]) * (p.upstream * np.exp(t["output"])).sum(-1, keepdims=True)
            },
        ),
    ]


CLASSES = {
    "grad of x": (
        "Every score of a row is in the sum that normalises the row, so it changes all outputs of that row.",
        "dL/dx[n, k] = sum_j dL/dy[n, j] · dy[n, j]/dx[n, k]      (N, C), from (N, C)",
    )
}

# -- batch norm -----------------------------------------------------------------------------------------

RUNNING = ("running_mean", "running_var")


def _norm_draw(images: bool) -> Draw:
    def draw(rng: np.random.Generator, i: int) -> Probe:
        shape = (
            ((3, 4, 2, 5), (3, 4, 2, 5), (2, 3, 4, 3), (3, 2, 4, 3))
            if images
            else ((6, 4), (6, 4), (5, 3), (7, 2))
        )[i]
        channels = shape[1]
        args = {
            "x": rng.normal(1.0, 2.0, shape),
            "weight": rng.uniform(0.5, 1.5, channels),
            "bias": rng.normal(size=channels),
            "running_mean": rng.normal(size=channels),
            "running_var": rng.uniform(0.5, 2.0, channels),
        }
        # A large eps shows where it stands.
        options = {"training": i != 3, "eps": 0.3 if i == 2 else 1e-5, "momentum": 0.1}
        sizes = {"num_features": channels}
        return Probe(args, rng.normal(size=shape), options, ("weight", "bias"), RUNNING, sizes, i, shape[0])

    return draw


def _norm_extra(chain: Chain) -> list[Suspect]:
    def parts(p: Probe) -> tuple[Any, ...]:
        x, g = p.args["x"], p.upstream
        axes = (0, *range(2, x.ndim))
        shape = (1, -1, *(1,) * (x.ndim - 2))
        var = x.var(axes, keepdims=True)
        s = 1 / np.sqrt(var + p.options["eps"])
        normal = (x - x.mean(axes, keepdims=True)) * s
        return x, g, axes, p.args["weight"].reshape(shape), s, normal

    def only_in_training(change: Callable[[Probe], Any]) -> Callable[[Probe, Any], Any]:
        return lambda p, t: change(p) if p.options["training"] else {}

    def eps_outside(p: Probe) -> Any:
        x, _, axes, weight, _, _ = parts(p)
        normal = (x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + p.options["eps"])
        return {"output": weight * normal + p.args["bias"].reshape(weight.shape)}

    def input_gradient(p: Probe, power: int = 1, sums: bool = False, mean: bool = True) -> Array:
        _, g, axes, weight, s, normal = parts(p)
        g = g * weight
        middle = np.sum if sums else np.mean
        first = middle(g, axis=axes, keepdims=True)
        return s**power * (g - first - normal * middle(g * normal, axis=axes, keepdims=True))

    return [
        own(
            "eps outside the root",
            "eps is added to the standard deviation; it belongs to the variance, under the root.",
            "x^ = (x - mean) / (sqrt(var) + eps)",
            chain.everything,
            only_in_training(eps_outside),
        ),
        own(
            "the standard deviation forgotten",
            "The division by the standard deviation in the forward has no counterpart in the backward.",
            "grad_x = g - mean(g) - x^ mean(g x^)",
            chain.everything,
            only_in_training(lambda p: {"grad of x": input_gradient(p, 0)}),
        ),
        own(
            "the variance for the standard deviation",
            "The gradient is divided by the variance; the forward divided by its root.",
            "grad_x = (g - mean(g) - x^ mean(g x^)) / var",
            chain.everything,
            only_in_training(lambda p: {"grad of x": input_gradient(p, 2)}),
        ),
        own(
            "sums for means",
            "The two paths through mean and variance are sums where they should be means over the batch.",
            "grad_x = s (g - sum(g) - x^ sum(g x^))",
            chain.everything,
            only_in_training(lambda p: {"grad of x": input_gradient(p, 1, sums=True)}),
        ),
        own(
            "the input for the normalised input",
            "The gradient of the scale is made with x, but what is scaled is the normalised x.",
            "grad_weight = sum(grad_y x)",
            chain.everything,
            lambda p, t: {"grad of weight": (p.upstream * p.args["x"]).sum(parts(p)[2])},
        ),
        own(
            "the standard deviation for the input's gradient",
            "The gradient is only scaled, as if mean and variance did not depend on x, and by gamma alone.",
            "grad_x = grad_y gamma",
            chain.everything,
            only_in_training(lambda p: {"grad of x": p.upstream * parts(p)[3]}),
        ),
    ]


BATCH = {
    "grad of x": (
        "Mean and variance are made of all rows, so every x of a channel changes every output of that "
        "channel.",
        "dL/dx[n, c] = sum_m dL/dy[m, c] · (dy[m, c]/dx[n, c] with mean(x) and var(x) as functions of x)"
        "      (N, C), from (N, C)",
    ),
    "grad of weight": (
        "The scale of a channel is used for every row, so its gradient is a sum over them.",
        "dL/dweight[c] = sum_n dL/dy[n, c] · dy[n, c]/dweight[c]      (C,), from (N, C)",
    ),
    "grad of bias": (
        "The shift of a channel is added to every row, so its gradient is a sum over them.",
        "dL/dbias[c] = sum_n dL/dy[n, c] · dy[n, c]/dbias[c]      (C,), from (N, C)",
    ),
}
NORM_NAMES: dict[str, list[str]] = {
    "weight": ["gamma", "scale", "w", "weights", "gain"],
    "bias": ["beta", "shift", "b", "offset"],
    "running_mean": ["run_mean", "mean_running", "moving_mean", "rm", "mu_running"],
    "running_var": ["run_var", "var_running", "moving_var", "rv", "running_variance", "moving_variance"],
    "eps": ["epsilon", "e"],
    "momentum": ["m", "mom"],
    "training": ["train", "is_training", "training_mode", "mode"],
    "num_features": ["n_features", "features", "dim", "d", "num_channels", "channels", "n", "size"],
}
NORM_OPTIONS = {"training": True, "eps": 1e-5, "momentum": 0.1}


def _norm(kind: str) -> Link:
    return Link(lambda p: getattr(nn, kind)(p.args["weight"].size, eps=p.options["eps"]), kind, AFFINE)


LAYERS = [
    *ELEMENTWISE,
    _gelu_tanh(),
    _flatten(),
    layer(
        "linear",
        "the linear layer, y = x weight.T + bias",
        Link(_affine, "Linear", AFFINE),
        _linear_draw,
        extra=_linear_extra,
        aliases={**INPUT_OUTPUT, "need_grad_x": ["input_grad", "need_input_grad"]},
        explain=LINEAR_WORDS,
        layouts=(TRANSPOSED,),
        names=("affine", "dense", "fc", "fully"),
    ),
    layer(
        "linear_one",
        "the linear layer for one sample, y = weight x + bias",
        Link(_affine, "Linear", AFFINE),
        _one_sample,
        extra=_reshaped_for_transposed,
        aliases=INPUT_OUTPUT,
        explain=ONE_WORDS,
        layouts=(TRANSPOSED,),
        names=("linear", "affine", "dense"),
    ),
    layer(
        "dropout",
        "dropout",
        Link(lambda p: _Masked(p.args["mask"], p.options["p"]), "Dropout", {}),
        _dropout_draw,
        variants=3,
        extra=_dropout_extra,
        aliases={
            "mask": ["keep", "kept", "m", "M", "keep_mask", "drop_mask"],
            "p": ["rate", "drop", "prob", "p_drop", "dropout_rate", "drop_prob", "q", "probability"],
            "rng": ["generator", "random", "gen", "random_state", "r"],
            "training": ["train", "is_training"],
        },
        options={"training": True},
        observe=_observe_mask,
        recognise=_another_mask,
        explain={
            "grad of x": (
                "Once the mask is drawn it is a constant, and each output depends on the input in the same "
                "place.",
                ELEMENTS,
            )
        },
    ),
    layer(
        "softmax",
        "softmax over the last axis",
        Link(lambda p: nn.Softmax(-1), "Softmax", {}),
        _scores_draw,
        aliases=AXIS,
        options={"dim": -1},
        extra=_softmax_extra,
        explain=CLASSES,
    ),
    layer(
        "log_softmax",
        "log-softmax over the last axis",
        Link(lambda p: nn.LogSoftmax(-1), "LogSoftmax", {}),
        _scores_draw,
        aliases=AXIS,
        options={"dim": -1},
        extra=_log_softmax_extra,
        explain=CLASSES,
        names=("logsoftmax",),
    ),
    layer(
        "batchnorm1d",
        "batch normalisation of (N, C)",
        _norm("BatchNorm1d"),
        _norm_draw(False),
        extra=_norm_extra,
        aliases=NORM_NAMES,
        options=NORM_OPTIONS,
        explain=BATCH,
        names=("batchnorm", "batch_norm", "bn"),
    ),
    layer(
        "batchnorm2d",
        "batch normalisation of images (N, C, H, W)",
        _norm("BatchNorm2d"),
        _norm_draw(True),
        extra=_norm_extra,
        aliases=NORM_NAMES,
        options=NORM_OPTIONS,
        explain=BATCH,
        names=("batchnorm", "batch_norm", "bn"),
    ),
]
