"""Arrays in and out of what people have: ``.npy``, ``.npz``, ``.csv`` and a folder of PNG pictures."""

import os
import re
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from idx.casting import convert_same_value
from idx.errors import IdxError, TooLargeError, UnsupportedArrayError
from idx.layout import TYPES, AnyArray
from idx.progress import Track
from idx.reading import read
from idx.writing import naming, replacing, temporary_name, write, write_all

_ROWS_AT_ONCE = 100


def kind_of(path: str) -> str:
    """What ``path`` is or is to be: ``"npy"``, ``"npz"``, ``"csv"``, ``"png"`` (a folder) or ``"idx"``."""
    if path.endswith(("/", os.sep)) or Path(path).is_dir():
        return "png"
    suffix = Path(path.partition("!")[0]).suffix.lower()
    return suffix[1:] if suffix in (".npy", ".npz", ".csv") else "idx"


def load(path: str, track: Track = iter) -> AnyArray:
    """Read the array at ``path``, whatever its kind.

    Raises:
        IdxError: the content is not of that kind.
        OSError: it cannot be opened.
    """
    match kind_of(path):
        case "npy" | "npz":
            return _load_numpy(path)
        case "csv":
            return _load_csv(path)
        case "png":
            return _load_pictures(Path(path), track)
    return read(path)


def save(path: str, array: AnyArray, track: Track = iter) -> None:
    """Write ``array`` to ``path``, in the kind that its name says.

    A type that IDX has not is converted to the nearest, if no value changes.

    Raises:
        UnsupportedArrayError: the array does not fit into that kind.
        OSError: it cannot be written.
    """
    match kind_of(path):
        case "npy":
            with replacing(Path(path)) as file:
                np.save(file, array, allow_pickle=False)
        case "npz":
            with replacing(Path(path)) as file:
                np.savez(file, data=array)
        case "csv":
            _save_csv(Path(path), array, track)
        case "png":
            _save_pictures(Path(path), array, track)
        case _:
            inner = path.lower().removesuffix(".gz").removesuffix(".bz2").removesuffix(".xz")
            if inner.endswith((".npy", ".npz", ".csv", ".png")):
                raise UnsupportedArrayError(
                    f"{path}: expected a name for IDX, or an uncompressed .npy, .npz or .csv, "
                    "or a folder for pictures (name/)"
                )
            write(path, array, casting="same_value")


def _load_numpy(path: str) -> AnyArray:
    path, _, member = path.partition("!")
    with Path(path).open("rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return np.asarray(loaded[_array_name(path, loaded.files, member)])
        except IdxError:
            raise
        except MemoryError:
            raise TooLargeError(f"{path}: found an array for which there is no memory") from None
        except Exception as error:  # whatever tokenize, ast, zipfile and zlib raise
            raise IdxError(f"{path}: expected a NumPy file without Python objects ({error})") from None


def _array_name(path: str, names: list[str], wanted: str) -> str:
    found = f"{path}: found {len(names)} arrays ({', '.join(names)})"
    if wanted and wanted not in names:
        raise IdxError(f"{found}, expected {wanted} among them")
    if not wanted and len(names) != 1:
        raise IdxError(f"{found}, expected the name of one: {path}!name")
    return wanted or names[0]


# The first line of a CSV file that `save` wrote: "# idx uint8 60000 28 28".
_CSV_HEADER = re.compile(r"# idx (\w+)((?: \d+)*)\s*")
_CSV_TYPES = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)] + [
    "float16",
    "float32",
    "float64",
]


def _save_csv(path: Path, array: AnyArray, track: Track) -> None:
    """One line per row of the array, and before them a comment that keeps the type and the shape."""
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if str(array.dtype.newbyteorder("=")) not in _CSV_TYPES:
        raise UnsupportedArrayError(
            f"{path}: found {array.dtype}, expected integers or floats of at most 64 bits"
        )
    rows = array.reshape(len(array), -1) if array.ndim and array.size else array.reshape(array.size, 1)
    header = " ".join(["# idx", str(array.dtype.newbyteorder("=")), *map(str, array.shape)])
    with replacing(path) as file:
        write_all(file, f"{header}\n".encode())
        for start in track(range(0, len(rows), _ROWS_AT_ONCE)):
            lines = [",".join(map(repr, row)) + "\n" for row in rows[start : start + _ROWS_AT_ONCE].tolist()]
            write_all(file, "".join(lines).encode())


def _load_csv(path: str) -> AnyArray:
    with Path(path).open(encoding="utf-8-sig", errors="replace") as text:
        first = text.readline()
    try:
        if first.startswith("# idx"):
            return _load_own_csv(path, first)
        names = not first.startswith("#") and all(map(_not_a_number, first.split(",")))
        table = _load_table(path, names)
        if not table.size:
            raise ValueError("found none")
        return _smallest(table[:, 0] if table.shape[1] == 1 else table)
    except (ValueError, OverflowError) as error:
        raise IdxError(f"{path}: expected rows of numbers with commas between them ({error})") from None


def _load_own_csv(path: str, first: str) -> AnyArray:
    """The array in a file that `save` wrote; ``first`` is its first line."""
    header = _CSV_HEADER.fullmatch(first)
    if not header or header[1] not in _CSV_TYPES:
        raise ValueError(f"found {first.strip()!r}, expected a first line such as '# idx uint8 60000 28 28'")
    return _load_numbers(path, np.dtype(header[1])).reshape([int(size) for size in header[2].split()])


def _not_a_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return True
    return False


def _load_table(path: str, names: bool) -> AnyArray:
    """The rows after those of ``names``: integers if all are, else float64."""
    for dtype in (np.int64, np.uint64):
        with suppress(ValueError, OverflowError):
            return _load_numbers(path, np.dtype(dtype), names)
    return _load_numbers(path, np.dtype(np.float64), names)


def _load_numbers(path: str, dtype: np.dtype[Any], names: bool = False) -> AnyArray:
    with Path(path).open(encoding="utf-8-sig") as text, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")
        return np.loadtxt(text, dtype, delimiter=",", skiprows=int(names), ndmin=2)


def _smallest(array: AnyArray) -> AnyArray:
    """``array`` in the first integer type of IDX that holds all its values, else in float64 or as it is."""
    for dtype in TYPES.values():
        if dtype.kind in "iu" or dtype == np.float64:
            with suppress(UnsupportedArrayError):
                return convert_same_value(array, dtype)
    return array


def _save_pictures(path: Path, array: AnyArray, track: Track) -> None:
    """One PNG per picture: 00000.png and so on. The folder appears when all are written."""
    from PIL import Image

    if array.dtype != np.uint8 or not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)):
        raise UnsupportedArrayError(
            f"{path}: found {array.dtype} {array.shape}, "
            "expected uint8 of shape (n, height, width) or (n, height, width, 3) to make pictures of"
        )
    if 0 in array.shape:
        raise UnsupportedArrayError(
            f"{path}: found shape {array.shape}, expected at least one picture with pixels"
        )
    if path.is_dir() and any(path.iterdir()):
        raise IdxError(f"{path}: found a folder with files in it, expected an empty one or none")
    target = Path(os.path.realpath(path))
    temporary = target.with_name(temporary_name())
    try:
        with naming(path, temporary):
            temporary.mkdir()
            digits = max(5, len(str(len(array) - 1)))
            for number in track(range(len(array))):
                Image.fromarray(array[number]).save(temporary / f"{number:0{digits}}.png")
            temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _load_pictures(folder: Path, track: Track) -> AnyArray:
    from PIL import Image

    paths = sorted(folder.glob("*.png"), key=lambda path: _in_natural_order(path.name))
    if not paths:
        raise IdxError(f"{folder}: found no .png files, expected a folder of pictures")
    result: AnyArray | None = None
    for number, path in enumerate(track(paths)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path, formats=("PNG",)) as picture:
                    mode, pixels = picture.mode, np.asarray(picture)
        except MemoryError:
            raise TooLargeError(f"{path}: found a picture for which there is no memory") from None
        except Exception as error:  # whatever Pillow meets in damaged chunks
            raise IdxError(f"{path}: expected a PNG picture ({error})") from None
        if mode not in ("L", "RGB"):
            raise IdxError(f"{path}: found mode {mode}, expected 8-bit grey (L) or RGB")
        if result is None:
            result = np.empty((len(paths), *pixels.shape), np.uint8)
        if pixels.shape != result.shape[1:]:
            raise IdxError(
                f"{path}: found shape {pixels.shape}, expected {result.shape[1:]} as in {paths[0].name}"
            )
        result[number] = pixels
    assert result is not None
    return result


def _in_natural_order(name: str) -> list[tuple[int, str]]:
    """A key by which "2.png" comes before "10.png"."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
