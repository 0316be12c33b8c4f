"""`idx.open`: an array that stays in its file until it is asked for."""

import mmap
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from idx.forward import ForwardReader
from idx.layout import AnyArray, Header
from idx.reading import check_size, shaped
from idx.sources import Source, Stream, Trailing

_CHUNK_BYTES = 1 << 20


class LazyArray:
    """An IDX file that can be indexed, sliced and iterated like its array, and is read only as far as needed.

    Uncompressed, on disk or in memory, it is mapped: an access costs what it touches. Such results are
    read-only where they show the file itself (uint8, int8), and native-order copies otherwise. (If another
    program cuts a mapped file short, the system ends this process with SIGBUS when it touches what is gone:
    replace such files, as `idx.write` does.) Compressed, it is read forward: rows behind the last one cost
    the inflating of all between, rows before it start again from the beginning. What has been read to its end
    has had its checksum verified.

    Attributes:
        header: type and shape, as the file says them.
        name: what messages call the source.
        compression: ``"gzip"``, ``"bzip2"``, ``"xz"``, ``"zip"``, ``"zip + gzip"`` and so on, or None.
    """

    def __init__(self, source: Source, *, max_bytes: int | None = None, trailing: Trailing = "error") -> None:
        reader = ForwardReader(source, max_bytes, trailing)
        stream = reader.stream
        self.header: Header = reader.header
        self.name: str = stream.name
        self.compression: str | None = stream.compression
        self._stored: AnyArray | None = None
        self._reader: ForwardReader | None = reader
        try:
            check_size(stream, self.header, trailing)
            if stream.memory is None and stream.file is None:
                shaped(np.empty(0, np.uint8), (0, *self.shape[1:]), stream.name)
                return
            self._stored = shaped(_map(stream, self.header), self.shape, stream.name)
        except BaseException:
            self.close()
            raise
        self._reader = None
        reader.close()

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the dimensions."""
        return self.header.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements, in native byte order."""
        return self.header.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.header.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.header.size

    @property
    def nbytes(self) -> int:
        """The number of bytes of all elements."""
        return self.header.nbytes

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without dimensions")
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """What ``idx.read(source)[key]`` would be: any index that NumPy knows."""
        if self._stored is not None:
            found = self._stored[key]
            return found if found.dtype.isnative else found.astype(self.dtype)
        return self._forward().select(key)

    def __iter__(self) -> Iterator[Any]:
        """The rows (what `len` counts), one by one."""
        len(self)  # without dimensions there are none
        for chunk in self.chunks():
            yield from chunk

    def chunks(self, rows: int | None = None) -> Iterator[AnyArray]:
        """The array in pieces of ``rows`` rows, the last one shorter; by default about 1 MiB each.

        There is always a piece: an empty one of an empty array, all of an array without dimensions.
        """
        if not self.shape:
            yield self[...]
            return
        length = len(self)
        if rows is None:
            rows = max(1, _CHUNK_BYTES // max(1, self.nbytes // max(1, length)))
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows}")
        for start in range(0, max(length, 1), rows):
            yield self[start : start + rows]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        whole: AnyArray = np.asarray(self[...])
        if not np.may_share_memory(whole, self._stored if self._stored is not None else ()):
            if copy is False:
                raise ValueError(f"{self.name}: cannot become an array without a copy")
            copy = None  # it is one already
        return np.array(whole, dtype, copy=copy)

    def __repr__(self) -> str:
        how = (
            "mapped" if self._stored is not None else "read forward" if self._reader is not None else "closed"
        )
        return f"<idx.LazyArray {self.name}: {self.header}, {how}>"

    def close(self) -> None:
        """Close the file. Slices of a mapped file stay valid: the map goes when the last of them goes."""
        self._stored = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _forward(self) -> ForwardReader:
        if self._reader is None:
            raise ValueError(f"{self.name}: is closed")
        return self._reader


def open(source: Source, *, max_bytes: int | None = None, trailing: Trailing = "error") -> LazyArray:
    """Open an IDX file without reading its elements.

    A file that is mapped must not be cut short by others while it is in use: see `LazyArray`.

    Args:
        source: as for `idx.read`. From a file object that can seek, compressed data can be read more than
            once; from one that cannot, only forward.
        max_bytes: the largest array that one access may make of a compressed source; see `idx.read`.
        trailing: as for `idx.read`.

    Raises:
        IdxError: the header is not that of an IDX file, or an uncompressed file is not as long as it says.
            What is wrong in a compressed source shows when the place is reached.
        OSError: the file cannot be opened.
    """
    return LazyArray(source, max_bytes=max_bytes, trailing=trailing)


def _map(stream: Stream, header: Header) -> AnyArray:
    """The elements where they lie, big-endian and read-only, shape (size,)."""
    offset = stream.start + header.offset
    if header.size == 0:
        stored = np.empty(0, header.stored_dtype)
    elif stream.memory is not None:
        stored = np.frombuffer(stream.memory, header.stored_dtype, header.size, offset)
    else:
        assert stream.file is not None
        mapped = mmap.mmap(stream.file.fileno(), 0, access=mmap.ACCESS_READ)
        stored = np.frombuffer(mapped, header.stored_dtype, header.size, offset)
    stored.flags.writeable = False
    return stored
