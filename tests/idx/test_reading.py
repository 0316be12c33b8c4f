import bz2
import gzip
import io
import lzma
import struct
import tempfile
import zipfile

import numpy as np
import pytest

import idx

ALL_TYPES = [
    (0x08, "B", np.uint8, [0, 1, 255]),
    (0x09, "b", np.int8, [-128, 0, 127]),
    (0x0B, "h", np.int16, [-32768, 1, 32767]),
    (0x0C, "i", np.int32, [-(2**31), 7, 2**31 - 1]),
    (0x0D, "f", np.float32, [-1.5, 0.0, float("inf")]),
    (0x0E, "d", np.float64, [-1.5, 1e300, 2.0**-1074]),
]


def file_of(code=0x08, sizes=(3,), payload=b"abc"):
    return struct.pack(f">HBB{len(sizes)}I", 0, code, len(sizes), *sizes) + payload


@pytest.mark.parametrize(("code", "letter", "dtype", "values"), ALL_TYPES)
def test_each_type_is_read_big_endian_into_native_order(code, letter, dtype, values):
    array = idx.read(file_of(code, (3,), struct.pack(f">3{letter}", *values)))
    assert array.dtype == dtype
    assert array.dtype.isnative
    assert array.tolist() == values
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_no_dimensions_are_one_element():
    array = idx.read(file_of(0x0C, (), struct.pack(">i", 7)))
    assert array.shape == ()
    assert array == 7


@pytest.mark.parametrize("sizes", [(0,), (3, 0, 2), (0, 0xFFFFFFFF), (1,) * 64])
def test_shapes_at_the_edges(sizes):
    payload = b"" if 0 in sizes else b"\x05"
    assert idx.read(file_of(0x08, sizes, payload)).shape == sizes


def test_a_result_shares_no_memory_with_its_source():
    source = bytearray(file_of())
    array = idx.read(source)
    source[8:] = b"xyz"
    assert array.tobytes() == b"abc"


@pytest.mark.parametrize("sizes", [(1,) * 65, (1,) * 255, (0, *[0xFFFFFFFF] * 3), (0,) * 65])
def test_what_numpy_cannot_hold_has_a_header_and_no_array(sizes):
    data = file_of(0x08, sizes, b"" if 0 in sizes else b"a")
    assert idx.header(data).shape == sizes
    with pytest.raises(
        idx.TooLargeError, match="dimensions, expected at most" if len(sizes) > 64 else "NumPy"
    ):
        idx.read(data)


COMPRESSIONS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_compression_is_recognised_by_content(name, tmp_path):
    path = tmp_path / "no-suffix"
    path.write_bytes(COMPRESSIONS[name](file_of()))
    assert idx.read(path).tobytes() == b"abc"


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_members_one_after_the_other_padded_with_zeros(name):
    compress = COMPRESSIONS[name]
    whole = file_of(0x08, (70_000,), bytes(range(250)) * 280)
    parts = [
        compress(b""),
        compress(whole[:6]),
        compress(whole[6:40_000]),
        compress(b""),
        compress(whole[40_000:]),
    ]
    assert idx.read(b"".join(parts)).tobytes() == whole[8:]
    assert idx.read(b"\0\0\0\0".join(parts) + bytes(100_000)).tobytes() == whole[8:]


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_bytes_after_a_compressed_stream(name):
    data = COMPRESSIONS[name](file_of()) + b"\0\0garbage"
    with pytest.raises(idx.TrailingBytesError, match="67 61 72 62 after the"):
        idx.read(data)
    assert idx.read(data, trailing="ignore").tobytes() == b"abc"


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_every_cut_of_a_compressed_stream_is_noticed(name):
    data = COMPRESSIONS[name](file_of())
    for length in range(len(data)):
        with pytest.raises(idx.IdxError):
            idx.read(data[:length])


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_checksums_are_verified_whatever_follows(name):
    data = bytearray(COMPRESSIONS[name](file_of()))
    position = len(data) - (6 if name == "gzip" else 24 if name == "xz" else 3)
    data[position] ^= 0x10
    for trailing in ("error", "ignore"):
        with pytest.raises(idx.DamagedCompressionError):
            idx.read(data, trailing=trailing)


def test_kinds_of_source(tmp_path):
    data = file_of()
    path = tmp_path / "x"
    path.write_bytes(data)
    with path.open("rb") as buffered, path.open("rb", buffering=0) as raw:
        sources = [
            str(path),
            path,
            data,
            bytearray(data),
            memoryview(data),
            memoryview(bytes(2 * byte_ for byte_ in b"")) or data,
            np.frombuffer(data, np.uint8),
            np.repeat(np.frombuffer(data, np.uint8), 2)[::2],
            io.BytesIO(data),
            buffered,
            raw,
            OnlyRead(data),
            OneByteAtATime(data),
        ]
        for source in sources:
            assert idx.read(source).tobytes() == b"abc", source


class OnlyRead:
    """A file object as an HTTP response may be: it can be read forward and nothing else."""

    def __init__(self, data):
        self._rest = io.BytesIO(data)

    def read(self, size=-1):
        return self._rest.read(size)


class OneByteAtATime(io.RawIOBase):
    def __init__(self, data):
        self._data = data
        self.position = 0

    def readable(self):
        return True

    def readinto(self, target):
        block = self._data[self.position : self.position + 1]
        target[: len(block)] = block
        self.position += len(block)
        return len(block)


def test_a_file_object_is_read_from_where_it_stands_and_no_further(tmp_path):
    first, second = file_of(), file_of(0x09, (2,), b"\x01\x02")
    path = tmp_path / "two"
    path.write_bytes(b"before" + first + second)
    with path.open("rb") as on_disk:
        for file in (
            on_disk,
            io.BytesIO(b"before" + first + second),
            OneByteAtATime(b"before" + first + second),
        ):
            assert b"".join(file.read(1) for _ in range(6)) == b"before"
            assert idx.read(file, trailing="ignore").tobytes() == b"abc"
            assert idx.read(file).tolist() == [1, 2]


def test_header_leaves_a_file_object_where_it_stood():
    for data in (file_of(), gzip.compress(file_of())):
        file = io.BytesIO(b"??" + data)
        file.seek(2)
        assert idx.header(file) == idx.Header(np.dtype(np.uint8), (3,))
        assert file.tell() == 2


def test_header_leaves_a_temporary_file_where_it_stood():
    with tempfile.NamedTemporaryFile() as file:  # not an io.IOBase
        file.write(b"??" + file_of())
        file.seek(2)
        assert idx.header(file).shape == (3,)
        assert idx.read(file).tobytes() == b"abc"


def test_a_text_file_object_is_wrong_usage():
    with pytest.raises(TypeError, match="'rb'"):
        idx.read(io.StringIO("text"))
    with pytest.raises(TypeError, match="expected a path"):
        idx.read(3)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        idx.read(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        idx.read(f"{tmp_path}/missing.zip!member")


def test_an_unknown_choice_is_wrong_usage():
    with pytest.raises(ValueError, match="trailing must be"):
        idx.read(file_of(), trailing="maybe")


class TestZip:
    def archive(self, path, members, method=zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path

    def test_a_member_by_name_compressed_itself_or_not(self, tmp_path):
        path = self.archive(
            tmp_path / "a.zip", {"d/x.gz": gzip.compress(file_of()), "y": file_of(payload=b"xyz")}
        )
        assert idx.read(f"{path}!d/x.gz").tobytes() == b"abc"
        assert idx.read(f"{path}!y").tobytes() == b"xyz"

    def test_the_only_member_needs_no_name(self, tmp_path):
        path = self.archive(tmp_path / "a!b", {"x": file_of()}, zipfile.ZIP_STORED)
        for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
            assert idx.read(source).tobytes() == b"abc"

    def test_a_file_whose_name_has_an_exclamation_mark(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(b"")
        (tmp_path / "a.zip!x").write_bytes(file_of())
        assert idx.read(tmp_path / "a.zip!x").tobytes() == b"abc"

    @pytest.mark.parametrize(
        ("member", "message"),
        [
            ("!z", "has no such member, expected one of: x, y"),
            ("", "of 2 files \\(x, y\\), expected the name"),
        ],
    )
    def test_which_member_is_not_clear(self, tmp_path, member, message):
        path = self.archive(tmp_path / "a.zip", {"x": file_of(), "y": file_of()})
        with pytest.raises(idx.BadMagicError, match=message):
            idx.read(f"{path}{member}")

    def test_an_npz_is_told(self, tmp_path):
        np.savez(tmp_path / "a.npz", np.arange(3))
        with pytest.raises(idx.BadMagicError, match=r"NumPy .npz"):
            idx.read(tmp_path / "a.npz")

    def test_a_damaged_member_or_directory(self, tmp_path):
        whole = self.archive(tmp_path / "a.zip", {"x": file_of()}, zipfile.ZIP_STORED).read_bytes()
        member = whole.replace(b"abc", b"abd")
        with pytest.raises(idx.DamagedCompressionError, match="member is damaged"):
            idx.read(member)
        with pytest.raises(idx.DamagedCompressionError, match="archive is damaged"):
            idx.read(whole[:-5])

    def test_methods_that_zipfile_inflates_without_bound_are_refused(self, tmp_path):
        path = self.archive(tmp_path / "a.zip", {"x": file_of()}, zipfile.ZIP_BZIP2)
        with pytest.raises(idx.DamagedCompressionError, match="zip method 12"):
            idx.read(path)

    def test_not_a_zip_after_all(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(file_of())
        with pytest.raises(idx.BadMagicError, match="expected a zip archive"):
            idx.read(f"{tmp_path}/a.zip!x")


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", idx.TruncatedError, "found nothing"),
        (gzip.compress(b""), idx.TruncatedError, "found nothing"),
        (b"\0\0\x08", idx.TruncatedError, "at least 4 bytes"),
        (file_of()[:6], idx.TruncatedError, "offset 6: found the end, expected a header of 8 bytes"),
        (
            file_of(payload=b"ab"),
            idx.TruncatedError,
            "offset 10: found the end, expected 11 bytes: uint8 .3,.",
        ),
        (gzip.compress(file_of(payload=b"ab")), idx.TruncatedError, "offset 10: found the end, expected 11"),
        (file_of(payload=b"abcde"), idx.TrailingBytesError, "offset 11: found 2 more bytes"),
        (gzip.compress(file_of(payload=b"abcde")), idx.TrailingBytesError, "offset 11: found more bytes"),
        (file_of(0x0A), idx.UnknownTypeError, "offset 2: found type 0x0A, expected one of 0x08 uint8"),
        (b"\1" + file_of()[1:], idx.BadMagicError, "offset 0: found 01 00 08 01; expected 00 00"),
        (b"\x03\x08\0\0" + bytes(12), idx.BadMagicError, "a little-endian IDX header .uint8, 3 dimensions."),
        (b"\0\0\x08\x01\x03\0\0\0abc", idx.TruncatedError, "sizes seem to be little-endian: .3,."),
        (b" \n<!DOCTYPE html><html>", idx.BadMagicError, "HTML"),
        (b"\xef\xbb\xbf<html>", idx.BadMagicError, "HTML"),
        (b"\x51\x4c\x3d\x1e" + bytes(16), idx.BadMagicError, 'NORB "matrix" file .float32.'),
        (b"\x1e\x3d\x4c\x55" + bytes(16), idx.BadMagicError, 'NORB "matrix" file .uint8.'),
        (b"\x93NUMPY\x01\0", idx.BadMagicError, "numpy.load"),
        (b"version https://git-lfs.github.com/spec/v1\n", idx.BadMagicError, "git lfs pull"),
        (b"label,pixel0,pixel1\n5,0,0\n", idx.BadMagicError, "a text file"),
        (gzip.compress(gzip.compress(file_of())), idx.BadMagicError, "gzip data inside .* compressed twice"),
        (lzma.compress(bz2.compress(file_of())), idx.BadMagicError, "bzip2 data inside .* compressed twice"),
        (b"\x1f\x8b\x08\0not gzip at all", idx.DamagedCompressionError, "gzip stream is damaged"),
    ],
)
def test_what_is_wrong_is_said(data, error, message):
    with pytest.raises(error, match=message) as caught:
        idx.read(data)
    assert "<bytes>" in str(caught.value)
    assert isinstance(caught.value, idx.IdxError)
    assert isinstance(caught.value, ValueError)


def test_an_html_page_saved_as_gz_names_the_file(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"<html><title>404 Not Found</title>")
    with pytest.raises(idx.BadMagicError, match=r"train-images-idx3-ubyte\.gz: offset 0: .*HTML"):
        idx.read(path)


def test_images_where_labels_were_expected():
    images = file_of(0x08, (1, 1, 3))
    assert idx.read(images, ndim=3).shape == (1, 1, 3)
    with pytest.raises(
        idx.WrongShapeError, match=r"found 3 dimensions \(grey images\).*expected 1 dimension \(labels\)"
    ):
        idx.read(images, ndim=1)


def test_max_bytes_is_the_size_of_the_array():
    for data in (file_of(), gzip.compress(file_of())):
        assert idx.read(data, max_bytes=3).nbytes == 3
        with pytest.raises(idx.TooLargeError, match="found an array of 3 bytes, expected at most 2"):
            idx.read(data, max_bytes=2)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_and_fashion_mnist(shared, name):
    images = idx.read(shared / name / "train-images-idx3-ubyte.gz")
    labels = idx.read(shared / name / "train-labels-idx1-ubyte.gz", ndim=1)
    assert images.shape == (60000, 28, 28)
    assert images.dtype == np.uint8
    assert np.bincount(labels).sum() == 60000
    with gzip.open(shared / name / "train-images-idx3-ubyte.gz") as file:
        assert file.read()[16:] == images.tobytes()


def test_int32_labels_of_qmnist_in_gzip(shared):
    labels = idx.read(shared / "qmnist" / "qmnist-train-labels-idx2-int.gz")
    assert labels.shape == (60000, 8)
    assert labels.dtype == np.int32
    assert labels[0].tolist() == [5, 4, 2154, 59, 35, 229421, 0, 0]
    assert set(labels[:, 0].tolist()) == set(range(10))
    mnist = idx.read(shared / "mnist" / "train-labels-idx1-ubyte.gz")
    assert np.array_equal(labels[:, 0], mnist)


def test_int32_labels_of_xnist_in_xz(shared):
    labels = idx.read(shared / "qmnist" / "xnist-labels-idx2-int.xz")
    assert labels.shape == (402953, 8)
    assert set(labels[:, 0].tolist()) == set(range(10))


@pytest.mark.parametrize("function", [idx.read, idx.header, idx.verify, lambda file: idx.open(file)[...]])
def test_a_damaged_file_object_of_another_library(function):
    data = gzip.compress(b"\0\0\x08\1\0\0\0\3abc")
    for damaged in (data[:14], data[:12] + b"\xff" * 8, b"junk" + data):
        with pytest.raises(idx.DamagedCompressionError, match="file object is damaged"):
            function(gzip.GzipFile(fileobj=io.BytesIO(damaged)))


def test_a_damaged_zip_archive_is_said_in_words_of_ours():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", b"\0\0\x08\0a")
    data = file.getvalue()
    with pytest.raises(idx.DamagedCompressionError, match="its structure is wrong"):
        idx.read(data[:4] + data[data.index(b"PK\5\6") :])


def test_an_empty_source_has_an_offset_too():
    with pytest.raises(idx.TruncatedError, match="<bytes>: offset 0: found nothing"):
        idx.read(b"")
