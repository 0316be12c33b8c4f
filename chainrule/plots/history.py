"""A run's test error beside the published record."""

from matplotlib.ticker import FuncFormatter

from chainrule.history import KINDS, Own, Record
from chainrule.plots import _figure

_STYLE = {KINDS[0]: ("o", "#0072B2"), KINDS[1]: ("^", "#D55E00")}
_ALONE, _HELP = "one network, images as they are", "distortions or a committee"
_TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10]


def history(records: tuple[Record, ...], run: Own | None) -> bytes:
    """Draw error over year on a logarithmic axis, and ``run`` as a line; hollow is what had help."""
    figure = _figure.new(7.4, "Published test errors of neural networks on MNIST")
    axes = figure.subplots()
    for kind, (marker, colour) in _STYLE.items():
        for helped in (False, True):
            chosen = [r for r in records if r.kind == kind and r.alone != helped]
            axes.plot(
                [record.year for record in chosen],
                [record.error for record in chosen],
                marker=marker,
                markersize=9,
                linestyle="",
                color=colour,
                markerfacecolor="white" if helped else colour,
                markeredgewidth=1.8,
                label=f"{kind}, {_HELP if helped else _ALONE}",
            )
    for record in records:
        left = record.side == "left"
        axes.annotate(
            f"{record.short}, {record.error:g} %",
            (record.year, record.error),
            xytext=(-8 if left else 8, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=9.5,
            zorder=1.9,  # under the markers, for the white behind a name would cut the next one
            bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none"},
        )
    if run is not None:
        axes.axhline(max(run.error, 0.05), color="black", linewidth=1.8, linestyle="--", zorder=1.5)
        axes.annotate(
            _figure.plain(f"{run.name}: {run.error:.2f} %"),
            (1.0, max(run.error, 0.05)),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=11,
            fontweight="bold",
        )
    axes.set_yscale("log")
    axes.set(ylabel="test error", xlabel="year", xlim=(1996, 2022), ylim=(0.05, 20))
    axes.set_yticks(_TICKS)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=9.5)
    return _figure.png(figure)
