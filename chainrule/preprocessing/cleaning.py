"""Ink that is no part of a digit: frames, ruled lines, specks, what lies at the edge of a photograph."""

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


def without_frame(ink: np.ndarray) -> np.ndarray:
    """Take away a box that was drawn around the digits, its corners sharp or round.

    A frame runs along all four sides of its bounding box (a round 0 along less than half of each), and holds
    other ink that is not small. An angular 0 holds none, and stays.
    """
    pieces, count = ndimage.label(ink > 0.25, _TOUCHING)
    boxes = ndimage.find_objects(pieces) if count > 1 else []
    for number, box in enumerate(boxes, 1):
        height, width = (side.stop - side.start for side in box)
        if min(height, width) < 40:
            continue
        held = [
            max(other[0].stop - other[0].start, other[1].stop - other[1].start)
            for other in boxes
            if other is not box
            and all(o.start > b.start and o.stop < b.stop for o, b in zip(other, box, strict=True))
        ]
        if max(held, default=0) < 0.15 * min(height, width):
            continue
        frame = pieces[box] == number
        deep, broad = max(2, height // 12), max(2, width // 12)
        sides = (frame[:deep].any(0), frame[-deep:].any(0), frame[:, :broad].any(1), frame[:, -broad:].any(1))
        inside = frame[2 * deep : -2 * deep, 2 * broad : -2 * broad]
        if min(side.mean() for side in sides) > 0.75 and not inside.any():
            ink = np.where(ndimage.binary_dilation(pieces == number, _TOUCHING), 0, ink).astype(np.float32)
    return ink


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
