"""From a picture as it was taken to a plane of grey: upright, without transparency, colour or frame."""

import math
from typing import TYPE_CHECKING

import numpy as np

from chainrule.preprocessing.reading import WORKING_SIDE

if TYPE_CHECKING:
    from PIL.Image import Image


def upright(image: "Image") -> "Image":
    """Turn and mirror a picture as its EXIF says: telephones store what the sensor saw."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def shrink(image: "Image", side: int = WORKING_SIDE) -> "Image":
    """Return a picture of at most ``side`` pixels a side, each the mean of those that it stands for."""
    from PIL import Image

    longest = max(image.size)
    if longest <= side:
        return image
    size = (max(1, round(image.width * side / longest)), max(1, round(image.height * side / longest)))
    if image.mode != "RGBA":
        return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    # What cannot be seen must not bleed into what can: colours count as much as they cover.
    return image.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")


def box_of(image: "Image", box: tuple[float, float, float, float]) -> "Image":
    """Cut out a part of a picture; ``box`` is (top, bottom, left, right), shares of its height and width."""
    top, bottom, left, right = box
    width, height = image.size
    return image.crop(
        (int(left * width), int(top * height), math.ceil(right * width), math.ceil(bottom * height))
    )


def opaque(image: "Image") -> "Image":
    """Lay a transparent picture on the paper that it was drawn for.

    Where little is opaque that is the ink, and the paper is white below dark ink and black below light ink.
    Where most of it is opaque the paper is among that, and its median colour goes on below the holes.
    """
    from PIL import Image

    if image.mode != "RGBA":
        return image
    pixels = np.asarray(image).astype(np.float32)
    colours, alpha = pixels[..., :3], pixels[..., 3:] / 255
    if alpha.min() > 0.999:
        return image.convert("RGB")
    seen = alpha[..., 0] > 0.5
    if not seen.any():
        seen = alpha[..., 0] >= alpha.max()
    if seen.mean() > 0.5:
        paper = np.median(colours[seen], axis=0)
    else:
        paper = np.full(3, 255.0 if colours[seen].mean() < 127.5 else 0.0)
    mixed = colours * alpha + paper * (1 - alpha)
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def grey(image: "Image") -> np.ndarray:
    """Return a picture as one plane, (height, width) in float32: its luminance, from 0 to 1.

    Where the colours differ much more in hue (green ink on white, blue on red of one lightness) it is how far
    they lie along their first principal axis, in the same units.
    """
    if image.mode == "L":
        return np.asarray(image, np.float32) / 255
    colours = np.asarray(image.convert("RGB"), np.float32) / 255  # (height, width, 3)
    luminance = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    few = colours[:: max(1, len(colours) // 40), :: max(1, colours.shape[1] // 40)].reshape(-1, 3)
    variances, axes = np.linalg.eigh(np.cov(few.T, ddof=0))
    # Grey of standard deviation s has s along each of three axes: s times the root of 3 along theirs.
    if variances[-1] / 3 < (1.5 * luminance.std()) ** 2 or variances[-1] < 1e-4:
        return luminance
    along = (colours - few.mean(axis=0)) @ (axes[:, -1] / np.sqrt(3)).astype(np.float32)
    lightest: np.ndarray = along - along.min()
    return lightest


def unframe(plane: np.ndarray) -> np.ndarray:
    """Cut off what surrounds the paper: a border of one colour, the bars beside a scan, a drawn frame.

    A border has the colour of a corner, and what is within it is a rectangle that differs from it at its
    corners and nearly all along its edges. A digit's own bounding box does not: a digit touches it here and
    there.
    """
    for _ in range(4):
        inner = _within_border(plane)
        if inner is None:
            return plane
        plane = plane[inner]
    return plane


def _within_border(plane: np.ndarray) -> tuple[slice, slice] | None:
    height, width = plane.shape
    for colour in {float(plane[y, x]) for y in (0, -1) for x in (0, -1)}:
        differs = np.abs(plane - colour) > 0.1
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        if not len(rows):
            continue
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        if (top, left, bottom, right) == (0, 0, height, width) or min(bottom - top, right - left) < 12:
            continue
        box = differs[top:bottom, left:right]
        edges = [edge.mean() for edge in (box[0], box[-1], box[:, 0], box[:, -1])]
        corners = [box[y, x] for y in (0, -1) for x in (0, -1)]
        # Ink may lie at the edge of the paper, of the colour of the border.
        if not all(corners) or min(edges) < 0.4 or np.mean(edges) < 0.75 or box.mean() < 0.6:
            continue
        inner = (slice(top, bottom), slice(left, right))
        middle = plane[inner][2:-2, 2:-2]
        if np.ptp(middle) > 0.15:
            return inner
    return None
