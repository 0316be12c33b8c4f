"""Coverage-guided fuzzing of `idx` with atheris: `make fuzz-idx`. Nothing but `IdxError` may come out.

Each input is a byte that says how the rest is packed, and the rest. So that the mutations reach what lies
behind a checksum, the rest is packed here as well as taken as it is."""

import bz2
import gzip
import io
import lzma
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import atheris

with atheris.instrument_imports(include=["idx", "zipfile"]):
    import idx
    import idx.archive
    import idx.inflate
    import idx.lazy
    import idx.reading
    import idx.writing

import numpy as np

MAX_BYTES = 1 << 22
T = TypeVar("T")
GZIP_ENGINES = [idx.inflate.ENGINES["gzip"], (lambda: zlib.decompressobj(31), b"\x1f\x8b")]


class Pipe(io.RawIOBase):
    """What cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._rest = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:
        return self._rest.readinto(memoryview(target)[:7])


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", data)
    return file.getvalue()


PACKINGS = [
    bytes,
    lambda data: gzip.compress(data, 1),
    lambda data: gzip.compress(data[:9], 1) + data[9:],
    lambda data: gzip.compress(data[:9], 1) + bytes(3) + gzip.compress(data[9:], 1),
    bz2.compress,
    lambda data: lzma.compress(data, preset=0),
    zipped,
    lambda data: zipped(data[:20]) + data[20:],
]


def check(data: bytes) -> None:
    if not data:
        return
    packing, trailing = PACKINGS[data[0] & 7], "ignore" if data[0] & 8 else "error"
    packed = packing(data[1:])
    idx.inflate.ENGINES["gzip"] = GZIP_ENGINES[data[0] >> 6 & 1]  # with and without [fast]
    source = Pipe(packed) if data[0] & 16 else io.BytesIO(packed) if data[0] & 32 else packed
    if packed.startswith(b"PK"):
        source = packed  # a zip archive cannot be read from a pipe
    array = unless_wrong(lambda: idx.read(source, max_bytes=MAX_BYTES, trailing=trailing))
    header = unless_wrong(lambda: idx.header(packed))
    if header is not None and header.nbytes < MAX_BYTES:
        unless_wrong(lambda: idx.verify(packed, trailing=trailing))
    whole = unless_wrong(lambda: np.asarray(idx.open(packed, max_bytes=MAX_BYTES, trailing=trailing)))
    # A decompressor may look ahead, or not, into damage behind the end, which "ignore" leaves unread.
    if trailing == "error":
        assert (array is None) == (whole is None), (array, whole)
    if array is not None and whole is not None and header is not None:
        assert array.nbytes == header.nbytes
        assert array.shape == whole.shape == header.shape
        assert array.tobytes() == whole.tobytes()
        again = io.BytesIO()
        idx.write(again, array)
        assert idx.read(again.getvalue()).tobytes() == array.tobytes()


def unless_wrong(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except idx.IdxError:
        return None


def write_seeds(folder: Path) -> None:
    """The files of the tests, small ones, to start from."""
    for number, data in enumerate(seeds()):
        (folder / f"seed{number}").write_bytes(b"\0" + data)


def seeds() -> list[bytes]:
    elements = {8: "u1", 9: "i1", 11: "i2", 12: "i4", 13: "f4", 14: "f8"}
    plain = [
        bytes([0, 0, code, 1, 0, 0, 0, 3]) + np.arange(3).astype(">" + t).tobytes()
        for code, t in elements.items()
    ]
    plain += [b"\0\0\x08\0a", b"\0\0\x08\x02\0\0\0\0\0\0\0\5", b"\0\0\x08\x41" + b"\0\0\0\1" * 65 + b"a"]
    return [packing(data) for packing in PACKINGS for data in plain]


if __name__ == "__main__":
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders:
        write_seeds(Path(folders[0]))
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
