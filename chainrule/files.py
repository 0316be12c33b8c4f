"""Writing one file that a person asked for."""

from pathlib import Path

from chainrule.errors import ChainruleError
from idx.writing import replacing, write_all


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; ChainruleError names it where that cannot be."""
    if path.is_dir():
        raise ChainruleError(f"{path} is a folder: expected the name of a file")
    try:
        with replacing(path) as file:
            write_all(file, content)
    except OSError as error:
        raise ChainruleError(f"cannot write {path}: {error.strerror}") from None
