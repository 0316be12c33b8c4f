import io

import numpy as np
import pytest

import idx


def stored(array, **options):
    file = io.BytesIO()
    idx.write(file, array, **options)
    return idx.read(file.getvalue())


@pytest.mark.parametrize(
    ("dtype", "nearest"),
    [
        (np.bool_, "uint8"),
        (np.uint16, "int32"),
        (np.uint32, "int32"),
        (np.int64, "int32"),
        (np.uint64, "int32"),
        (np.float16, "float32"),
        (np.longdouble, "float64"),
    ],
)
def test_a_type_that_idx_has_not_names_the_nearest(dtype, nearest):
    array = np.array([0, 1], dtype)
    with pytest.raises(idx.UnsupportedArrayError, match=f"{array.dtype}.*nearest type is {nearest}"):
        stored(array)
    assert stored(array, casting="same_value").dtype == nearest
    assert stored(array, casting="same_value").tolist() == [0, 1]


@pytest.mark.parametrize(
    "array", [np.array(["a"]), np.array([1j]), np.array([None]), np.array(["2020"], "M8[Y]")]
)
def test_types_without_a_neighbour(array):
    for options in ({}, {"casting": "same_value"}, {"dtype": "uint8"}):
        with pytest.raises(idx.UnsupportedArrayError, match="expected one of uint8"):
            stored(array, **options)


@pytest.mark.parametrize(
    ("values", "dtype", "target"),
    [
        ([2**31], np.int64, "int32"),
        ([-(2**31) - 1], np.int64, "int32"),
        ([2.0**31], np.float32, "int32"),
        ([256], np.int64, "uint8"),
        ([-1], np.int8, "uint8"),
        ([0.5], np.float64, "int32"),
        ([np.nan], np.float64, "int32"),
        ([np.inf], np.float64, "int16"),
        ([2**53 + 1], np.int64, "float64"),
        ([2**63 - 1], np.int64, "float64"),
        ([2**64 - 1], np.uint64, "float32"),
        ([0.1], np.float64, "float32"),
        ([1e300], np.float64, "float32"),
        ([-0.0], np.float64, "uint8"),
        ([-0.0], np.float32, "int32"),
    ],
)
def test_a_value_that_would_change_is_refused_and_named(values, dtype, target):
    array = np.array([0, *values], dtype)
    with pytest.raises(idx.UnsupportedArrayError, match=r"at \[1\], expected values that"):
        stored(array, dtype=target)


@pytest.mark.parametrize(
    ("array", "target"),
    [
        (np.array([0, 255], np.int64), "uint8"),
        (np.array([-(2**31), 2**31 - 1], np.int64), "int32"),
        (np.array([np.nan, np.inf, 0.5]), "float32"),
        (np.array([3.0, 0.0]), "int8"),
        (np.array([2**53], np.int64), "float64"),
        (np.array([], np.int64), "uint8"),
        (np.array([1, 2], ">i8"), ">i4"),
    ],
)
def test_values_that_survive_are_converted(array, target):
    result = stored(array, dtype=target)
    assert result.dtype == np.dtype(target).newbyteorder("=")
    np.testing.assert_array_equal(result, array)


def test_the_first_of_many_values_is_named():
    array = np.zeros((3, 100_000), np.int64)
    array[2, 7:] = -1
    with pytest.raises(idx.UnsupportedArrayError, match=r"found -1 at \[2, 7\]"):
        stored(array, dtype="uint8")
    array[2, 7:] = 1
    assert np.array_equal(stored(array.T, dtype="uint8"), array.T)


def test_what_numpy_does_not_know_as_numbers():
    for array in (np.array(["a"], np.dtypes.StringDType()), [[1], [1, 2]]):
        for options in ({}, {"casting": "same_value"}, {"dtype": "uint8"}):
            with pytest.raises(idx.UnsupportedArrayError):
                stored(array, **options)
    with pytest.raises(idx.UnsupportedArrayError, match="StringDType"):
        stored([1], dtype=np.dtypes.StringDType())


def test_masked_elements_are_not_dropped_in_silence():
    with pytest.raises(idx.UnsupportedArrayError, match="mask"):
        stored(np.ma.masked_array(np.zeros(2, np.uint8), [True, False]))


def test_wrong_usage():
    with pytest.raises(ValueError, match="casting must be"):
        stored(np.zeros(1), casting="unsafe")
    with pytest.raises(idx.UnsupportedArrayError, match="nearest type is int32"):
        stored(np.zeros(1), dtype="int64")
