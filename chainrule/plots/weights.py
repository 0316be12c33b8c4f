"""The weights of the first layer, as images."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from chainrule.plots import _figure

MOST_UNITS = 32
_COLOURS = "RdBu_r"


def weights(weight: np.ndarray, title: str) -> bytes:
    """Draw what each unit of the first layer looks for: ``weight`` is (units, height, width).

    Of more than 32 units those with the largest norm are drawn. All share one scale around 0.
    """
    norms = np.linalg.norm(weight.reshape(len(weight), -1), axis=1)
    chosen = np.sort(np.argsort(-norms, kind="stable")[:MOST_UNITS])
    # A few large weights would leave the others pale.
    limit = float(np.quantile(np.abs(weight[chosen]), 0.995)) or 1.0
    scale = Normalize(-limit, limit)
    rows = -(-len(chosen) // 8)
    figure = _figure.new(1.4 + rows * 1.2 * _figure.WIDTH / 8, title)
    axes = figure.subplots()
    _figure.tiles(axes, weight[chosen], map(str, chosen), 8, above=0.2, size=9, cmap=_COLOURS, norm=scale)
    colours = ScalarMappable(scale, _COLOURS)
    bar = figure.colorbar(colours, ax=axes, orientation="horizontal", extend="both", aspect=40)
    bar.set_label("weight: ink here speaks against (blue) or for (red) the unit", fontsize=10)
    return _figure.png(figure)
