"""A recipe and its weights as an ONNX graph, written layer by layer; it needs onnx, and no PyTorch.

Weights stand in the graph unchanged, under PyTorch's keys, and an operation has the name of its layer.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import nn_reference
from chainrule.errors import ChainruleError
from chainrule.recipe import Recipe

OPSET, IR_VERSION = 17, 8  # of 2022, for the runtimes that are about
INPUT, OUTPUT = "image", "scores"
LIMIT = 1e-4  # between the model and the NumPy engine, relative to the largest output

_NOTHING_TO_DO = ("Dropout", "Identity")
_SAME_ARGUMENTS = {
    "Flatten": ("Flatten", {"axis": "start_dim"}),
    "ReLU": ("Relu", {}),
    "LeakyReLU": ("LeakyRelu", {"alpha": "negative_slope"}),
    "ELU": ("Elu", {"alpha": "alpha"}),
    "Sigmoid": ("Sigmoid", {}),
    "Tanh": ("Tanh", {}),
    "LogSoftmax": ("LogSoftmax", {"axis": "dim"}),
    "Softmax": ("Softmax", {"axis": "dim"}),
}


def model(
    recipe: Recipe, state: Mapping[str, np.ndarray], class_names: tuple[str, ...], about: str
) -> ModelProto:
    """Return the network in eval mode.

    Input ``image``: float32 (batch, 1, H, W), pixels / 255, as torchvision's ``ToTensor`` gives them; the
    graph begins with their normalisation. Output ``scores``: float32 (batch, classes). ``batch`` is free.
    """
    height, width = recipe.input_shape[-2:]
    (classes,) = recipe.shapes[-1]
    says = {
        "LogSoftmax": "log-probabilities",
        "Softmax": "probabilities",
    }.get(recipe.layers[-1].type, "logits, whose softmax is the probabilities")
    text = (
        f"{about}. Input '{INPUT}': float32 (batch, 1, {height}, {width}), pixels / 255 (0 is paper, 1 is "
        f"ink); they are normalised here, by mean {recipe.mean:g} and standard deviation {recipe.std:g}. "
        f"Output '{OUTPUT}': float32 (batch, {classes}), {says}; the largest is the class."
    )
    graph = _Graph(state)
    graph.normalise(recipe)
    network = recipe.build(nn_reference)
    for layer, module, shape in zip(
        recipe.layers, network, [recipe.input_shape, *recipe.shapes], strict=False
    ):
        graph.layer(layer.name, layer.type, module, shape)
    graph.nodes[-1].output[0] = OUTPUT
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            recipe.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 1, height, width])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", classes])],
            graph.tensors,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="chainrule",
        doc_string=text,
    )
    facts = {"recipe": recipe.name, "classes": json.dumps(class_names)}
    facts |= {"mean": str(recipe.mean), "std": str(recipe.std)}
    helper.set_model_props(made, facts)
    return made


def check_by_running(made: ModelProto, recipe: Recipe, state: Mapping[str, np.ndarray]) -> None:
    """Send three random images through the model and the NumPy engine; ChainruleError if they differ."""
    network = recipe.build(nn_reference).eval()
    network.load_state_dict(state)
    pixels = np.random.default_rng(0).random((3, 1, *recipe.input_shape[-2:]), np.float32)
    expected = network(recipe.examples((pixels - np.float32(recipe.mean)) / np.float32(recipe.std)))
    runtime: Any = ReferenceEvaluator(made)
    (found,) = runtime.run(None, {INPUT: pixels})
    if found.shape != expected.shape or not np.abs(found - expected).max() <= LIMIT * np.abs(expected).max():
        raise ChainruleError(
            f"{recipe.source}: cannot be written as ONNX: run, the model says something else than the network"
        )


class _Graph:
    """A chain of operations: each takes what the one before it gave."""

    def __init__(self, state: Mapping[str, np.ndarray]):
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.value = INPUT
        self._state = state

    def add(self, name: str, op: str, *others: str, **attributes: Any) -> None:
        """Let the chain go on with ``op(value, *others)``, whose result is called ``name``."""
        self.nodes.append(helper.make_node(op, [self.value, *others], [name], name, **attributes))
        self.value = name

    def tensor(self, name: str, array: Any) -> str:
        """Put an array into the graph; returns its name."""
        self.tensors.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def normalise(self, recipe: Recipe) -> None:
        """Begin with ``(image - mean) / std``, and without the axis of channels if the network takes none."""
        self.add("centred", "Sub", self.tensor("mean", np.float32(recipe.mean)))
        self.add("normalised", "Div", self.tensor("std", np.float32(recipe.std)))
        if len(recipe.input_shape) == 2:
            self.add("without_channel", "Squeeze", self.tensor("channel_axis", np.array([1])))

    def layer(self, name: str, kind: str, module: Any, shape: tuple[int, ...]) -> None:
        """Add a layer whose examples have this shape; ``module`` has its arguments, with all defaults."""
        if kind in _NOTHING_TO_DO:
            return
        if kind in _SAME_ARGUMENTS:
            op, arguments = _SAME_ARGUMENTS[kind]
            self.add(name, op, **{ours: getattr(module, theirs) for ours, theirs in arguments.items()})
        elif kind == "Linear" and len(shape) == 1:
            self.add(name, "Gemm", *self._stored(name, "weight", "bias"), transB=1)
        elif kind == "Linear":  # of each row of an image
            weight = self.tensor(f"{name}.weight_transposed", self._state[f"{name}.weight"].T)
            self.add(f"{name}_product", "MatMul", weight)
            self.add(name, *(("Add", *bias) if (bias := self._stored(name, "bias")) else ("Identity",)))
        elif kind == "Conv2d":
            self.add(name, "Conv", *self._stored(name, "weight", "bias"), **_convolution(module))
        elif kind == "MaxPool2d":
            self.add(name, "MaxPool", dilations=_pair(module.dilation), **_pooling(module))
        elif kind == "AvgPool2d" and module.divisor_override is None:
            padded = int(module.count_include_pad)
            self.add(name, "AveragePool", count_include_pad=padded, **_pooling(module))
        elif kind in ("BatchNorm1d", "BatchNorm2d") and module.track_running_stats:
            self._fill(name, weight=np.ones(module.num_features), bias=np.zeros(module.num_features))
            stored = self._stored(name, "weight", "bias", "running_mean", "running_var")
            self.add(name, "BatchNormalization", *stored, epsilon=module.eps)
        elif kind == "SiLU":
            before = self.value
            self.add(f"{name}_gate", "Sigmoid")
            self.add(name, "Mul", before)
        elif kind == "GELU" and module.approximate == "none":
            before = self.value
            self.add(f"{name}_scaled", "Mul", self._number(f"{name}_root_half", math.sqrt(0.5)))
            self.add(f"{name}_erf", "Erf")
            self.add(f"{name}_plus_1", "Add", self._number(f"{name}_1", 1))
            self.add(f"{name}_half", "Mul", self._number(f"{name}_0.5", 0.5))
            self.add(name, "Mul", before)
        else:
            raise ChainruleError(f"'{name}' ({kind}) with these arguments cannot be written as ONNX")

    def _stored(self, name: str, *keys: str) -> list[str]:
        """Put a layer's arrays into the graph under PyTorch's keys, but for those that it does not have."""
        found = [key for key in (f"{name}.{key}" for key in keys) if key in self._state]
        return [self.tensor(key, self._state[key]) for key in found]

    def _fill(self, name: str, **defaults: np.ndarray) -> None:
        missing = {f"{name}.{key}": value.astype(np.float32) for key, value in defaults.items()}
        self._state = {**missing, **self._state}

    def _number(self, name: str, value: float) -> str:
        return self.tensor(name, np.float32(value))


def _pair(size: Any) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def _pooling(module: Any) -> dict[str, Any]:
    return {
        "kernel_shape": _pair(module.kernel_size),
        "strides": _pair(module.stride),
        "pads": _pair(module.padding) * 2,  # above and left, below and right
        "ceil_mode": int(module.ceil_mode),
    }


def _convolution(module: Any) -> dict[str, Any]:
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    named = {"valid": [0, 0, 0, 0], "same": [*(r // 2 for r in reach), *(r - r // 2 for r in reach)]}
    return {
        "kernel_shape": module.kernel_size,
        "strides": module.stride,
        "dilations": module.dilation,
        "group": module.groups,
        "pads": named[module.padding] if isinstance(module.padding, str) else module.padding * 2,
    }
