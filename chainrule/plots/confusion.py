"""The confusion matrix."""

import numpy as np

from chainrule.plots import _figure


def confusion(matrix: np.ndarray, class_names: tuple[str, ...], title: str) -> bytes:
    """Draw the confusion matrix (classes, classes) with its counts: row = truth, column = answer."""
    figure = _figure.new(6.4, title)
    axes = figure.subplots()
    # The mistakes are few beside the right answers: colour is the share of the row, on a root scale.
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if share[row, column] > 0.4 else "black"
            weight = "bold" if row == column else "normal"
            axes.text(
                column, row, str(count), ha="center", va="center", color=colour, fontsize=10, weight=weight
            )
    names = [_figure.plain(name) for name in class_names]
    long = max(map(len, names)) > 3
    axes.set_xticks(range(len(names)), names, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("what the network read", fontsize=11)
    axes.set_ylabel("what it was", fontsize=11)
    return _figure.png(figure)
