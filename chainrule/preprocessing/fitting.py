"""From a digit cut out to what MNIST's digits are: 20 pixels high, strokes of three, centred in 28x28."""

import numpy as np
from scipy import ndimage

# Stroke widths in pixels that are left as they are. Of MNIST's training images nine in ten lie between 2.1
# and 4.6, and the middle half between 2.6 and 3.4 (as `stroke_width` measures them).
THIN, THICK = 2.0, 3.6
_FINE = 5  # strokes are looked at in this many pixels for one of the 20x20


def enlarge(ink: np.ndarray) -> np.ndarray:
    """Draw a digit (height, width) in five pixels for one of the 20x20 if it is smaller, with smooth edges.

    Its margin is five such pixels wide, so that strokes can grow.
    """
    longest = max(ink.shape)
    wanted = 20 * _FINE
    if longest < wanted:
        ink = _resize(ink, wanted / longest)
    margin = max(1, round(max(ink.shape) / 20))
    return np.pad(ink, margin)


def even_strokes(ink: np.ndarray) -> np.ndarray:
    """Make strokes as wide as MNIST's, for the size of the digit: thin ones thicker, thick ones thinner.

    Edges are moved outwards or inwards by one distance (the Euclidean distance transform), so that the middle
    of a stroke stays where it is. Thick strokes are left somewhat thicker, for the holes of an 8.
    """
    mask = ink >= 0.5
    if not mask.any():
        return ink
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    unit = max(np.ptp(rows) + 1, np.ptp(columns) + 1) / 20  # pixels of the 20x20, before strokes change it
    width = stroke_width(ink) / unit
    wanted = float(np.clip(width, THIN, THICK))
    by = (wanted - width) * unit / 2
    if abs(by) < 0.05 * unit:
        return ink
    if by > 0:
        margin = int(np.ceil(by)) + 1
        padded = np.pad(ink, margin)
        outside = ndimage.distance_transform_edt(padded < 0.5)
        return np.asarray(np.maximum(padded, np.clip(by + 1 - outside, 0, 1)), np.float32)
    inside = ndimage.distance_transform_edt(mask)
    return np.asarray(np.clip(inside + by, 0, 1), np.float32)


def stroke_width(ink: np.ndarray) -> float:
    """Return how wide the strokes are, in pixels: four times the mean distance of ink to the nearest paper.

    Across a stripe of width w that distance goes from 0 up to w/2 and back: its mean is w/4.
    """
    mask = ink >= 0.5
    if not mask.any():
        return 0.0
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return float(4 * (distance[mask] - 0.5).mean()) if mask.any() else 0.0


def smooth(ink: np.ndarray, sigma: float = 0.6) -> np.ndarray:
    """Blur a digit by ``sigma`` of the pixels that it will have (a Gaussian): stairs become slopes.

    A drawing of 28x28 is a staircase of squares, which no pen makes; in a photograph it changes little.
    """
    if max(ink.shape) > 28 * _FINE:  # enough to see the strokes, which are wide by now
        ink = _resize(ink, 28 * _FINE / max(ink.shape))
    margin = max(1, round(max(ink.shape) / 10))
    return np.asarray(ndimage.gaussian_filter(np.pad(ink, margin), sigma * max(ink.shape) / 20), np.float32)


def upright_strokes(ink: np.ndarray) -> np.ndarray:
    """Take the slant out of a digit: shear it until its second moment m_xy is zero (deskewing)."""
    total = ink.sum()
    if total <= 0:
        return ink
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    y_mean, x_mean = (y * ink).sum() / total, (x * ink).sum() / total
    variance = (ink * (y - y_mean) ** 2).sum()
    if variance <= 0:
        return ink
    slant = float(np.clip((ink * (y - y_mean) * (x - x_mean)).sum() / variance, -1, 1))
    margin = int(np.ceil(abs(slant) * ink.shape[0] / 2)) + 1
    padded = np.pad(ink, ((0, 0), (margin, margin)))
    shear = np.array([[1, 0], [slant, 1]])
    middle = np.array([y_mean, x_mean + margin])
    return np.asarray(ndimage.affine_transform(padded, shear, middle - shear @ middle, order=1), np.float32)


def fit(ink: np.ndarray) -> np.ndarray:
    """Return a digit in a box of 20 x 20 pixels at its own proportions, each the mean of what it covers."""
    rows, columns = np.flatnonzero((ink > 0.25).any(axis=1)), np.flatnonzero((ink > 0.25).any(axis=0))
    if not len(rows):
        return np.zeros((20, 20), np.float32)
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _resize(cut, 20 / max(cut.shape))


def centre(ink: np.ndarray) -> np.ndarray:
    """Lay a digit on 28 x 28 pixels, its centre of mass in the middle, as far as whole pixels allow.

    As in MNIST that is the pixel (14, 14): on average half a pixel below and right of the exact middle.
    """
    result = np.zeros((28, 28), np.float32)
    height, width = ink.shape
    total = ink.sum()
    y = (ink.sum(axis=1) @ np.arange(height) / total) if total > 0 else (height - 1) / 2
    x = (ink.sum(axis=0) @ np.arange(width) / total) if total > 0 else (width - 1) / 2
    top = int(np.clip(round(14 - y), 0, 28 - height))
    left = int(np.clip(round(14 - x), 0, 28 - width))
    result[top : top + height, left : left + width] = ink
    return result


def _resize(ink: np.ndarray, factor: float) -> np.ndarray:
    """Return a plane enlarged with cubic splines, or shrunk by means over areas."""
    from PIL import Image

    height, width = (max(1, round(size * factor)) for size in ink.shape)
    how = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.BOX
    resized = Image.fromarray(np.ascontiguousarray(ink, np.float32)).resize((width, height), how)
    return np.clip(np.asarray(resized, np.float32), 0, 1)
