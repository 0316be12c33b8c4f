"""Arrays in JSON: nested lists where a person may read them, base64 where only a program will.

Every encoded array is a table with ``dtype``, ``shape`` and one of ``values`` (nested lists, row by row) and
``base64`` (the numbers' little-endian bytes in the same order). Nothing is lost: large arrays are written as
float32 only where that holds each of their numbers exactly, unless the caller asks for float32.
"""

import base64
from typing import Any

import numpy as np

# About what fits on a screen; from here on lists take three times the room of base64.
MOST_IN_LISTS = 1000


def encode(array: np.ndarray, *, single: bool = False) -> dict[str, Any]:
    """Return an array of floats or integers as a table of JSON.

    ``single`` rounds large arrays to float32, which halves them.
    """
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        return {"dtype": "int64", "shape": list(array.shape), "values": array.astype(np.int64).tolist()}
    if array.size <= MOST_IN_LISTS:
        return {"dtype": "float64", "shape": list(array.shape), "values": array.astype(np.float64).tolist()}
    with np.errstate(over="ignore"):
        rounded = array.astype("<f4")
    dtype = "float32" if single or np.array_equal(rounded, array) else "float64"
    data = rounded if dtype == "float32" else array.astype("<f8")
    text = base64.b64encode(np.ascontiguousarray(data).tobytes()).decode("ascii")
    return {"dtype": dtype, "shape": list(array.shape), "base64": text}


def decode(table: dict[str, Any]) -> np.ndarray:
    """Return the array that `encode` wrote, in its shape and dtype."""
    if "values" in table:
        return np.array(table["values"], dtype=table["dtype"]).reshape(table["shape"])
    numbers = np.frombuffer(base64.b64decode(table["base64"]), np.dtype(table["dtype"]).newbyteorder("<"))
    return numbers.astype(table["dtype"]).reshape(table["shape"])
