"""How often each class occurs in each split."""

import numpy as np
from matplotlib.ticker import PercentFormatter

from chainrule.plots import _figure


def classes(labels: dict[str, np.ndarray], class_names: tuple[str, ...], title: str) -> bytes:
    """Draw the share of each class in each split of ``labels``, {"train": (N,), ...}, but for empty ones.

    A split without order or luck would have the same share of all classes: the dotted line.
    """
    labels = {split: values for split, values in labels.items() if len(values)}
    figure = _figure.new(4.2, title)
    axes = figure.subplots()
    width = 0.8 / len(labels)
    for number, (split, values) in enumerate(labels.items()):
        counts = np.bincount(values, minlength=len(class_names))
        axes.bar(
            np.arange(len(class_names)) + (number - (len(labels) - 1) / 2) * width,
            counts / len(values),
            width,
            color=_figure.SPLIT_COLOUR[split],
            hatch=_figure.SPLIT_HATCH[split],
            edgecolor="white",
            label=f"{split}: {len(values):,} images, {_range(counts)} of each class",
        )
    axes.axhline(1 / len(class_names), color="black", linewidth=1.2, linestyle=":")
    names = [_figure.plain(name) for name in class_names]
    long = max(map(len, names)) > 3
    axes.set_xticks(range(len(names)), names, rotation=45 if long else 0, ha="right" if long else "center")
    axes.set_ylabel("share of the split")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    figure.legend(loc="outside lower center")
    return _figure.png(figure)


def _range(counts: np.ndarray) -> str:
    least, most = counts.min(), counts.max()
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
