"""A picture beside the training data, before and after each step: what is off, and what the network reads.

As the write-ups' authors found their mistakes by hand: one saw that the paper of his photographs was 0.27
where MNIST's is 0, and all ten had been read as a 3.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from chainrule import preprocessing
from chainrule.errors import ChainruleError
from chainrule.predicting import drawing
from chainrule.predicting.reader import Answer, Reader
from chainrule.preprocessing.measures import measures, odd

if TYPE_CHECKING:
    from PIL.Image import Image

    from chainrule.preprocessing import Prepared


@dataclass(frozen=True)
class Stage:
    """What the network would see if the steps ended here; ``off`` names what the training data have not."""

    name: str
    words: str
    seen: np.ndarray  # uint8 (28, 28)
    measures: dict[str, float]
    off: dict[str, str]  # by measure
    answer: Answer


@dataclass(frozen=True)
class Inspection:
    """The stages of a picture, the naive way, the whole one, and the usual limits of each measure."""

    stages: list[Stage]
    naive: Stage
    full: "Prepared"
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)


def inspect(image: "Image", reader: Reader, *, deskew: bool = False) -> Inspection:
    """Compare a picture with the training data of a run, step by step.

    Raises NoInk for an empty page, ChainruleError if neither the run nor this machine has what is compared
    with.
    """
    if reader.likeness is None:
        raise ChainruleError(
            f"{reader.run.path} keeps no measures of its training images, and its data set is not here"
        )
    limits = reader.likeness.limits()
    full = preprocessing.prepare(image, deskew=deskew, keep=True)
    naive = preprocessing.naive(image)
    seen = [_resized(step.picture) for step in full.steps[:-1]] + [full.image, naive.image]
    answers = reader.read(np.stack(seen))
    each = measures(np.stack(seen))
    names = [*((step.name, step.words) for step in full.steps), ("naive", "resized to 28 x 28 and inverted")]
    stages = []
    for i, (name, words) in enumerate(names):
        found = {key: float(values[i]) for key, values in each.items()}
        off = {key: next(odd(found, {key: limits[key]}), "") for key in found}
        stages.append(Stage(name, words, seen[i], found, {k: v for k, v in off.items() if v}, answers[i]))
    return Inspection(stages[:-1], stages[-1], full, limits)


def _resized(picture: "np.ndarray | Image") -> np.ndarray:
    """Return a step's picture as it is, resized to 28 x 28, as the naive way does."""
    from PIL import Image

    grey = drawing.as_picture(picture).convert("L")
    return np.asarray(grey.resize((28, 28), Image.Resampling.BILINEAR))
