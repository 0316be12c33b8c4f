"""Rows of a source that can only be read forward: a compressed file, a pipe."""

import io
import math
import operator
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Lock
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from idx.errors import IdxError
from idx.layout import AnyArray, Header
from idx.reading import check_end, check_limit, limit_of, no_memory, read_elements, read_header, shaped, skip
from idx.sources import Source, Stream, Trailing, decompressed, raw_source

_BLOCK_BYTES = 1 << 20


class ForwardReader:
    """Gives any rows of ``source``: forward where it can, from the beginning again where it must.

    A row is what the first dimension counts; an array without dimensions is one row.
    """

    def __init__(self, source: Source, max_bytes: int | None, trailing: Trailing) -> None:
        self._max_bytes = max_bytes
        self._trailing: Trailing = trailing
        self._lock = Lock()
        self._inner = ExitStack()  # closes what lies between the source and its decompressed bytes
        with ExitStack() as stack:
            self._raw = raw_source(source, stack)
            self.stream, self.header = self._begin()
            self._stack = stack.pop_all()
        finalize(self, self._stack.close)
        self._count = self.header.shape[0] if self.header.shape else 1
        self._row_size = math.prod(self.header.shape[1:])
        self._next = 0  # the row that comes next in the stream; -1 when an error has left that open

    def _begin(self) -> tuple[Stream, Header]:
        with ExitStack() as stack:
            stream = decompressed(self._raw, stack, self._trailing)
            header = read_header(stream)
            self._inner = stack.pop_all()
        self._remember_position()
        return stream, header

    def _remember_position(self) -> None:
        """Where the source stands, which others may move before the next access."""
        if self._raw.goes_back:
            self._position: int = self._raw.file.tell()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close what was opened here."""
        self._inner.close()
        self._stack.close()

    def select(self, key: Any) -> Any:
        """``whole_array[key]``, reading only the rows that it needs, for any ``key`` that NumPy knows."""
        with self._lock:
            return self._select(key)

    def _select(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        if self.header.shape and keys:
            first, rest = keys[0], keys[1:]
            if isinstance(first, slice):
                return self._select_slice(range(self._count)[first], rest)
            if isinstance(first, list | np.ndarray) or _is_integer(first):
                empty_list = isinstance(first, list) and np.size(first) == 0
                rows = np.asarray(first, np.intp if empty_list else None)
                if rows.dtype == np.bool_ and rows.shape == (self._count,):
                    rows = np.flatnonzero(rows)
                if rows.dtype.kind in "iu":
                    return self._select_rows(rows, rest)
        whole = self._read_rows(0, self._count)
        return whole.reshape(self.header.shape)[key]

    def _select_slice(self, rows: range, rest: tuple[Any, ...]) -> Any:
        ascending = rows if rows.step > 0 else rows[::-1]
        gathered = self._gather(ascending)
        return gathered[(slice(None, None, 1 if rows.step > 0 else -1), *rest)]

    def _select_rows(self, rows: NDArray[Any], rest: tuple[Any, ...]) -> Any:
        for row in (rows.min(), rows.max()) if rows.size else ():
            if not -self._count <= row < self._count:
                raise IndexError(f"index {row} is out of bounds for axis 0 with size {self._count}")
        rows = rows.astype(np.intp)
        wanted, places = np.unique(np.where(rows < 0, rows + self._count, rows), return_inverse=True)
        gathered = self._gather([int(row) for row in wanted])
        first = int(places) if rows.ndim == 0 else places.reshape(rows.shape)
        return gathered[(first, *rest)]

    def _gather(self, rows: Sequence[int]) -> AnyArray:
        """The ``rows``, which ascend, as an array of shape (len(rows), ...)."""
        if not rows:
            return self._read_rows(0, 0)
        if rows[-1] - rows[0] == len(rows) - 1 or not self._row_size:
            return self._read_rows(rows[0], rows[-1] + 1)[: len(rows)]
        self._check_limit(len(rows))
        row_bytes = self._row_size * self.header.dtype.itemsize
        try:
            gathered = np.empty((len(rows), *self.header.shape[1:]), self.header.dtype)
        except (MemoryError, ValueError):
            raise no_memory(self.stream.name, len(rows) * row_bytes) from None
        place = 0
        while place < len(rows):
            start = rows[place]
            end = bisect_left(rows, start + max(1, _BLOCK_BYTES // row_bytes), place)
            block = self._read_block(start, rows[end - 1] + 1)
            gathered[place:end] = block[np.asarray(rows[place:end]) - start]
            place = end
        return gathered

    def _read_rows(self, start: int, stop: int) -> AnyArray:
        """The rows from ``start`` up to ``stop``, shape (stop - start, ...), in native byte order."""
        self._check_limit(stop - start)
        return self._read_block(start, stop)

    def _read_block(self, start: int, stop: int) -> AnyArray:
        if self._raw.goes_back:
            self._raw.file.seek(self._position)  # type: ignore[attr-defined]
        if stop > start or not self._count:
            self._go_to(start)
            self._next = -1
        elements = read_elements(self.stream, self.header, (stop - start) * self._row_size)
        if stop == self._count:
            check_end(self.stream, self.header, self._trailing)
        if self._next < 0:
            self._next = stop
        self._remember_position()
        return shaped(elements, (stop - start, *self.header.shape[1:]), self.stream.name)

    def _check_limit(self, rows: int) -> None:
        nbytes = rows * self._row_size * self.header.dtype.itemsize
        check_limit(self.stream.name, nbytes, limit_of(self.stream, self._max_bytes))

    def _go_to(self, row: int) -> None:
        if row < self._next or self._next < 0:
            self._rewind()
        skip(self.stream, self.header, (row - self._next) * self._row_size)
        self._next = row

    def _rewind(self) -> None:
        if not self._raw.goes_back:
            raise io.UnsupportedOperation(
                f"{self.stream.name}: cannot go back to rows that have been read; "
                "idx.read gives them all at once"
            )
        self._inner.close()
        self._raw.put_back(b"")
        self._raw.file.seek(self._raw.start)  # type: ignore[attr-defined]
        self.stream, header = self._begin()
        if header != self.header:
            raise IdxError(
                f"{self.stream.name}: found {header}, expected {self.header} as when it was opened"
            )
        self._next = 0


def _is_integer(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return False  # True and False are masks of no dimension
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
