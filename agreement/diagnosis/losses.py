"""The subjects that are losses: a number, and the gradient of what was predicted."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import nn_reference as nn
from agreement.diagnosis.chain import Chain, Link, own
from agreement.diagnosis.layers import several
from agreement.diagnosis.subject import TARGET, Layout, Probe, Subject, Suspect, X, batch_first
from agreement.measures import Array

OPTIONS = {
    "reduction": "mean",
    "weight": None,
    "label_smoothing": 0.0,
    "ignore_index": -100,
    "pos_weight": None,
    "class_weight": None,
}
NAMES = {
    "target": TARGET,
    "weight": ["class_weights", "class_weight", "w", "weights"],
    "label_smoothing": ["smoothing", "eps", "epsilon"],
    "ignore_index": ["ignore", "ignored"],
    "reduction": ["reduce"],
}
OF_SCORES = [
    *X,
    "s",
    "y_hat",
    "yhat",
    "pred",
    "preds",
    "out",
    "output",
    "p",
    "probs",
    "q",
    "log_p",
    "logp",
    "log_probs",
    "y_pred",
]


def loss(
    name: str,
    title: str,
    kind: str,
    draw: Callable[[np.random.Generator, int], Probe],
    variants: int,
    *,
    row: str = "",
    extra: Callable[[Chain], list[Suspect]] = lambda chain: [],
    reason: tuple[str, str],
    names: tuple[str, ...] = (),
    **rest: Any,
) -> Subject:
    """Return the subject of a loss."""

    def make(probe: Probe) -> nn.Module:
        return getattr(nn, kind)(**probe.options)

    chain = Chain((Link(make, row or kind, {}),))
    return Subject(
        name,
        title,
        (name, *names),
        several(draw, variants),
        chain.evaluate,
        lambda: chain.suspects() + extra(chain),
        {"x": OF_SCORES, **NAMES},
        ("x",),
        OPTIONS,
        {"grad of x": reason},
        loss=True,
        **rest,
    )


def _upstream(rng: np.random.Generator, probe: Probe, kind: str) -> Probe:
    with nn.no_grad():
        y = np.asarray(getattr(nn, kind)(**probe.options)(probe.args["x"], probe.args["target"]))
    return replace(probe, upstream=np.asarray(rng.uniform(0.5, 2.0, y.shape)))


def _labels(kind: str) -> Callable[[np.random.Generator, int], Probe]:
    def draw(rng: np.random.Generator, i: int) -> Probe:
        n, c = ((4, 5), (4, 5), (6, 3), (5, 4), (7, 4), (6, 5), (5, 3))[i]
        x = batch_first(rng, n, c)
        target = rng.integers(0, c, n)
        target[:2] = (0, c - 1)
        options: dict[str, Any] = {}
        if i == 3:
            options = {"weight": rng.uniform(0.3, 3.0, c)}
        if i == 4:
            options = {"ignore_index": int(target[2])}
        if i == 5 and kind == "CrossEntropyLoss":
            options = {"label_smoothing": 0.2}
        if i == 6:
            options = {"reduction": "sum"}
        if kind == "NLLLoss":
            x = x - np.log(np.exp(x).sum(1, keepdims=True))
        return _upstream(rng, Probe({"x": x, "target": target}, np.zeros(()), options, batch=n, seed=i), kind)

    return draw


def _soft(rng: np.random.Generator, i: int) -> Probe:
    n, c = ((4, 5), (4, 5), (6, 3), (5, 4))[i]
    target = np.exp(rng.normal(size=(n, c)))
    target /= target.sum(1, keepdims=True)
    options = {"weight": rng.uniform(0.3, 3.0, c)} if i == 3 else {}
    args = {"x": batch_first(rng, n, c), "target": target}
    return _upstream(rng, Probe(args, np.zeros(()), options, batch=n, seed=i), "CrossEntropyLoss")


def _difference(kind: str) -> Callable[[np.random.Generator, int], Probe]:
    def draw(rng: np.random.Generator, i: int) -> Probe:
        shape = ((4, 5), (4, 5), (6, 3), (5, 3))[i]
        x, target = batch_first(rng, *shape), batch_first(rng, *shape)
        if kind == "BCEWithLogitsLoss":
            target = (rng.random(shape) < 0.5).astype(float)
        else:
            target[0, 0] = x[0, 0]
        options: dict[str, Any] = {"reduction": "sum"} if i == 3 else {}
        if i == 3 and kind == "BCEWithLogitsLoss":
            options = {"pos_weight": rng.uniform(0.5, 3.0, shape[1])}
        probe = Probe({"x": x, "target": target}, np.zeros(()), options, batch=shape[0], seed=i)
        return _upstream(rng, probe, kind)

    return draw


def _one_hot(args: Mapping[str, Array]) -> dict[str, Array]:
    return {**args, "target": np.eye(args["x"].shape[1])[args["target"]]}


ONE_HOT = Layout("your labels are one-hot", _one_hot, lambda name, a: a)


def _softmax(x: Array, axis: Any = 1) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _hot(p: Probe) -> Array:
    c = p.args["x"].shape[1]
    return np.eye(c)[np.clip(p.args["target"], 0, c - 1)] if p.args["target"].ndim == 1 else p.args["target"]


def _entropy_extra(chain: Chain) -> list[Suspect]:
    def plain(p: Probe) -> bool:
        return not p.options

    def change(function: Callable[[Array, Array, float, Probe], Any]) -> Callable[[Probe, Any], Any]:
        """Hand over p, one-hot targets and grad_loss / N, where nothing but the mean is asked for."""
        return lambda p, t: (
            function(_softmax(p.args["x"]), _hot(p), float(p.upstream) / p.batch, p) if plain(p) else {}
        )

    def of(name: str, mistake: str, wrong: str, function: Any) -> Suspect:
        return own(name, mistake, wrong, chain.evaluate, change(function))

    def away(p: Array, t: Array) -> Array:
        return t * (p - 1)

    return [
        of(
            "the scores for the probabilities",
            "The target is taken off the scores themselves; softmax is missing.",
            "(x - t) / N",
            lambda p, t, g, probe: {"grad of x": (probe.args["x"] - t) * g},
        ),
        of(
            "the logarithm's derivative alone",
            "This is the derivative of -log p by p; that of p by the scores is missing.",
            "(-t / p) / N",
            lambda p, t, g, probe: {"grad of x": -t / p * g},
        ),
        of(
            "the label's score alone",
            "Only the score of the label gets a gradient; the others are in the normaliser, too.",
            "(p - 1) / N at the label, else 0",
            lambda p, t, g, probe: {"grad of x": away(p, t) * g},
        ),
        of(
            "softmax over the batch",
            "The probabilities are normalised over the rows of the batch instead of the classes.",
            "p = exp(x) / sum_n exp(x)",
            lambda p, t, g, probe: {"grad of x": (_softmax(probe.args["x"], 0) - t) * g},
        ),
        of(
            "softmax's derivative once more",
            "p - t is already the gradient of the scores; here it goes through p (1 - p), too.",
            "(p - t) p (1 - p) / N",
            lambda p, t, g, probe: {"grad of x": (p - t) * p * (1 - p) * g},
        ),
        of(
            "through softmax once more",
            "p - t is already the gradient of the scores; here it goes through softmax's Jacobian, too.",
            "J (p - t) / N",
            lambda p, t, g, probe: {
                "grad of x": p * ((p - t) - ((p - t) * p).sum(1, keepdims=True)) * g,
            },
        ),
        of(
            "the squared error's gradient",
            "This is the gradient of the squared error of the probabilities.",
            "2 (p - t) / (N C)",
            lambda p, t, g, probe: {"grad of x": 2 * (p - t) * g / p.shape[1]},
        ),
        of(
            "one label for all rows",
            "The target is taken off whole columns: the label of each row has been used for every row.",
            "p[:, labels] - 1",
            lambda p, t, g, probe: {"grad of x": (p - (t.sum(0) > 0)) * g},
        ),
        of(
            "the most likely class for the label",
            "1 is taken off at the class that the network holds most likely, not at the label.",
            "p - 1 at argmax(p)",
            lambda p, t, g, probe: {"grad of x": (p - np.eye(p.shape[1])[p.argmax(1)]) * g},
        ),
        own(
            "the sum for the mean",
            "The losses are added up, not averaged over the batch, in forward and backward.",
            "loss = sum_n loss[n]",
            chain.evaluate,
            lambda p, t: (
                {"output": t["output"] * p.batch, "grad of x": t["grad of x"] * p.batch} if plain(p) else {}
            ),
        ),
        own(
            "softmax applied twice in the forward",
            "The forward takes the softmax of probabilities.",
            "loss = -log softmax(softmax(x))[label]",
            chain.evaluate,
            lambda p, t: (
                {"output": -(_hot(p) * np.log(_softmax(_softmax(p.args["x"])))).sum() / p.batch}
                if plain(p)
                else {}
            ),
        ),
        own(
            "the minus forgotten in the forward",
            "The loss lacks its minus.",
            "loss = mean log p[label]",
            chain.evaluate,
            lambda p, t: {"output": -t["output"]},
            rank=0,
        ),
    ]


def _probabilities_draw(rng: np.random.Generator, i: int) -> Probe:
    n, c = ((4, 5), (4, 5), (6, 3))[i]
    target = rng.integers(0, c, n)
    target[:2] = (0, c - 1)
    args = {"x": _softmax(rng.normal(size=(n, c))), "target": target}
    return Probe(args, np.asarray(rng.uniform(0.5, 2.0)), {}, batch=n, seed=i)


def _of_probabilities(probe: Probe) -> dict[str, Array]:
    p, t, n = probe.args["x"], _hot(probe), probe.batch
    found = {"output": -(t * np.log(p)).sum() / n, "grad of x": -t / p / n * probe.upstream}
    return {name: np.asarray(value) for name, value in found.items()}


def _probability_suspects() -> list[Suspect]:
    def of(name: str, mistake: str, wrong: str, function: Any) -> Suspect:
        return own(
            name,
            mistake,
            wrong,
            _of_probabilities,
            lambda p, t: {"grad of x": function(p.args["x"], _hot(p), float(p.upstream) / p.batch)},
            rank=0,
        )

    return [
        of(
            "minus forgotten",
            "The loss is minus a logarithm; its derivative lacks the minus.",
            "t / p / N",
            lambda p, t, g: t / p * g,
        ),
        of(
            "one over n missing",
            "The mean of the forward has no counterpart: the gradient grows with the batch.",
            "-t / p",
            lambda p, t, g: None if g == 0 else -t / p * g * len(p),
        ),
        of(
            "the gradient of the scores",
            "This is the gradient of the scores before softmax; here it is that of the probabilities.",
            "(p - t) / N",
            lambda p, t, g: (p - t) * g,
        ),
        of(
            "the logarithm for its derivative",
            "The logarithm itself stands where its derivative should.",
            "-t log(p) / N",
            lambda p, t, g: -t * np.log(p) * g,
        ),
        of(
            "all classes get a gradient",
            "Only the label's probability is in the loss, but all classes get a gradient.",
            "-1 / p / N",
            lambda p, t, g: -1 / p * g,
        ),
        of(
            "the probability not divided by",
            "The derivative of the logarithm is missing: only the label is marked.",
            "-t / N",
            lambda p, t, g: -t * g,
        ),
        of(
            "multiplied by the probability",
            "The probability multiplies where it should divide.",
            "-t p / N",
            lambda p, t, g: -t * p * g,
        ),
        of(
            "mean over classes too",
            "The mean is taken over all numbers; a loss is the sum over the classes.",
            "-t / p / (N C)",
            lambda p, t, g: -t / p * g / p.shape[1],
        ),
    ]


def _mse_extra(chain: Chain) -> list[Suspect]:
    def d(p: Probe) -> Array:
        return p.args["x"] - p.args["target"]

    def of(name: str, mistake: str, wrong: str, function: Any, rank: int = 1) -> Suspect:
        return own(
            name, mistake, wrong, chain.evaluate, lambda p, t: function(p) if not p.options else {}, rank
        )

    return [
        of(
            "the mean forgotten",
            "The mean of the forward has no counterpart: the gradient grows with the number of elements.",
            "2 (x - target)",
            lambda p: {"grad of x": 2 * d(p) * p.upstream},
            0,
        ),
        of(
            "divided by the rows alone, no two",
            "The mean is over the rows alone, and the factor 2 is missing.",
            "(x - target) / N",
            lambda p: {"grad of x": d(p) * p.upstream / p.batch},
            1,
        ),
        of(
            "the difference alone",
            "The difference alone: neither the 2 of the square nor the 1 / n of the mean is there.",
            "x - target",
            lambda p: {"grad of x": d(p) * p.upstream},
            1,
        ),
        of(
            "the absolute value's derivative",
            "This is the gradient of the absolute difference.",
            "sign(x - target) / n",
            lambda p: {"grad of x": np.sign(d(p)) * p.upstream / d(p).size},
        ),
        of(
            "the square itself",
            "The square itself stands where its derivative should.",
            "(x - target)^2 / n",
            lambda p: {"grad of x": d(p) ** 2 * p.upstream / d(p).size},
        ),
        of(
            "twice the prediction",
            "The target is not taken off.",
            "2 x / n",
            lambda p: {"grad of x": 2 * p.args["x"] * p.upstream / d(p).size},
        ),
        of(
            "half the square in the forward",
            "The forward has a factor 1/2 that the mean squared error has not.",
            "loss = mean((x - target)^2) / 2",
            lambda p: {"output": (d(p) ** 2).mean() / 2},
        ),
        of(
            "half the square in both directions",
            "Forward and backward have a factor 1/2 that the mean squared error has not.",
            "loss = mean((x - target)^2) / 2",
            lambda p: {"output": (d(p) ** 2).mean() / 2, "grad of x": d(p) * p.upstream / d(p).size},
        ),
        of(
            "the sum for the mean",
            "The squares are added up, not averaged, in forward and backward.",
            "loss = sum((x - target)^2)",
            lambda p: {"output": (d(p) ** 2).sum(), "grad of x": 2 * d(p) * p.upstream},
        ),
        of(
            "the root in the forward",
            "The forward takes the root of the mean square.",
            "loss = sqrt(mean((x - target)^2))",
            lambda p: {"output": np.sqrt((d(p) ** 2).mean())},
        ),
        of(
            "a mean over the rows in the forward",
            "The mean is over the rows alone, in forward and backward.",
            "loss = sum((x - target)^2) / N",
            lambda p: {"output": (d(p) ** 2).sum() / p.batch, "grad of x": 2 * d(p) * p.upstream / p.batch},
        ),
    ]


def _bce_extra(chain: Chain) -> list[Suspect]:
    return [
        own(
            "the scores for the probabilities",
            "The target is taken off the scores themselves; the sigmoid is missing.",
            "(x - t) / n",
            chain.evaluate,
            lambda p, t: (
                {}
                if p.options
                else {"grad of x": (p.args["x"] - p.args["target"]) * p.upstream / p.args["x"].size}
            ),
        )
    ]


ITEM = "dL/dx[n, k] = dL/dloss · dloss/dx[n, k]      (N, C) = () · (N, C)"
CLASSES = (
    "Every score of a row is in the sum that normalises the row, so every score gets a gradient; and the "
    "mean counts "
    "each row by its share.",
    ITEM,
)
EACH = ("The loss is a mean over all elements, and each element counts by its share.", ITEM)

LOSSES = [
    loss(
        "mse",
        "the mean squared error",
        "MSELoss",
        _difference("MSELoss"),
        4,
        extra=_mse_extra,
        reason=EACH,
        names=("mse_loss", "squared", "mean_squared_error"),
    ),
    loss(
        "l1",
        "the mean absolute error",
        "L1Loss",
        _difference("L1Loss"),
        4,
        reason=EACH,
        names=("l1_loss", "mae"),
    ),
    loss(
        "bce_with_logits",
        "binary cross-entropy of scores",
        "BCEWithLogitsLoss",
        _difference("BCEWithLogitsLoss"),
        4,
        extra=_bce_extra,
        reason=EACH,
        names=("bce",),
    ),
    loss(
        "cross_entropy",
        "cross-entropy of scores (log-softmax and -log p together)",
        "CrossEntropyLoss",
        _labels("CrossEntropyLoss"),
        7,
        extra=_entropy_extra,
        reason=CLASSES,
        layouts=(ONE_HOT,),
        names=("crossentropy", "softmax_cross_entropy", "xent", "softmax_loss"),
    ),
    loss(
        "cross_entropy_soft",
        "cross-entropy of scores with probabilities as targets",
        "CrossEntropyLoss",
        _soft,
        4,
        row="CrossEntropyLoss-probabilities",
        extra=_entropy_extra,
        reason=CLASSES,
        names=("soft",),
    ),
    loss(
        "nll",
        "the negative log-likelihood of log-probabilities",
        "NLLLoss",
        _labels("NLLLoss"),
        5,
        layouts=(ONE_HOT,),
        reason=(
            "Only the log-probability of the label is in the loss, and the mean counts each row by its "
            "share.",
            ITEM,
        ),
        names=("nll_loss", "negative_log_likelihood"),
    ),
    Subject(
        "cross_entropy_of_probabilities",
        "cross-entropy of probabilities, -mean log p[label]",
        ("cross_entropy_of_probabilities", "cross_entropy", "log_loss"),
        several(_probabilities_draw, 3),
        _of_probabilities,
        _probability_suspects,
        {"x": ["p", "probs", "probabilities", "y_hat", "yhat", "q", *OF_SCORES], **NAMES},
        ("x",),
        OPTIONS,
        {
            "grad of x": (
                "Only the probability of the label is in the loss, and the mean counts each row by its "
                "share.",
                ITEM,
            )
        },
        loss=True,
        layouts=(ONE_HOT,),
    ),
]
