"""Which pictures are meant: files, folders, patterns, and standard input."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from chainrule.errors import ChainruleError, WrongUsage

# What a folder or a pattern may hold besides pictures is not complained about.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
STDIN = "-"


def expand(arguments: Iterable[str]) -> Iterator[str]:
    """Give the names of files: of a folder its pictures by name, of a pattern what it matches, "-" as it is.

    Raises ChainruleError for a folder or a pattern without pictures, and for what may not be looked at. A
    file is given whether it is there or not.
    """
    for argument in arguments:
        try:
            yield from _meant(argument)
        except OSError as error:
            raise ChainruleError(f"{argument}: {error.strerror or error}") from None


def _meant(argument: str) -> Iterator[str]:
    try:
        path = Path(argument).expanduser()
    except RuntimeError:  # ~name of nobody here
        path = Path(argument)
    if argument == STDIN:
        yield argument
    elif path.is_dir():
        yield from _some(
            (file for file in sorted(path.iterdir()) if _is_picture(file)),
            f"{argument}: a folder without pictures ({', '.join(SUFFIXES)})",
        )
    elif not path.exists() and any(sign in argument for sign in "*?["):
        anchor = Path(path.anchor) if path.anchor else Path()
        try:
            found = sorted(anchor.glob(str(path.relative_to(path.anchor) if path.anchor else path)))
        except ValueError as error:
            raise WrongUsage(f"{argument}: not a pattern of file names: {error}") from None
        yield from _some(
            (file for file in found if file.is_file()), f"{argument}: no file is called like that"
        )
    else:
        yield str(path)


def _is_picture(file: Path) -> bool:
    """By its name; a folder or a pipe, which would be waited for, is none. A dead link is, and is said."""
    return file.suffix.lower() in SUFFIXES and not file.is_dir() and not file.is_fifo()


def _some(files: Iterable[Path], otherwise: str) -> Iterator[str]:
    there = False
    for file in files:
        there = True
        yield str(file)
    if not there:
        raise ChainruleError(otherwise)


def content(name: str) -> bytes:
    """Return the bytes of a file, or of standard input. Raises ChainruleError, which names it."""
    if name == STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except IsADirectoryError:
        raise ChainruleError(f"{name}: a folder where a picture was expected") from None
    except OSError as error:
        raise ChainruleError(f"{name}: {error.strerror or error}") from None
