import io

import numpy as np
import pytest
from PIL import Image

import idx
from idx.convert import kind_of, load, save

ARRAYS = [
    np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    np.array([5, 0, 4], np.uint8),
    np.array([[-1.5, np.inf], [0.1, np.nan]], np.float32),
    np.array([[1e-300, 1 / 3]]),
    np.array([[2**31 - 1, -(2**31)]], np.int32),
    np.zeros((0, 3), np.int16),
    np.array(7, np.int8),
    np.array([0.0, -0.0]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
@pytest.mark.parametrize("name", ["x", "x.gz", "x.npy", "x.npz", "x.csv"])
def test_there_and_back_loses_nothing(tmp_path, array, name):
    path = str(tmp_path / name)
    save(path, array)
    result = load(path)
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("shape", [(12, 5, 4), (3, 5, 4, 3)])
def test_pictures_there_and_back(tmp_path, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    save(f"{tmp_path}/new/", array)
    assert sorted(path.name for path in (tmp_path / "new").iterdir())[-1] == f"{shape[0] - 1:05}.png"
    assert np.array_equal(load(str(tmp_path / "new")), array)


def test_pictures_in_natural_order(tmp_path):
    for number in (10, 9, 1):
        Image.fromarray(np.full((2, 2), number, np.uint8)).save(tmp_path / f"digit{number}.png")
    assert load(str(tmp_path))[:, 0, 0].tolist() == [1, 9, 10]


def test_kinds():
    names = {
        "a": "idx",
        "a.gz": "idx",
        "a.npy": "npy",
        "a.NPZ": "npz",
        "a.npz!x": "npz",
        "a.csv": "csv",
        "a/": "png",
    }
    assert {name: kind_of(name) for name in names} == names


def test_types_that_idx_has_not_are_converted_when_nothing_is_lost(tmp_path):
    save(str(tmp_path / "x"), np.array([1, 2], np.int64))
    assert idx.read(tmp_path / "x").dtype == np.int32
    with pytest.raises(idx.UnsupportedArrayError):
        save(str(tmp_path / "x"), np.array([2**40]))


def test_csv_of_others(tmp_path):
    path = tmp_path / "x.csv"
    for text, dtype, values in (
        ("label,pixel0\n5,255\n3,0\n", np.uint8, [[5, 255], [3, 0]]),
        ("5\n-3\n", np.int8, [5, -3]),
        ("300,1\n", np.int16, [[300, 1]]),
        ("100000,1\n", np.int32, [[100000, 1]]),
        ("0.5,1\n", np.float64, [[0.5, 1]]),
        ("3000000000,1\n", np.float64, [[3e9, 1]]),
        ("nan,1\n", np.float64, [[np.nan, 1]]),
        ("9007199254740993\n", np.int64, [2**53 + 1]),
        ("18446744073709551615\n", np.uint64, [2**64 - 1]),
        ("# c\n" * 30_000 + "1,2\n3,4\n", np.uint8, [[1, 2], [3, 4]]),
        ("\ufeff1,2\n3,4\n", np.uint8, [[1, 2], [3, 4]]),
        ("\ufeff# idx int16 2\n3\n4\n", np.int16, [3, 4]),
    ):
        path.write_text(text)
        result = load(str(path))
        assert result.dtype == dtype, text
        np.testing.assert_array_equal(result, values)


def test_csv_keeps_the_sign_of_zero_and_types_that_idx_has_not(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("-0.0,1\n")
    assert np.signbit(load(str(path))).tolist() == [[True, False]]
    array = np.array([[2**63 - 1, -(2**63)]])
    save(str(path), array)
    assert load(str(path)).tolist() == array.tolist()


def test_types_that_csv_has_not(tmp_path):
    save(str(tmp_path / "x.csv"), np.array([True, False]))
    assert load(str(tmp_path / "x.csv")).tolist() == [1, 0]
    for array in (np.array([1j]), np.array(["a"]), np.array([0.1], np.longdouble)):
        with pytest.raises(idx.UnsupportedArrayError, match="expected integers or floats"):
            save(str(tmp_path / "y.csv"), array)
    assert not (tmp_path / "y.csv").exists()


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3\n",
        "1,x\n",
        "a\nb\nc\n",
        "",
        "\n\n",
        "garbage",
        "1;2;3",
        "# idx uint8 5\n1\n",
        "# idx uint8 1\n300\n",
        "# idx uint8 1\n0.5\n",
        "# idx complex64 1\n1\n",
        "# idx uint8 (1,)\n1\n",
        "# idx uint8 99999999999999999999999\n1\n",
    ],
)
def test_csv_that_is_not_a_table_of_numbers(tmp_path, text):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(idx.IdxError, match=r"x\.csv: expected rows of numbers"):
        load(str(path))


def test_numpy_files_that_hold_something_else(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=[1], b=[2])
    (tmp_path / "not.npy").write_bytes(b"text")
    (tmp_path / "not.npz").write_bytes(b"PK\x03\x04text")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("objects.npy", "not.npy", "not.npz", "empty.npy", "two.npz!c"):
        with pytest.raises(idx.IdxError, match=name.partition("!")[0]):
            load(str(tmp_path / name))
    with pytest.raises(idx.IdxError, match=r"found 2 arrays \(a, b\), expected the name of one"):
        load(str(tmp_path / "two.npz"))
    assert load(str(tmp_path / "two.npz!b")).tolist() == [2]


def npy(header):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


def damaged_npz():
    file = io.BytesIO()
    np.savez_compressed(file, np.arange(1000))
    data = bytearray(file.getvalue())
    data[60] ^= 0xFF
    return bytes(data)


def changed_npz(offset, value):
    file = io.BytesIO()
    np.savez(file, np.arange(3))
    data = bytearray(file.getvalue())
    for magic, place in ((b"PK\3\4", offset), (b"PK\1\2", offset + 2)):
        data[data.index(magic) + place] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999999,)}")),
        ("x.npy", npy("((((")),
        ("x.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (999999999999999,)}")),
        ("x.npz", damaged_npz()),
        ("x.npz", changed_npz(6, 1)),  # encrypted
        ("x.npz", changed_npz(8, 97)),  # a method that zipfile does not know
    ],
)
def test_damaged_numpy_files(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(idx.IdxError, match=name):
        load(str(tmp_path / name))


@pytest.mark.parametrize("name", ["x.png", "x.csv.gz", "x.npy.xz", "x.NPZ.bz2"])
def test_a_name_of_another_format_is_not_given_to_idx(tmp_path, name):
    with pytest.raises(idx.UnsupportedArrayError, match="expected a name for IDX"):
        save(str(tmp_path / name), np.zeros(3, np.uint8))
    assert list(tmp_path.iterdir()) == []


class TestPicturesThatDoNotFit:
    def test_arrays(self, tmp_path):
        for array in (np.zeros(3, np.uint8), np.zeros((1, 2, 2)), np.zeros((0, 2, 2), np.uint8)):
            with pytest.raises(idx.UnsupportedArrayError):
                save(f"{tmp_path}/x/", array)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_with_files_is_left_alone(self, tmp_path):
        (tmp_path / "x").write_text("precious")
        with pytest.raises(idx.IdxError, match="expected an empty one"):
            save(f"{tmp_path}/", np.zeros((1, 2, 2), np.uint8))
        assert [path.name for path in tmp_path.iterdir()] == ["x"]

    def test_a_failure_leaves_nothing(self, tmp_path):
        def fails(steps):
            yield steps[0]
            raise OSError("full")

        with pytest.raises(OSError, match="full"):
            save(f"{tmp_path}/x/", np.zeros((2, 2, 2), np.uint8), fails)
        assert list(tmp_path.iterdir()) == []

    def test_damaged_files(self, tmp_path):
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)).save(file, "PNG")
        data = file.getvalue()
        for length in range(len(data) - 50):
            (tmp_path / "1.png").write_bytes(data[:length])
            with pytest.raises(idx.IdxError, match=r"1\.png: expected a PNG"):
                load(str(tmp_path))

    def test_only_png_is_tried(self, tmp_path):
        Image.new("L", (2, 2)).save(tmp_path / "1.png", "GIF")
        with pytest.raises(idx.IdxError, match=r"1\.png: expected a PNG"):
            load(str(tmp_path))

    def test_a_very_large_picture_is_one_line(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
        Image.new("L", (2, 2)).save(tmp_path / "1.png")
        with pytest.raises(idx.IdxError, match=r"1\.png: expected a PNG.*exceeds limit"):
            load(str(tmp_path))

    def test_files(self, tmp_path):
        with pytest.raises(idx.IdxError, match=r"found no \.png files"):
            load(str(tmp_path))
        Image.new("L", (2, 2)).save(tmp_path / "1.png")
        Image.new("L", (3, 2)).save(tmp_path / "2.png")
        with pytest.raises(
            idx.IdxError, match=r"2\.png: found shape \(2, 3\), expected \(2, 2\) as in 1\.png"
        ):
            load(str(tmp_path))
        Image.new("P", (2, 2)).save(tmp_path / "2.png")
        with pytest.raises(idx.IdxError, match=r"2\.png: found mode P"):
            load(str(tmp_path))
        (tmp_path / "2.png").write_text("no")
        with pytest.raises(idx.IdxError, match=r"2\.png: expected a PNG"):
            load(str(tmp_path))
