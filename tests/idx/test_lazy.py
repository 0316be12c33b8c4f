import gzip
import io
import mmap
import os
import struct
import threading

import numpy as np
import pytest

import idx

IMAGES = np.arange(5 * 3 * 4, dtype=np.uint8).reshape(5, 3, 4)
NUMBERS = np.arange(10, dtype=np.int32) * 1000


@pytest.fixture(params=["", ".gz", ".xz"])
def path(request, tmp_path):
    """IMAGES in a file, raw or compressed."""
    path = tmp_path / f"images{request.param}"
    idx.write(path, IMAGES)
    return path


def raw(array):
    file = io.BytesIO()
    idx.write(file, array)
    return file.getvalue()


def test_what_it_knows_without_reading(path):
    with idx.open(path) as lazy:
        assert (lazy.shape, lazy.dtype, lazy.ndim, lazy.size, lazy.nbytes, len(lazy)) == (
            (5, 3, 4),
            np.uint8,
            3,
            60,
            60,
            5,
        )
        assert lazy.header == idx.header(path)
        assert lazy.name == str(path)
        assert lazy.compression == {"": None, ".gz": "gzip", ".xz": "xz"}[path.suffix]


def test_backward_and_forward(path):
    with idx.open(path) as lazy:
        for row in (3, 4, 0, 0, 2, -1):
            assert np.array_equal(lazy[row], IMAGES[row])


@pytest.mark.parametrize(
    "key",
    [
        slice(None, None, -1),
        slice(4, 0, -2),
        slice(3, 1),
        (slice(None, None, -2), 1),
        (slice(1, 4), ..., [0, 2]),
        ([4, 0, 4], slice(None), -1),
        np.array([[0, -1], [2, 2]]),
        np.array([True, False, False, True, True]),
        (np.array([True, False, False, True, False]), 1),
        (..., 2),
        None,
    ],
)
def test_indexes(path, key):
    with idx.open(path) as lazy:
        assert np.array_equal(lazy[key], IMAGES[key])


def test_out_of_range(path):
    with idx.open(path) as lazy:
        for index in (5, -6, [0, 5], (0, 3), np.array([-6])):
            with pytest.raises(IndexError):
                lazy[index]
        with pytest.raises(IndexError):
            lazy[1.5]


def test_iteration(path):
    with idx.open(path) as lazy:
        assert np.array_equal(list(lazy), IMAGES)
        assert [len(chunk) for chunk in lazy.chunks(2)] == [2, 2, 1]
        assert np.array_equal(np.concatenate(list(lazy.chunks())), IMAGES)
        with pytest.raises(ValueError, match="at least 1"):
            next(lazy.chunks(0))


def test_as_an_array(path):
    with idx.open(path) as lazy:
        assert np.array_equal(np.asarray(lazy), IMAGES)
        assert np.asarray(lazy, np.float32).dtype == np.float32
        assert np.array_equal(np.array(lazy) + lazy, 2 * IMAGES)
        assert np.array(lazy, copy=True).flags.writeable


def test_without_dimensions(tmp_path):
    for name in ("x", "x.gz"):
        idx.write(tmp_path / name, np.int16(7))
        with idx.open(tmp_path / name) as lazy:
            assert lazy[()] == 7
            assert [chunk.item() for chunk in lazy.chunks()] == [7]
            for fails in (len, iter, lambda lazy: lazy[0]):
                with pytest.raises((TypeError, IndexError)):
                    list(fails(lazy))


def test_a_raw_file_is_mapped_read_only_and_outlives_close(tmp_path):
    idx.write(tmp_path / "x", IMAGES)
    lazy = idx.open(tmp_path / "x")
    view = lazy[1:3]
    lazy.close()
    assert view.base is not None
    assert not view.flags.writeable
    assert np.array_equal(view, IMAGES[1:3])
    with pytest.raises(ValueError, match="closed"):
        lazy[0]
    assert "closed" in repr(lazy)


def test_mapping_shows_what_the_file_holds_and_copies_nothing(tmp_path):
    idx.write(tmp_path / "x", IMAGES)
    lazy = idx.open(tmp_path / "x")
    view = np.asarray(lazy)
    with (tmp_path / "x").open("r+b") as file:
        file.seek(16)
        file.write(b"\xaa")
    assert view[0, 0, 0] == 0xAA
    assert np.shares_memory(np.asarray(lazy, copy=False), view)


def test_native_order_on_access(tmp_path):
    idx.write(tmp_path / "x", NUMBERS)
    with idx.open(tmp_path / "x") as lazy:
        assert lazy[2:4].dtype.isnative
        assert lazy[3] == 3000
        assert np.asarray(lazy).dtype.isnative
        with pytest.raises(ValueError, match="without a copy"):
            np.asarray(lazy, copy=False)


def test_a_file_object_is_mapped_from_where_it_stands(tmp_path):
    (tmp_path / "x").write_bytes(b"before" + raw(NUMBERS) + b"after")
    with (tmp_path / "x").open("rb") as file:
        file.seek(6)
        with idx.open(file, trailing="ignore") as lazy:
            assert "mapped" in repr(lazy)
            assert lazy[9] == 9000
        assert not file.closed


class Forward(io.RawIOBase):
    """A pipe that counts what has been read from it."""

    def __init__(self, data):
        self._rest = io.BytesIO(data)
        self.count = 0

    def readable(self):
        return True

    def readinto(self, target):
        count = self._rest.readinto(target)
        self.count += count
        return count


def test_a_pipe_goes_forward_only():
    for data in (raw(NUMBERS), gzip.compress(raw(NUMBERS))):
        with idx.open(Forward(data)) as lazy:
            assert lazy[3:5].tolist() == [3000, 4000]
            assert lazy[7] == 7000
            with pytest.raises(io.UnsupportedOperation, match=r"cannot go back.*idx\.read"):
                lazy[6]


def test_opening_and_the_first_rows_read_no_more_than_they_need():
    data = gzip.compress(raw(np.random.default_rng(0).integers(0, 256, (1000, 1000), np.uint8)))
    pipe = Forward(data)
    with idx.open(pipe) as lazy:
        opening = pipe.count
        first = lazy[:10]
    assert first.shape == (10, 1000)
    assert opening < 40_000
    assert pipe.count < 80_000


def test_a_checksum_is_verified_when_the_end_is_reached():
    data = bytearray(gzip.compress(raw(NUMBERS)))
    data[-5] ^= 1
    with idx.open(data) as lazy:
        assert lazy[:9].tolist() == NUMBERS[:9].tolist()
        for _ in range(2):  # a failed access is no better the second time
            with pytest.raises(idx.DamagedCompressionError):
                lazy[9]


def test_an_end_without_elements_before_it_is_checked_too():
    for array in (np.empty((0, 3), np.uint8), np.empty((2, 0), np.uint8)):
        damaged = bytearray(gzip.compress(raw(array)))
        damaged[-5] ^= 1
        for data, error in (
            (gzip.compress(raw(array) + b"a"), idx.TrailingBytesError),
            (damaged, idx.DamagedCompressionError),
        ):
            with pytest.raises(error), idx.open(data) as lazy:
                np.asarray(lazy)


def test_iterating_over_nothing_verifies_the_end():
    data = gzip.compress(raw(np.empty((0, 3), np.uint8)) + b"a")
    with pytest.raises(idx.TrailingBytesError), idx.open(data) as lazy:
        list(lazy)
    assert [chunk.shape for chunk in idx.open(raw(np.empty((0, 3), np.uint8))).chunks()] == [(0, 3)]


def test_a_compressed_map_of_memory_can_be_read_again(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(raw(NUMBERS)))
    with (
        (tmp_path / "x.gz").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as source,
    ):
        with idx.open(source) as lazy:
            assert lazy[[7, 2, 5]].tolist() == [7000, 2000, 5000]
            assert lazy[1] == 1000
        del lazy


def test_what_is_wrong_with_a_raw_file_shows_on_opening():
    for data, error in (
        (raw(NUMBERS)[:-1], idx.TruncatedError),
        (raw(NUMBERS) + b"a", idx.TrailingBytesError),
        (b"\0\0\x08" + bytes([65]) + struct.pack(">65I", *[1] * 65) + b"a", idx.TooLargeError),
    ):
        with pytest.raises(error):
            idx.open(data)


def test_one_access_takes_no_more_than_max_bytes():
    with idx.open(gzip.compress(raw(NUMBERS)), max_bytes=8) as lazy:
        assert lazy[2:4].tolist() == [2000, 3000]
        for index in (slice(0, 3), [0, 5, 9], ...):
            with pytest.raises(idx.TooLargeError, match="expected at most 8"):
                lazy[index]


def test_a_claim_of_billions_costs_nothing():
    data = gzip.compress(b"\0\0\x08\x02" + struct.pack(">II", 0xFFFFFFFF, 1) + b"abc")
    with idx.open(data) as lazy:
        assert lazy[:3].tolist() == [[97], [98], [99]]
        with pytest.raises(idx.TruncatedError, match="offset 15"):
            lazy[2_000_000_000]


def test_memory_given_as_bytes_is_not_copied():
    data = bytearray(raw(IMAGES))
    lazy = idx.open(data)
    data[16] = 99
    assert lazy[0, 0, 0] == 99
    assert not lazy[0].flags.writeable


def test_a_file_object_that_others_have_moved(tmp_path):
    for data in (raw(NUMBERS), gzip.compress(raw(NUMBERS))):
        for file in (
            io.BytesIO(b"ab" + data),
            gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b"ab" + data))),
        ):
            file.seek(2)
            lazy = idx.open(file)
            for rows in (slice(3), slice(2, 6), slice(1, 3)):
                file.seek(11)
                assert lazy[rows].tolist() == NUMBERS[rows].tolist()


def test_a_compressed_file_that_was_replaced_stays_what_it_was(tmp_path):
    idx.write(tmp_path / "x.gz", NUMBERS)
    with idx.open(tmp_path / "x.gz") as lazy:
        assert lazy[5] == 5000
        idx.write(tmp_path / "x.gz", IMAGES)
        assert lazy[0] == 0
        assert lazy[1].dtype == np.int32


def test_a_compressed_file_that_was_written_over_is_an_error(tmp_path):
    idx.write(tmp_path / "x.gz", NUMBERS)
    with idx.open(tmp_path / "x.gz") as lazy:
        assert lazy[5] == 5000
        (tmp_path / "x.gz").write_bytes(gzip.compress(raw(IMAGES)))
        with pytest.raises(idx.IdxError, match="as when it was opened"):
            lazy[0]


def test_a_named_pipe_goes_forward_only(tmp_path):
    os.mkfifo(tmp_path / "x")
    writer = threading.Thread(target=(tmp_path / "x").write_bytes, args=[gzip.compress(raw(NUMBERS))])
    writer.start()
    with idx.open(tmp_path / "x") as lazy:
        assert lazy[5] == 5000
        with pytest.raises(io.UnsupportedOperation, match="cannot go back"):
            lazy[0]
    writer.join()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u8"])
def test_indexes_of_any_integer_type(dtype):
    array = np.arange(300, dtype=np.int32)
    with idx.open(gzip.compress(raw(array))) as lazy:
        assert lazy[np.array([4, 1], dtype)].tolist() == [4, 1]


def test_steps_and_lists_over_many_blocks(tmp_path):
    array = np.arange(3000 * 1000, dtype=np.int32).reshape(3000, 1000)
    data = gzip.compress(raw(array), 1)
    with idx.open(data, max_bytes=8 << 20) as lazy:
        for key in (slice(1, None, 2), slice(None, None, -700), [2999, 0, 1, 700, 0], np.arange(0, 3000, 3)):
            assert np.array_equal(lazy[key], array[key])


def test_a_step_takes_few_reads(monkeypatch):
    data = gzip.compress(raw(np.zeros((10_000, 4), np.uint8)))
    with idx.open(data) as lazy:
        from idx import forward

        calls = []
        read_elements = forward.read_elements
        monkeypatch.setattr(forward, "read_elements", lambda *args: calls.append(1) or read_elements(*args))
        assert lazy[::2].shape == (5000, 4)
    assert len(calls) == 1


def test_billions_of_empty_rows_take_no_time():
    data = gzip.compress(b"\0\0\x08\x02" + struct.pack(">II", 0xFFFFFFFF, 0))
    with idx.open(data) as lazy:
        assert lazy[::2].shape == (1 << 31, 0)
        assert lazy[[7, 3, 0]].shape == (3, 0)


def test_a_claim_that_numpy_cannot_hold():
    data = gzip.compress(b"\0\0\x0e\x02" + struct.pack(">II", 0xFFFFFFFF, 0x7FFFFFFF))
    with idx.open(data, max_bytes=10**30) as lazy, pytest.raises(idx.TooLargeError, match="no memory"):
        lazy[::2]


def test_several_threads():
    array = np.arange(300_000, dtype=np.int32).reshape(300, 1000)
    lazy = idx.open(gzip.compress(raw(array), 1))
    wrong = []

    def reads(seed):
        for row in np.random.default_rng(seed).integers(0, 300, 60).tolist():
            try:
                if not np.array_equal(lazy[row], array[row]):
                    wrong.append(row)
            except idx.IdxError as error:
                wrong.append(error)

    threads = [threading.Thread(target=reads, args=[seed]) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
