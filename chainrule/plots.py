"""The pictures of a run, each as the bytes of a PNG file.

Matplotlib is imported here and nowhere else; nothing needs a screen.
"""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Two hues that stay apart for every kind of colour vision (Okabe and Ito), one for each split.
_SPLIT_COLOUR = {"train": "#0072B2", "test": "#D55E00"}
# Two engines that agree lie on top of each other: a wide pale line under a thin dashed one shows both.
_ENGINE_STYLE: dict[str, dict[str, Any]] = {
    "numpy": {"linewidth": 5, "alpha": 0.4, "linestyle": "-", "marker": "o", "markersize": 8},
    "torch": {"linewidth": 1.5, "linestyle": "--", "marker": "o", "markersize": 3.5},
}


def curves(metrics: list[dict[str, Any]], title: str) -> bytes:
    """Draw loss and accuracy over the epochs, for each engine and split, from the rows of ``metrics.csv``."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(title)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        _curves(axes, metrics, quantity)
    figure.supxlabel("train: the mean over an epoch, while learning; test: after the epoch", fontsize=9)
    return _png(figure)


def _curves(axes: Axes, metrics: list[dict[str, Any]], quantity: str) -> None:
    for engine in dict.fromkeys(row["engine"] for row in metrics):
        for split, colour in _SPLIT_COLOUR.items():
            rows = [row for row in metrics if row["engine"] == engine and row["split"] == split]
            epochs, values = [row["epoch"] for row in rows], [row[quantity] for row in rows]
            axes.plot(epochs, values, color=colour, label=f"{split}, {engine}", **_ENGINE_STYLE[engine])
    axes.set(xlabel="epoch", title=quantity)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if quantity == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    axes.legend()


def samples(
    images: np.ndarray,
    labels: np.ndarray,
    outputs: np.ndarray,
    class_names: tuple[str, ...],
    title: str,
) -> bytes:
    """Draw the first 40 images (N, H, W) with what the network read; a mistake says what it was in truth."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    figure.suptitle(title)
    predicted = outputs.argmax(1)
    apart = "\n" if max(map(len, class_names)) > 3 else " "  # two long names do not fit into one line
    for index, axes in enumerate(figure.subplots(5, 8).flat):
        axes.set_axis_off()
        if index >= len(images):
            continue
        right = predicted[index] == labels[index]
        said = class_names[predicted[index]]
        axes.imshow(images[index], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(
            said if right else f"{said},{apart}not {class_names[labels[index]]}",
            fontsize=10 if apart == " " else 8.5,
            color="black" if right else "#B00020",
            fontweight="normal" if right else "bold",
        )
    return _png(figure)


def confusion(matrix: np.ndarray, class_names: tuple[str, ...], title: str) -> bytes:
    """Draw the confusion matrix (classes, classes) with its counts: row = truth, column = answer."""
    figure = Figure(figsize=(7.2, 6.6), layout="constrained")
    axes = figure.subplots()
    # The mistakes are few beside the right answers: colour is the share of the row, on a root scale.
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if share[row, column] > 0.4 else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=9)
    ticks = range(len(class_names))
    slant = 45 if max(map(len, class_names)) > 3 else 0
    axes.set_xticks(ticks, class_names, rotation=slant)
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="what the network read", ylabel="what it was", title=title)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    return file.getvalue()
