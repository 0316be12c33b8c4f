"""The IDX file format (MNIST's): read, write, inspect, map. The right array or a clear error.

>>> import idx
>>> images = idx.read("train-images-idx3-ubyte.gz")     # uint8, shape (60000, 28, 28)
>>> with idx.open("train-images-idx3-ubyte") as lazy:   # mapped: nothing is read yet
...     first = lazy[:100]
>>> idx.header("qmnist-train-labels-idx2-int.gz")
Header(dtype=dtype('int32'), shape=(60000, 8))
>>> idx.write("images.gz", images)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idx.errors import (
        BadMagicError,
        DamagedCompressionError,
        IdxError,
        TooLargeError,
        TrailingBytesError,
        TruncatedError,
        UnknownTypeError,
        UnsupportedArrayError,
        WrongShapeError,
    )
    from idx.layout import Header
    from idx.lazy import LazyArray, open
    from idx.reading import DEFAULT_MAX_BYTES, header, read, verify
    from idx.writing import write

__all__ = [
    "DEFAULT_MAX_BYTES",
    "BadMagicError",
    "DamagedCompressionError",
    "Header",
    "IdxError",
    "LazyArray",
    "TooLargeError",
    "TrailingBytesError",
    "TruncatedError",
    "UnknownTypeError",
    "UnsupportedArrayError",
    "WrongShapeError",
    "header",
    "open",
    "read",
    "verify",
    "write",
]

_HOMES = {
    "Header": "idx.layout",
    "LazyArray": "idx.lazy",
    "open": "idx.lazy",
    "DEFAULT_MAX_BYTES": "idx.reading",
    "header": "idx.reading",
    "read": "idx.reading",
    "verify": "idx.reading",
    "write": "idx.writing",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `idx --help` need not wait for NumPy."""
    if name not in __all__:
        raise AttributeError(f"module 'idx' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES.get(name, "idx.errors")), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
