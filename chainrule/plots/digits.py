"""Images with what the network read in them."""

import numpy as np
from matplotlib.axes import Axes

from chainrule.metrics import most_confident_mistakes, probabilities
from chainrule.plots import _figure


def samples(
    images: np.ndarray, labels: np.ndarray, outputs: np.ndarray, class_names: tuple[str, ...], title: str
) -> bytes:
    """Draw the first 30 images (N, H, W) with what the network read; a mistake says what it was in truth."""
    figure = _figure.new(6.8, title)
    predicted = outputs.argmax(1)
    names = [_figure.plain(name) for name in class_names]
    long = max(map(len, names)) > 3  # two long names do not fit into one line
    for index, axes in enumerate(figure.subplots(5, 6).flat):
        axes.set_axis_off()
        if index >= len(images):
            continue
        right = predicted[index] == labels[index]
        said, truth = names[predicted[index]], names[labels[index]]
        text = said if right else f"{said},{chr(10) if long else ' '}not {truth}"
        _image(axes, images[index], text, wrong=not right, size=9 if long else 11)
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
    rows = -(-len(chosen) // 5)
    figure = _figure.new(0.9 + 1.65 * rows, title)
    names = [_figure.plain(name) for name in class_names]
    sure, predicted = probabilities(outputs[chosen]).max(axis=1), outputs[chosen].argmax(1)
    long = max(map(len, names)) > 3
    grid = figure.subplots(rows, 5, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index, answer, probability in zip(grid.flat, chosen, predicted, sure, strict=False):
        said = f"read {names[answer]}{chr(10) if long else ', '}{_percent(probability)}"
        text = f"{said}\nis {names[labels[index]]}"
        _image(axes, images[index], text, wrong=True, size=9 if long else 10)
    return _figure.png(figure)


def _percent(probability: float) -> str:
    return "> 99.9%" if probability > 0.9995 else f"{probability:.1%}"


def _image(axes: Axes, image: np.ndarray, text: str, *, wrong: bool, size: float) -> None:
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=255)
    axes.set_title(text, fontsize=size, color=_figure.WRONG if wrong else "black")
