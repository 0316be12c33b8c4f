"""What the pictures share: their size, the look of each split, and how a figure becomes a PNG."""

import io
import textwrap

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
    figure.suptitle(plain(textwrap.fill(title, 62)), fontsize=12)
    return figure


def plain(text: str) -> str:
    """Return a text as it is: matplotlib reads what stands between two dollar signs as mathematics."""
    return text.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG; the same figure gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=140, metadata={"Software": None})
    return file.getvalue()
