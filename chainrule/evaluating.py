"""Evaluating a run that is finished, on either engine, whichever it was trained with."""

from dataclasses import dataclass

import numpy as np

from chainrule import engines
from chainrule.errors import ChainruleError
from chainrule.metrics import per_class
from chainrule.recipe import Recipe
from chainrule.training import confusion_matrix


@dataclass(frozen=True)
class Evaluation:
    """What one engine reads with the given weights, in eval mode."""

    engine: str
    loss: float
    accuracy: float
    per_class_accuracy: dict[str, float | None]  # recall; None for a class without examples
    outputs: np.ndarray  # (N, classes), float32


def evaluate(
    recipe: Recipe,
    engine: str,
    state: dict[str, np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    class_names: tuple[str, ...],
    device: str = "cpu",
) -> Evaluation:
    """Evaluate the network with the weights ``state`` on images (N, H, W) and labels (N,), both uint8.

    The loss is the recipe's: of `mlp-bn` with its label smoothing, for example. Raises ChainruleError if the
    engine cannot build the network, or the loss is not finite.
    """
    engines.rehearse(recipe, engine, device)
    built = engines.build(recipe, engine, seed=recipe.seed, device=device)
    built.load_state_dict(state)
    data = built.put(recipe.examples(images), labels, recipe.mean, recipe.std)
    with np.errstate(over="ignore", invalid="ignore"):
        loss, outputs = built.evaluate(data)
    if not np.isfinite(loss):
        raise ChainruleError(f"the loss with these weights is {loss} on the {engine} engine")
    accuracy = float(np.mean(outputs.argmax(1) == labels))
    classes = per_class(confusion_matrix(outputs, labels, len(class_names)), class_names)
    recall = {name: row["recall"] for name, row in classes.items()}
    return Evaluation(engine, loss, accuracy, recall, outputs)


def differing(first: Evaluation, second: Evaluation) -> np.ndarray:
    """Return the indices of the images that two engines read differently."""
    return np.flatnonzero(first.outputs.argmax(1) != second.outputs.argmax(1))
