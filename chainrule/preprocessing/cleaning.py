"""Ink that is no part of a digit: ruled lines, specks, what lies at the edge of a photograph."""

import numpy as np
from scipy import ndimage

_TOUCHING = np.ones((3, 3), bool)  # pixels that share a corner belong together


def without_lines(ink: np.ndarray) -> np.ndarray:
    """Take away ruled lines: thin ones that cross the whole picture (height, width), level or upright.

    Where a digit's stroke crosses a line it is thicker than the line, and stays.
    """
    return _without_level_lines(_without_level_lines(ink).T).T


def _without_level_lines(ink: np.ndarray) -> np.ndarray:
    height, width = ink.shape
    mask = ink >= 0.5
    if min(height, width) < 40 or not mask.any():
        return ink
    thick = max(2, height // 40)
    # A line may be broken and a little slanted: what counts is whether it is there within a few rows.
    band = ndimage.maximum_filter1d(mask.astype(np.uint8), 2 * thick + 1, axis=0)
    filled = ndimage.uniform_filter1d(band.astype(np.float32), width, axis=1, mode="constant")[:, width // 2]
    rows = filled > 0.9
    ends = (band[:, : max(2, width // 50)].any(axis=1)) & (band[:, -max(2, width // 50) :].any(axis=1))
    rows &= ends
    if not rows.any():
        return ink
    # In those rows, take away runs of ink that are no higher than a line.
    near = ndimage.maximum_filter1d(rows.astype(np.uint8), 2 * thick + 1).astype(bool)
    tall = ndimage.binary_opening(mask, np.ones((2 * thick + 1, 1), bool))
    lines = mask & near[:, None] & ~ndimage.binary_dilation(tall, _TOUCHING)
    left = mask & ~lines
    if left.sum() < 0.1 * mask.sum():
        return ink
    return np.where(ndimage.binary_dilation(lines, _TOUCHING) & ~left, 0, ink).astype(np.float32)


def without_specks(ink: np.ndarray) -> np.ndarray:
    """Take away spots that are far smaller than the largest piece of ink, and those too faint to be ink."""
    pieces, count = ndimage.label(ink > 0.25, _TOUCHING)
    if not count:
        return ink
    if count == 1 and (ink >= 0.5).any():
        return np.where(pieces, ink, 0)
    sizes = np.bincount(pieces.ravel(), ink.ravel())[1:]
    strong = np.bincount(pieces.ravel(), (ink >= 0.5).ravel())[1:]
    keep = (strong > 0) & (sizes >= max(0.02 * sizes.max(), 2.0))
    return np.where(np.concatenate([[False], keep])[pieces], ink, 0).astype(np.float32)
