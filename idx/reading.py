"""Reading: the header alone, or the whole array."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from idx.errors import (
    BadMagicError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
    UnknownTypeError,
    WrongShapeError,
)
from idx.layout import MAX_DIMENSIONS, TYPES, AnyArray, Header, decode_sizes
from idx.recognise import LOOK, looks_like
from idx.sources import Source, Stream, Trailing, opened, position_of

#: The largest array that `read` makes of a source that may grow without bound: a compressed one, or a pipe.
DEFAULT_MAX_BYTES = 4 << 30

_SKIPPED_AT_ONCE = 1 << 16
_HOW_TO_ALLOW = 'trailing="ignore" allows them'


def read(
    source: Source,
    *,
    max_bytes: int | None = None,
    trailing: Trailing = "error",
    ndim: int | None = None,
) -> AnyArray:
    """Read an IDX file into an array.

    Compression is recognised by content, never by name: gzip, bzip2 and xz, each of several members, and the
    members of zip archives. The checksums of what is compressed are verified, and memory is taken only as far
    as there are bytes to fill it.

    Args:
        source: a path, ``"archive.zip!path/inside"`` for a member of a zip archive (which need not be named
            if it is the only one), a bytes-like object, or a binary file object, seekable or not. A file
            object is read from where it stands and not closed.
        max_bytes: the largest array to make, in bytes. By default anything goes that is there uncompressed,
            and 4 GiB (`DEFAULT_MAX_BYTES`) from a compressed source or one of unknown length.
        trailing: ``"error"`` refuses bytes after the last element, ``"ignore"`` leaves them unread. (In a
            compressed source that goes on, the checksum is behind them and stays unread too.)
        ndim: the number of dimensions that the array must have: 1 for labels, 3 for grey images.

    Returns:
        The array: native byte order, C-contiguous, writable, its own memory. One of uint8, int8, int16,
        int32, float32, float64; the shape that the header says, ``()`` when it has no dimensions.

    Raises:
        IdxError: the bytes are not a whole IDX file and nothing else; the subclasses say in which way.
        OSError: the file cannot be opened or read.
    """
    with opened(source, trailing) as stream:
        header = read_header(stream, ndim)
        check_size(stream, header, trailing)
        check_limit(stream.name, header.nbytes, limit_of(stream, max_bytes))
        array = read_elements(stream, header, header.size)
        if stream.size is None:
            check_end(stream, header, trailing)
        return shaped(array, header.shape, stream.name)


def header(source: Source) -> Header:
    """Read the header of an IDX file alone; whether its elements are there is not looked at.

    A file object that can seek is left where it stood.

    Raises:
        IdxError: it is no header of an IDX file.
        OSError: the file cannot be opened or read.
    """
    position = position_of(source)
    try:
        with opened(source, "ignore") as stream:
            return read_header(stream)
    finally:
        if position is not None:
            source.seek(position)  # type: ignore[union-attr]


def verify(source: Source, *, trailing: Trailing = "error") -> Header:
    """Read every byte of an IDX file and verify every checksum, without keeping the array.

    Returns:
        The header of a file that is in order.

    Raises:
        IdxError: it is not; see `read`. Arrays that are too large for NumPy are in order.
        OSError: the file cannot be opened or read.
    """
    with opened(source, trailing) as stream:
        header = read_header(stream)
        check_size(stream, header, trailing)
        skip(stream, header, header.size)
        check_end(stream, header, trailing)
    return header


def read_header(stream: Stream, ndim: int | None = None) -> Header:
    """Read the header from the beginning of ``stream``; check the number of dimensions if one is given."""
    name = stream.name
    magic = stream.read(4)
    if not magic:
        raise TruncatedError(f"{name}: offset 0: found nothing (0 bytes), expected an IDX file")
    if not b"\0\0".startswith(magic[:2]):
        look = magic + stream.read(LOOK - len(magic))
        guess = looks_like(look)
        raise BadMagicError(
            f"{name}: offset 0: found {look[:4].hex(' ')}{f', {guess}' if guess else ''}; "
            "expected 00 00, the beginning of an IDX file"
        )
    if len(magic) < 4:
        raise TruncatedError(
            f"{name}: offset {len(magic)}: found the end, expected a header of at least 4 bytes"
        )
    if magic[2] not in TYPES:
        known = ", ".join(f"0x{code:02X} {dtype}" for code, dtype in TYPES.items())
        raise UnknownTypeError(f"{name}: offset 2: found type 0x{magic[2]:02X}, expected one of {known}")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise TruncatedError(
            f"{name}: offset {4 + len(sizes)}: found the end, "
            f"expected a header of {4 + 4 * magic[3]} bytes ({magic[3]} dimensions)"
        )
    result = Header(TYPES[magic[2]], decode_sizes(sizes))
    if ndim is not None and result.ndim != ndim:
        raise WrongShapeError(
            f"{name}: offset 3: found {_in_words(result.ndim)}, shape {result.shape}; "
            f"expected {_in_words(ndim)}"
        )
    return result


def _in_words(ndim: int) -> str:
    meaning = {1: " (labels)", 3: " (grey images)"}.get(ndim, "")
    return f"{ndim} dimension{'' if ndim == 1 else 's'}{meaning}"


def check_size(stream: Stream, header: Header, trailing: Trailing) -> None:
    """Compare the size that ``header`` claims with the size of ``stream``, where that is known."""
    if stream.size is None:
        return
    expected = header.offset + header.nbytes
    if stream.size < expected:
        raise truncated(stream, header, stream.size)
    if stream.size > expected and trailing == "error":
        raise TrailingBytesError(
            f"{stream.name}: offset {expected}: found {stream.size - expected} more bytes, "
            f"expected the end after {header} ({_HOW_TO_ALLOW})"
        )


def truncated(stream: Stream, header: Header, size: int) -> TruncatedError:
    """The error for a ``stream`` that ends after ``size`` bytes."""
    expected = header.offset + header.nbytes
    hint = ""
    swapped = Header(
        header.dtype, tuple(int.from_bytes(n.to_bytes(4, "little"), "big") for n in header.shape)
    )
    if swapped.offset + swapped.nbytes == size:
        hint = f" (the sizes seem to be little-endian: {swapped.shape})"
    return TruncatedError(
        f"{stream.name}: offset {size}: found the end, expected {expected} bytes: {header}{hint}"
    )


def limit_of(stream: Stream, max_bytes: int | None) -> int | None:
    """``max_bytes``, or what holds if the caller gave none; None is no limit."""
    if max_bytes is None and stream.size is None:
        return DEFAULT_MAX_BYTES
    return max_bytes


def check_limit(name: str, nbytes: int, limit: int | None) -> None:
    """Refuse an array of more than ``limit`` bytes."""
    if limit is not None and nbytes > limit:
        raise TooLargeError(
            f"{name}: found an array of {nbytes} bytes, expected at most {limit} (max_bytes allows more)"
        )


def read_elements(stream: Stream, header: Header, count: int) -> AnyArray:
    """Read the next ``count`` elements of ``stream``: a new array of shape (count,), native byte order.

    Memory is taken at once where the bytes are there, or may well be; otherwise it grows with what has
    arrived.
    """
    nbytes = count * header.dtype.itemsize
    capacity = nbytes if stream.size is not None else min(nbytes, stream.guess)
    with memory_for(stream.name, nbytes):
        raw = np.empty(capacity, np.uint8)
        filled = stream.fill(raw.data)
        while filled == len(raw) < nbytes:
            raw.resize(min(nbytes, 2 * filled), refcheck=False)
            filled += stream.fill(raw.data[filled:])
    if filled < nbytes:
        raise truncated(stream, header, stream.position)
    elements = raw.view(header.stored_dtype)
    if not elements.dtype.isnative:
        elements = elements.byteswap(inplace=True).view(header.dtype)
    return elements


def skip(stream: Stream, header: Header, count: int) -> None:
    """Read ``count`` elements of ``stream`` and keep none."""
    scratch = memoryview(bytearray(_SKIPPED_AT_ONCE))
    left = count * header.dtype.itemsize
    while left:
        block = stream.fill(scratch[: min(left, len(scratch))])
        if not block:
            raise truncated(stream, header, stream.position)
        left -= block


@contextmanager
def memory_for(name: str, nbytes: int) -> Iterator[None]:
    """Turn a lack of memory for an array of ``nbytes`` into an `IdxError` that names the source."""
    try:
        yield
    except MemoryError:
        raise no_memory(name, nbytes) from None


def no_memory(name: str, nbytes: int) -> TooLargeError:
    """The error for an array of ``nbytes`` that does not fit into memory."""
    return TooLargeError(f"{name}: found an array of {nbytes} bytes, for which there is no memory")


def check_end(stream: Stream, header: Header, trailing: Trailing) -> None:
    """Look one byte beyond the last element, which also verifies the checksum of a compressed stream."""
    if stream.compression is None and trailing == "ignore":
        return  # what follows in a pipe belongs to somebody else
    if stream.read(1) and trailing == "error":
        raise TrailingBytesError(
            f"{stream.name}: offset {header.offset + header.nbytes}: found more bytes, "
            f"expected the end after {header} ({_HOW_TO_ALLOW})"
        )


def shaped(flat: AnyArray, shape: tuple[int, ...], name: str) -> AnyArray:
    """``flat``, of shape (n,), as an array of ``shape``, if NumPy can hold that."""
    if len(shape) > MAX_DIMENSIONS:
        raise TooLargeError(
            f"{name}: offset 3: found {len(shape)} dimensions, "
            f"expected at most the {MAX_DIMENSIONS} that NumPy can have"
        )
    try:
        return flat.reshape(shape)
    except ValueError:  # some sizes are zero, and the others too large together
        raise TooLargeError(
            f"{name}: offset 4: found shape {shape}, which is too large for NumPy even empty"
        ) from None
