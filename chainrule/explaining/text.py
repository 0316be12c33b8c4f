"""An explanation in the terminal: forward in order, backward from the loss, one weight, one step."""

from collections.abc import Iterable, Iterator

import numpy as np

from chainrule.explaining import formulas
from chainrule.explaining.explanation import Explanation, Weight, probabilities
from chainrule.explaining.paths import Path, Paths
from chainrule.explaining.step import Step
from chainrule.explaining.tables import (
    LABEL,
    MOST_SHOWN,
    beside,
    bracketed,
    equals,
    largest_places,
    number,
    picture,
    table,
    wrapped,
)
from chainrule.explaining.trace import LayerTrace


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


def _head(explanation: Explanation, width: int) -> Iterator[str]:
    subject = explanation.subject
    plan = subject.recipe
    kind = {"net": "Network ", "recipe": "Recipe  ", "run": "Run     "}[subject.kind]
    name = "" if subject.kind == "net" else f"{plan.name}: "
    count = sum(value.size for value in explanation.trace.parameters().values())
    yield from wrapped(f"{kind} ", f"{name}{plan.summary}; {count:,} parameters", width)
    yield from wrapped("Weights  ", subject.weights, width)
    example = subject.example
    if example["source"] == "dataset":
        shown = ", ".join(map(str, example["indices"][:8])) + (", ..." if len(example["indices"]) > 8 else "")
        many = "images" if len(example["indices"]) > 1 else "image"
        names = ", ".join(subject.class_names[label] for label in example["labels"][:8])
        dots = ", ..." if len(example["labels"]) > 8 else ""
        where = f"{many} {shown} of the {example['split']} images of {example['title']}: {names}{dots}"
        yield from wrapped("Example  ", where, width)
    else:
        drawn = f"drawn from seed {plan.seed} (--input and --label give your own)"
        origin = "as given" if example["source"] == "given" else drawn
        yield f"Example  {_count(len(subject.x), 'example')}, {origin}"
    if any(
        layer.kind == "Dropout" or layer.kind.startswith("BatchNorm") for layer in explanation.trace.layers
    ):
        mode = (
            "as in training: Dropout draws its mask, BatchNorm takes the statistics of the batch"
            if subject.training
            else "as in evaluation: Dropout off, BatchNorm with running statistics (--train: as in training)"
        )
        yield from wrapped("Mode     ", mode, width)
    shape = plan.input_shape
    if len(subject.x) == 1 and len(shape) in (2, 3) and shape[:-2] in ((), (1,)) and min(shape[-2:]) >= 8:
        yield ""
        yield from (f"  {row}" for row in picture(subject.x.reshape(shape[-2:])))


def _forward(explanation: Explanation, width: int) -> Iterator[str]:
    subject, traced = explanation.subject, explanation.trace
    yield ""
    yield f"Forward: the layers in order, batch of {len(subject.x)}"
    yield ""
    yield from table([("x = input", subject.x)], width)
    for layer in traced.layers:
        yield ""
        yield from beside(
            f"{layer.name}  {layer.kind}: {formulas.of(layer).forward}", formulas.shapes(layer), width
        )
        rows = [({"weight": "W", "bias": "b"}.get(key, key), value) for key, value in _parameters(layer)]
        yield from (line for row in rows for line in table([row], width))
        if layer.kind == "Dropout" and layer.cache is not None:
            yield from table([("mask", layer.cache)], width)
        if layer.local.kind == "reshape" and layer.output.size > MOST_SHOWN:
            head = f"  y  {tuple(layer.output.shape)}"
            yield f"{head:{LABEL}}the same numbers"
        else:
            yield from table([("y", layer.output)], width)
    kind = subject.recipe.loss.type
    smoothing = float(subject.recipe.loss.arguments.get("label_smoothing", 0))
    formula, _ = formulas.of_loss(kind, smoothing, len(subject.x))
    yield ""
    yield from wrapped("loss  ", f"{kind}: {formula}", width)
    if subject.classes:
        yield from table([("p = softmax(x)", probabilities(explanation))], width)
        names = [subject.class_names[label] for label in subject.target[:8]]
        yield f"  {'label k':{LABEL - 2}}{', '.join(names)}{', ...' if len(subject.target) > 8 else ''}"
    else:
        yield from table([("x", traced.scores), ("t = target", subject.target)], width)
    yield f"  {'L':{LABEL - 2}}{number(traced.loss, 10)}"


def _parameters(layer: LayerTrace) -> Iterable[tuple[str, np.ndarray]]:
    if layer.kind.startswith("BatchNorm"):
        names = {"weight": "γ", "bias": "β"}
        return [(f"{names[key]} ({key})", value) for key, value in layer.parameters.items()]
    return layer.parameters.items()


def _backward(explanation: Explanation, width: int) -> Iterator[str]:
    subject, traced = explanation.subject, explanation.trace
    yield ""
    yield "Backward: from the loss to the parameters, upstream g × local = gradient"
    smoothing = float(subject.recipe.loss.arguments.get("label_smoothing", 0))
    _, formula = formulas.of_loss(subject.recipe.loss.type, smoothing, len(subject.x))
    yield ""
    yield from wrapped("loss  ", formula, width)
    yield from table([("dL/dx", traced.grad_scores)], width)
    behind = "the loss"
    for layer in reversed(traced.layers):
        said = formulas.of(layer)
        yield ""
        yield f"{layer.name}  {layer.kind}: {said.backward}"
        upstream = ("  upstream g", layer.grad_output)
        if layer.local.kind == "elementwise" and layer.local.values is not None:
            rows = [upstream, ("× local dy/dx", layer.local.values), ("= gradient dL/dx", layer.grad_input)]
            yield from table(rows, width, largest=False, place=largest_places(layer.grad_input, 1)[0])
            if layer.output.size > MOST_SHOWN:
                yield from _products(layer, layer.local.values, width)
            if said.local not in ("dy/dx = 1", "dy/dx = mask"):
                yield f"  ({said.local})"
        else:
            if layer.output.size > MOST_SHOWN:
                head = f"  {upstream[0]}  "
                yield f"{head:{LABEL}}{tuple(layer.grad_output.shape)}, from {behind} above"
            else:
                yield from table([upstream], width)
            yield from _local(layer, said.local, width)
            if layer.local.kind == "reshape" and layer.output.size > MOST_SHOWN:
                yield f"{'  = gradient dL/dx':{LABEL}}{tuple(layer.grad_input.shape)}, the same numbers"
            else:
                yield from table([("= gradient dL/dx", layer.grad_input)], width)
        if layer.local.kind == "batch" and layer.local.values is not None:
            yield from _channel(layer, layer.local.values, width)
        for key, gradient in layer.gradients.items():
            yield from table([(said.parameters.get(key, f"dL/d{key}"), gradient)], width)
            if layer.kind == "Linear" and key == "weight" and gradient.size > MOST_SHOWN:
                yield from _weight_products(layer, width)
        behind = layer.name


def _products(layer: LayerTrace, local: np.ndarray, width: int) -> Iterator[str]:
    """Give upstream times local in numbers, where the gradient is largest."""
    for place in largest_places(layer.grad_input, 3):
        factors = f"{bracketed(float(layer.grad_output[place]))} × {bracketed(float(local[place]))}"
        result = number(float(layer.grad_input[place]))
        yield from wrapped(" " * LABEL, f"[{','.join(map(str, place))}]  {factors} = {result}", width)


def _channel(layer: LayerTrace, local: np.ndarray, width: int) -> Iterator[str]:
    """Give upstream times local of the channel with the largest gradient: a matrix for its examples."""
    if len(local) ** 2 > MOST_SHOWN:
        return
    channel = largest_places(layer.grad_input, 1)[0][1]
    yield f"  in numbers, channel {channel}: row i of dy_i/dx_j is example i's output"
    rows = [
        ("  upstream g", layer.grad_output[:, channel]),
        ("× local dy_i/dx_j", local[:, :, channel]),
        ("= gradient dL/dx", layer.grad_input[:, channel]),
    ]
    yield from table(rows, width)


def _weight_products(layer: LayerTrace, width: int) -> Iterator[str]:
    """Give upstream times input in numbers, where the gradient of Linear's weight is largest."""
    if layer.input.ndim != 2 or len(layer.input) > 2:
        return
    for row, column in largest_places(layer.gradients["weight"], 2):
        terms = zip(layer.grad_output[:, row], layer.input[:, column], strict=True)
        factors = " + ".join(f"{bracketed(float(g))} · {bracketed(float(x))}" for g, x in terms)
        result = number(float(layer.gradients["weight"][row, column]))
        yield from wrapped(" " * LABEL, f"[{row},{column}]  {factors} = {result}", width)


def _local(layer: LayerTrace, formula: str, width: int) -> Iterator[str]:
    """Give the line or table of a local derivative that is not one number for each output."""
    if layer.local.kind == "jacobian" and layer.local.values is not None:
        yield from table([(f"× {formula.split(' = ')[0]}", layer.local.values)], width)
        yield f"  ({formula})"
    elif layer.local.kind == "windows" and layer.local.values is not None:
        yield from table([("× local Σ dy/dx", layer.local.values)], width)
        yield f"  ({formula})"
    else:
        yield from wrapped(
            f"  × {'local':{LABEL - 4}}", formula + (", above" if "W" in formula else ""), width
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
            return f"{layer.name}.weight[{','.join(map(str, largest_places(gradient, 1)[0]))}]"
    return "fc1.weight[0,0]"


def _weight(explanation: Explanation, weight: Weight, width: int) -> Iterator[str]:
    sums = weight.sums
    layer = explanation.trace[sums.name.layer]
    found = sums.paths
    yield ""
    yield f"One weight: w = {sums.name} = {number(sums.value, 10)}"
    yield ""
    yield from wrapped("", f"dL/dw as the sum over paths: {_reach(found)}", width)
    for place, path in enumerate(found.listed, start=1):
        yield from _path(place, path, len(explanation.subject.x) > 1, width)
    others = found.count - len(found.listed)
    if others:
        share = f" ({found.nonzero:,} of all are not 0)" if found.nonzero < found.count else ""
        yield from equals(f"  the other {others:,}{share}", found.rest, width)
    yield from equals("  sum", found.total, width)
    if sums.gradient == 0 and found.nonzero == 0 and found.listed:
        yield from wrapped("  ", _why_zero(found), width)
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
    yield from wrapped(head, " · ".join(names), width, hang=7)
    product = " · ".join(bracketed(factor.value) for factor in path.factors)
    yield from equals(f"       {product}", path.product, width)


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
    yield f"The same in matrix form (dL/d({layer.name}): the gradient of {layer.name}'s output)"
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
        yield from beside(f"  {name:{left}} = {step:{middle}}", shapes, width)
    index = ",".join(map(str, sums.name.index))
    terms = [f"{bracketed(term.upstream)} · {bracketed(term.local)}" for term in sums.terms]
    more = sums.term_count - len(terms)
    text = f"  element [{index}]: " + " + ".join(terms) + (f" + {more:,} smaller ones" if more else "")
    yield from equals(text, sums.gradient, width)


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
    settings = ", ".join(f"{key} = {value}" for key, value in shown.items())
    yield from wrapped(f"One step of {step.optimizer}: ", settings, width, hang=4)
    yield from wrapped("  ", step.formula, width)
    chosen = explanation.weight.sums.name if explanation.weight is not None else None
    if chosen is not None:
        key = f"{chosen.layer}.{chosen.parameter}"
        old, new = float(before[key][chosen.index]), float(step.after[key][chosen.index])
        slope = number(float(gradients[key][chosen.index]))
        yield f"  {chosen}: {number(old, 8)} -> {number(new, 8)}"
        yield f"    dL/dw = {slope}, change {number(new - old)}"
    for key, value in before.items():
        if value.size <= MOST_SHOWN:
            yield ""
            rows = [
                (f"  {key}", value),
                ("  its gradient", gradients[key]),
                ("  after the step", step.after[key]),
            ]
            yield from table(rows, width)
        else:
            change = step.after[key] - value
            moved = np.abs(change)
            yield from wrapped(
                f"  {key + '  ' + str(value.shape):{LABEL}}",
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
