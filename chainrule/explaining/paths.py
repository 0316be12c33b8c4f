"""One weight's gradient as the sum over the paths from it to the loss.

A weight w changes some outputs y of its layer, each of these changes outputs of the next layer, and so on to
the loss. By the chain rule each such path contributes the product of the local derivatives along it, and

    dL/dw = sum over paths of  dy/dw · (local derivatives of the layers behind) · dL/dscores

The factors are the engine's: weights, local derivatives (`trace.Local`) and the gradient of the loss. In a
network 784-512-256-128-10 each weight of the first layer has 327,680 paths, so they are not all written out.
The largest are found layer by layer from the loss backwards (a node's largest paths are one edge and then one
of the largest from where it leads); the rest is what they leave of the sum, which comes from matrix products.

Paths are followed through fully connected layers and those that work on each number by itself. At any other
layer (a convolution, a pooling, BatchNorm with the batch's statistics) they stop: there the engine's gradient
of what goes into it is the last factor.
"""

import copy
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule.errors import ChainruleError, WrongUsage, nearest
from chainrule.explaining.subject import Subject
from chainrule.explaining.trace import LayerTrace, Trace

# The sum over paths and the engine's gradient add the same products in another order.
_ROUNDING = 1e-12
# How many candidates for the largest paths are looked at at a time.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class WeightName:
    """One element of a parameter: ``fc1.weight[3,17]``."""

    layer: str
    parameter: str
    index: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.layer}.{self.parameter}[{','.join(map(str, self.index))}]"


@dataclass(frozen=True)
class Factor:
    """One factor of a path: where it stands, what it is and its value."""

    layer: str
    what: str
    value: float


@dataclass(frozen=True)
class Path:
    """One path: the example it belongs to, its factors from the weight to the loss, and their product."""

    example: int
    factors: tuple[Factor, ...]
    product: float


@dataclass(frozen=True)
class Paths:
    """The largest paths of a weight, and the sum of all. ``rest`` is the sum of those not listed."""

    listed: tuple[Path, ...]
    count: int
    nonzero: int
    total: float
    rest: float
    through: tuple[str, ...]  # the layers behind the weight's that the paths are followed through
    until: str | None  # the layer before which they stop; None: they reach the loss


@dataclass(frozen=True)
class Term:
    """What one output of the weight's layer contributes: dy/dw (local) times dL/dy (upstream)."""

    place: tuple[int, ...]  # of the output, example first
    local: float
    upstream: float
    product: float


@dataclass(frozen=True)
class WeightGradient:
    """dL/dw of one weight: as the sum over the outputs that it changes, and as the sum over paths."""

    name: WeightName
    value: float
    gradient: float
    terms: tuple[Term, ...]  # the largest
    term_count: int
    paths: Paths
    local: np.ndarray = field(repr=False)  # dy/dw of every output that w changes


@dataclass(frozen=True)
class _Step:
    """One layer behind the weight's, for one example: y = factor * x, or y = matrix x."""

    layer: LayerTrace
    diagonal: np.ndarray | None = None  # (F,)
    matrix: np.ndarray | None = None  # (F', F)


def find(trace: Trace, text: str) -> WeightName:
    """Return which weight ``text`` names; WrongUsage that says what there is, if there is no such weight."""
    match = re.fullmatch(r"\s*([^\[\]\s]+)\s*\[([0-9,\s]*)\]\s*", text, re.ASCII)
    parameters = trace.parameters()
    if match is None:
        first = next(iter(parameters), "fc1.weight")
        example = f"{first}[{','.join('0' * parameters[first].ndim)}]" if parameters else "fc1.weight[0,0]"
        raise WrongUsage(
            f"--weight takes a parameter with the place in it, such as {example}; found '{text}'"
        )
    name, numbers = match[1], match[2]
    if name not in parameters:
        raise WrongUsage(
            f"--weight: there is no parameter '{name}'. Known: {', '.join(parameters)}."
            + nearest(name, parameters)
        )
    shape = parameters[name].shape
    try:
        index = tuple(int(number) for number in numbers.split(","))
    except ValueError:
        raise WrongUsage(f"--weight: expected whole numbers in [{numbers}], such as 0,0") from None
    if len(index) != len(shape):
        raise WrongUsage(
            f"--weight: {name} has shape {shape}, expected {len(shape)} indices, found [{numbers}]"
        )
    for axis, (number, size) in enumerate(zip(index, shape, strict=True)):
        if number >= size:
            raise WrongUsage(
                f"--weight: {name} has shape {shape}: axis {axis} goes from 0 to {size - 1}, found {number}"
            )
    layer, _, parameter = name.rpartition(".")
    return WeightName(layer, parameter, index)


def follow(subject: Subject, trace: Trace, name: WeightName, most: int = 10) -> WeightGradient:
    """Return the gradient of a weight as sums; ``most`` of the largest terms and paths are listed.

    Raises ChainruleError unless the sum over all paths is the engine's gradient.
    """
    layer = trace[name.layer]
    before = dict(subject.fresh()[0].named_children())[name.layer]
    local = local_of(before, layer, name)
    unit = _unit(layer, name)
    upstream = layer.grad_output[unit]
    products = local[unit] * upstream
    gradient = float(layer.gradients[name.parameter][name.index])
    paths, size = _paths(trace, name, local, unit, most)
    if not abs(paths.total - gradient) <= _ROUNDING * size:
        raise ChainruleError(
            f"{name}: the paths sum to {paths.total!r}, the engine's gradient is {gradient!r}"
        )
    places = np.argwhere(np.ones_like(products, bool))
    terms = []
    for k in _largest(products.reshape(-1), most):
        place = tuple(places[k])
        full = list(map(int, place))
        full.insert(layer.output.ndim - 1 if layer.kind == "Linear" else 1, name.index[0])
        terms.append(
            Term(tuple(full), float(local[unit][place]), float(upstream[place]), float(products[place]))
        )
    value = float(layer.parameters[name.parameter][name.index])
    return WeightGradient(name, value, gradient, tuple(terms), products.size, paths, local[unit])


def local_of(before: object, layer: LayerTrace, name: WeightName) -> np.ndarray:
    """Return dy/dw, in the shape of the layer's output y.

    Every layer is linear in its parameters, so that this is what it gives with w = 1 and all others 0: for a
    weight of Linear its input x, for a bias 1, for a weight of a kernel the pixels that it meets.
    """
    alone = copy.deepcopy(before)
    for key, parameter in alone.named_parameters():  # type: ignore[attr-defined]
        parameter.data = np.zeros_like(parameter.data)
        if key == name.parameter:
            parameter.data[name.index] = 1
    return np.asarray(alone(layer.input))  # type: ignore[operator]


def _unit(layer: LayerTrace, name: WeightName) -> tuple[Any, ...]:
    """Return the slice of the layer's output that the weight changes: one unit, or one channel."""
    return (..., name.index[0]) if layer.kind == "Linear" else (slice(None), name.index[0])


def _largest(values: np.ndarray, most: int) -> list[int]:
    """Return the places of the largest of (n,), by size without sign; of equals the first."""
    return [int(i) for i in np.argsort(-np.abs(values), kind="stable")[:most]]


def _paths(
    trace: Trace, name: WeightName, local: np.ndarray, unit: tuple[Any, ...], most: int
) -> tuple[Paths, float]:
    """Return the paths, and the sum of their sizes without sign."""
    layer = trace[name.layer]
    behind = trace.layers[[one.name for one in trace.layers].index(layer.name) + 1 :]
    expanded: list[LayerTrace] = []
    for one in behind:
        if not _is_followed(one):
            break
        expanded.append(one)
    until = behind[len(expanded)].name if len(expanded) < len(behind) else None
    last = expanded[-1] if expanded else layer

    changed = np.zeros(layer.output.shape, bool)
    changed[unit] = True
    total = size = 0.0
    count = nonzero = 0
    best: list[tuple[float, int, int, int]] = []  # product, example, node, rank among the node's
    searches = []
    for n in range(len(local)):
        starts = np.flatnonzero(changed[n].reshape(-1))
        first = local[n].reshape(-1)[starts]
        end = last.grad_output[n].reshape(-1)
        search = _Search([_step(one, n) for one in expanded], starts, end, most)
        searches.append(search)
        total += float(first @ search.total)
        size += float(np.abs(first) @ search.size)
        nonzero += int((first != 0) @ search.nonzero)
        count += len(starts) * search.paths_each
        products = first[:, None] * search.largest
        for k in _largest(products.reshape(-1), most):
            node, rank = divmod(k, products.shape[1])
            best.append((float(products[node, rank]), n, node, rank))
    best.sort(key=lambda one: -abs(one[0]))
    listed = []
    for product, n, node, rank in best[:most]:
        start = int(searches[n].starts[node])
        value = float(local[n].reshape(-1)[start])
        first_factor = Factor(layer.name, _met(layer, name, start), value)
        factors = (first_factor, *searches[n].factors(node, rank, last, until))
        listed.append(Path(n, factors, product))
    rest = total - math.fsum(path.product for path in listed) if count > len(listed) else 0.0
    through = tuple(one.name for one in expanded)
    return Paths(tuple(listed), count, nonzero, total, rest, through, until), size


def _met(layer: LayerTrace, name: WeightName, flat: int) -> str:
    """Return what dy/dw is at one place of an example's output: mostly the input that the weight meets there.

    In a convolution an output pixel (r, c) sees (r stride + i dilation - padding, ...) with weight (i, j).
    """
    if name.parameter == "weight" and layer.kind == "Linear":
        return f"x[{name.index[-1]}]"
    if name.parameter == "bias":
        return f"dy{_at(layer, flat)}/db"
    if layer.kind != "Conv2d":
        return f"x̂{_at(layer, flat)}"
    _, *pixel = (int(i) for i in np.unravel_index(flat, layer.output.shape[1:]))
    conv, (out, channel, *offsets) = layer.module, name.index
    channel += out // (conv.out_channels // conv.groups) * (conv.in_channels // conv.groups)
    place = [channel]
    for axis in range(2):
        stride, dilation, size = conv.stride[axis], conv.dilation[axis], conv.kernel_size[axis]
        same = dilation * (size - 1) // 2 if conv.padding == "same" else 0
        padding = same if isinstance(conv.padding, str) else conv.padding[axis]
        place.append(pixel[axis] * stride + offsets[axis] * dilation - padding)
    inside = all(0 <= i < size for i, size in zip(place[1:], layer.input.shape[-2:], strict=True))
    return f"x[{','.join(map(str, place))}]" if inside else "border"


def _is_followed(layer: LayerTrace) -> bool:
    if layer.local.kind in ("matrix", "jacobian"):
        return layer.input.ndim == 2
    return layer.local.kind in ("elementwise", "reshape")


def _step(layer: LayerTrace, n: int) -> _Step:
    if layer.local.kind == "matrix":
        return _Step(layer, matrix=layer.parameters["weight"])
    if layer.local.kind == "reshape" or layer.local.values is None:
        return _Step(layer)
    if layer.local.kind == "jacobian":
        return _Step(layer, matrix=layer.local.values[n])
    return _Step(layer, diagonal=layer.local.values[n].reshape(-1))


def _at(layer: LayerTrace, flat: int) -> str:
    """Return the place of one example's output as text: "[3]" or "[0,5,7]"."""
    place = np.unravel_index(flat, layer.output.shape[1:])
    return f"[{','.join(str(int(i)) for i in place)}]"


class _Search:
    """The paths of one example from some outputs of the weight's layer to where they are followed to.

    It goes from the end to the start. For each node of a layer it keeps the sum of all paths from there, the
    sum without signs, how many are not zero, and the ``most`` largest with where each goes on.
    """

    def __init__(self, steps: list[_Step], starts: np.ndarray, end: np.ndarray, most: int):
        self.steps, self.starts, self.end = steps, starts, end
        self.paths_each = math.prod(len(step.matrix) for step in steps if step.matrix is not None)
        # Before the first matrix only the starts matter, behind it all nodes.
        fans = [step.matrix is not None for step in steps]
        first = fans.index(True) if True in fans else len(steps)
        self.total = end if True in fans else end[starts]
        self.size, self.nonzero = np.abs(self.total), (self.total != 0).astype(np.float64)
        self.largest = self.total[:, None]  # (nodes, rank)
        self.goes_on: list[tuple[np.ndarray, np.ndarray] | None] = []  # by step, last first
        for k in reversed(range(len(steps))):
            step = steps[k]
            if step.matrix is not None:
                self._fan(step.matrix if k > first else step.matrix[:, starts], most)
                continue
            self.goes_on.append(None)
            if step.diagonal is not None:
                factor = step.diagonal if k > first else step.diagonal[starts]
                self.total = factor * self.total
                self.size = np.abs(factor) * self.size
                self.nonzero = (factor != 0) * self.nonzero
                self.largest = factor[:, None] * self.largest

    def _fan(self, matrix: np.ndarray, most: int) -> None:
        """Go back through y = matrix x, from the nodes of y to those of x."""
        self.total = self.total @ matrix
        self.size = self.size @ np.abs(matrix)
        self.nonzero = self.nonzero @ (matrix != 0)
        outs, ranks = self.largest.shape
        kept = min(most, outs * ranks)
        largest = np.empty((matrix.shape[1], kept))
        where = np.empty((matrix.shape[1], kept), np.int64)
        rows = max(1, _BLOCK // (outs * ranks))
        for top in range(0, matrix.shape[1], rows):
            block = slice(top, top + rows)
            products = (matrix[:, block].T[:, :, None] * self.largest).reshape(-1, outs * ranks)
            chosen = np.argpartition(-np.abs(products), kept - 1, axis=1)[:, :kept]
            largest[block] = np.take_along_axis(products, chosen, 1)
            where[block] = chosen
        self.largest = largest
        self.goes_on.append((where // ranks, where % ranks))

    def factors(self, node: int, rank: int, last: LayerTrace, until: str | None) -> Iterator[Factor]:
        """Give the factors behind the first one of the path that is ``rank`` at the node."""
        flat = int(self.starts[node])  # the place in the whole layer; node is that among those looked at
        for step, goes_on in zip(self.steps, reversed(self.goes_on), strict=True):
            if goes_on is not None:
                assert step.matrix is not None
                to, rank = int(goes_on[0][node, rank]), int(goes_on[1][node, rank])
                name = step.layer.name
                matrix = step.layer.local.kind == "matrix"
                what = f"{name}.weight[{to},{flat}]" if matrix else f"dy[{to}]/dx[{flat}]"
                yield Factor(name, what, float(step.matrix[to, flat]))
                node = flat = to
            elif step.diagonal is not None:
                yield Factor(step.layer.name, f"dy/dx{_at(step.layer, flat)}", float(step.diagonal[flat]))
        end = f"dL/dy{_at(last, flat)}" if until is None else f"dL/dx{_at(last, flat)} of {until}"
        yield Factor("loss" if until is None else until, end, float(self.end[flat]))
