"""An explanation in the terminal: small arrays whole, of large ones size, a part and the largest numbers."""

import math
import textwrap
from collections.abc import Iterable, Iterator

import numpy as np

from chainrule.explaining import formulas
from chainrule.explaining.explanation import Explanation, Weight, probabilities
from chainrule.explaining.paths import Path, Paths
from chainrule.explaining.step import Step
from chainrule.explaining.trace import LayerTrace

MOST_SHOWN = 60  # numbers of an array that is shown whole
_LABEL = 30  # columns before the numbers
_CELL = 10  # columns of a number, but for long ones
_SHADES = " .:-=+*#%@"


def lines(explanation: Explanation, width: int) -> Iterator[str]:
    """Give the lines of an explanation for a terminal of this many columns."""
    width = max(width, 60)
    yield from _head(explanation, width)
    yield from _forward(explanation, width)
    yield from _backward(explanation, width)
    yield from _others(explanation)
    if explanation.weight is not None:
        yield from _weight(explanation, explanation.weight, width)
    if explanation.step is not None:
        yield from _step(explanation, explanation.step, width)


def number(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits; never "-0"."""
    return f"{value + 0.0:.{digits}g}"


def _head(explanation: Explanation, width: int) -> Iterator[str]:
    subject = explanation.subject
    plan = subject.recipe
    kind = {"net": "Network ", "recipe": "Recipe  ", "run": "Run     "}[subject.kind]
    name = "" if subject.kind == "net" else f"{plan.name}: "
    count = sum(value.size for value in explanation.trace.parameters().values())
    yield from _wrapped(f"{kind} ", f"{name}{plan.summary}; {count:,} parameters", width)
    yield from _wrapped("Weights  ", subject.weights, width)
    example = subject.example
    if example["source"] == "dataset":
        shown = ", ".join(map(str, example["indices"][:8])) + (", ..." if len(example["indices"]) > 8 else "")
        many = "images" if len(example["indices"]) > 1 else "image"
        names = ", ".join(subject.class_names[label] for label in example["labels"][:8])
        dots = ", ..." if len(example["labels"]) > 8 else ""
        where = f"{many} {shown} of the {example['split']} images of {example['title']}: {names}{dots}"
        yield from _wrapped("Example  ", where, width)
    else:
        yield f"Example  {_count(len(subject.x), 'example')} of one's own"
    if any(
        layer.kind == "Dropout" or layer.kind.startswith("BatchNorm") for layer in explanation.trace.layers
    ):
        mode = (
            "as in training: Dropout draws its mask, BatchNorm takes the statistics of the batch"
            if subject.training
            else "as in evaluation: Dropout off, BatchNorm with running statistics (--train: as in training)"
        )
        yield from _wrapped("Mode     ", mode, width)
    if len(subject.x) == 1 and len(plan.input_shape) >= 2 and np.prod(plan.input_shape[:-2]) == 1:
        yield ""
        yield from (f"  {row}" for row in _picture(subject.x.reshape(plan.input_shape[-2:])))


def _picture(image: np.ndarray) -> list[str]:
    """Return an image (H, W) in letters, two rows to a line, from least (paper) to largest."""
    pairs = image[: len(image) // 2 * 2].reshape(-1, 2, image.shape[1]).mean(1)
    low, high = pairs.min(), pairs.max()
    shades = ((pairs - low) / (high - low or 1) * (len(_SHADES) - 1)).round().astype(int)
    rows = ["".join(_SHADES[shade] for shade in row).rstrip() for row in shades]
    while rows and not rows[-1]:
        rows.pop()
    while rows and not rows[0]:
        rows.pop(0)
    return rows


def _forward(explanation: Explanation, width: int) -> Iterator[str]:
    subject, traced = explanation.subject, explanation.trace
    yield ""
    yield f"Forward: the layers in order, batch of {len(subject.x)}"
    yield ""
    yield from _table([("x = input", subject.x)], width)
    for layer in traced.layers:
        yield ""
        yield from _beside(
            f"{layer.name}  {layer.kind}: {formulas.of(layer).forward}", formulas.shapes(layer), width
        )
        rows = [({"weight": "W", "bias": "b"}.get(key, key), value) for key, value in _parameters(layer)]
        yield from (line for row in rows for line in _table([row], width))
        if layer.kind == "Dropout" and layer.cache is not None:
            yield from _table([("mask", layer.cache)], width)
        yield from _table([("y", layer.output)], width)
    kind = subject.recipe.loss.type
    smoothing = float(subject.recipe.loss.arguments.get("label_smoothing", 0))
    formula, _ = formulas.of_loss(kind, smoothing, len(subject.x))
    yield ""
    yield f"loss  {kind}: {formula}"
    if subject.classes:
        yield from _table([("p = softmax(x)", probabilities(explanation))], width)
        names = [subject.class_names[label] for label in subject.target[:8]]
        yield f"  {'label k':{_LABEL - 2}}{', '.join(names)}{', ...' if len(subject.target) > 8 else ''}"
    else:
        yield from _table([("x", traced.scores), ("t = target", subject.target)], width)
    yield f"  {'L':{_LABEL - 2}}{number(traced.loss, 10)}"


def _parameters(layer: LayerTrace) -> Iterable[tuple[str, np.ndarray]]:
    if layer.kind.startswith("BatchNorm"):
        names = {"weight": "γ", "bias": "β"}
        return [(f"{names[key]} ({key})", value) for key, value in layer.parameters.items()]
    return layer.parameters.items()


def _backward(explanation: Explanation, width: int) -> Iterator[str]:
    subject, traced = explanation.subject, explanation.trace
    yield ""
    yield "Backward: from the loss to each parameter, upstream × local = gradient"
    smoothing = float(subject.recipe.loss.arguments.get("label_smoothing", 0))
    _, formula = formulas.of_loss(subject.recipe.loss.type, smoothing, len(subject.x))
    yield ""
    yield f"loss  {formula}"
    yield from _table([("dL/dx", traced.grad_scores)], width)
    for layer in reversed(traced.layers):
        said = formulas.of(layer)
        yield ""
        yield f"{layer.name}  {layer.kind}: {said.backward}"
        rows = [("  g = dL/dy, upstream", layer.grad_output)]
        if layer.local.kind == "elementwise" and layer.local.values is not None:
            rows.append(("× dy/dx, local", layer.local.values))
            rows.append(("= dL/dx", layer.grad_input))
            yield from _table(rows, width)
            if said.local not in ("dy/dx = 1", "dy/dx = mask"):
                yield f"  ({said.local})"
        else:
            yield from _table(rows, width)
            yield from _local(layer, said.local, width)
            yield from _table([("= dL/dx", layer.grad_input)], width)
        for key, gradient in layer.gradients.items():
            yield from _table([(said.parameters.get(key, f"dL/d{key}"), gradient)], width)


def _local(layer: LayerTrace, formula: str, width: int) -> Iterator[str]:
    """Give the line or table of a local derivative that is not one number for each output."""
    if layer.local.kind == "jacobian" and layer.local.values is not None:
        yield from _table([(f"× {formula.split(' = ')[0]}", layer.local.values)], width)
        yield f"  ({formula})"
    elif layer.local.kind == "windows" and layer.local.values is not None:
        yield from _table([("× Σ dy/dx, local", layer.local.values)], width)
        yield f"  ({formula})"
    else:
        yield from _wrapped(
            f"  × {'local':{_LABEL - 4}}", formula + (", above" if "W" in formula else ""), width
        )


def _others(explanation: Explanation) -> Iterator[str]:
    yield ""
    yield "The same gradients, found in other ways"
    beside = explanation.autograd
    if beside is None:
        yield "  autograd             PyTorch is not installed: pip install 'chainrule[torch]'"
    else:
        yield (
            f"  autograd             differs by at most {beside.largest_difference:.1e}, "
            f"{beside.largest_ratio:.1e} of the largest"
        )
    if not explanation.differences:
        yield "  finite difference    of one weight: --weight, such as " + _some_weight(explanation)
        return
    gradients = explanation.trace.gradients()
    apart, kinks = 0.0, set()
    for key, found in explanation.differences.items():
        values = np.array([one.value for one in found]).reshape(gradients[key].shape)
        smooth = np.array([one.kink is None for one in found]).reshape(values.shape)
        apart = max(apart, float(np.abs(values - gradients[key]).max(initial=0, where=smooth)))
        kinks |= {one.kink for one in found if one.kink is not None}
    at = f"; not counted: those across a kink of {', '.join(sorted(kinks))}" if kinks else ""
    yield f"  finite difference    differs by at most {apart:.1e}, over every parameter{at}"


def _some_weight(explanation: Explanation) -> str:
    """Return the weight with the largest gradient in the first layer that has any."""
    for layer in explanation.trace.layers:
        if "weight" in layer.gradients:
            gradient = layer.gradients["weight"]
            place = np.unravel_index(int(np.abs(gradient).argmax()), gradient.shape)
            return f"{layer.name}.weight[{','.join(str(int(i)) for i in place)}]"
    return "fc1.weight[0,0]"


def _weight(explanation: Explanation, weight: Weight, width: int) -> Iterator[str]:
    sums = weight.sums
    layer = explanation.trace[sums.name.layer]
    found = sums.paths
    yield ""
    yield f"One weight: w = {sums.name} = {number(sums.value, 10)}"
    yield ""
    yield from _wrapped("", f"dL/dw as the sum over paths: {_reach(found)}", width)
    for place, path in enumerate(found.listed, start=1):
        yield from _path(place, path, len(explanation.subject.x) > 1, width)
    others = found.count - len(found.listed)
    if others:
        share = (
            f"{others:,} more, {found.nonzero:,} of all are not 0"
            if found.nonzero < found.count
            else f"{others:,} more"
        )
        yield from _equals(f"  {share}, together", found.rest, width)
    yield from _equals("  sum", found.total, width)
    if sums.gradient == 0 and found.nonzero == 0 and found.listed:
        yield from _wrapped("  ", _why_zero(found), width)
    yield ""
    yield from _matrix_form(explanation, layer, weight, width)
    yield ""
    yield "Found in other ways"
    yield f"  chain rule           {sums.gradient:.12g}"
    if weight.autograd is None:
        yield "  autograd             PyTorch is not installed: pip install 'chainrule[torch]'"
    else:
        apart = abs(weight.autograd - sums.gradient)
        yield f"  autograd             {weight.autograd:.12g}   differs by {apart:.1e}"
    step = weight.difference
    yield f"  finite difference    {step.value:.12g}   differs by {abs(step.value - sums.gradient):.1e}"
    yield f"    = (L(w + h) - L(w - h)) / 2h, h = {number(step.h)}"
    yield f"    = ({step.loss_above:.12g} - {step.loss_below:.12g}) / {number(2 * step.h)}"
    if step.kink is not None:
        yield f"    between the two lies a kink of {step.kink}: the difference mixes the slopes on both sides"


def _count(many: int, noun: str) -> str:
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def _reach(found: Paths) -> str:
    through = f" through {', '.join(found.through)}" if found.through else ""
    if found.until is None:
        return f"{_count(found.count, 'path')} from w{through} to the loss"
    return (
        f"{_count(found.count, 'path')} from w{through} to {found.until}, "
        f"where the engine's gradient stands for all that lies behind"
    )


def _path(place: int, path: Path, batch: bool, width: int) -> Iterator[str]:
    names = []
    for factor in path.factors:
        named = factor.what.startswith(f"{factor.layer}.") or factor.what.endswith(f" of {factor.layer}")
        names.append(factor.what if named else f"{factor.layer} {factor.what}")
    head = f"  {place:>3}  " + (f"example {path.example}: " if batch else "")
    yield from _wrapped(head, " · ".join(names), width, hang=7)
    product = " · ".join(_bracketed(factor.value) for factor in path.factors)
    yield from _equals(f"       {product}", path.product, width)


def _bracketed(value: float) -> str:
    return f"({number(value)})" if value < 0 else number(value)


def _equals(text: str, value: float, width: int) -> Iterator[str]:
    """Give the text, and "= value" in the last columns, on a line of its own where the text is too long."""
    result = f"= {number(value, 6)}"
    column = width - 15
    if len(text) + 1 <= column:
        yield f"{text:{column}}{result}"
        return
    indent = " " * (len(text) - len(text.lstrip()))
    wrapped = textwrap.wrap(
        text, column - 1, initial_indent="", subsequent_indent=indent, drop_whitespace=True
    )
    wrapped[0] = indent + wrapped[0].lstrip()
    yield from wrapped[:-1]
    yield f"{wrapped[-1]:{column}}{result}"


def _why_zero(found: Paths) -> str:
    """Say which factor makes all paths zero."""
    zero = [
        {(factor.layer, factor.what) for factor in path.factors if factor.value == 0} for path in found.listed
    ]
    common = set.intersection(*zero)
    if not common:
        return "Every path has a factor 0."
    layer, what = min(common)
    return f"Every path has the factor {layer} {what} = 0: w changes nothing here."


def _matrix_form(explanation: Explanation, layer: LayerTrace, weight: Weight, width: int) -> Iterator[str]:
    traced = explanation.trace
    sums = weight.sums
    yield "The same in matrix form (dL/d(fc1): the gradient of fc1's output)".replace("fc1", layer.name)
    rows = []
    last = traced.layers[-1].name
    rows.append((f"dL/d({last})", "from the loss", f"{traced.grad_scores.shape}"))
    names = [one.name for one in traced.layers]
    position = names.index(layer.name)
    for one in reversed(traced.layers[position + 1 :]):
        before = traced.layers[names.index(one.name) - 1]
        after = f"dL/d({one.name})"
        shapes = f"{one.grad_input.shape}"
        if one.local.kind == "matrix":
            step = f"{after} W({one.name})"
            shapes += f" = {one.grad_output.shape} {one.parameters['weight'].shape}"
        elif one.local.kind == "elementwise":
            step = f"{after} * dy/dx({one.name})"
        elif one.local.kind == "jacobian":
            step = f"{after} J({one.name}), row by row"
        elif one.local.kind == "reshape":
            step = f"{after}, reshaped"
        else:
            step = f"{one.name}'s backward of {after}"
        rows.append((f"dL/d({before.name})", step, shapes))
    value = layer.parameters[sums.name.parameter]
    after = f"dL/d({layer.name})"
    if layer.kind == "Linear" and sums.name.parameter == "weight" and layer.input.ndim == 2:
        step = f"{after}ᵀ x"
        shapes = f"{value.shape} = {layer.grad_output.shape[::-1]} {layer.input.shape}"
    else:
        step = f"Σ {after} * dy/d{sums.name.parameter}" if sums.name.parameter == "weight" else f"Σ {after}"
        shapes = f"{value.shape}"
    rows.append((f"dL/d({layer.name}.{sums.name.parameter})", step, shapes))
    left = max(len(row[0]) for row in rows)
    middle = max(len(row[1]) for row in rows)
    for name, step, shapes in rows:
        yield from _beside(f"  {name:{left}} = {step:{middle}}", shapes, width)
    index = ",".join(map(str, sums.name.index))
    terms = [f"{_bracketed(term.upstream)} · {_bracketed(term.local)}" for term in sums.terms]
    more = sums.term_count - len(terms)
    text = f"  element [{index}]: " + " + ".join(terms) + (f" + {more:,} smaller ones" if more else "")
    yield from _equals(text, sums.gradient, width)


def _step(explanation: Explanation, step: Step, width: int) -> Iterator[str]:
    gradients = explanation.trace.gradients()
    before = explanation.trace.parameters()
    shown = {
        key: value
        for key, value in step.arguments.items()
        if isinstance(value, int | float | list | tuple)
        and not isinstance(value, bool)
        and (value or key == "lr")
    }
    yield ""
    yield f"One step of {step.optimizer}: " + ", ".join(f"{key} = {value}" for key, value in shown.items())
    yield from _wrapped("  ", step.formula, width)
    chosen = explanation.weight.sums.name if explanation.weight is not None else None
    if chosen is not None:
        key = f"{chosen.layer}.{chosen.parameter}"
        old, new = float(before[key][chosen.index]), float(step.after[key][chosen.index])
        yield (
            f"  {chosen}: {number(old, 8)} -> {number(new, 8)}   "
            f"(dL/dw = {number(float(gradients[key][chosen.index]))}, change {number(new - old)})"
        )
    for key, value in before.items():
        yield ""
        if value.size <= MOST_SHOWN:
            rows = [
                (f"  {key}", value),
                ("  its gradient", gradients[key]),
                ("  after the step", step.after[key]),
            ]
            yield from _table(rows, width)
        else:
            change = step.after[key] - value
            moved = np.abs(change)
            yield from _wrapped(
                f"  {key + '  ' + str(value.shape):{_LABEL}}",
                f"changes by {number(float(moved.mean()))} on average, at most {number(float(moved.max()))}; "
                f"{np.count_nonzero(change):,} of {change.size:,} change",
                width,
            )
    yield ""
    change = step.loss_after - step.loss_before
    yield f"  loss before          {step.loss_before:.10g}"
    yield f"  loss after           {step.loss_after:.10g}   change {number(change)}"
    yield f"  Σ dL/dw · change     {number(step.first_order):12}   the change if L were straight"
    if change > 0:
        yield "  The loss rose: the step was longer than the slope holds; try a smaller --lr"


def _table(rows: list[tuple[str, np.ndarray]], width: int) -> Iterator[str]:
    """Give labelled arrays one below the other with their columns aligned, each small one whole."""
    texts = [
        [number(value) for value in array.reshape(-1)] if array.size <= MOST_SHOWN else None
        for _, array in rows
    ]
    cell = max((len(text) for row in texts if row is not None for text in row), default=0)
    cell = max(cell + 2, _CELL)
    for (label, array), row in zip(rows, texts, strict=True):
        head = f"  {label}  {tuple(array.shape)}"
        left = f"{head:{_LABEL}}"
        if row is None:
            yield from _summary(left, array, width)
            continue
        columns = array.shape[-1] if array.ndim else 1
        fits = max(1, (width - max(_LABEL, 1)) // cell)
        if len(left) > _LABEL:  # a long label has a line of its own
            yield left.rstrip()
            left = ""
        for start in range(0, len(row), columns):
            cells = row[start : start + columns]
            for first in range(0, len(cells), fits):
                part = "".join(f"{text:>{cell}}" for text in cells[first : first + fits])
                yield f"{left:{_LABEL}}{part}"
                left = ""


def _summary(left: str, array: np.ndarray, width: int) -> Iterator[str]:
    """Give the size, a part and the largest numbers of a large array."""
    zeros = array.size - np.count_nonzero(array)
    share = f", {zeros:,} of {array.size:,} are 0" if zeros else f", {array.size:,} numbers"
    norm = math.sqrt(float(np.vdot(array, array)))
    text = f"norm {number(norm)}, {number(float(array.min()))} to {number(float(array.max()))}{share}"
    if len(left) > _LABEL:
        yield left.rstrip()
        left = ""
    yield from _wrapped(f"{left:{_LABEL}}", text, width)
    if zeros == array.size:
        return
    indent = " " * _LABEL
    order = np.argsort(-np.abs(array).reshape(-1), kind="stable")[:3]
    places = [tuple(int(i) for i in np.unravel_index(int(k), array.shape)) for k in order]
    largest = "  ".join(f"[{','.join(map(str, place))}] {number(float(array[place]))}" for place in places)
    yield from _corner(array, places[0], width)
    yield from _wrapped(f"{indent}largest ", largest, width)


def _corner(array: np.ndarray, place: tuple[int, ...], width: int) -> Iterator[str]:
    """Give a few numbers of a matrix's first rows and columns, or of an image round its largest number."""
    columns = min(max(1, (width - _LABEL - 2) // 11), 6, array.shape[-1])
    rows = min(3, array.shape[-2])
    lead = place[:-2] if array.ndim > 2 else ()
    image = array[lead]
    top, left = 0, 0
    if array.ndim > 2:
        top = min(max(place[-2] - rows // 2, 0), image.shape[0] - rows)
        left = min(max(place[-1] - columns // 2, 0), image.shape[1] - columns)
    where = "".join(f"{i}," for i in lead) + f"{top}:{top + rows},{left}:{left + columns}"
    part = image[top : top + rows, left : left + columns]
    texts = [[number(float(value)) for value in row] for row in part]
    cell = max(_CELL, *(len(text) + 2 for row in texts for text in row))
    yield f"{'':{_LABEL}}[{where}]"
    yield from (f"{'':{_LABEL}}" + "".join(f"{text:>{cell}}" for text in row) for row in texts)


def _beside(text: str, right: str, width: int) -> Iterator[str]:
    """Give the text with ``right`` at the end of the line, or on the next."""
    if len(text) + 3 + len(right) <= width:
        yield f"{text}{right:>{width - len(text)}}"
    else:
        yield from _wrapped("", text, width, hang=4) if len(text) > width else [text]
        yield f"{right:>{width}}"


def _wrapped(head: str, text: str, width: int, hang: int | None = None) -> Iterator[str]:
    """Give ``head`` and the text behind it, broken at the width and indented like its beginning."""
    indent = " " * (len(head) if hang is None else hang)
    found = textwrap.wrap(text, max(20, width - len(head)), break_long_words=False, break_on_hyphens=False)
    found = found or [""]
    yield (head + found[0]).rstrip()
    rest = " ".join(found[1:])
    if rest:
        for line in textwrap.wrap(
            rest, max(20, width - len(indent)), break_long_words=False, break_on_hyphens=False
        ):
            yield indent + line
