"""How far from float64 each engine's gradient is: ``chainrule compare --precision`` and ``--device cuda``.

The elements of a gradient cannot be held to a limit one by one where products are rounded to 8 or 11 bits: a
ReLU whose input is that close to 0, or a maximum that is nearly a tie, sends some of them elsewhere. The
length of the difference, relative to that of the gradient, grows smoothly with the rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import nn_reference
from chainrule import datasets, engines, training
from chainrule import recipe as recipes

# The significant bits of a factor in a product: a rounding changes it by up to u = 2^-bits of itself.
BITS = {"float32": 24, "tf32": 11, "bf16": 8}


@dataclass(frozen=True)
class Distance:
    """The relative L2 distance of one tensor to the one in float64, in both engines."""

    name: str
    shape: tuple[int, ...]
    reference: float
    torch: float


@dataclass(frozen=True)
class Distances:
    """The distances of a batch: each parameter's gradient, and last the whole gradient, which decides."""

    rows: list[Distance]
    limit: float

    @property
    def agrees(self) -> bool:
        """Whether the whole gradient of either engine is as near to float64 as its precision allows."""
        whole = self.rows[-1]
        return whole.reference <= limit_of("float32") and whole.torch <= self.limit

    def lines(self) -> Iterator[str]:
        """Give the lines of the report as text."""
        width = max(len(row.name) for row in self.rows)
        yield "Relative L2 distance of the gradient to float64, at the initial weights"
        yield ""
        yield f"{'':{width}}  {'shape':>12}  reference  PyTorch"
        for row in self.rows:
            shape = "x".join(map(str, row.shape))
            yield f"{row.name:{width}}  {shape:>12}  {row.reference:9.1e}  {row.torch:7.1e}"
        yield ""
        verdict = "Both are" if self.agrees else "NOT both are"
        limits = f"{limit_of('float32'):.1e} and {self.limit:.1e}"
        yield f"{verdict} as near as rounding lets them, as a whole: {limits} at most."

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {"agrees": self.agrees, "limit": self.limit, "rows": [vars(row) for row in self.rows]}


def limit_of(precision: str) -> float:
    """Return how far from float64 a gradient may be: 16 u, with bf16 32 u, for it rounds results as well.

    Measured at the initial weights of the recipes: 2 to 11 u in float32, 6 to 25 u in bf16.
    """
    return float((32 if precision == "bf16" else 16) * 2.0 ** -BITS[precision])


def distances(
    name: str,
    *,
    precision: str,
    device: str,
    seed: int | None = None,
    batch_size: int | None = None,
    dataset: str = "auto",
    root: Path | None = None,
) -> tuple[Distances, dict[str, str]]:
    """Compare both engines' gradients of one batch, at the initial weights, with float64; and say of what.

    Dropout lets everything through, so that all see the same network.
    """
    plan = recipes.load(name)
    plan = replace(
        plan,
        seed=plan.seed if seed is None else seed,
        batch_size=batch_size or plan.batch_size,
        layers=tuple(_without_masks(layer) for layer in plan.layers),
    )
    data = datasets.load(dataset, root)
    batch = next(training.batches(len(data.train_labels), plan.batch_size, plan.seed, epoch=1))
    options = engines.TorchOptions(precision=precision)
    grads = []
    for engine in (
        engines.build(plan, "numpy", seed=plan.seed),
        engines.build(plan, "torch", seed=plan.seed, device=device, options=options),
    ):
        put = engine.put(plan.examples(data.train_images), data.train_labels, plan.mean, plan.std)
        before = {key: value.copy() for key, value in engine.state_dict().items()}
        engine.train_step(put, batch)
        network: Any = engine.network  # type: ignore[attr-defined]
        named = dict(network.named_parameters())
        grads.append({key: _array(parameter.grad) for key, parameter in named.items()})
    truth = _in_float64(plan, before, data, batch)
    rows = [
        Distance(key, value.shape, *(_distance([value], [found[key]]) for found in grads))
        for key, value in truth.items()
    ]
    whole = [_distance(list(truth.values()), [found[key] for key in truth]) for found in grads]
    count = sum(value.size for value in truth.values())
    rows.append(Distance("the whole gradient", (count,), *whole))
    return Distances(rows, limit_of(precision)), {
        "Data": f"{data.title}, training images; {data.why or data.folder}",
        "Recipe": f"{plan.name}: {plan.summary}",
        "Batch": f"{plan.batch_size} images, seed {plan.seed}, train mode, without Dropout",
        "Engines": f"reference (NumPy, float32) and PyTorch ({device}, {precision}), each against float64",
    }


def _without_masks(layer: Any) -> Any:
    return replace(layer, arguments={**layer.arguments, "p": 0.0}) if layer.type == "Dropout" else layer


def _array(grad: Any) -> np.ndarray:
    return np.asarray(grad if isinstance(grad, np.ndarray) else grad.cpu(), np.float64)


def _in_float64(
    plan: Any, state: dict[str, np.ndarray], data: Any, batch: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the gradients of the reference in float64, at these weights."""
    network = plan.build(nn_reference)
    network.load_state_dict(state)
    network.to(np.float64).train()
    criterion = plan.build_loss(nn_reference)
    images = plan.examples(data.train_images[batch]).astype(np.float64)
    criterion(network((images / 255 - plan.mean) / plan.std), data.train_labels[batch].astype(np.int64))
    network.backward(criterion.backward())
    return {key: np.asarray(parameter.grad) for key, parameter in network.named_parameters()}


def _distance(truth: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Return |found - truth| / |truth|, the tensors of either taken as one vector."""
    difference = sum(float(np.sum((a - b) ** 2)) for a, b in zip(truth, found, strict=True))
    length = sum(float(np.sum(a**2)) for a in truth)
    return float(np.sqrt(difference / length)) if difference else 0.0
