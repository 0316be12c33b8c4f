"""Decompression that gives the bytes asked for and not one more.

``gzip``, ``bz2`` and ``lzma`` read ahead, and ``gzip.decompress`` takes whatever the stream holds. Here each
call of the decompressor is bounded, so that a small file that inflates to gigabytes costs no more than what
its reader wanted. Several members, zero bytes after the last, and other bytes after it (an error, or ignored)
are told apart.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol, cast

from idx.errors import DamagedCompressionError, IdxError, TooLargeError, TrailingBytesError, TruncatedError

# zlib copies the input that it has left over at each call, and builds larger results from pieces: small
# blocks are the fast ones, and they stay in the cache until they are copied to their place.
# (benchmarks/idx_speed.py)
INPUT_BLOCK = 16 << 10
OUTPUT_BLOCK = 32 << 10

# The largest dictionary of the xz presets (-9) needs 65 MiB; a hostile header can ask for gigabytes.
XZ_MEMORY = 128 << 20

_GZIP_FORMAT = 31  # zlib's "wbits" for a gzip header, and a check of the CRC-32 and the length at the end

_GZIP_FLAGS = 3  # where a gzip header has them


class Decompressor(Protocol):
    """What the decompressors of zlib, bz2, lzma and isal share."""

    @property
    def eof(self) -> bool: ...  # noqa: D102
    @property
    def unused_data(self) -> bytes: ...  # noqa: D102
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...  # noqa: D102


def _gzip_engine() -> tuple[Callable[[], Decompressor], type[Exception]]:
    """ISA-L's inflate where it is installed (``pip install chainrule[fast]``), otherwise zlib's."""
    try:
        from isal import isal_zlib
    except ImportError:
        return (lambda: zlib.decompressobj(_GZIP_FORMAT)), zlib.error
    return (lambda: isal_zlib.decompressobj(_GZIP_FORMAT)), cast(type[Exception], isal_zlib.IsalError)


_new_gzip, _GzipError = _gzip_engine()

ENGINES: dict[str, tuple[Callable[[], Decompressor], bytes]] = {
    "gzip": (_new_gzip, b"\x1f\x8b"),
    "bzip2": (bz2.BZ2Decompressor, b"BZh"),
    "xz": (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY), b"\xfd7zXZ\0"),
}

_DAMAGE = (_GzipError, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError)


class Inflater:
    """A compressed stream, read forward. ``refill(n)`` gives up to n more of its bytes, none at its end."""

    def __init__(
        self, compression: str, head: bytes, refill: Callable[[int], bytes], name: str, trailing: str
    ) -> None:
        self._compression = compression
        self._new, self._magic = ENGINES[compression]
        self._refill = refill
        self._name = name
        self._trailing = trailing
        self._pending = head
        self._taken = len(head)
        self._member: Decompressor | None = self._new()
        self._begins = True  # nothing has been inflated of this member yet
        self._perhaps_trailing = False  # nor is it the first, and other bytes after the first are allowed

    def fill(self, target: memoryview) -> int:
        """Inflate into ``target`` until it is full or the stream ends; return the number of bytes.

        Fewer than ``len(target)`` means that the stream has ended and that its checksums are right.
        """
        filled = 0
        while filled < len(target):
            block = self._block(min(OUTPUT_BLOCK, len(target) - filled))
            if not block:
                break
            target[filled : filled + len(block)] = block
            filled += len(block)
        return filled

    def _block(self, limit: int) -> bytes:
        """The next 1 to ``limit`` bytes, or none at the end of the last member."""
        try:
            return self._inflate(limit)
        except IdxError:
            if not self._perhaps_trailing:
                raise
            self._member = None
            return b""

    def _inflate(self, limit: int) -> bytes:
        while self._member is not None:
            if self._begins:
                self._check_flags()
                self._begins = False
            try:
                block = self._member.decompress(self._pending, limit)
            except MemoryError:
                raise self._too_much_memory() from None
            except _DAMAGE as error:
                if "emory usage limit" in str(error):
                    raise self._too_much_memory() from None
                raise DamagedCompressionError(
                    f"{self._where()}: the {self._compression} stream is damaged ({error})"
                ) from None
            if block:
                self._perhaps_trailing = False
            if self._member.eof:
                self._pending = self._member.unused_data
                self._member = self._new() if self._another_member() else None
            else:
                self._pending = getattr(self._member, "unconsumed_tail", b"")
                # Nothing came out and nothing is left to go in. (ISA-L can hold output back when nothing is
                # left.)
                if not block and not self._pending and not self._more():
                    raise TruncatedError(
                        f"{self._where()}: the {self._compression} stream ends here, "
                        "expected the rest of it and its checksum"
                    )
            if block:
                return block
        return b""

    def _another_member(self) -> bool:
        """Whether one more member follows, after any zero bytes that pad the one before."""
        self._pending = self._pending.lstrip(b"\0")
        while len(self._pending) < len(self._magic) and self._more():
            self._pending = self._pending.lstrip(b"\0")
        if not self._pending or self._pending.startswith(self._magic):
            self._begins = True
            self._perhaps_trailing = self._trailing == "ignore"
            return bool(self._pending)
        if self._trailing == "ignore":
            return False
        raise TrailingBytesError(
            f"{self._where()}: found {self._pending[:4].hex(' ')} after the {self._compression} stream, "
            'expected its end (trailing="ignore" allows it)'
        )

    def _check_flags(self) -> None:
        """Refuse the gzip flags that RFC 1952 reserves, as zlib does and ISA-L does not."""
        if self._compression != "gzip":
            return
        while len(self._pending) < _GZIP_FLAGS + 1 and self._more():
            pass
        if len(self._pending) > _GZIP_FLAGS and self._pending[_GZIP_FLAGS] & 0xE0:
            raise DamagedCompressionError(
                f"{self._where()}: the gzip stream is damaged (unknown header flags set)"
            )

    def _more(self) -> bool:
        block = self._refill(INPUT_BLOCK)
        self._pending += block
        self._taken += len(block)
        return bool(block)

    def _where(self) -> str:
        return f"{self._name}: offset {self._taken - len(self._pending)} of the compressed data"

    def _too_much_memory(self) -> TooLargeError:
        return TooLargeError(
            f"{self._where()}: the {self._compression} stream asks for a dictionary that needs more "
            f"memory than the {XZ_MEMORY >> 20} MiB that it may have"
        )
