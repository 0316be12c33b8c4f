"""Which pictures a run gets, and what is drawn in each."""

from typing import Any

import numpy as np

import nn_reference
from chainrule import history, plots
from chainrule.datasets import Dataset
from chainrule.recipe import Recipe
from chainrule.training import Trained, confusion_matrix, split, steps_per_epoch


def of_run(
    metrics: list[dict[str, Any]], data: Dataset, first: Trained, recipe: Recipe, state: dict[str, np.ndarray]
) -> dict[str, bytes]:
    """Return the pictures of a run, each a PNG, by the names of their files.

    Those of single images are of its first engine, and of its weights after the last epoch, ``state``.
    """
    images, labels, names = data.test_images, data.test_labels, data.class_names
    learn, kept = split(len(data.train_labels), recipe.validation, recipe.seed)
    share = f"{first.test_accuracy:.2%} of the test images right"
    on_test = f"{recipe.name} ({first.engine}) on {data.title}: {share}"
    surest = f"{recipe.name} ({first.engine}): the mistakes on {data.title} that it was surest of"
    matrix = confusion_matrix(first.outputs, labels, len(names))
    splits = {"train": data.train_labels[learn], "validation": data.train_labels[kept], "test": labels}
    steps = steps_per_epoch(len(data.train_labels), recipe)
    rates = recipe.rates_within_epochs(steps)
    pictures = {
        "curves.png": plots.curves(metrics, f"{recipe.name} on {data.title}", rates, steps),
        "confusion.png": plots.confusion(matrix, names, on_test),
        "samples.png": plots.samples(images, labels, first.outputs, names, on_test),
        "mistakes.png": plots.mistakes(images, labels, first.outputs, names, surest),
        "classes.png": plots.classes(splits, names, f"The classes of {data.title}"),
    }
    layer, weight = first_weights(recipe, state)
    if weight is not None:
        few = min(len(weight), plots.MOST_UNITS)
        title = f"What {layer} looks for: {few} of its {len(weight)} units"
        pictures["weights.png"] = plots.weights(weight, title)
    maps = feature_maps(recipe, state, images[:1])
    if maps:
        title = f"What {recipe.name} makes of a test image, layer by layer"
        pictures["features.png"] = plots.features(images[0], maps, title)
    if data.name == "mnist":
        own = history.own(
            recipe.name, data.name, [layer.type for layer in recipe.layers], first.test_accuracy
        )
        pictures["history.png"] = plots.history(history.records(), own)
    return pictures


def first_weights(recipe: Recipe, state: dict[str, np.ndarray]) -> tuple[str, np.ndarray | None]:
    """Return the name of the first layer with weights, and these as images (units, height, width).

    None where they are no images: those of a layer that does not see the pixels, or sees several channels.
    """
    shape = recipe.input_shape
    for layer in recipe.layers:
        if layer.type == "Conv2d":
            kernels = state[f"{layer.name}.weight"]  # (out_channels, in_channels, height, width)
            return layer.name, kernels[:, 0] if kernels.shape[1] == 1 else None
        if layer.type == "Linear":
            weight = state[f"{layer.name}.weight"]  # (out_features, in_features)
            sees_pixels = int(np.prod(shape)) == int(np.prod(shape[-2:])) == weight.shape[1]
            return layer.name, weight.reshape(-1, *shape[-2:]) if sees_pixels else None
    return "", None


def feature_maps(
    recipe: Recipe, state: dict[str, np.ndarray], image: np.ndarray
) -> list[tuple[str, np.ndarray]]:
    """Return what each layer up to the first flat one gives for a uint8 image (1, H, W), in eval mode.

    Pairs of "conv1 (Conv2d)" and an array (channels, height, width), from the reference engine's tape; none
    for a network without convolutions.
    """
    if not any(layer.type == "Conv2d" for layer in recipe.layers):
        return []
    network = recipe.build(nn_reference).eval()
    network.load_state_dict(state)
    with nn_reference.Tape(network) as tape:
        network((recipe.examples(image).astype(np.float32) / 255 - recipe.mean) / recipe.std)
    outputs = [(f"{layer.name} ({layer.type})", tape[layer.name].output) for layer in recipe.layers]
    return [(name, output[0]) for name, output in outputs if output.ndim == 4]
