"""What the checks take as inputs: arrays, or shapes of which arrays are drawn."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def parse_inputs(inputs: Any) -> list[Array | tuple[int, ...]]:
    """Return arrays as they are and shapes as tuples; TypeError for anything else.

    ``inputs`` is an array, a shape such as ``(4, 7)``, or a list of these.
    """
    if isinstance(inputs, np.ndarray | np.generic) or _is_shape(inputs):
        inputs = [inputs]
    if not isinstance(inputs, list | tuple) or not inputs:
        raise TypeError(
            f"inputs is {inputs!r:.60}, expected an array, a shape such as (4, 7), or a list of these"
        )
    result: list[Array | tuple[int, ...]] = []
    for value in inputs:
        if _is_shape(value):
            result.append(tuple(value))
        elif isinstance(value, np.ndarray | np.generic):
            result.append(np.asarray(value))
        else:
            raise TypeError(
                f"an input is a {type(value).__name__}, expected a NumPy array or a shape such as (4, 7)"
            )
    return result


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(size, int | np.integer) for size in value)
