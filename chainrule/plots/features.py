"""What the layers before the first linear one make of one image."""

from typing import Any

import numpy as np
from matplotlib.figure import SubFigure

from chainrule.plots import _figure

_CHANNELS = 7


def features(image: np.ndarray, layers: list[tuple[str, np.ndarray]], title: str) -> bytes:
    """Draw an image (H, W) and the outputs of layers, each ("conv1 (Conv2d)", (channels, height, width)).

    Of each convolution those channels are drawn which answer most strongly, and the same ones of the layers
    that follow it, so that each column shows what becomes of one feature map.
    """
    figure = _figure.new(1.0 + 1.12 * (len(layers) + 1), title)
    grid = figure.add_gridspec(len(layers) + 1, 1)
    first, *rows = (figure.add_subfigure(grid[i]) for i in range(len(layers) + 1))
    _row(first, "the image", [image], "gray_r", 0, 255)
    channels = np.arange(_CHANNELS)
    for row, (name, maps) in zip(rows, layers, strict=True):
        if "Conv" in name:
            strength = maps.max(axis=(1, 2))
            channels = np.sort(np.argsort(-strength, kind="stable")[:_CHANNELS])
        channels = channels[channels < len(maps)]
        limit = float(np.abs(maps[channels]).max()) or 1.0
        height, width = maps.shape[1:]
        heading = f"{name}: {len(channels)} of {len(maps)} maps of {height} x {width}"
        signed = bool(maps.min() < 0)
        _row(row, heading, maps[channels], "RdBu_r" if signed else "gray_r", -limit if signed else 0, limit)
    figure.supxlabel("blue: below 0, red: above 0; grey: from 0 (white) up", fontsize=10)
    return _figure.png(figure)


def _row(row: SubFigure, heading: str, maps: Any, cmap: str, low: float, high: float) -> None:
    row.suptitle(heading, fontsize=10, x=0.01, ha="left")
    grid = row.subplots(1, _CHANNELS)
    for axes in grid:
        axes.set_axis_off()
    for axes, one in zip(grid, maps, strict=False):
        axes.imshow(one, cmap=cmap, vmin=low, vmax=high)
