"""The weights of the first layer, as images."""

import numpy as np

from chainrule.plots import _figure

MOST_UNITS = 32


def weights(weight: np.ndarray, title: str) -> bytes:
    """Draw what each unit of the first layer looks for: ``weight`` is (units, height, width).

    Of more than 32 units those with the largest norm are drawn. All share one scale around 0.
    """
    norms = np.linalg.norm(weight.reshape(len(weight), -1), axis=1)
    chosen = np.sort(np.argsort(-norms, kind="stable")[:MOST_UNITS])
    rows = -(-len(chosen) // 8)
    figure = _figure.new(1.7 + 0.86 * rows, title)
    # A few large weights would leave the others pale.
    limit = float(np.quantile(np.abs(weight[chosen]), 0.995)) or 1.0
    grid = figure.subplots(rows, 8, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, unit in zip(grid.flat, chosen, strict=False):
        image = axes.imshow(weight[unit], cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_title(str(unit), fontsize=9, pad=2)
    bar = figure.colorbar(image, ax=grid, orientation="horizontal", extend="both", aspect=40)
    bar.set_label("weight: ink here speaks against (blue) or for (red) the unit", fontsize=10)
    return _figure.png(figure)
