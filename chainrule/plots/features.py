"""What the layers before the first linear one make of one image."""

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from chainrule.plots import _figure

_CHANNELS = 7
_ABOVE = 0.28  # the strip for a heading, as a share of a map


def features(image: np.ndarray, layers: list[tuple[str, np.ndarray]], title: str) -> bytes:
    """Draw an image (H, W) and the outputs of layers, each ("conv1 (Conv2d)", (channels, height, width)).

    Of each convolution those channels are drawn which answer most strongly, and the same ones of the layers
    that follow it, so that each column shows what becomes of one feature map.
    """
    figure = _figure.new(0.8 + (len(layers) + 1) * (1 + _ABOVE) * _figure.WIDTH / _CHANNELS, title)
    axes = figure.subplots()
    bottom = _row(axes, "the image", [image], 0.0, cmap="gray_r", vmin=0, vmax=255)
    channels = np.arange(_CHANNELS)
    for name, maps in layers:
        if "Conv" in name:
            strength = maps.max(axis=(1, 2))
            channels = np.sort(np.argsort(-strength, kind="stable")[:_CHANNELS])
        channels = channels[channels < len(maps)]
        limit = float(np.abs(maps[channels]).max()) or 1.0
        height, width = maps.shape[1:]
        heading = f"{name}: {len(channels)} of {len(maps)} maps of {height} x {width}"
        signed = bool(maps.min() < 0)
        colours = {"cmap": "RdBu_r" if signed else "gray_r", "vmin": -limit if signed else 0, "vmax": limit}
        bottom = _row(axes, heading, maps[channels], bottom, **colours)
    figure.supxlabel("blue: below 0, red: above 0; grey: from 0 (white) up", fontsize=10)
    return _figure.png(figure)


def _row(axes: Axes, heading: str, maps: Iterable[np.ndarray], top: float, **how: Any) -> float:
    axes.text(0.04, top + _ABOVE, heading, fontsize=10, va="bottom")
    return _figure.tiles(axes, maps, repeat(""), _CHANNELS, above=_ABOVE, size=1, top=top, **how)
