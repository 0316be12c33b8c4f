"""How far the network's probabilities can be believed."""

from typing import Any

import numpy as np

from chainrule.plots import _figure

_BEFORE, _AFTER = _figure.SPLIT_COLOUR["test"], _figure.SPLIT_COLOUR["train"]


def reliability(calibration: dict[str, Any], title: str) -> bytes:
    """Draw the share of right answers over their probability, and below how many there are of each.

    ``calibration`` is what `chainrule.calibration.of_engine` returned. On the dotted line 80 % means 80 %.
    """
    figure = _figure.new(6.0, title)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1.5)
    temperature = calibration["temperature"]
    kinds = [("before", "as the network gives them", _BEFORE, "^", "--")]
    if temperature is not None:
        kinds.append(("after", f"divided by the temperature {temperature:.2f}", _AFTER, "o", "-"))
    for i, (key, words, colour, marker, line) in enumerate(kinds):
        found = calibration[key]
        bins = found["bins"]
        sure, right = [row["probability"] for row in bins], [row["right"] for row in bins]
        label = f"{words}: calibration error {found['ece']:.2%}"
        upper.plot(sure, right, color=colour, marker=marker, linestyle=line, markersize=5, label=label)
        width = (bins[0]["high"] - bins[0]["low"]) / (len(kinds) + 0.5)
        places = np.array([row["low"] for row in bins]) + width * (i + 0.25)
        lower.bar(places, [row["count"] for row in bins], width, align="edge", color=colour)
    upper.set(ylabel="share that is right", ylim=(-0.03, 1.03))
    upper.legend(loc="upper left", fontsize=9, frameon=False)
    lower.set(xlabel="probability of the answer", ylabel="answers", xlim=(0, 1.02), yscale="log")
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return _figure.png(figure)
