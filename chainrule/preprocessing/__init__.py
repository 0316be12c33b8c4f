"""A person's own picture made into what the network was trained on, step by step, as MNIST was made.

>>> from chainrule import preprocessing
>>> from chainrule.preprocessing import reading
>>> digit = preprocessing.prepare(reading.read(Path("my-seven.jpg")))  # doctest: +SKIP
>>> digit.image.shape, digit.image.dtype  # doctest: +SKIP
((28, 28), dtype('uint8'))
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.errors import ChainruleError

if TYPE_CHECKING:
    from PIL.Image import Image


class NoInk(ChainruleError):
    """There is nothing to read on the picture."""


@dataclass(frozen=True)
class Step:
    """One step: its name, what it does, and the picture after it (a PIL image or a plane of numbers)."""

    name: str
    words: str
    picture: Any


@dataclass(frozen=True)
class Prepared:
    """A digit as the network gets it, uint8 (28, 28), white ink on black, and the steps on the way there.

    ``box`` is where it was found, (top, bottom, left, right) as shares of the picture without its border; of
    a picture with one digit it is None.
    """

    image: np.ndarray
    steps: list[Step] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None


def prepare(image: "Image", *, deskew: bool = False, keep: bool = False) -> Prepared:
    """Return the digit on a picture as MNIST's look; ``keep`` keeps the picture after each step.

    Raises NoInk for an empty page.
    """
    from chainrule.preprocessing import finding

    record = _Record(keep)
    ink = _ink(image, record)
    found = record("digit", "the digit found, and the strokes that belong to it", finding.digit, ink)
    return Prepared(_fitted(found, record, deskew), record.steps)


def prepare_many(image: "Image", *, deskew: bool = False, keep: bool = False) -> list[Prepared]:
    """Return every digit on a picture, from left to right, line by line. Raises NoInk for an empty page."""
    from chainrule.preprocessing import finding

    record = _Record(keep)
    ink = _ink(image, record, several=True)
    height, width = ink.shape
    digits = []
    for found, (top, bottom, left, right) in finding.digits(ink):
        own = _Record(keep)
        own.steps = [*record.steps, Step("digit", "one of the digits found", found)] if keep else []
        box = (top / height, bottom / height, left / width, right / width)
        digits.append(Prepared(_fitted(found, own, deskew), own.steps, box))
    return digits


def naive(image: "Image", *, keep: bool = False) -> Prepared:
    """Return a picture as most people try first: grey, resized to 28 x 28 and inverted. It often fails."""
    from PIL import Image

    from chainrule.preprocessing import colour

    record = _Record(keep)
    flat = record("upright", "turned as the camera was held", colour.upright, image).convert("RGB")
    plain = record("grey", "its luminance", lambda it: it.convert("L"), flat)
    small = record(
        "resized", "28 x 28 pixels, whatever its proportions",
        lambda it: it.resize((28, 28), Image.Resampling.BILINEAR), plain,
    )  # fmt: skip
    return Prepared(255 - np.asarray(small), record.steps)


class _Record:
    """Applies steps one after the other, and keeps what each returned."""

    def __init__(self, keep: bool):
        self.keep = keep
        self.steps: list[Step] = []

    def __call__(self, name: str, words: str, step: Callable[[Any], Any], picture: Any) -> Any:
        result = step(picture)
        if self.keep:
            self.steps.append(Step(name, words, result))
        return result


def _ink(image: "Image", record: _Record, several: bool = False) -> np.ndarray:
    """Return the ink on a picture without what is no digit."""
    from chainrule.preprocessing import cleaning, colour, paper

    whole = record("upright", "turned as the camera was held", colour.upright, image)
    if not several:
        whole = record("near", "cut to where the ink is, if that is a small part", _near, whole)
    small = record("shrunk", "as large as the work needs", colour.shrink, whole)
    plain = record("opaque", "transparency laid on the right paper", colour.opaque, small)
    plane = record("grey", "its strongest contrast", colour.grey, plain)
    plane = record("unframed", "borders and frames cut off", colour.unframe, plane)
    plane = record("level", "the light on the paper taken away", paper.level, plane)
    plane = record("ink up", "ink is light, whichever it was", paper.ink_up, plane)
    ink = record("ink", "parted from the paper (Otsu), its edges still grey", paper.ink, plane)
    ink = record("no frame", "a box drawn around it taken away", cleaning.without_frame, ink)
    ink = record("no lines", "ruled lines taken away", cleaning.without_lines, ink)
    ink = record("no specks", "specks taken away", cleaning.without_specks, ink)
    if not (ink >= 0.5).any():
        raise NoInk("an empty page: no ink stands out from the paper")
    return np.asarray(ink)


def _fitted(ink: np.ndarray, record: _Record, deskew: bool) -> np.ndarray:
    """Return a digit, cut out, as uint8 (28, 28)."""
    from chainrule.preprocessing import fitting

    ink = record("enlarged", "five pixels for one, if it is small", fitting.enlarge, ink)
    ink = record("strokes", "about as wide as MNIST's", fitting.even_strokes, ink)
    if deskew:
        ink = record("deskewed", "its slant taken out", fitting.upright_strokes, ink)
    ink = record("smooth", "stairs become slopes", fitting.smooth, ink)
    ink = record("fitted", "20 pixels high or wide, at its own proportions", fitting.fit, ink)
    ink = record("centred", "its centre of mass in the middle of 28 x 28", fitting.centre, ink)
    return np.round(ink * 255).astype(np.uint8)


def _near(image: "Image") -> "Image":
    """Cut a large picture to its digit if that is small on it: shrunk with the whole it would be lost."""
    from chainrule.preprocessing import cleaning, colour, finding, paper
    from chainrule.preprocessing.reading import WORKING_SIDE

    if max(image.size) <= 2 * WORKING_SIDE:  # a twentieth of it would still be 20 pixels high
        return image
    plane = colour.grey(colour.opaque(colour.shrink(image, WORKING_SIDE // 2)))
    ink = cleaning.without_specks(paper.ink(paper.ink_up(paper.level(plane))))
    top, bottom, left, right = finding.box(ink)
    height, width = ink.shape
    size = max(bottom - top, right - left)
    if not 0 < size < max(height, width) / 4:
        return image
    margin = 1.0 * size
    return colour.box_of(
        image,
        (
            max(0, top - margin) / height,
            min(height, bottom + margin) / height,
            max(0, left - margin) / width,
            min(width, right + margin) / width,
        ),
    )
