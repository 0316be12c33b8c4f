"""About eighty files, sound and unsound: the right array or an `IdxError`, and no memory beyond the payload.

`FILES` is also what `benchmarks/idx_readers.py` gives to other readers and what the fuzzer starts from.
"""

import bz2
import gzip
import io
import lzma
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

import idx
import idx.archive
import idx.reading  # now, so that their own memory does not count as that of the first file

MIB = 1 << 20


def file_of(code, sizes, payload=b""):
    return struct.pack(f">HBB{len(sizes)}I", 0, code, len(sizes), *sizes) + payload


def zipped(data, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo("a"), data, method)
    return file.getvalue()


def with_byte(data, position, change=0xFF):
    changed = bytearray(data)
    changed[position] ^= change
    return bytes(changed)


def gzip_bomb(header, mebibytes):
    """A gzip stream that begins with ``header`` and goes on with zeros, about a thousandth of its length."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    first = packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    packer.compress(bytes(MIB))
    packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + zeros * mebibytes


THREE = file_of(0x08, (3,), b"abc")
ABC = np.frombuffer(b"abc", np.uint8)
LONG = file_of(0x08, (70_000,), bytes(range(250)) * 280)
LONG_ARRAY = np.frombuffer(LONG[8:], np.uint8)
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def _sound():
    for code, dtype in _TYPES.items():
        values = np.arange(6, dtype=dtype).reshape(2, 3)
        yield f"type {code:#04x}", file_of(code, (2, 3), values.tobytes()), values
        yield (
            f"type {code:#04x}, no dimensions",
            file_of(code, (), values[0, 1:2].tobytes()),
            values[0, 1:2].reshape(()),
        )
    for ndim in (1, 2, 3, 4, 32, 33, 64):
        yield f"{ndim} dimensions", file_of(0x08, (1,) * ndim, b"a"), ABC[:1].reshape((1,) * ndim)
    for sizes in ((0,), (3, 0), (0, 3), (0, 0xFFFFFFFF), (0,) * 64):
        yield f"sizes {sizes[:3]}, no elements", file_of(0x0C, sizes), np.empty(sizes, np.int32)
    for name, compress in (("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)):
        yield name, compress(THREE), ABC
        yield (
            f"{name}, members",
            compress(LONG[:5]) + compress(b"") + compress(LONG[5:40_000]) + compress(LONG[40_000:]),
            LONG_ARRAY,
        )
        yield f"{name}, zeros after it", compress(THREE) + bytes(512), ABC
    yield (
        "gzip, zeros between members",
        gzip.compress(LONG[:9]) + bytes(20_000) + gzip.compress(LONG[9:]),
        LONG_ARRAY,
    )
    yield "gzip, a thousand empty members", gzip.compress(b"") * 1000 + gzip.compress(THREE), ABC
    yield "zip, deflated", zipped(THREE), ABC
    yield "zip, stored", zipped(THREE, zipfile.ZIP_STORED), ABC
    yield "zip of gzip", zipped(gzip.compress(THREE)), ABC


def _unsound():
    yield "empty", b"", idx.TruncatedError
    for length in range(1, 11):
        yield f"cut at {length}", file_of(0x0B, (3,), b"abcdef")[:length], idx.TruncatedError
    yield "cut before the last", file_of(0x0B, (3,), b"abcde"), idx.TruncatedError
    yield "one byte after the end", THREE + b"\0", idx.TrailingBytesError
    yield "a file after the end", THREE + THREE, idx.TrailingBytesError
    yield "bytes after an empty array", file_of(0x08, (0,), b"a"), idx.TrailingBytesError
    for ndim in (65, 128, 255):
        yield f"{ndim} dimensions", file_of(0x08, (1,) * ndim, b"a"), idx.TooLargeError
    yield "no elements, too large for NumPy", file_of(0x08, (0, *[0xFFFFFFFF] * 3)), idx.TooLargeError
    for sizes in ((0xFFFFFFFF,), (0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 255, (0x80000000, 2)):
        yield f"{len(sizes)} x {sizes[0]:#x} claimed", file_of(0x08, sizes, b"abc"), idx.TruncatedError
    yield "0xffffffff claimed in gzip", gzip.compress(file_of(0x08, (0xFFFFFFFF,))), idx.TruncatedError
    yield "0xffffffff claimed in xz", lzma.compress(file_of(0x08, (0xFFFFFFFF,))), idx.TruncatedError
    yield "2 x 0xffffffff claimed in gzip", gzip.compress(file_of(0x08, (0xFFFFFFFF,) * 2)), idx.TooLargeError
    for name, data in (
        ("first byte", b"\1" + THREE[1:]),
        ("second byte", b"\0\1" + THREE[2:]),
        ("little-endian header", b"\x01\x08\0\0\x03\0\0\0abc"),
        ("HTML", b"<!DOCTYPE html>\n<title>404</title>"),
        ("NumPy", b"\x93NUMPY\x01\0"),
        ("NORB", b"\x55\x4c\x3d\x1e" + bytes(16)),
        ("gzip twice", gzip.compress(gzip.compress(THREE))),
        ("zip twice", zipped(zipped(THREE))),
    ):
        yield f"magic: {name}", data, idx.BadMagicError
    for code in (0x00, 0x0A, 0x0F, 0xFF):
        yield f"type {code:#04x}", file_of(code, (3,), b"abc"), idx.UnknownTypeError
    packed = gzip.compress(THREE)
    yield "gzip, checksum", with_byte(packed, -8), idx.DamagedCompressionError
    yield "gzip, length", with_byte(packed, -1), idx.DamagedCompressionError
    yield "gzip, data", with_byte(gzip.compress(LONG), 40), idx.IdxError
    yield "gzip, cut", packed[:-1], idx.TruncatedError
    yield "gzip, second member cut", packed + packed[:5], idx.IdxError
    yield "gzip, other bytes after it", packed + b"other", idx.TrailingBytesError
    yield "gzip, more in a second member", packed + gzip.compress(b"more"), idx.TrailingBytesError
    yield "gzip, short by one", gzip.compress(THREE[:-1]), idx.TruncatedError
    yield "bzip2, checksum", with_byte(bz2.compress(THREE), -3), idx.DamagedCompressionError
    yield "xz, checksum", with_byte(lzma.compress(THREE), -24), idx.DamagedCompressionError
    yield "xz, a dictionary of 4 GiB", _xz_with_large_dictionary(), idx.TooLargeError
    yield (
        "zip, checksum",
        zipped(THREE, zipfile.ZIP_STORED).replace(b"abc", b"abd"),
        idx.DamagedCompressionError,
    )
    yield "zip, cut", zipped(THREE)[:-9], idx.DamagedCompressionError
    yield "zip, bzip2 inside", zipped(THREE, zipfile.ZIP_BZIP2), idx.DamagedCompressionError
    yield "zip, 0xf0000000 claimed", _zip_that_claims(0xF0000000), idx.TruncatedError
    yield "bomb: 8 GB for 3 bytes", gzip_bomb(file_of(0x08, (3,)), 8192), idx.TrailingBytesError
    yield "bomb: 8 GB for 8 MB", gzip_bomb(file_of(0x08, (8_000_000,)), 8192), idx.TrailingBytesError
    yield "bomb: 8 GB, as it says", gzip_bomb(file_of(0x08, (8, 1 << 30)), 8192), idx.TooLargeError
    zeros = bz2.compress(bytes(32 * MIB))
    yield "bomb: 8 GB of bzip2", bz2.compress(file_of(0x08, (3,))) + zeros * 256, idx.TrailingBytesError
    yield (
        "bomb: bzip2 in zip",
        zipped(file_of(0x08, (3,)) + bytes(32 * MIB), zipfile.ZIP_BZIP2),
        idx.DamagedCompressionError,
    )


def _zip_that_claims(size):
    """The directory of the archive and the header of its member both claim ``size`` elements."""
    data = bytearray(zipped(file_of(0x08, (size,), b"abc")))
    for position in (22, data.index(b"PK\x01\x02") + 24):
        data[position : position + 4] = struct.pack("<I", size + 8)
    return bytes(data)


def _xz_with_large_dictionary():
    """The dictionary size is one byte of the block header, which has a CRC-32 of its own."""
    data = bytearray(lzma.compress(THREE))
    length = (data[12] + 1) * 4
    position = data.index(b"\x21\x01", 12) + 2  # the LZMA2 filter, the size of its properties, and they
    data[position] = 40
    data[12 + length - 4 : 12 + length] = struct.pack("<I", zlib.crc32(data[12 : 12 + length - 4]))
    return bytes(data)


FILES = {name: (data, expected) for name, data, expected in (*_sound(), *_unsound())}

# What the decompressors themselves take, whatever the size of the file; zipfile is imported on the first
# occasion.
OVERHEAD = {b"\x1f\x8b": 1.2 * MIB, b"BZ": 6 * MIB, b"\xfd7": 12 * MIB, b"PK": 1.5 * MIB}


@pytest.mark.parametrize("name", FILES)
def test_the_right_array_or_an_error_and_no_memory_beyond_the_payload(name):
    data, expected = FILES[name]
    tracemalloc.start()
    try:
        if isinstance(expected, type):
            with pytest.raises(expected):
                idx.read(data)
            payload = min(idx.header(data).nbytes, 8_000_000) if name.startswith("bomb: 8 GB for 8 MB") else 0
        else:
            array = idx.read(data)
            payload = array.nbytes
            assert array.shape == expected.shape
            assert array.dtype == expected.dtype.newbyteorder("=")
            assert array.tobytes() == expected.astype(array.dtype).tobytes()
            assert array.flags.c_contiguous
            assert array.flags.writeable
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 1.2 * payload + OVERHEAD.get(data[:2], 128 << 10)


@pytest.mark.parametrize("name", FILES)
def test_every_way_of_reading_decides_alike(name, tmp_path):
    data, expected = FILES[name]
    path = tmp_path / "file"
    path.write_bytes(data)
    ways = (
        lambda: idx.read(path),
        lambda: idx.read(io.BytesIO(data)),
        lambda: np.asarray(idx.open(data)),
        lambda: np.asarray(idx.open(path)),
        lambda: np.asarray(idx.open(io.BytesIO(data))),
    )
    for way in ways:
        if isinstance(expected, type):
            with pytest.raises(expected):
                way()
        else:
            array = way()
            assert array.shape == expected.shape
            assert array.tobytes() == expected.astype(array.dtype).tobytes()


# What is too large for an array is sound as a file; only xz needs memory to be looked at.
VERIFIABLE = [
    name for name, (_, expected) in FILES.items() if expected is not idx.TooLargeError or "xz" in name
]


@pytest.mark.parametrize("name", VERIFIABLE)
def test_verify_agrees_with_read(name):
    data, expected = FILES[name]
    if isinstance(expected, type):
        with pytest.raises(expected):
            idx.verify(data)
    else:
        assert idx.verify(data).shape == expected.shape


def test_verify_of_what_numpy_cannot_hold():
    assert idx.verify(file_of(0x08, (1,) * 65, b"a")).ndim == 65
