"""Writing one file that a person asked for."""

import os
from pathlib import Path

from chainrule.errors import ChainruleError
from idx.writing import replacing, write_all


def check(path: Path, *, folder: bool = False) -> None:
    """Raise ChainruleError where a file (or ``folder``) cannot be made: before the work, not after it."""
    try:
        if folder and path.exists() and not path.is_dir():
            raise ChainruleError(f"{path} is a file: expected the name of a folder")
        if not folder and path.is_dir():
            raise ChainruleError(f"{path} is a folder: expected the name of a file")
        above = next(place for place in (path, *path.absolute().parents) if place.is_dir())
        if not all(place.is_dir() or not place.exists() for place in path.parents):
            raise ChainruleError(f"cannot write {path}: a folder in its path is a file")
        if not os.access(above, os.W_OK):
            raise ChainruleError(f"cannot write {path}: no permission to write in {above}")
    except OSError as error:
        raise ChainruleError(f"cannot write {path}: {error.strerror}") from None


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; ChainruleError names it where that cannot be."""
    if path.is_dir():
        raise ChainruleError(f"{path} is a folder: expected the name of a file")
    try:
        with replacing(path) as file:
            write_all(file, content)
    except OSError as error:
        raise ChainruleError(f"cannot write {path}: {error.strerror}") from None
