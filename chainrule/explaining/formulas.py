"""Each layer's formula and those of its backward, in the letters of `nn_reference`'s docstrings.

x is a layer's input, y its output, g = dL/dy the upstream gradient. ``*`` is the product element by element.
"""

from typing import NamedTuple

from chainrule.explaining.trace import LayerTrace

Shape = tuple[int, ...]


class Formulas(NamedTuple):
    """What a layer computes, its local derivative, and how the upstream gradient goes through it."""

    forward: str
    local: str
    backward: str
    parameters: dict[str, str]  # dL/dparameter


_ELEMENTWISE = {
    "ReLU": ("y = max(x, 0)", "1 where x > 0, else 0"),
    "LeakyReLU": ("y = x where x > 0, else s x", "1 where x > 0, else s"),
    "Sigmoid": ("y = 1 / (1 + exp(-x))", "y (1 - y)"),
    "Tanh": ("y = tanh(x)", "1 - y²"),
    "ELU": ("y = x where x > 0, else α (exp(x) - 1)", "1 where x > 0, else y + α"),
    "SiLU": ("y = x σ(x)", "σ(x) (1 + x (1 - σ(x)))"),
    "GELU": ("y = x Φ(x)", "Φ(x) + x φ(x)"),
    "Identity": ("y = x", "1"),
}
_WEIGHTED = {
    "Linear": Formulas(
        "y = x Wᵀ + b",
        "dy/dx = W",
        "dL/dx = g W",
        {"weight": "dL/dW = gᵀ x", "bias": "dL/db = Σ g"},
    ),
    "Conv2d": Formulas(
        "y[o,r,c] = b[o] + Σ W[o,k,i,j] x[k, r·stride+i, c·stride+j]",
        "dy/dx = W, at every place of the kernel",
        "dL/dx = Σ g W over the windows that see the pixel",
        {"weight": "dL/dW = Σ g x", "bias": "dL/db = Σ g"},
    ),
}
_NORM = {"weight": "dL/dγ = Σ g x̂", "bias": "dL/dβ = Σ g"}


def of(layer: LayerTrace) -> Formulas:
    """Return a layer's formulas."""
    if layer.kind in _WEIGHTED:
        said = _WEIGHTED[layer.kind]
        bias = "bias" in layer.parameters
        return (
            said if bias else said._replace(forward=said.forward.replace(" + b", "").replace("b[o] + ", ""))
        )
    if layer.kind in _ELEMENTWISE:
        forward, local = _ELEMENTWISE[layer.kind]
        return Formulas(forward, f"dy/dx = {local}", "dL/dx = g * dy/dx", {})
    if layer.kind == "Dropout":
        mask = "y = x (no mask in evaluation)" if layer.cache is None else "y = x * mask, mask 0 or 1/(1-p)"
        return Formulas(mask, "dy/dx = 1" if layer.cache is None else "dy/dx = mask", "dL/dx = g * dy/dx", {})
    if layer.kind == "Flatten":
        return Formulas("y = x, in one row", "dy/dx = 1", "dL/dx = g, in the shape of x", {})
    if layer.kind == "Softmax":
        return Formulas(
            "y = exp(x) / Σ exp(x)", "dy_i/dx_j = y_i ([i=j] - y_j)", "dL/dx_j = Σ_i g_i dy_i/dx_j", {}
        )
    if layer.kind == "LogSoftmax":
        return Formulas(
            "y = x - log Σ exp(x)", "dy_i/dx_j = [i=j] - exp(y_j)", "dL/dx_j = Σ_i g_i dy_i/dx_j", {}
        )
    if layer.kind == "MaxPool2d":
        return Formulas(
            "y = the largest pixel of each window",
            "dy/dx = 1 for the pixel that won, else 0",
            "dL/dx = Σ g of the windows that the pixel won",
            {},
        )
    if layer.kind == "AvgPool2d":
        return Formulas(
            "y = the mean of each window",
            "dy/dx = 1 / (pixels of a window)",
            "dL/dx = Σ g / (pixels of a window) over the windows that see the pixel",
            {},
        )
    if layer.kind.startswith("BatchNorm"):
        forward = "y = γ x̂ + β, x̂ = (x - mean) s, s = 1 / sqrt(var + ε)"
        if layer.local.kind == "batch":
            return Formulas(
                forward + " (of the batch)",
                "every x̂ depends on every x of its channel, through mean and var",
                "dL/dx = γ s (g - mean(g) - x̂ mean(g x̂))",
                _NORM,
            )
        return Formulas(forward + " (running)", "dy/dx = γ s", "dL/dx = g * dy/dx", _NORM)
    return Formulas("y = f(x)", "", "dL/dx by the layer's own backward", {})


def shapes(layer: LayerTrace) -> str:
    """Return the shapes that stand behind the forward formula: "(1, 3) = (1, 2) (2, 3) + (3,)"."""
    if layer.kind == "Linear":
        weight = layer.parameters["weight"].shape
        bias = f" + {tuple(layer.parameters['bias'].shape)}" if "bias" in layer.parameters else ""
        return f"{layer.output.shape} = {layer.input.shape} {weight[::-1]}{bias}"
    if layer.kind == "Conv2d":
        return f"{layer.output.shape} = {layer.parameters['weight'].shape} over {layer.input.shape}"
    if layer.input.shape == layer.output.shape:
        return f"{layer.output.shape}"
    return f"{layer.output.shape} = f{layer.input.shape}"


_LOSSES = {
    "CrossEntropyLoss": ("L = -log p_k, p = softmax(x), k the label", "dL/dx_j = p_j - [j = k]"),
    "NLLLoss": ("L = -x_k, k the label", "dL/dx_j = -[j = k]"),
    "MSELoss": ("L = mean of (x - t)²", "dL/dx = 2 (x - t) / count"),
    "BCEWithLogitsLoss": (
        "L = mean of -t log σ(x) - (1 - t) log(1 - σ(x))",
        "dL/dx = (σ(x) - t) / count",
    ),
}


def of_loss(kind: str, smoothing: float, batch: int) -> tuple[str, str]:
    """Return a loss's formula and that of its gradient."""
    forward, backward = _LOSSES[kind]
    if smoothing:
        forward = "L = -Σ t_j log p_j, p = softmax(x), t = (1 - ε)[j = k] + ε / C"
        backward = "dL/dx_j = p_j - t_j"
    if batch > 1 and kind in ("CrossEntropyLoss", "NLLLoss"):
        return forward + ", mean over the batch", backward.replace("= ", "= (", 1) + f") / {batch}"
    return forward, backward
