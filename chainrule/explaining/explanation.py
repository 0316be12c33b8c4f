"""An explanation: all numbers of one forward and backward, ready to be printed, written as JSON or drawn."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.engines import torch_is_installed
from chainrule.errors import ChainruleError
from chainrule.explaining import formulas, others
from chainrule.explaining.encoding import encode
from chainrule.explaining.others import Difference
from chainrule.explaining.subject import Subject
from chainrule.explaining.trace import LayerTrace, Trace, trace

VERSION = 1
# Networks up to this size get a finite difference of every parameter: two forwards for each.
MOST_DIFFERENCES = 200


@dataclass(frozen=True)
class Autograd:
    """PyTorch's gradients beside the engine's.

    ``largest_ratio`` is max|difference| / max|gradient|, both over all parameters: the bias before a BatchNorm
    has a gradient that is rounding alone.
    """

    loss: float
    gradients: dict[str, np.ndarray] = field(repr=False)
    largest_difference: float
    largest_ratio: float


@dataclass(frozen=True)
class Explanation:
    """What is explained, the engine's numbers, and the same gradients found in other ways."""

    subject: Subject
    trace: Trace
    autograd: Autograd | None
    differences: dict[str, list[Difference]]  # of all elements, in reading order; empty for large networks

    def to_dict(self, *, single: bool = False) -> dict[str, Any]:
        """Return it as JSON's types; ``single`` rounds large arrays to float32 (see `encoding`)."""
        return _as_dict(self, single)


def explain(subject: Subject) -> Explanation:
    """Send the subject's example through its network and back, and find the gradients in other ways too.

    Raises ChainruleError if the numbers overflow.
    """
    traced = trace(subject)
    beside = None
    if torch_is_installed():
        loss, gradients = others.autograd(subject, traced)
        own = traced.gradients()
        apart = max((float(np.abs(gradients[key] - own[key]).max()) for key in own), default=0.0)
        largest = max((float(np.abs(gradient).max()) for gradient in own.values()), default=0.0)
        beside = Autograd(loss, gradients, apart, apart / largest if largest else apart)
    found = {}
    parameters = traced.parameters()
    if sum(value.size for value in parameters.values()) <= MOST_DIFFERENCES:
        for name, value in parameters.items():
            found[name] = others.differences(subject, name, np.ndindex(value.shape))
            if not all(np.isfinite(one.value) for one in found[name]):
                raise ChainruleError(f"the loss overflows beside {name}: use smaller numbers")
    return Explanation(subject, traced, beside, found)


def _as_dict(explanation: Explanation, single: bool) -> dict[str, Any]:
    subject, traced = explanation.subject, explanation.trace
    plan = subject.recipe

    def array(values: np.ndarray) -> dict[str, Any]:
        return encode(values, single=single)

    return {
        "format": "chainrule explanation",
        "version": VERSION,
        "subject": {
            "kind": subject.kind,
            "name": plan.name,
            "summary": plan.summary,
            "weights": subject.weights,
            "seed": plan.seed,
            "training": subject.training,
        },
        "example": {
            **subject.example,
            "class_names": list(subject.class_names),
            "input_shape": list(plan.input_shape),
            "mean": plan.mean,
            "std": plan.std,
        },
        "batch": len(subject.x),
        "input": array(subject.x),
        "target": array(subject.target),
        "layers": [_layer(layer, array, explanation) for layer in traced.layers],
        "loss": _loss(explanation, array),
        "optimizer": {"kind": plan.optimizer.type, "arguments": plan.optimizer.arguments},
        "autograd": None
        if explanation.autograd is None
        else {
            "loss": explanation.autograd.loss,
            "largest_difference": explanation.autograd.largest_difference,
            "largest_ratio": explanation.autograd.largest_ratio,
        },
    }


def _layer(layer: LayerTrace, array: Any, explanation: Explanation) -> dict[str, Any]:
    said = formulas.of(layer)
    parameters = {}
    for key, value in layer.parameters.items():
        name = f"{layer.name}.{key}"
        parameters[key] = {
            "value": array(value),
            "gradient": array(layer.gradients[key]),
            "formula": said.parameters.get(key, ""),
        }
        if name in explanation.differences:
            values = np.array([one.value for one in explanation.differences[name]]).reshape(value.shape)
            parameters[key]["finite_difference"] = array(values)
            if explanation.autograd is not None:
                parameters[key]["autograd"] = array(explanation.autograd.gradients[name])
    part = next(part for part in explanation.subject.recipe.layers if part.name == layer.name)
    local: dict[str, Any] = {"kind": layer.local.kind, "formula": said.local}
    if layer.local.values is not None:
        local["values"] = array(layer.local.values)
    if layer.kind == "Dropout" and layer.cache is not None:
        local["mask"] = array(layer.cache)
    return {
        "name": layer.name,
        "kind": layer.kind,
        "arguments": part.arguments,
        "shown": layer.shown,
        "formula": said.forward,
        "shapes": formulas.shapes(layer),
        "output": array(layer.output),
        "upstream": array(layer.grad_output),
        "local": local,
        "backward": said.backward,
        "gradient": array(layer.grad_input),
        "parameters": parameters,
        "buffers": {key: array(value) for key, value in layer.buffers.items()},
    }


def _loss(explanation: Explanation, array: Any) -> dict[str, Any]:
    subject, traced = explanation.subject, explanation.trace
    part = subject.recipe.loss
    smoothing = float(part.arguments.get("label_smoothing", 0.0))
    forward, backward = formulas.of_loss(part.type, smoothing, len(subject.x))
    loss: dict[str, Any] = {
        "kind": part.type,
        "arguments": part.arguments,
        "formula": forward,
        "backward": backward,
        "value": traced.loss,
        "gradient": array(traced.grad_scores),
    }
    if subject.classes:
        loss["probabilities"] = array(probabilities(explanation))
        loss["prediction"] = traced.scores.argmax(1).tolist()
    return loss


def probabilities(explanation: Explanation) -> np.ndarray:
    """Return the classes' probabilities (N, C), from the engine's softmax."""
    from nn_reference import softmax

    return softmax.forward(explanation.trace.scores, 1)[0]
