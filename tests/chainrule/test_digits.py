import gzip
import runpy
import zlib
from pathlib import Path

import numpy as np
import pytest

import idx
from chainrule import datasets

ROOT = Path(__file__).parents[2]
NAMES = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "data" / "make_digits.py"))


def test_the_script_reproduces_the_files_byte_for_byte(script, tmp_path):
    script["main"](tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    for name in NAMES:
        made, kept = (tmp_path / name).read_bytes(), (ROOT / "data" / "digits" / name).read_bytes()
        assert gzip.decompress(made) == gzip.decompress(kept)
        # zlib-ng compresses the same payload to other bytes: there, only the payload can be compared.
        if "zlib-ng" not in zlib.ZLIB_RUNTIME_VERSION:
            assert made == kept


def test_the_files_are_small():
    assert sum((ROOT / "data" / "digits" / name).stat().st_size for name in NAMES) < 600_000


def test_they_are_the_split_of_scikit_learns_digits():
    from sklearn.datasets import load_digits

    digits = datasets.load("digits")
    assert digits.train_images.shape == (1500, 28, 28)
    assert digits.test_images.shape == (297, 28, 28)
    train, test = np.bincount(digits.train_labels), np.bincount(digits.test_labels)
    assert np.array_equal(train + test, np.bincount(load_digits().target))
    assert np.abs(test - (train + test) * 297 / 1797).max() < 1  # stratified


def test_each_lies_as_in_mnist():
    digits = datasets.load("digits")
    images = np.concatenate([digits.train_images, digits.test_images]).astype(np.int64)  # (1797, 28, 28)
    assert (images.max(axis=(1, 2)) == 255).all()
    height = (images > 0).any(axis=2).sum(axis=1)
    width = (images > 0).any(axis=1).sum(axis=1)
    assert np.maximum(height, width).max() == 20
    assert np.maximum(height, width).min() >= 19  # the faintest edge may fade out
    mass = images.sum(axis=(1, 2))
    for axis in (1, 2):
        centre = images.sum(axis=axis) @ np.arange(28) / mass
        assert np.abs(centre - 14).max() <= 0.5  # shifted by whole pixels


def test_grey_levels_are_kept():
    digits = datasets.load("digits")
    inked = digits.train_images[digits.train_images > 0]
    assert 0.3 < np.mean((inked > 25) & (inked < 230)) < 0.9
    assert len(np.unique(inked)) == 255


def test_brightness_and_stroke_are_near_mnists(shared):
    real = idx.read(shared / "mnist" / "t10k-images-idx3-ubyte.gz")
    ours = datasets.load("digits").train_images
    assert ours.mean() == pytest.approx(real.mean(), rel=0.25)
    assert ours.std() == pytest.approx(real.std(), rel=0.25)
    assert (ours > 127).mean() == pytest.approx((real > 127).mean(), rel=0.25)


def test_as_mnist_fits_and_centres_by_hand(script):
    """A bar 2 wide and 8 high becomes 5x20, its centre of mass (2, 10) at (14, 14)."""
    digit = np.zeros((8, 8))
    digit[:, 3:5] = 8
    field = script["as_mnist"](digit)
    assert np.argwhere(field).min(axis=0).tolist() == [4, 12]
    assert np.argwhere(field).max(axis=0).tolist() == [23, 16]
    assert field.max() == field[14, 14] == 255
