"""The subject of a whole step: convolution, ReLU, max-pooling, a linear layer and the cross-entropy."""

import numpy as np

import nn_reference as nn
from agreement.diagnosis.chain import Chain, Link
from agreement.diagnosis.layers import several
from agreement.diagnosis.subject import BIAS, TARGET, Probe, Subject, Suspect, batch_first
from agreement.mutants import NETWORKS

CNN = Chain(
    (
        Link(
            lambda p: nn.Conv2d(1, len(p.args["kernel"]), 3),
            "Conv2d",
            {"weight": "kernel", "bias": "kernel_bias"},
        ),
        Link(lambda p: nn.ReLU(), "ReLU", {}),
        Link(lambda p: nn.MaxPool2d(2), "MaxPool2d", {}),
        Link(lambda p: nn.Flatten(), "Flatten", {}),
        Link(
            lambda p: nn.Linear(*p.args["weight"].shape[::-1]), "Linear", {"weight": "weight", "bias": "bias"}
        ),
        Link(lambda p: nn.CrossEntropyLoss(), "CrossEntropyLoss", {}),
    )
)


def _draw(rng: np.random.Generator, i: int) -> Probe:
    n, height, width, channels, classes = ((4, 8, 6, 2, 5), (3, 7, 9, 3, 4), (5, 6, 8, 2, 3))[i]
    features = channels * ((height - 2) // 2) * ((width - 2) // 2)
    args = {
        "x": batch_first(rng, n, 1, height, width),
        "kernel": rng.normal(size=(channels, 1, 3, 3)) / 2,
        "kernel_bias": rng.normal(size=channels),
        "weight": rng.normal(size=(classes, features)) / np.sqrt(features),
        "bias": rng.normal(size=classes),
        "target": np.r_[0, classes - 1, rng.integers(0, classes, n - 2)],
    }
    # Equal pixels make windows with several winners, above zero in one channel, exactly zero in another.
    args["x"][:, :, :4, :4] = 0.0
    args["kernel_bias"][0], args["kernel_bias"][-1] = abs(args["kernel_bias"][0]), 0.0
    parameters = ("kernel", "kernel_bias", "weight", "bias")
    return Probe(args, np.asarray(rng.uniform(0.5, 2.0)), {"need_grad_x": False}, parameters, (), {}, i, n)


def _suspects() -> list[Suspect]:
    """Return the mutants of each layer, and those mistakes between layers that one step can show."""
    between = {"update-before-input-gradient": 4, "softmax-twice": 5}
    return CNN.suspects() + [CNN._suspect(m, [between[m.name]], "") for m in NETWORKS if m.name in between]


LOGITS = "dL/ds = grad_loss · (softmax(s) - one-hot labels) / N      (N, C)"
WORDS = {
    "grad of bias": (
        "The bias is added to the scores of every sample.",
        f"dL/dbias = sum_n dL/ds[n], {LOGITS}",
    ),
    "grad of weight": (
        "The weight is used for every sample, with the pooled and flattened pixels f as its input.",
        "dL/dweight[j, k] = sum_n dL/ds[n, j] · f[n, k]      (C, F), from (N, C) and (N, F)",
    ),
    "grad of kernel_bias": (
        "A channel's bias is added at every pixel, and reaches the loss through those that won their window.",
        "dL/dkernel_bias[o] = sum over n, r, c of dL/dc[n, o, r, c]      (O,), from (N, O, H', W')",
    ),
    "grad of kernel": (
        "The kernel is used at every place of every image, and reaches the loss through the pixels that won.",
        "dL/dkernel[o, 0, i, j] = sum over n, r, c of dL/dc[n, o, r, c] · x[n, 0, r + i, c + j]"
        "      (O, 1, 3, 3), from (N, O, H', W')",
    ),
}

CNN_STEP = Subject(
    "cnn",
    "a step of a CNN: convolution, ReLU, max-pooling, linear, cross-entropy",
    ("cnn", "cnn_step", "convnet", "lenet"),
    several(_draw, 3),
    CNN.evaluate,
    _suspects,
    {
        "x": ["images", "X", "img", "input", "inputs"],
        "kernel": ["k", "K", "kernels", "filters", "conv_weight", "w1"],
        "kernel_bias": ["kb", "conv_bias", "b1"],
        "weight": ["w", "W", "weights", "w2"],
        "bias": [*BIAS, "b2"],
        "target": TARGET,
    },
    ("kernel", "kernel_bias", "weight", "bias"),
    {"need_grad_x": False},
    WORDS,
    loss=True,
)
