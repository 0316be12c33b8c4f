"""The other readers of IDX files, each as a function of a path that gives an array.

`make bench-idx` installs those of PyPI into build/idx-peers. torchvision is not among them (it needs a
matching torch);
its algorithm is written out here in NumPy: read it all, copy it all, swap, compare the number of elements.
"""

import gzip
import importlib
import importlib.util
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np

PEERS = Path(__file__).resolve().parents[1] / "build" / "idx-peers"

_TYPES = {8: "u1", 9: "i1", 11: "i2", 12: "i4", 13: "f4", 14: "f8"}


def torchvision_algorithm(path: str) -> np.ndarray:
    data = Path(path).read_bytes()
    magic = int.from_bytes(data[:4], "big")
    ndim, code = magic % 256, magic // 256
    if not (1 <= ndim <= 3 and 8 <= code <= 14):
        raise AssertionError
    sizes = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim)]
    elements = np.frombuffer(bytearray(data), _TYPES[code], offset=4 + 4 * ndim)
    if elements.itemsize > 1:
        elements = elements.byteswap()
    if len(elements) != np.prod(sizes):
        raise AssertionError
    return elements.reshape(sizes)


def _idx2numpy(path: str) -> np.ndarray:
    module = importlib.import_module("idx2numpy")
    if path.endswith(".gz"):
        with gzip.open(path) as file:
            return module.convert_from_file(file)
    return module.convert_from_file(path)


def _mnist(path: str) -> np.ndarray:
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rb") as file:
        return importlib.import_module("mnist").parse_idx(file)


def _mnists(path: str) -> np.ndarray:
    return importlib.import_module("mnists.utils").read_idx_file(path)


def _python_mnist(path: str) -> np.ndarray:
    """It reads images with labels, so labels are made here, and gives a list: NumPy does the rest."""
    packed = path.endswith(".gz")
    labels = Path(f"{path.removesuffix('.gz')}.labels{'.gz' if packed else ''}")
    if not labels.exists():
        opener = gzip.open if packed else open
        with opener(path, "rb") as file:
            count = file.read(8)[4:]
        with opener(labels, "wb") as file:
            file.write(struct.pack(">I", 2049) + count + bytes(int.from_bytes(count, "big")))
    images, _ = (
        _python_mnist_module().MNIST(gz=packed).load(*(str(p).removesuffix(".gz") for p in (path, labels)))
    )
    return np.array(images, np.uint8)


def _python_mnist_module() -> ModuleType:
    """It and `mnist` are both called "mnist" once installed, so it has a folder of its own."""
    origin = PEERS / "python-mnist" / "mnist" / "loader.py"
    specification = importlib.util.spec_from_file_location("python_mnist", origin)
    if specification is None or specification.loader is None or not origin.exists():
        raise ImportError("python-mnist")
    module = importlib.util.module_from_spec(specification)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        specification.loader.exec_module(module)
    return module


def readers() -> dict[str, Callable[[str], np.ndarray]]:
    """The readers that are there, by name; says which are not."""
    if str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))
    candidates = {
        "idx2numpy": (lambda: importlib.import_module("idx2numpy"), _idx2numpy),
        "mnist": (lambda: importlib.import_module("mnist"), _mnist),
        "mnists": (lambda: importlib.import_module("mnists.utils"), _mnists),
        "python-mnist": (_python_mnist_module, _python_mnist),
    }
    found = {}
    for name, (load, reader) in candidates.items():
        try:
            load()
        except ImportError:
            print(
                f"{name} is not installed in build/idx-peers (`make bench-idx` does it): left out",
                file=sys.stderr,
            )
        else:
            found[name] = reader
    return {**found, "torchvision's algorithm": torchvision_algorithm}
