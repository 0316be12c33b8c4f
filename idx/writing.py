"""Writing: an array becomes an IDX file, compressed or not, all at once or not at all."""

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from idx.casting import as_storable
from idx.errors import UnsupportedArrayError
from idx.layout import MAX_SIZE, AnyArray, Header

Compression: TypeAlias = Literal["infer", "none", "gzip", "bzip2", "xz"]

_SUFFIXES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}
_BLOCK = 1 << 20
# Paths that name an open file of this process, and not a place in a folder.
_DESCRIPTORS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WORTH_RESERVING = 1 << 20


class Writable(Protocol):
    """A binary file object: the one method that all of them have."""

    def write(self, data: Any, /) -> Any: ...  # noqa: D102


Target: TypeAlias = str | os.PathLike[str] | Writable


def write(
    target: Target,
    array: ArrayLike,
    *,
    compression: Compression = "infer",
    casting: Literal["no", "same_value"] = "no",
    dtype: DTypeLike | None = None,
    sync: bool = True,
) -> None:
    """Write an array as an IDX file.

    The same array gives the same bytes, compressed or not (by the same version of the compressor: no time and
    no name is stored). A path is replaced at the end, in one step: a crash leaves the old file or the new
    one. A file object is written to where it stands, and not closed.

    Args:
        target: a path or a binary file object.
        array: uint8, int8, int16, int32, float32 or float64, of 0 to 64 dimensions, any strides and any byte
            order.
        compression: ``"gzip"``, ``"bzip2"``, ``"xz"`` or ``"none"``; by default what the suffix of the path
            says (``.gz``, ``.bz2``, ``.xz``), none for a file object.
        casting: ``"same_value"`` converts a type that IDX has not to the nearest one that it has, if no value
            changes.
        dtype: the type to store instead of the array's own, again only if no value changes.
        sync: wait until the bytes are on the disk, so that they outlive a crash of the machine and not of
            this program alone.

    Raises:
        UnsupportedArrayError: IDX has no such type, size or value.
        OSError: the file cannot be written; the old one is as it was.
    """
    try:
        stored = as_storable(array, casting, dtype)
    except UnsupportedArrayError as error:
        if isinstance(target, str | os.PathLike):
            raise UnsupportedArrayError(f"{os.fsdecode(target)}: {error}") from None
        raise
    header = Header(stored.dtype.newbyteorder("="), stored.shape)
    write_pieces(target, header, [stored], compression=compression, sync=sync, reserve=True)


def write_pieces(
    target: Target,
    header: Header,
    pieces: Iterable[AnyArray],
    *,
    compression: Compression = "infer",
    sync: bool = True,
    reserve: bool = False,
) -> None:
    """Write an array that comes in ``pieces``, along its first dimension; otherwise as `write`.

    With ``reserve`` the space on the disk that ``header`` claims is taken beforehand.
    """
    if max(header.shape, default=0) > MAX_SIZE:
        raise UnsupportedArrayError(f"found shape {header.shape}, expected sizes of at most {MAX_SIZE}")
    if not isinstance(target, str | os.PathLike):
        _write_stream(target, header, pieces, "none" if compression == "infer" else compression)
        return
    path = Path(os.fsdecode(target))
    if compression == "infer":
        compression = compression_for(path)
    with replacing(path, sync=sync) as file:
        if compression == "none" and reserve:
            _reserve(file, header)
        _write_stream(file, header, pieces, compression)


def compression_for(path: Path) -> Compression:
    """What the suffix of ``path`` says about its compression."""
    if path.suffix.lower() == ".zip":
        raise UnsupportedArrayError(
            f"{path}: idx reads zip archives and does not write them; expected .gz, .bz2 or .xz"
        )
    return _SUFFIXES.get(path.suffix.lower(), "none")  # type: ignore[return-value]


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[io.FileIO]:
    """A file to write to that takes the place of ``path`` when all went well, and vanishes otherwise.

    A link is followed, so that it stays a link. The new file has the permissions of the one it replaces. What
    is not a regular file (``/dev/stdout``, a pipe) is written to directly.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    descriptor = str(path).startswith(_DESCRIPTORS)
    if descriptor or (mode is not None and not stat.S_ISREG(mode)):
        # The shell has emptied the file behind /dev/stdout, or wants it to go on (>>).
        append = mode is not None and stat.S_ISREG(mode)
        with naming(path, path), io.FileIO(path, "a" if append else "w") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(temporary_name())
    # Nobody who could not read the old file can read the new one, not even for a moment.
    permissions = 0o666 if mode is None else 0o600
    try:
        with (
            naming(path, temporary),
            io.FileIO(temporary, "x", opener=lambda name, flags: os.open(name, flags, permissions)) as file,
        ):
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            yield file
            if sync:
                os.fsync(file.fileno())
        with naming(path, temporary):
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        _sync_folder(target.parent)


@contextmanager
def naming(path: Path, temporary: Path) -> Iterator[None]:
    """Let an error of the ``temporary`` file or folder, or a full disk, name ``path`` instead."""
    try:
        yield
    except OSError as error:
        ours = str(error.filename).startswith(str(temporary))
        if ours or (error.filename is None and error.errno in _FULL):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def _sync_folder(folder: Path) -> None:
    """Wait until the new name is on the disk too, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def temporary_name() -> str:
    """A name for a file or folder that is not there yet."""
    return f".idx-{os.getpid()}-{os.urandom(4).hex()}.tmp"


def _reserve(file: io.FileIO, header: Header) -> None:
    """Claim the space on the disk beforehand: a full one shows at once, and writing is a third faster.

    (`ndarray.tofile` does the same. On ext4 a file without it takes three times as long to replace another.)
    """
    size = header.offset + header.nbytes
    if size < _WORTH_RESERVING or file.mode == "ab" or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV, errno.ESPIPE):
            raise


def _write_stream(
    file: Writable, header: Header, pieces: Iterable[AnyArray], compression: Compression
) -> None:
    with nullcontext(file) if compression == "none" else _compressor(file, compression) as packed:
        write_all(packed, header.encode())
        for piece in pieces:
            _write_elements(packed, piece)


def _compressor(file: Writable, compression: Compression) -> Any:
    whole: Any = _Whole(file)
    match compression:
        case "gzip":
            return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=whole, mtime=0)
        case "bzip2":
            return bz2.BZ2File(whole, "wb")
        case "xz":
            return lzma.LZMAFile(whole, "wb")
    raise ValueError(f'compression must be "infer", "none", "gzip", "bzip2" or "xz", not {compression!r}')


def _write_elements(file: Writable, array: AnyArray) -> None:
    stored = array.dtype.newbyteorder(">")
    if array.flags.c_contiguous and array.dtype == stored:
        write_all(file, array.reshape(-1).view(np.uint8).data)
        return
    # Block by block, so that neither other strides nor the other byte order cost a copy of the array.
    blocks = np.nditer(  # type: ignore[call-overload]  # its "contig" is not among the known flags
        array,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly", "contig"]],
        op_dtypes=[stored],
        order="C",
        casting="equiv",
        buffersize=_BLOCK // array.itemsize,
    )
    for block in blocks:
        write_all(file, block.view(np.uint8).data)


def write_all(file: Writable, data: bytes | memoryview) -> None:
    """Write all of ``data``: an unbuffered file may take a part of it at a time."""
    rest = memoryview(data)
    while rest:
        count = file.write(rest)
        if count is None and isinstance(file, io.RawIOBase):
            raise BlockingIOError("a non-blocking file object does not take the data")
        rest = rest[count:] if count is not None else rest[:0]


class _Whole(io.RawIOBase):
    """A file whose `write` takes everything, which the compressors rely on."""

    def __init__(self, file: Writable) -> None:
        self._file = file

    def write(self, data: Any, /) -> int:
        write_all(self._file, data)
        return memoryview(data).nbytes

    def writable(self) -> bool:
        return True
