"""``chainrule download``: bring data sets from their mirrors."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from chainrule.errors import ChainruleError


def _say(line: str) -> None:
    print(line, flush=True)  # at once, in a log too


class _Terminated(ChainruleError):
    """The process was told to end (SIGTERM). The exit status is the one that shells have for it."""

    exit_status = 143


@contextlib.contextmanager
def _tidy_when_terminated() -> Iterator[None]:
    """Let SIGTERM, like Ctrl-C, raise: what is half-written is then removed."""

    def stop(*_: object) -> None:
        raise _Terminated("stopped")

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Data sets: mnist (the default), fashion-mnist, kmnist, qmnist."),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL-or-folder", help="Take the files from here: a folder, file://, http:// or https://."
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="The folder for the data sets. [default: $CHAINRULE_DATA, else ./data]"),
    ] = None,
    or_embedded: Annotated[
        bool,
        typer.Option(
            "--or-embedded", help="Exit 0 without them too: training then uses the embedded digits."
        ),
    ] = False,
) -> None:
    """Download data sets, each file verified by its published SHA-256.

    Mirrors are tried in turn, and files that are here and verified are kept. A mirror of your own may
    be a folder with the four files, or with torchvision's tree (MNIST/raw/...).

    Example: chainrule download mnist fashion-mnist --mirror ~/copies
    """
    from chainrule import download as downloading

    try:
        with _tidy_when_terminated():
            downloading.download(names or ["mnist"], root.expanduser() if root else None, mirror, say=_say)
    except downloading.DownloadFailed as failure:
        for line in failure.lines:
            print(line, file=sys.stdout if or_embedded else sys.stderr)
        raise typer.Exit(0 if or_embedded else 1) from None
