import gzip
import io
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import idx

DTYPES = st.sampled_from([order + kind for kind in ("u1", "i1", "i2", "i4", "f4", "f8") for order in "<>"])
SHAPES = st.one_of(
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5),
    st.integers(6, 64).map(lambda ndim: (2,) + (1,) * (ndim - 1)),
)
COMPRESSIONS = st.sampled_from(["none", "gzip", "bzip2", "xz"])


class Pipe(io.RawIOBase):
    """Gives what it has in pieces of odd sizes, and cannot seek."""

    def __init__(self, data):
        self._rest = io.BytesIO(data)
        self._size = 1

    def readable(self):
        return True

    def readinto(self, target):
        self._size = self._size * 3 % 1009 + 1
        block = self._rest.read(min(self._size, len(target)))
        target[: len(block)] = block
        return len(block)


def as_path(data, folder):
    path = folder / "file"
    path.write_bytes(data)
    return path


def as_zip(data, folder):
    with zipfile.ZipFile(folder / "file.zip", "w") as archive:
        archive.writestr("inside", data)
    return f"{folder}/file.zip!inside"


SOURCES = {
    "path": as_path,
    "string": lambda data, folder: str(as_path(data, folder)),
    "zip": as_zip,
    "bytes": lambda data, folder: data,
    "bytearray": lambda data, folder: bytearray(data),
    "memoryview": lambda data, folder: memoryview(data),
    "BytesIO": lambda data, folder: io.BytesIO(data),
    "pipe": lambda data, folder: Pipe(data),
}


@st.composite
def arrays_of_any_layout(draw):
    """An array of any type, byte order and shape, contiguous or a view with other strides."""
    array = draw(hnp.arrays(draw(DTYPES), draw(SHAPES)))
    if draw(st.booleans()):
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    steps = draw(st.lists(st.sampled_from([1, -1, 2]), min_size=array.ndim, max_size=array.ndim))
    return array[tuple(slice(None, None, step) for step in steps)] if draw(st.booleans()) else array


@given(array=arrays_of_any_layout(), compression=COMPRESSIONS, kind=st.sampled_from(sorted(SOURCES)))
@settings(max_examples=400, deadline=None)
def test_read_gives_what_write_was_given(tmp_path_factory, array, compression, kind):
    folder = tmp_path_factory.mktemp("property")
    file = io.BytesIO()
    idx.write(file, array, compression=compression)
    result = idx.read(SOURCES[kind](file.getvalue(), folder))
    assert result.shape == array.shape
    assert result.dtype == array.dtype.newbyteorder("=")
    assert result.dtype.isnative
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert result.tobytes() == array.astype(result.dtype).tobytes()


def check_that_it_is_exactly_described(data):
    """Whatever `read` accepts has a header that describes the bytes that are there, all and no more."""
    try:
        array = idx.read(data)
    except idx.IdxError:
        return False
    header = idx.header(data)
    assert header.offset + header.nbytes == len(data)
    assert array.shape == header.shape
    assert array.astype(header.stored_dtype).tobytes() == data[header.offset :]
    return True


@given(array=arrays_of_any_layout(), cut=st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_every_truncation_is_an_error(array, cut):
    file = io.BytesIO()
    idx.write(file, array)
    data = file.getvalue()
    if cut < len(data):
        with pytest.raises(idx.IdxError):
            idx.read(data[:cut])


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3), np.uint8), np.zeros((1, 0, 2), np.int16), np.zeros((), np.float64)]
)
def test_every_change_of_one_header_byte_is_an_error_or_describes_what_is_there(array):
    file = io.BytesIO()
    idx.write(file, array)
    data = file.getvalue()
    accepted = 0
    for position in range(4 + 4 * array.ndim):
        for value in range(256):
            changed = data[:position] + bytes([value]) + data[position + 1 :]
            accepted += check_that_it_is_exactly_described(changed)
    assert accepted >= 4 + 4 * array.ndim  # the unchanged ones at least


def test_every_change_of_one_bit_of_a_gzip_file_is_an_error_or_changes_nothing():
    array = np.arange(40, dtype=np.int16)
    file = io.BytesIO()
    idx.write(file, array, compression="gzip")
    data = file.getvalue()
    accepted = 0
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            result = idx.read(changed)
        except idx.IdxError:
            continue
        accepted += 1
        assert np.array_equal(result, array)
    assert accepted < 8 * 10  # bits of the time and other idle fields of the 10 bytes of the gzip header


@given(data=st.binary(max_size=64) | st.binary(max_size=40).map(lambda rest: b"\0\0\x08" + rest))
@example(b"\0\0\x08\0a")
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_an_error_or_exactly_described(data):
    check_that_it_is_exactly_described(data)
    for wrapped in (
        gzip.compress(data),
        gzip.compress(data) + data,
        b"\x1f\x8b\x08" + data,
        b"PK\x03\x04" + data,
    ):
        for trailing in ("error", "ignore"):
            with suppress(idx.IdxError):
                idx.read(wrapped, trailing=trailing)


@st.composite
def arrays_and_indexes(draw):
    array = draw(hnp.arrays(draw(DTYPES), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)))
    kinds = [hnp.basic_indices(array.shape, allow_newaxis=True, allow_ellipsis=True)]
    if array.ndim and array.shape[0]:
        rows = st.integers(-array.shape[0], array.shape[0] - 1)
        kinds += [
            st.slices(array.shape[0]),
            st.lists(rows, max_size=6),
            hnp.arrays(np.intp, hnp.array_shapes(max_dims=2, max_side=4), elements=rows),
            hnp.arrays(np.bool_, array.shape[0]),
            hnp.arrays(np.bool_, array.shape),
            st.builds(lambda rows: (rows, ...), st.lists(rows, min_size=1, max_size=4)),
            rows.map(np.int64),
            st.sampled_from([True, False, None, ..., ()]),
        ]
        if array.ndim > 1 and array.shape[1]:
            columns = st.integers(-array.shape[1], array.shape[1] - 1)
            kinds += [
                st.tuples(st.slices(array.shape[0]), st.just(...), st.slices(array.shape[-1])),
                st.tuples(rows, st.lists(columns, max_size=3)),
                st.lists(st.tuples(rows, columns), min_size=1, max_size=4).map(
                    lambda pairs: tuple(map(list, zip(*pairs, strict=True)))
                ),
                st.tuples(st.slices(array.shape[0]), st.lists(columns, max_size=3)),
                st.tuples(hnp.arrays(np.bool_, array.shape[0]), columns),
            ]
    return array, draw(st.lists(st.one_of(kinds), min_size=1, max_size=3))


@given(
    case=arrays_and_indexes(),
    compression=COMPRESSIONS,
    kind=st.sampled_from(["path", "bytes", "BytesIO", "zip"]),
)
@settings(max_examples=500, deadline=None)
def test_open_indexed_is_read_indexed(tmp_path_factory, case, compression, kind):
    array, indexes = case
    file = io.BytesIO()
    idx.write(file, array, compression=compression)
    whole = idx.read(file.getvalue())
    with idx.open(SOURCES[kind](file.getvalue(), tmp_path_factory.mktemp("property"))) as lazy:
        assert lazy.shape == whole.shape
        assert lazy.dtype == whole.dtype
        for index in indexes:
            expected, found = whole[index], lazy[index]
            assert type(found) is type(expected)
            assert found.dtype == expected.dtype
            assert found.dtype.isnative
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(np.asarray(lazy), whole)


@given(array=arrays_of_any_layout(), compression=COMPRESSIONS)
@settings(max_examples=100, deadline=None)
def test_the_same_array_gives_the_same_bytes(array, compression):
    files = [io.BytesIO(), io.BytesIO()]
    idx.write(files[0], array, compression=compression)
    idx.write(
        files[1],
        np.ascontiguousarray(array.astype(array.dtype.newbyteorder("S"))).reshape(array.shape),
        compression=compression,
    )
    assert files[0].getvalue() == files[1].getvalue()
