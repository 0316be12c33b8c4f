"""Training images distorted anew in each epoch, as other hands and pens would have written them.

Affine: turned, sheared, scaled, moved. Elastic: each pixel pulled along a smooth random field. Stroke:
thinner or thicker. Source: Simard, Steinkraus, Platt, Best practices for convolutional neural networks
(2003). The smooth field here is drawn on 6 x 6 points and laid through them with cubic B-splines, which
costs two small products of matrices where filtering noise would cost a convolution.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

_POINTS = 6  # of the elastic field, along each side
_AT_ONCE = 250  # images whose arrays stay in the processor's cache


@dataclass(frozen=True)
class Augment:
    """How far images are distorted: each image by its own random share of these, up and down, from 0 to all.

    ``rotate`` in degrees; ``shear`` in pixels sideways for a pixel up; ``scale`` as a share, in each
    direction on its own; ``shift`` in pixels; ``elastic`` is the standard deviation of the field in pixels;
    ``stroke`` how much of the way to an image whose strokes are two pixels thicker or thinner.
    """

    rotate: float = 10.0
    shear: float = 0.2
    scale: float = 0.15
    shift: float = 1.5
    elastic: float = 1.0
    stroke: float = 0.4


LIMITS = {"rotate": 180.0, "shear": 1.0, "scale": 0.9, "shift": 28.0, "elastic": 10.0, "stroke": 1.0}
NAMES = {
    "all": Augment(),
    "affine": Augment(elastic=0.0, stroke=0.0),
    "elastic": Augment(rotate=0.0, shear=0.0, scale=0.0, shift=0.0, stroke=0.0),
    "stroke": Augment(rotate=0.0, shear=0.0, scale=0.0, shift=0.0, elastic=0.0),
}


def read(value: Any) -> Augment | None:
    """Return what a recipe's ``training.augment`` says: one of NAMES, a table of numbers, or nothing.

    A table names all that is done: what it leaves out is not. Raises ValueError, with what was expected.
    """
    if value is None or isinstance(value, Augment):
        return value
    if isinstance(value, str):
        if value not in NAMES:
            raise ValueError(f"training.augment must be {', '.join(NAMES)} or a table, found '{value}'")
        return NAMES[value]
    if not isinstance(value, dict):
        raise ValueError(f"training.augment must be {', '.join(NAMES)} or a table, found {value!r}")
    known = [field.name for field in fields(Augment)]
    for key, number in value.items():
        if key not in known:
            raise ValueError(f"training.augment has no '{key}': it has {', '.join(known)}")
        usable = isinstance(number, int | float) and not isinstance(number, bool)
        if not usable or not 0 <= number <= LIMITS[key]:
            raise ValueError(f"training.augment.{key} must be from 0 to {LIMITS[key]:g}, found {number!r}")
    return Augment(**{key: float(value.get(key, 0.0)) for key in known})


def distort(images: np.ndarray, how: Augment, seed: int, epoch: int) -> np.ndarray:
    """Return images (N, H, W) in uint8, each distorted; seed and epoch decide how, to the bit."""
    result = np.empty_like(images)
    generator = np.random.default_rng([seed, 4, epoch])
    for start in range(0, len(images), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        planes = images[part].astype(np.float32)
        if how.stroke:
            planes = strokes(planes, generator.uniform(-how.stroke, how.stroke, len(planes)))
        if how.rotate or how.shear or how.scale or how.shift or how.elastic:
            planes = pull(planes, *_field(planes.shape, how, generator))
        result[part] = np.round(planes)
    return result


def strokes(planes: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return planes (N, H, W) with thicker strokes where ``by`` (N,) is above 0, thinner where it is below.

    At 1 each pixel has the largest of itself and its four neighbours (a dilation), at -1 the smallest (an
    erosion); between them it is a mixture.
    """
    result = planes.copy()
    for sign, extreme in ((1, np.maximum), (-1, np.minimum)):
        which = np.flatnonzero(by * sign > 0)
        padded = np.pad(planes[which], ((0, 0), (1, 1), (1, 1)))
        here = padded[:, 1:-1, 1:-1]
        most = extreme(extreme(here, padded[:, :-2, 1:-1]), padded[:, 2:, 1:-1])
        most = extreme(extreme(most, padded[:, 1:-1, :-2]), padded[:, 1:-1, 2:])
        share = np.abs(by[which]).astype(np.float32)[:, None, None]
        result[which] += share * (most - here)
    return result


def _field(
    shape: tuple[int, ...], how: Augment, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each pixel where it is taken from: rows and columns, each (N, H, W) in float32."""
    count, height, width = shape

    def draw(most: float) -> np.ndarray:
        return generator.uniform(-most, most, (count, 1, 1)).astype(np.float32)

    angle = draw(np.radians(how.rotate))
    shear, scale_y, scale_x = draw(how.shear), 1 + draw(how.scale), 1 + draw(how.scale)
    down, across = draw(how.shift), draw(how.shift)
    y = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
    x = np.arange(width, dtype=np.float32) - (width - 1) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    rows = scale_y * (cos * y - sin * x) + down + (height - 1) / 2
    columns = scale_x * (sin * y + cos * x) + shear * y + across + (width - 1) / 2
    if how.elastic:
        along_y, along_x = _splines(height), _splines(width)
        for plane in (rows, columns):
            points = generator.standard_normal((count, _POINTS, _POINTS), np.float32)
            plane += how.elastic * (along_y @ points @ along_x.T)
    return rows, columns


def _splines(size: int) -> np.ndarray:
    """Return what each of the points weighs at each pixel, (size, points): cubic B-splines.

    They are scaled so that points of variance 1 give a field of variance 1 along this side.
    """
    place = np.linspace(1, _POINTS - 2, size, dtype=np.float32)[:, None]
    far = np.abs(place - np.arange(_POINTS, dtype=np.float32))
    near, outer = 2 / 3 - far**2 + far**3 / 2, (2 - far) ** 3 / 6
    weights = np.where(far < 1, near, np.where(far < 2, outer, 0))
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1, keepdims=True)), np.float32)


def pull(planes: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return planes (N, H, W) whose pixels come from other places, between four pixels by bilinear weights.

    ``rows`` and ``columns`` (N, H, W) say from where; beyond the edge there is 0.
    """
    count, height, width = planes.shape
    padded = np.zeros((count, height + 2, width + 2), np.float32)  # a border of zeros for what lies beyond
    padded[:, 1:-1, 1:-1] = planes
    y, x = np.clip(rows + 1, 0, height + 1), np.clip(columns + 1, 0, width + 1)
    top, left = np.minimum(np.floor(y), height), np.minimum(np.floor(x), width)
    down, across = y - top, x - left
    first = np.arange(count)[:, None, None] * ((height + 2) * (width + 2))
    corner = (top * (width + 2) + left).astype(np.intp) + first
    flat = padded.reshape(-1)

    def along_row(start: np.ndarray) -> np.ndarray:
        here = flat.take(start, mode="clip")  # nothing needs clipping, but looking for what does takes time
        return np.asarray(here + across * (flat[1:].take(start, mode="clip") - here))

    upper = along_row(corner)
    return np.asarray(upper + down * (along_row(corner + (width + 2)) - upper))


def in_words(how: Augment) -> Iterator[str]:
    """Give what is done, such as "rotate 10"."""
    for field in fields(how):
        if value := getattr(how, field.name):
            yield f"{field.name} {value:g}"
