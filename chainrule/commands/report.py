"""``chainrule report``: all that a run left, on one page."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or its name below runs.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write it.", show_default="RUN/report.html")
    ] = None,
) -> None:
    """Write one HTML page with everything a run left: figures, pictures, mistakes, how to repeat it.

    The page needs no network and no other file. Example: chainrule report runs/simplenet-mnist
    """
    from chainrule import evidence
    from chainrule.files import write
    from chainrule.report import page

    found = evidence.read(run)
    path = out.expanduser() if out else found.path / "report.html"
    write(path, page(found).encode())
    print(path)
