"""The IDX file format (MNIST's): read, write, inspect, map. The right array or a clear error.

>>> import idx
>>> images = idx.read("train-images-idx3-ubyte.gz")     # uint8, shape (60000, 28, 28)
>>> with idx.open("train-images-idx3-ubyte") as lazy:   # mapped: nothing is read yet
...     first = lazy[:100]
>>> idx.header("qmnist-train-labels-idx2-int.gz")
Header(dtype=dtype('int32'), shape=(60000, 8))
>>> idx.write("images.gz", images)
"""

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
from idx.reading import DEFAULT_MAX_BYTES, header, read
from idx.writing import write

__all__ = [
    "DEFAULT_MAX_BYTES",
    "BadMagicError",
    "DamagedCompressionError",
    "Header",
    "IdxError",
    "TooLargeError",
    "TrailingBytesError",
    "TruncatedError",
    "UnknownTypeError",
    "UnsupportedArrayError",
    "WrongShapeError",
    "header",
    "read",
    "write",
]
