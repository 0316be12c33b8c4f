"""The bytes of an IDX file: the table of types, the header, and nothing else.

An IDX file is two zero bytes, the code of the type, the number of dimensions, one unsigned 32-bit big-endian
size per dimension, then the elements, most significant byte first, the last dimension fastest. (Y. LeCun, C.
Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", section "The IDX file format"; what
that page leaves open is decided in docs/idx-format.md.)
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: The six types: the code in byte 2, and the NumPy type of the elements in native byte order.
TYPES: dict[int, np.dtype[np.generic]] = {
    0x08: np.dtype(np.uint8),
    0x09: np.dtype(np.int8),
    0x0B: np.dtype(np.int16),
    0x0C: np.dtype(np.int32),
    0x0D: np.dtype(np.float32),
    0x0E: np.dtype(np.float64),
}
CODES: dict[np.dtype[Any], int] = {dtype: code for code, dtype in TYPES.items()}

MAX_SIZE = 0xFFFFFFFF
#: What a NumPy array can have; the header of a file can have 255.
MAX_DIMENSIONS = 64

AnyArray = NDArray[np.generic]


@dataclass(frozen=True)
class Header:
    """What the first bytes of an IDX file say.

    ``dtype`` is the type of the elements in native byte order; in the file they are big-endian. ``shape`` has
    0 to 255 sizes of 0 to 4294967295 each: more than a NumPy array can have.
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def type_code(self) -> int:
        """Byte 2 of the file, e.g. 0x08 for uint8."""
        return CODES[self.dtype]

    @property
    def ndim(self) -> int:
        """The number of dimensions: byte 3 of the file."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements: 1 when there are no dimensions."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes of all elements together."""
        return self.size * self.dtype.itemsize

    @property
    def offset(self) -> int:
        """Where the elements begin, in bytes from the start of the header."""
        return 4 + 4 * self.ndim

    @property
    def stored_dtype(self) -> np.dtype[np.generic]:
        """The type of the elements as they lie in the file: big-endian."""
        return self.dtype.newbyteorder(">")

    def encode(self) -> bytes:
        """The ``offset`` bytes that begin the file."""
        return struct.pack(f">HBB{self.ndim}I", 0, self.type_code, self.ndim, *self.shape)

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


def decode_sizes(sizes: bytes) -> tuple[int, ...]:
    """The sizes of the dimensions, from the bytes that follow the first four."""
    return struct.unpack(f">{len(sizes) // 4}I", sizes)
