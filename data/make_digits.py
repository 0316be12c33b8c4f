"""Make the embedded digits: scikit-learn's handwritten digits, brought to 28x28 the way MNIST was made.

The source is ``sklearn.datasets.load_digits``: the 1,797 test digits of E. Alpaydin and C. Kaynak, *Optical
Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998 (CC BY 4.0), 8x8 pixels with grey
levels 0..16.

Each digit goes through the steps that Y. LeCun, C. Cortes and C. Burges describe for MNIST: the box around
its ink is fitted into 20x20 pixels, keeping its aspect ratio, which leaves grey levels from anti-aliasing;
then it is placed in a 28x28 field so that its centre of mass is at the centre. The darkest pixel is 255.

Pillow resizes in fixed point, and every other step is integer arithmetic, so that each machine makes the same
pixels. From the root of the repository::

    .venv/bin/python data/make_digits.py

writes the four files into ``data/digits``; another folder can be named as its argument. Their SHA-256 stand
in ``chainrule/manifest.toml``.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import idx

BOX = 20
FIELD = 28
TEST_IMAGES = 297
SPLIT_SEED = 0


def rounded(numerator: int, denominator: int) -> int:
    """``numerator / denominator``, both positive, rounded half up."""
    return (2 * numerator + denominator) // (2 * denominator)


def as_mnist(digit: np.ndarray) -> np.ndarray:
    """Bring one digit, (8, 8) with grey levels 0..16, to MNIST's form, (28, 28) uint8."""
    ink = digit.astype(np.int64)
    rows = np.flatnonzero(ink.any(axis=1))
    columns = np.flatnonzero(ink.any(axis=0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    longer = max(ink.shape)
    height, width = (rounded(BOX * side, longer) for side in ink.shape)
    small = Image.fromarray((ink * 255 // 16).astype(np.uint8))
    large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int64)
    large = large * 255 // large.max()

    # The centre of mass, in whole pixels, comes to rest on pixel (14, 14), as it does in MNIST.
    mass = int(large.sum())
    top = FIELD // 2 - rounded(int(large.sum(axis=1) @ np.arange(height)), mass)
    left = FIELD // 2 - rounded(int(large.sum(axis=0) @ np.arange(width)), mass)
    if not (0 <= top <= FIELD - height and 0 <= left <= FIELD - width):
        raise ValueError("a digit so lopsided that centring would cut it off")
    field = np.zeros((FIELD, FIELD), np.uint8)
    field[top : top + height, left : left + width] = large
    return field


def make() -> dict[str, np.ndarray]:
    """The four arrays by file name: 1,500 training and 297 test images (N, 28, 28), labels (N,), uint8."""
    source = load_digits()
    images = np.stack([as_mnist(digit) for digit in source.images])
    labels = source.target.astype(np.uint8)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=TEST_IMAGES, stratify=labels, random_state=SPLIT_SEED
    )
    return {
        "train-images-idx3-ubyte.gz": train_images,
        "train-labels-idx1-ubyte.gz": train_labels,
        "t10k-images-idx3-ubyte.gz": test_images,
        "t10k-labels-idx1-ubyte.gz": test_labels,
    }


def main(folder: Path) -> None:
    """Write the four files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in make().items():
        idx.write(folder / name, array)
        print(f"{folder / name}: {array.shape}, {(folder / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "digits")
