import errno
import gzip
import io
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import idx

ROOT = Path(__file__).resolve().parents[2]
ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def written(array, **options):
    file = io.BytesIO()
    idx.write(file, array, **options)
    return file.getvalue()


def test_the_bytes_of_a_file():
    assert written(np.array([[1, -2]], np.int16)) == bytes.fromhex("00000b02 00000001 00000002 0001 fffe")
    assert written(np.float32(1.5)) == bytes.fromhex("00000d00 3fc00000")


@pytest.mark.parametrize("dtype", [">i2", "<i2", ">f8", "<f8", "u1"])
def test_any_byte_order_and_strides(dtype):
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)
    for view in (
        array,
        array.T,
        array[::-1, ::2, 1:],
        array.transpose(1, 0, 2),
        np.broadcast_to(array[0, 0, 0], (3, 2)),
    ):
        assert idx.read(written(view)).tolist() == view.tolist()


def test_64_dimensions():
    array = np.full((1,) * 63 + (2,), 3, np.float64)
    assert idx.read(written(array)).shape == array.shape
    assert idx.read(written(array[..., ::-1])).shape == array.shape


def test_larger_than_a_block():
    array = np.arange(3_000_000, dtype=np.float32).reshape(3, 1000, 1000).transpose(2, 0, 1)
    assert np.array_equal(idx.read(written(array)), array)


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".GZ"])
def test_compression_by_suffix(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    idx.write(path, ARRAY)
    beginning = {
        "": b"\0\0\x08\x03",
        ".gz": b"\x1f\x8b",
        ".bz2": b"BZh",
        ".xz": b"\xfd7zXZ",
        ".GZ": b"\x1f\x8b",
    }
    assert path.read_bytes().startswith(beginning[suffix])
    assert np.array_equal(idx.read(path), ARRAY)


def test_compression_by_argument(tmp_path):
    idx.write(tmp_path / "x.gz", ARRAY, compression="none")
    assert (tmp_path / "x.gz").stat().st_size == 16 + 24
    assert gzip.decompress(written(ARRAY, compression="gzip")) == written(ARRAY)
    with pytest.raises(ValueError, match="compression must be"):
        written(ARRAY, compression="zstd")
    with pytest.raises(idx.UnsupportedArrayError, match="does not write"):
        idx.write(tmp_path / "x.zip", ARRAY)


@pytest.mark.parametrize("compression", ["none", "gzip", "bzip2", "xz"])
def test_the_same_array_gives_the_same_bytes(tmp_path, compression, monkeypatch):
    first = written(ARRAY, compression=compression)
    monkeypatch.setattr("time.time", lambda: 1e9)
    idx.write(tmp_path / "with-a-name", ARRAY, compression=compression)
    assert (tmp_path / "with-a-name").read_bytes() == first


class FailsAt:
    """A file object that fails when more than ``limit`` bytes have been written."""

    def __init__(self, limit):
        self.limit = limit

    def write(self, data):
        self.limit -= memoryview(data).nbytes
        if self.limit < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x"
    idx.write(path, ARRAY)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as raised:
        idx.write(path, ARRAY[::-1])
    assert raised.value.filename == str(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="No space"):
        idx.write(FailsAt(20), ARRAY)


WRITE_FOR_EVER = """
import sys, numpy as np, idx
arrays = [np.full((1 << 24), value, np.uint8) for value in (1, 2)]
while True:
    for array in arrays:
        idx.write(sys.argv[1], array)
"""


def test_a_crash_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "x"
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(path)], cwd=ROOT) as process:
            while not (path.exists() and list(tmp_path.glob("*.tmp"))):
                time.sleep(0.001)
            process.kill()
        array = idx.read(path)
        assert len(array) == 1 << 24
        assert array.min() == array.max()


def test_an_array_that_cannot_be_stored_leaves_nothing(tmp_path):
    with pytest.raises(idx.UnsupportedArrayError):
        idx.write(tmp_path / "x", np.array(["a"]))
    assert list(tmp_path.iterdir()) == []


def test_sizes_beyond_32_bits_are_refused(tmp_path):
    with pytest.raises(idx.UnsupportedArrayError, match="sizes of at most 4294967295"):
        idx.write(tmp_path / "x", np.empty((0, 2**32), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_large_files_and_long_names(tmp_path):
    array = np.arange(1_000_000, dtype=np.int16)
    path = tmp_path / ("x" * 255)
    idx.write(path, array)
    assert path.stat().st_size == 8 + array.nbytes
    assert np.array_equal(idx.read(path), array)


def test_permissions_are_those_of_the_umask_or_of_the_old_file(tmp_path):
    path = tmp_path / "x"
    before = os.umask(0o027)
    try:
        idx.write(path, ARRAY)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        idx.write(path, ARRAY)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    idx.write(tmp_path / "link", ARRAY)
    assert (tmp_path / "link").is_symlink()
    assert np.array_equal(idx.read(tmp_path / "file"), ARRAY)


def test_errors_name_the_target_and_not_the_temporary_file(tmp_path):
    path = tmp_path / "missing" / "x"
    with pytest.raises(FileNotFoundError) as raised:
        idx.write(path, ARRAY)
    assert raised.value.filename == str(path)
    with pytest.raises(idx.UnsupportedArrayError, match=r"missing/x: found 300 at \[0\]"):
        idx.write(path, np.array([300]), dtype="u1")


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_device_is_named():
    with pytest.raises(OSError, match="No space") as raised:
        idx.write("/dev/full", ARRAY)
    assert raised.value.filename == "/dev/full"


def test_a_private_file_is_replaced_by_one_that_was_never_public(tmp_path, monkeypatch):
    path = tmp_path / "x"
    idx.write(path, ARRAY)
    path.chmod(0o600)
    modes = []
    chmod = Path.chmod

    def spy(self, mode):
        modes.append(stat.S_IMODE(self.stat().st_mode))
        chmod(self, mode)

    monkeypatch.setattr(Path, "chmod", spy)
    idx.write(path, ARRAY)
    assert modes == [0o600]


def test_the_folder_is_on_the_disk_too(tmp_path, monkeypatch):
    kinds = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: kinds.append(stat.S_IFMT(os.fstat(fd).st_mode)) or fsync(fd))
    idx.write(tmp_path / "x", ARRAY, sync=False)
    assert kinds == []
    idx.write(tmp_path / "x", ARRAY)
    assert kinds == [stat.S_IFREG, stat.S_IFDIR]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/stdout is a link into /proc on Linux alone")
def test_standard_output_by_name(tmp_path):
    code = "import idx, numpy as np; idx.write('/dev/stdout', np.ones(3 << 20, 'u1'))"
    expected = written(np.ones(3 << 20, "u1"))
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout == expected
    path = tmp_path / "x"
    path.write_bytes(b"before")
    with path.open("ab") as file:
        subprocess.run(command, cwd=ROOT, stdout=file, check=True)
    assert path.read_bytes() == b"before" + expected
    with path.open("wb") as file:
        subprocess.run(command, cwd=ROOT, stdout=file, check=True)
    assert path.read_bytes() == expected


def test_a_device_is_written_to_and_not_replaced():
    idx.write("/dev/null", ARRAY)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


class ThreeBytesAtATime(io.RawIOBase):
    def __init__(self):
        self.data = b""

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data[:3])
        return len(data[:3])


@pytest.mark.parametrize("compression", ["none", "gzip", "xz"])
def test_a_file_object_that_takes_a_part_at_a_time(compression):
    file = ThreeBytesAtATime()
    idx.write(file, ARRAY, compression=compression)
    assert np.array_equal(idx.read(file.data), ARRAY)
    assert not file.closed
