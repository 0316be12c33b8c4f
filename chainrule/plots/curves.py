"""Loss, accuracy and learning rate over the epochs."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from chainrule.plots import _figure

_AXIS = "epoch\n(train: the mean over an epoch, while learning; the others: after it)"
# Two engines that agree lie on top of each other: a wide pale line under a thin dark one shows both.
_STYLE: dict[str, dict[str, Any]] = {
    "alone": {"linewidth": 2, "markersize": 7},
    "numpy": {"linewidth": 6, "alpha": 0.35, "markersize": 10},
    "torch": {"linewidth": 1.5, "markersize": 5},
}


def curves(
    metrics: list[dict[str, Any]], title: str, rates: Sequence[float] = (), steps_per_epoch: int = 1
) -> bytes:
    """Draw the rows of ``metrics.csv``: each engine and split, and each engine's best epoch by validation.

    ``rates`` are the learning rates of every step, where they change within an epoch: the metrics have only
    that of an epoch's last step, which is its point.
    """
    figure = _figure.new(9.2, title)
    splits = [split for split in _figure.SPLIT_COLOUR if any(row["split"] == split for row in metrics)]
    engines = list(dict.fromkeys(row["engine"] for row in metrics))
    styles = {engine: _STYLE["alone" if len(engines) == 1 else engine] for engine in engines}
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3])
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for engine in engines:
            for split in splits:
                _line(axes, metrics, engine, split, quantity, styles[engine])
        axes.set_ylabel(quantity)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    for engine in engines:
        style = styles[engine] | ({"linestyle": ""} if rates else {})
        _line(rate, metrics, engine, "train", "learning_rate", style)
    shown = rates[: steps_per_epoch * max((row["epoch"] for row in metrics), default=0)]
    if shown:
        ends = [(step + 1) / steps_per_epoch for step in range(len(shown))]
        rate.plot(ends, shown, color=_figure.SPLIT_COLOUR["train"], linewidth=1.5)
    rate.set(ylabel="learning\nrate", xlabel=_AXIS, ylim=(0, None))
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    best = [line for engine in engines for line in _mark_best((loss, accuracy), metrics, engine)]
    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.3)
    figure.legend(handles=[*_legend(splits, engines), *best], loc="outside lower center", ncols=2)
    return _figure.png(figure)


def _line(
    axes: Axes, metrics: list[dict[str, Any]], engine: str, split: str, quantity: str, style: dict[str, Any]
) -> None:
    rows = [
        row
        for row in metrics
        if row["engine"] == engine and row["split"] == split and row.get(quantity) is not None
    ]
    axes.plot([row["epoch"] for row in rows], [row[quantity] for row in rows], **_look(split) | style)


def _look(split: str) -> dict[str, Any]:
    dashes = {"train": "-", "validation": "--", "test": ":"}[split]
    return {"color": _figure.SPLIT_COLOUR[split], "marker": _figure.SPLIT_MARKER[split], "linestyle": dashes}


def best_epoch(metrics: list[dict[str, Any]], engine: str) -> int | None:
    """Return the epoch with the highest validation accuracy (of several: the lowest loss), or None."""
    rows = [row for row in metrics if row["engine"] == engine and row["split"] == "validation"]
    if not rows:
        return None
    return int(max(rows, key=lambda row: (row["accuracy"], -row["loss"]))["epoch"])


def _mark_best(panels: tuple[Axes, ...], metrics: list[dict[str, Any]], engine: str) -> list[Line2D]:
    epoch = best_epoch(metrics, engine)
    if epoch is None:
        return []
    (row,) = (
        row for row in metrics if (row["engine"], row["split"], row["epoch"]) == (engine, "validation", epoch)
    )
    star: dict[str, Any] = {"marker": "*", "color": "black", "linestyle": "", "zorder": 5}
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        axes.axvline(epoch, color="0.4", linewidth=1, linestyle="-.")
        axes.plot(epoch, row[quantity], markersize=16, **star)
    label = f"best of {engine}: epoch {epoch}, {row['accuracy']:.2%}"
    return [Line2D([], [], markersize=12, label=label, **star)]


def _legend(splits: list[str], engines: list[str]) -> list[Line2D]:
    entries = [Line2D([], [], label=split, linewidth=1.5, **_look(split)) for split in splits]
    if len(engines) > 1:
        for engine in engines:
            style = _STYLE[engine] | {"markersize": 0}
            how = "wide and pale" if engine == "numpy" else "thin"
            entries.append(Line2D([], [], color="black", label=f"{engine}: {how}", **style))
    return entries
