"""The picture of two engines drifting apart: relative distance of the parameters over the steps.

Matplotlib is imported inside, so that `agreement` can be used without it.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from agreement.bisect import Flip
from agreement.measures import FLOAT64_LIMIT, Array
from agreement.training import TrainingReport

# Okabe and Ito's hues, apart for every kind of colour vision; line style and label say the same without them.
_ENGINES: dict[str, Any] = {"color": "#0072B2", "linestyle": "-", "linewidth": 1.8}
_CONTROL: dict[str, Any] = {"color": "#D55E00", "linestyle": "--", "linewidth": 1.8}
_LIMIT: dict[str, Any] = {"color": "black", "linestyle": ":", "linewidth": 1.2}


def distances(reports: Mapping[str, TrainingReport], title: str = "") -> bytes:
    """Draw a panel for each report, by its title, on one scale; returns a PNG file.

    Solid: our engine from PyTorch's, both running free. Dashed: the control. Dotted: the limit of 1e-12, in
    float64. Dash and dot: the step of a first flip, from which on two runs differ by whole terms.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * max(len(reports), 1.4), 4.0), layout="constrained")
    if title:
        figure.suptitle(title)
    panels = figure.subplots(1, len(reports), squeeze=False, sharey=True)[0]
    for axes, (name, report) in zip(panels, reports.items(), strict=True):
        _panel(axes, report)
        axes.set(title=name, xlabel="step")
    panels[0].set_ylabel("relative distance of the parameters")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()


def _panel(axes: Any, report: TrainingReport) -> None:
    axes.set_yscale("log")
    lines = [("ours from PyTorch's", report.distance, _ENGINES)]
    if report.control is not None:
        lines.append(("control: ours from ours, one ulp away", report.control, _CONTROL))
    for _, distance, style in lines:
        _line(axes, distance, style)
    for (label, distance, style), above in zip(lines, _above(lines), strict=True):
        _label(axes, label, distance, style, above)
    if report.dtype == "float64":
        axes.axhline(FLOAT64_LIMIT, **_LIMIT)
        axes.annotate("limit 1e-12", (0.02, FLOAT64_LIMIT), xycoords=("axes fraction", "data"),
                      xytext=(0, 3), textcoords="offset points", fontsize=9)  # fmt: skip
    marks = [("first flip", report.parted, 0.02), ("control flips", report.control_parted, 0.16)]
    known = [(flip, label, height) for label, flip, height in marks if flip is not None]
    latest = max((flip.step for flip, _, _ in known), default=0)
    for flip, label, height in known:
        # The earlier of two is labelled on its left, clear of the other, if there is room.
        _mark(
            axes,
            flip,
            label,
            height,
            right=flip.step < report.steps * (0.75 if flip.step == latest else 0.25),
        )
    axes.grid(alpha=0.3)
    axes.margins(x=0.01, y=0.12)


def _mark(axes: Any, flip: Flip, label: str, height: float, *, right: bool) -> None:
    """Draw a line through the step of a flip, with its name beside it at a height of the panel."""
    axes.axvline(flip.step, color="0.4", linestyle="-.", linewidth=1)
    axes.annotate(
        f"{label}:\n{flip.operation}, step {flip.step}",
        (flip.step, height),
        xycoords=("data", "axes fraction"),
        xytext=(4 if right else -4, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _line(axes: Any, distance: Array, style: Mapping[str, Any]) -> None:
    steps = np.arange(len(distance))
    seen = distance > 0  # a logarithm has no place for 0
    axes.plot(steps[seen], distance[seen], **style)


def _above(lines: list[tuple[str, Array, dict[str, Any]]]) -> list[bool]:
    """Tell for each line whether its label goes above it: above the upper one, below the lower one."""
    heights = [distance[len(distance) // 2 :].mean() for _, distance, _ in lines]
    return [i == int(np.argmax(heights)) for i in range(len(heights))]


def _label(axes: Any, label: str, distance: Array, style: Mapping[str, Any], above: bool) -> None:
    """Write the label along the right end of the line, clear of it."""
    tail = distance[int(0.55 * len(distance)) :]
    height = tail.max() if above else tail[tail > 0].min(initial=tail.max())
    if height <= 0:
        return
    axes.annotate(
        label,
        (0.99, height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 5 if above else -5),
        textcoords="offset points",
        ha="right",
        va="bottom" if above else "top",
        color=style["color"],
        fontsize=9,
    )
