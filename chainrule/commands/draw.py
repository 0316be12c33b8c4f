"""``chainrule draw``: a page in which a run's network reads what one draws."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from chainrule.commands.options import RunArgument, Weights, WhichWeights, WhoseWeights


def draw(
    run: RunArgument,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only write the page, to this file.")
    ] = None,
    weights: WhichWeights = Weights.last,
    weights_of: WhoseWeights = None,
) -> None:
    """Draw a digit and see the run's network read it: every layer, and which pixels speak for the answer.

    The page holds the network and computes in the browser; it needs no other file and no network connection.
    Without --html it is RUN/draw.html, and is opened.

    Example: chainrule draw runs/simplenet-mnist
    """
    from chainrule import drawing, saved
    from chainrule.files import write

    opened = saved.open_run(run)
    state = saved.load_weights(opened, weights, weights_of)
    page = drawing.page(opened, state, saved.weights_file(opened, weights, weights_of)).encode()
    if html is not None:
        path = html.expanduser()
        write(path, page)
        print(f"{path}: {len(page):,} bytes")
        return
    path = opened.path / "draw.html"
    if not os.access(path.parent, os.W_OK):  # somebody else's run
        path = Path(tempfile.mkdtemp(prefix="chainrule-")) / path.name
    write(path, page)
    print(f"{path}: {len(page):,} bytes")
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        print("No browser was found: open this file in one.")
