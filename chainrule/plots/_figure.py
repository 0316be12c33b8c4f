"""What the pictures share: their size, the look of each split, and how a figure becomes a PNG."""

import io
import textwrap
from collections.abc import Iterable
from itertools import repeat
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 6.2  # inches
# Three hues that stay apart for every kind of colour vision (Okabe and Ito).
SPLIT_COLOUR = {"train": "#0072B2", "validation": "#009E73", "test": "#D55E00"}
SPLIT_MARKER = {"train": "o", "validation": "s", "test": "^"}
SPLIT_HATCH = {"train": "", "validation": "//", "test": ".."}
WRONG = "#B00020"


def new(height: float, title: str) -> Figure:
    """Return an empty figure of ``height`` inches under a title, broken into lines where it is long."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    lines = -(-len(title) // 62)
    width = 62 if lines == 1 else len(title) // lines + 6  # lines of about one length
    figure.suptitle(plain(textwrap.fill(title, width)), fontsize=12)
    return figure


def plain(text: str) -> str:
    """Return a text as it is: matplotlib reads what stands between two dollar signs as mathematics."""
    return text.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG; the same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=140, metadata={"Software": None})
    return file.getvalue()


def tiles(
    axes: Axes,
    images: Iterable[np.ndarray],
    titles: Iterable[str],
    columns: int,
    *,
    above: float,
    size: float,
    top: float = 0.0,
    colours: Iterable[str] | None = None,
    **how: Any,
) -> float:
    """Draw images side by side in one axes, whose unit is the width of a tile, from ``top`` down.

    A title of ``size`` points stands above each, in a strip ``above`` high; ``how`` goes to imshow. Returns
    where the last row ends. One axes is ten times faster than one for each image.
    """
    bottom = top
    for index, (image, title, colour) in enumerate(
        zip(images, titles, colours or repeat("black"), strict=False)
    ):
        row, x = divmod(index, columns)
        y = top + row * (1 + above) + above
        bottom = y + 1
        axes.imshow(image, extent=(x + 0.04, x + 0.96, y + 0.96, y + 0.04), **how)
        axes.text(x + 0.5, y, title, ha="center", va="bottom", fontsize=size, color=colour)
    axes.set_axis_off()
    axes.set(xlim=(0, columns), ylim=(bottom, 0))
    return bottom
