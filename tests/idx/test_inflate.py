import gzip
import random
import sys
import zlib

import pytest

from idx import inflate
from idx.errors import DamagedCompressionError, TruncatedError

DATA = random.Random(0).randbytes(50_000) + bytes(100_000) + b"0123456789" * 10_000


@pytest.fixture(params=["zlib", "isal"], autouse=True)
def engine(request, monkeypatch):
    """The gzip engine of a plain installation and that of [fast]."""
    if request.param == "isal":
        pytest.importorskip("isal", reason="isal is installed by the extra [fast]")
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
    new, error = inflate._gzip_engine()
    assert (error is zlib.error) == (request.param == "zlib")
    monkeypatch.setitem(inflate.ENGINES, "gzip", (new, b"\x1f\x8b"))


def inflater(data, step=1 << 14, trailing="error"):
    """An inflater over ``data`` that is refilled ``step`` bytes at a time."""
    position = 4

    def refill(size):
        nonlocal position
        block = data[position : position + min(size, step)]
        position += len(block)
        return block

    return inflate.Inflater("gzip", data[:4], refill, "name", trailing)


@pytest.mark.parametrize("step", [1, 3, 1000, 1 << 14])
@pytest.mark.parametrize("sizes", [[len(DATA)], [1, 7, 40_000], [32 << 10] * 4])
def test_pieces_of_any_size(step, sizes):
    parts = [DATA[:100_000], b"", DATA[100_000:]]
    stream = inflater(b"\0\0".join(gzip.compress(part) for part in parts), step)
    result = b""
    while True:
        for size in sizes:
            target = bytearray(size)
            count = stream.fill(memoryview(target))
            result += target[:count]
        if count < size:
            break
    assert result == DATA
    assert stream.fill(memoryview(bytearray(1))) == 0


def test_no_more_is_taken_in_than_the_output_needs():
    taken = 0

    def refill(size):
        nonlocal taken
        block = data[4 + taken : 4 + taken + size]
        taken += len(block)
        return block

    data = gzip.compress(random.Random(0).randbytes(1_000_000))
    stream = inflate.Inflater("gzip", data[:4], refill, "name", "error")
    stream.fill(memoryview(bytearray(10)))
    assert taken <= inflate.INPUT_BLOCK * 4


@pytest.mark.parametrize("step", [1, 1 << 14])
def test_damage_and_truncation(step):
    whole = gzip.compress(DATA)
    for change in (-8, -1, len(whole) // 2):
        damaged = bytearray(whole)
        damaged[change] ^= 0x40
        with pytest.raises(DamagedCompressionError, match=r"name: offset .* gzip stream is damaged"):
            inflater(bytes(damaged), step).fill(memoryview(bytearray(len(DATA) + 1)))
    with pytest.raises(TruncatedError, match="the gzip stream ends here"):
        inflater(whole[:-1], step).fill(memoryview(bytearray(len(DATA) + 1)))


def test_reserved_flags_are_damage():
    reserved = bytearray(gzip.compress(DATA))
    reserved[3] |= 0x20
    for data in (bytes(reserved), gzip.compress(DATA) + bytes(reserved)):
        for step in (1, 1 << 14):
            with pytest.raises(DamagedCompressionError, match="unknown header flags"):
                inflater(data, step).fill(memoryview(bytearray(2 * len(DATA) + 1)))


@pytest.mark.parametrize(
    "junk", [b"\x1f\x8bjunk", b"\x1f\x8b", gzip.compress(b"a", mtime=0)[:10], b"\x1f\x8b\x08\xe0"]
)
def test_what_only_begins_like_another_member_is_trailing(junk):
    data = gzip.compress(DATA) + junk
    assert inflater(data, trailing="ignore").fill(memoryview(bytearray(len(DATA) + 1))) == len(DATA)
    with pytest.raises((DamagedCompressionError, TruncatedError)):
        inflater(data).fill(memoryview(bytearray(len(DATA) + 1)))
    damaged = bytearray(data)
    damaged[-8 - len(junk)] ^= 1  # the checksum of the first member counts all the same
    with pytest.raises(DamagedCompressionError):
        inflater(bytes(damaged), trailing="ignore").fill(memoryview(bytearray(len(DATA) + 1)))
