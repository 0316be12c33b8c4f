"""A person's own picture made into what the network was trained on, step by step, as MNIST was made."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.preprocessing import cleaning, colour, finding, fitting, paper

if TYPE_CHECKING:
    from PIL.Image import Image


def full(image):
    x = colour.grey(colour.opaque(colour.shrink(colour.upright(image))))
    x = colour.unframe(x)
    x = paper.ink(paper.ink_up(paper.level(x)))
    x = cleaning.without_specks(cleaning.without_lines(x))
    x = finding.digit(x)
    x = fitting.even_strokes(fitting.enlarge(x))
    x = fitting.centre(fitting.fit(fitting.smooth(x)))
    return np.round(x * 255).astype(np.uint8)
