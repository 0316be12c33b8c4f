"""Where the bytes come from: a path, a zip member, bytes or a file object. All become a `Stream`."""

import gzip
import io
import lzma
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from idx.errors import BadMagicError, DamagedCompressionError
from idx.inflate import Inflater
from idx.recognise import HEAD, compression_of


class Readable(Protocol):
    """A binary file object: the one method that all of them have."""

    def read(self, size: int = -1, /) -> Any: ...  # noqa: D102


class Buffer(Protocol):
    """A bytes-like object. (``collections.abc.Buffer`` is there from Python 3.12 on.)"""

    def __buffer__(self, flags: int, /) -> memoryview: ...


Source: TypeAlias = str | os.PathLike[str] | Buffer | Readable
Trailing: TypeAlias = Literal["error", "ignore"]

# The most that deflate can do: one bit for 129 bytes. What bzip2 and xz pack more tightly makes the buffer
# grow.
_LARGEST_RATIO = 1032
_SMALLEST_GUESS = 1 << 20


@dataclass
class Stream:
    """The bytes of an IDX file, decompressed, read forward.

    ``size`` is the number of bytes that are there, when that is known beforehand (it never is in a compressed
    stream); ``guess`` is a number of bytes that may well be there. Where the source lies in memory, or in a
    file that can be mapped, ``memory`` or ``file`` is it, and ``start`` the place in it where the IDX file
    begins.
    """

    name: str
    compression: str | None
    _fill: Callable[[memoryview], int]
    size: int | None
    guess: int
    memory: memoryview | None = None
    file: io.FileIO | io.BufferedReader | None = None
    start: int = 0
    position: int = 0

    def fill(self, target: memoryview) -> int:
        """Read into ``target`` until it is full or the stream ends; return the number of bytes."""
        count = self._fill(target)
        self.position += count
        return count

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, or fewer at the end."""
        block = bytearray(size)
        return bytes(block[: self.fill(memoryview(block))])


class RawSource:
    """The bytes of a source as they are, read forward; the first few can be put back.

    ``goes_back`` says whether ``file`` can seek to ``start``, where they begin.
    """

    def __init__(self, name: str, file: Readable) -> None:
        self.name = name
        self.file = file
        self.member = ""  # of a zip archive: the path inside
        self.size: int | None = None
        self.guess = _SMALLEST_GUESS
        self.memory: memoryview | None = None
        self.mappable: io.FileIO | io.BufferedReader | None = None
        self.start = 0
        self.goes_back = False
        self._head = b""

    def set_size(self, size: int, *, surely: bool = True) -> None:
        """Remember how many bytes there are, and so how many there may be once they are decompressed."""
        self.size = size if surely else None
        self.guess = max(size * _LARGEST_RATIO, _SMALLEST_GUESS)

    def put_back(self, head: bytes) -> None:
        """Let the next `fill` begin with ``head``."""
        self._head = head

    def read(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes; none at the end."""
        with self._sound():
            block = self.file.read(size)
        if block is None:
            raise BlockingIOError(f"{self.name}: a non-blocking file object has no data ready")
        if isinstance(block, str):
            raise TypeError(
                f"{self.name}: the file object gives text, expected bytes: open it with mode 'rb'"
            )
        return bytes(block)

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Turn what a `gzip.GzipFile` and its kin raise when they are damaged into an `IdxError`."""
        try:
            yield
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
            raise DamagedCompressionError(
                f"{self.name}: the compressed file object is damaged ({error})"
            ) from None

    def take(self, size: int) -> bytes:
        """``size`` bytes, or fewer at the end."""
        taken = b""
        while len(taken) < size and (block := self.read(size - len(taken))):
            taken += block
        return taken

    def fill(self, target: memoryview) -> int:
        """Read into ``target`` until it is full or the source ends; return the number of bytes."""
        filled = min(len(self._head), len(target))
        target[:filled] = self._head[:filled]
        self._head = self._head[filled:]
        while filled < len(target) and (count := self._read_into(target[filled:])):
            filled += count
        return filled

    def _read_into(self, target: memoryview) -> int:
        if hasattr(self.file, "readinto"):
            with self._sound():
                count = self.file.readinto(target)
            if count is None:
                raise BlockingIOError(f"{self.name}: a non-blocking file object has no data ready")
            return int(count)
        block = self.read(min(len(target), _SMALLEST_GUESS))
        target[: len(block)] = block
        return len(block)


def position_of(source: Source) -> int | None:
    """Where ``source`` stands, if it is a file object that can seek."""
    seekable = getattr(source, "seekable", None)
    return source.tell() if seekable is not None and seekable() else None  # type: ignore[union-attr]


@contextmanager
def opened(source: Source, trailing: Trailing = "error") -> Iterator[Stream]:
    """Open ``source``, find out from its content how it is compressed, and give its bytes.

    What was opened here is closed at the end; a file object of the caller's is not.
    """
    with ExitStack() as stack:
        yield decompressed(raw_source(source, stack), stack, trailing)


def decompressed(raw: RawSource, stack: ExitStack, trailing: Trailing) -> Stream:
    """The decompressed bytes of ``raw``, which stands at its start; ``stack`` closes what this opens."""
    if trailing not in ("error", "ignore"):
        raise ValueError(f'trailing must be "error" or "ignore", not {trailing!r}')
    head = raw.take(HEAD)
    compression = compression_of(head)
    if raw.member and compression != "zip":
        raise BadMagicError(f"{raw.name}: found {head.hex(' ')}, expected a zip archive (50 4b 03 04)")
    packing = []
    if compression == "zip":
        from idx.archive import open_member

        raw = open_member(raw, stack)
        head = raw.take(HEAD)
        compression = compression_of(head)
        packing = ["zip"]
    if compression in ("gzip", "bzip2", "xz"):
        inflater = Inflater(compression, head, raw.read, raw.name, trailing)
        packing.append(compression)
        return Stream(raw.name, " + ".join(packing), inflater.fill, None, raw.guess)
    raw.put_back(head)
    how = "".join(packing) or None
    return Stream(raw.name, how, raw.fill, raw.size, raw.guess, raw.memory, raw.mappable, raw.start)


def raw_source(source: object, stack: ExitStack) -> RawSource:
    """The bytes of ``source`` as they are; ``stack`` closes what this opens."""
    if isinstance(source, str | os.PathLike):
        return _raw_path(os.fsdecode(source), stack)
    if isinstance(source, io.IOBase):
        return _raw_file(source)
    try:
        memory = memoryview(source)  # type: ignore[arg-type]
    except TypeError:
        return _raw_file(source)
    return _raw_memory(f"<{type(source).__name__}>", memory)


def _raw_path(path: str, stack: ExitStack) -> RawSource:
    name, path, member = path, *_split_member(path)
    file = stack.enter_context(io.FileIO(path))
    raw = RawSource(name, file)
    raw.member = member
    information = os.fstat(file.fileno())
    raw.goes_back = stat.S_ISREG(information.st_mode)
    # Pipes, terminals and the files of /proc have a size of 0 that says nothing.
    if raw.goes_back and information.st_size > 0:
        raw.set_size(information.st_size)
        raw.mappable = file
    return raw


def _split_member(path: str) -> tuple[str, str]:
    """``("a.zip", "b/c")`` from ``"a.zip!b/c"``, unless there is a file of just that name."""
    position = path.find("!")
    if position >= 0 and not os.path.exists(path):  # noqa: PTH110 (a plain string is faster)
        while position >= 0:
            if os.path.isfile(path[:position]):  # noqa: PTH113
                return path[:position], path[position + 1 :]
            position = path.find("!", position + 1)
    return path, ""


def _raw_file(file: Any) -> RawSource:
    if not hasattr(file, "read"):
        raise TypeError(f"expected a path, bytes or a binary file object, not {type(file).__name__}")
    name = getattr(file, "name", None)
    raw = RawSource(name if isinstance(name, str) else f"<{type(file).__name__}>", file)
    position = position_of(file)
    if position is not None:
        raw.goes_back, raw.start = True, position
    on_disk = isinstance(getattr(file, "raw", file), io.FileIO)
    # Only these can tell their size for nothing: a GzipFile would have to decompress itself to the end.
    if (on_disk or isinstance(file, io.BytesIO)) and raw.goes_back:
        raw.set_size(max(file.seek(0, os.SEEK_END) - raw.start, 0))
        file.seek(raw.start)
        if isinstance(file, io.FileIO | io.BufferedReader):
            raw.mappable = file
    return raw


def _raw_memory(name: str, memory: memoryview) -> RawSource:
    if not memory.c_contiguous:
        memory = memoryview(memory.tobytes())
    memory = memory.cast("B") if memory.nbytes else memoryview(b"")
    raw = RawSource(name, _MemoryFile(memory))
    raw.memory = memory
    raw.goes_back = True
    raw.set_size(len(memory))
    return raw


class _MemoryFile(io.RawIOBase):
    """A read-only file over memory, without the copy that `io.BytesIO` makes of a bytearray."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: len(self._memory)}[whence]
        if origin + offset < 0:
            raise ValueError(f"negative seek position {origin + offset}")
        self._position = origin + offset
        return self._position

    def readinto(self, target: Any, /) -> int:
        view = memoryview(target).cast("B")
        block = self._memory[self._position : self._position + len(view)]
        view[: len(block)] = block
        self._position += len(block)
        return len(block)
