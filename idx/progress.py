"""Progress of long work: a bar on a terminal, a line every few seconds in a log, nothing if it is quick."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

#: Wraps what is looped over, to show how far it has come.
Track: TypeAlias = Callable[[Sequence[Any]], Iterable[Any]]

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BEFORE_BAR = 0.5


def printable(text: str) -> str:
    """``text`` on one line, with escapes for what would control the terminal, as a file name may."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def progress(description: str) -> Iterator[Track]:
    """Show that ``description`` goes on, and how far, if steps are looped over with what this gives."""
    description = printable(description)
    if not sys.stderr.isatty():
        yield lambda steps: _lines(description, steps)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(description, total=None)

    def track(steps: Sequence[Any]) -> Iterator[Any]:
        bar.update(task, total=len(steps))
        for step in steps:
            yield step
            bar.advance(task)

    appears = threading.Timer(_SECONDS_BEFORE_BAR, bar.start)
    appears.start()
    try:
        yield track
    finally:
        appears.cancel()
        appears.join()
        bar.stop()


def _lines(description: str, steps: Sequence[Any]) -> Iterator[Any]:
    shown = time.monotonic()
    for number, step in enumerate(steps):
        yield step
        if time.monotonic() - shown > _SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            print(f"{description}: {(number + 1) / len(steps):.0%}", file=sys.stderr)
