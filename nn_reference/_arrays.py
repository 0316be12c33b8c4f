"""What every file of the package shares: the array type and the checks at the door."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

_OF_TORCH = {"device", "inplace", "padding_mode", "return_indices", "last_epoch"}
_OF_TORCH |= {"foreach", "capturable", "differentiable", "fused"}


def check_floating(owner: str, name: str, x: object) -> None:
    """Raise TypeError unless ``x`` is an array of real or complex floating-point numbers."""
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{owner}: {name} is a {type(x).__name__}, expected a NumPy array")
    if not np.issubdtype(x.dtype, np.inexact):
        raise TypeError(f"{owner}: {name} is {x.dtype}, expected floating point, as x.astype(np.float32)")


def plain(value: Any) -> Any:
    """Return a NumPy number as Python's: a np.float64 would turn float32 arithmetic into float64."""
    return float(value) if isinstance(value, np.generic | np.ndarray) else value


def floating(owner: str, dtype: npt.DTypeLike | None) -> npt.DTypeLike:
    """Return the dtype of a layer's parameters, float32 if None; TypeError unless it is floating point."""
    if dtype is not None and not np.issubdtype(dtype, np.inexact):
        raise TypeError(f"{owner}: dtype is {np.dtype(dtype)}, expected floating point")
    return np.float32 if dtype is None else dtype


def check_choice(owner: str, name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{owner}: {name}={value!r}, expected one of {', '.join(map(repr, choices))}")


def refuse(owner: str, **options: object) -> None:
    """Raise NotImplementedError naming the first option of torch that was asked for and is not here.

    None and False ask for nothing; TypeError for a name that torch has not either.
    """
    for name, value in options.items():
        if name not in _OF_TORCH:
            raise TypeError(f"{owner}: got an unexpected keyword argument {name!r}")
        if value is not None and value is not False:
            raise NotImplementedError(f"{owner}: {name}={value!r} is not supported by nn_reference")
