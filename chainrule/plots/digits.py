"""Images with what the network read in them."""

from itertools import repeat
from typing import Any

import numpy as np

from chainrule.metrics import most_confident_mistakes, probabilities
from chainrule.plots import _figure

_SAMPLES = 30
_INK: dict[str, Any] = {"cmap": "gray_r", "vmin": 0, "vmax": 255}


def samples(
    images: np.ndarray, labels: np.ndarray, outputs: np.ndarray, class_names: tuple[str, ...], title: str
) -> bytes:
    """Draw the first 30 images (N, H, W) with what the network read; a mistake says what it was in truth."""
    predicted = outputs[:_SAMPLES].argmax(1)
    names = [_figure.plain(name) for name in class_names]
    long = max(map(len, names)) > 3  # two long names do not fit into one line
    above = 0.38 if long else 0.22
    apart = "\n" if long else " "
    titles, colours = [], []
    for answer, label in zip(predicted, labels, strict=False):
        right = answer == label
        titles.append(names[answer] if right else f"{names[answer]},{apart}is {names[label]}")
        colours.append("black" if right else _figure.WRONG)
    figure = _figure.new(0.5 + 5 * (1 + above) * _figure.WIDTH / 6, title)
    axes = figure.subplots()
    _figure.tiles(axes, images, titles, 6, above=above, size=9 if long else 11, colours=colours, **_INK)
    return _figure.png(figure)


def mistakes(
    images: np.ndarray, labels: np.ndarray, outputs: np.ndarray, class_names: tuple[str, ...], title: str
) -> bytes:
    """Draw the 20 mistakes on images (N, H, W) that it was surest of: the answer, how sure, the truth."""
    chosen = most_confident_mistakes(outputs, labels, 20)
    if not len(chosen):
        figure = _figure.new(1.2, title)
        figure.text(0.5, 0.4, f"Nothing to show: all {len(labels):,} images are read correctly.", ha="center")
        return _figure.png(figure)
    names = [_figure.plain(name) for name in class_names]
    sure, predicted = probabilities(outputs[chosen]).max(axis=1), outputs[chosen].argmax(1)
    long = max(map(len, names)) > 3
    above = 0.46 if long else 0.34
    titles = [
        f"read {names[answer]}{chr(10) if long else ', '}{_percent(probability)}\nis {names[labels[index]]}"
        for index, answer, probability in zip(chosen, predicted, sure, strict=True)
    ]
    rows = -(-len(chosen) // 5)
    figure = _figure.new(0.5 + rows * (1 + above) * _figure.WIDTH / 5, title)
    axes, red = figure.subplots(), repeat(_figure.WRONG)
    _figure.tiles(axes, images[chosen], titles, 5, above=above, size=9 if long else 10, colours=red, **_INK)
    return _figure.png(figure)


def _percent(probability: float) -> str:
    return "> 99.9%" if probability > 0.9995 else f"{probability:.1%}"
