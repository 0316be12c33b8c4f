"""An explanation: all numbers of one forward and backward, ready to be printed, written as JSON or drawn."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from chainrule.engines import torch_is_installed
from chainrule.explaining import formulas, others, paths
from chainrule.explaining import step as steps
from chainrule.explaining.encoding import encode
from chainrule.explaining.others import Difference
from chainrule.explaining.paths import WeightGradient
from chainrule.explaining.step import Step
from chainrule.explaining.subject import Subject
from chainrule.explaining.trace import LayerTrace, Trace, trace

VERSION = 1
# Networks up to this size get a finite difference of every parameter: two forwards for each.
MOST_DIFFERENCES = 200


@dataclass(frozen=True)
class Autograd:
    """PyTorch's gradients beside the engine's.

    ``largest_ratio`` is max|difference| / max|gradient|, both over all parameters: one by one would not
    do, as the gradient of a bias before BatchNorm is rounding alone.
    """

    loss: float
    gradients: dict[str, np.ndarray] = field(repr=False)
    largest_difference: float
    largest_ratio: float


@dataclass(frozen=True)
class Weight:
    """One weight followed: its gradient as sums, autograd's (None without PyTorch), and a difference."""

    sums: WeightGradient
    autograd: float | None
    difference: Difference


@dataclass(frozen=True)
class Explanation:
    """What is explained, the engine's numbers, and the same gradients found in other ways."""

    subject: Subject
    trace: Trace
    autograd: Autograd | None
    differences: dict[str, list[Difference]]  # of all elements, in reading order; empty for large networks
    weight: Weight | None = None
    step: Step | None = None

    def to_dict(self, *, single: bool = False) -> dict[str, Any]:
        """Return it as JSON's types; ``single`` rounds large arrays to float32 (see `encoding`)."""
        return _as_dict(self, single)


def explain(
    subject: Subject, *, weight: str | None = None, most_paths: int = 10, step: bool = False
) -> Explanation:
    """Send the subject's example through its network and back, and find the gradients in other ways too.

    ``weight`` is one to follow, such as "fc1.weight[0,1]", of whose paths ``most_paths`` are listed; with
    ``step`` the optimizer takes one. Raises WrongUsage for a weight that is not there, ChainruleError if the
    numbers overflow.
    """
    traced = trace(subject)
    name = None if weight is None else paths.find(traced, weight)
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
        for key, value in parameters.items():
            found[key] = others.differences(subject, key, np.ndindex(value.shape))
    followed = None
    if name is not None:
        key = f"{name.layer}.{name.parameter}"
        followed = Weight(
            paths.follow(subject, traced, name, most_paths),
            None if beside is None else float(beside.gradients[key][name.index]),
            others.differences(subject, key, [name.index])[0],
        )
    taken = steps.step(subject, traced) if step else None
    return Explanation(subject, traced, beside, found, followed, taken)


def _as_dict(explanation: Explanation, single: bool) -> dict[str, Any]:
    subject, traced = explanation.subject, explanation.trace
    plan = subject.recipe

    def array(values: np.ndarray) -> dict[str, Any]:
        return encode(values, single=single)

    result = {
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
    if explanation.weight is not None:
        result["weight"] = _weight(explanation.weight)
    if explanation.step is not None:
        taken = explanation.step
        result["step"] = {
            "optimizer": taken.optimizer,
            "arguments": taken.arguments,
            "formula": taken.formula,
            "loss_before": taken.loss_before,
            "loss_after": taken.loss_after,
            "first_order": taken.first_order,
            "after": {key: array(value) for key, value in taken.after.items()},
        }
    return result


def _weight(weight: Weight) -> dict[str, Any]:
    sums = weight.sums
    found = sums.paths
    return {
        "name": str(sums.name),
        "layer": sums.name.layer,
        "parameter": sums.name.parameter,
        "index": list(sums.name.index),
        "value": sums.value,
        "gradient": sums.gradient,
        "terms": {"count": sums.term_count, "listed": [asdict(term) for term in sums.terms]},
        "paths": {
            "count": found.count,
            "nonzero": found.nonzero,
            "through": list(found.through),
            "until": found.until,
            "listed": [asdict(path) for path in found.listed],
            "rest": found.rest,
            "total": found.total,
        },
        "autograd": weight.autograd,
        "finite_difference": asdict(weight.difference),
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
