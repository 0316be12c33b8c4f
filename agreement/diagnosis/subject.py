"""What can be diagnosed: how it is called, what goes in, what should come out, and who is suspected."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agreement.measures import Array
from agreement.mutants import Kind, Mutant

Tensors = dict[str, Array]

# What people call things, besides the name of the thing itself.
UPSTREAM = [
    "grad_output",
    "grad_out",
    "grad_y",
    "dy",
    "dout",
    "dL_dy",
    "dLdy",
    "dl_dy",
    "delta",
    "upstream",
    "g",
    "grad",
    "dz",
    "dL",
    "gy",
    "gout",
    "d_out",
    "d_y",
    "dout_",
    "output_grad",
    "out_grad",
    "grad_loss",
    "dloss",
    "gradient",
    "grad_scores",
    "dscores",
    "grad_a",
    "da",
    "dh",
    "ds",
    "error",
    "err",
    "incoming",
    "up",
    "top_grad",
    "top_diff",
    "dA",
    "dZ",
    "grad_z",
    "dL_dout",
    "dL_dz",
    "dL_da",
    "grad_outputs",
    "gradOutput",
    "dprev",
    "G",
    "dY",
    "v",
    "above",
    "top",
]
CACHE = [
    "ctx",
    "context",
    "saved",
    "memory",
    "mem",
    "stuff",
    "remember",
    "kept_values",
    "state",
    "tape",
    "stored",
]
OUTPUT = ["out", "y", "output", "a", "z", "s", "p", "result", "res", "act", "probs", "activation"]
X = [
    "x",
    "X",
    "inp",
    "input",
    "inputs",
    "xs",
    "data",
    "features",
    "a_prev",
    "A_prev",
    "h",
    "images",
    "img",
    "batch",
    "a",
    "A",
    "z",
    "scores",
    "logits",
    "values",
    "pred",
    "prediction",
    "predictions",
    "x_in",
    "in_",
    "u",
    "vec",
]
WEIGHT = ["w", "W", "weights", "kernel", "kernels", "filters", "theta", "K", "f", "filt", "M", "matrix", "k"]
BIAS = ["b", "B", "biases", "offset", "bias_vector", "c"]
TARGET = [
    "t",
    "y",
    "labels",
    "label",
    "targets",
    "y_true",
    "true",
    "Y",
    "truth",
    "expected",
    "gold",
    "classes",
    "wanted",
]


@dataclass(frozen=True)
class Probe:
    """One set of numbers for the code: arguments by role in the order of forward, options, the upstream.

    ``parameters`` are the arguments that an object keeps, ``mutable`` those that it may change, ``sizes``
    what a constructor may ask for. ``sample`` is the number of rows of the batch. ``digits`` marks a probe in
    float32 that shows lost digits and nothing else.
    """

    args: Mapping[str, Array]
    upstream: Array
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    mutable: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    batch: int = 0
    digits: bool = False
    random: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """The precision of the probe."""
        return str(next(a for a in self.args.values() if a.dtype.kind == "f").dtype)


@dataclass(frozen=True)
class Suspect:
    """A known mistake: what it gives for a probe, and the words for it."""

    name: str
    mistake: str
    wrong: str
    evaluate: Callable[[Probe], Tensors]
    kind: Kind = Kind.OPERATION
    rank: int = 0  # of those that give the same numbers, the lowest is named
    plan: Mapping[int, Sequence[Mutant]] | None = None  # the mutants in it, by link of a chain
    any_rate: bool = False  # what it changes is proportional to a rate that only the learner knows


@dataclass(frozen=True)
class Subject:
    """An operation, a stack of layers, a loss, an optimizer or some steps of training.

    ``evaluate(probe)`` gives the right tensors: "output", "grad of x", ... and "changed: upstream" for what
    must not change. ``explain`` has for a tensor a reason in a sentence and the chain rule's formula.
    ``aliases`` are what people call its arguments, ``options`` the values that a function without such an
    argument has.
    """

    name: str
    title: str
    names: tuple[str, ...]
    probes: Callable[[int], list[Probe]]
    evaluate: Callable[[Probe], Tensors]
    suspects: Callable[[], list[Suspect]]
    aliases: Mapping[str, list[str]]
    gradients: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    explain: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    kind: str = "operation"
    loss: bool = False
    observe: Callable[[Probe, Array], Probe] | None = None
    planned: Callable[[Probe, Mapping[int, Sequence[Mutant]]], Tensors] | None = (
        None  # of two mutants at once
    )
    layouts: tuple["Layout", ...] = ()
    # Recognises a mistake that no probe can foretell: (name, mistake, wrong), from what was found.
    recognise: Callable[[Sequence[Any]], tuple[str, str, str] | None] | None = None


@dataclass(frozen=True)
class Layout:
    """Another way to lay out an argument, as good as ours: a weight stored (in, out)."""

    words: str
    change: Callable[[Mapping[str, Array]], dict[str, Array]]
    gradient: Callable[[str, Array], Array]  # from that layout to ours


def batch_first(rng: np.random.Generator, *shape: int, zeros: bool = True) -> Array:
    """Return normal numbers of this shape, some of them zeros and ties, none all alike along an axis."""
    values = rng.normal(scale=1.3, size=shape)
    if zeros:
        values = np.where(rng.random(shape) < 0.3, np.round(values), values)
        if values.size > 3:
            flat = values.reshape(-1)
            flat[rng.choice(values.size, max(1, values.size // 8), replace=False)] = 0.0
    return values
