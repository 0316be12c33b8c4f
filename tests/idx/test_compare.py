import numpy as np
import pytest

import idx
from idx.compare import compare


def opened(array, tmp_path, name="x.gz"):
    idx.write(tmp_path / name, array)
    return idx.open(tmp_path / name)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_the_same_however_compressed(tmp_path, dtype):
    array = np.arange(2_000_000).astype(dtype).reshape(2000, 1000)
    result = compare(opened(array, tmp_path, "a"), opened(array, tmp_path, "b.gz"))
    assert not result.differ
    assert str(result) == f"the same: {np.dtype(dtype)} (2000, 1000)"


def test_where_and_by_how_much(tmp_path):
    one = np.zeros((3000, 100, 5), np.int32)  # several pieces
    other = one.copy()
    other[2500, 3, 4] = -7
    other[2999, 0, 0] = 2
    result = compare(opened(one, tmp_path, "a"), opened(other, tmp_path, "b"))
    assert (result.count, result.first, result.values, result.largest) == (2, (2500, 3, 4), (0, -7), 7)
    assert str(result) == (
        "different: 2 of 1500000 elements, the first at [2500, 3, 4] (0 and -7), by at most 7.0"
    )


def test_bit_by_bit(tmp_path):
    one, other = np.array([0.0, np.nan]), np.array([-0.0, np.nan])
    result = compare(opened(one, tmp_path, "a"), opened(other, tmp_path, "b"))
    assert result.count == 1
    assert result.first == (0,)


@pytest.mark.parametrize("other", [np.zeros(4, np.uint8), np.zeros(3, np.int8), np.zeros((3, 1), np.uint8)])
def test_headers(tmp_path, other):
    result = compare(opened(np.zeros(3, np.uint8), tmp_path, "a"), opened(other, tmp_path, "b"))
    assert result.differ
    assert result.count == 0
    assert "different: uint8 (3,) and" in str(result)


def test_without_dimensions_or_elements(tmp_path):
    result = compare(opened(np.int8(3), tmp_path, "a"), opened(np.int8(5), tmp_path, "b"))
    assert (result.count, result.first, result.largest) == (1, (), 2)
    empty = np.zeros((0, 3), np.int8)
    assert not compare(opened(empty, tmp_path, "c"), opened(empty, tmp_path, "d")).differ
