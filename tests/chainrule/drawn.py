"""Digits drawn for the tests, as dark ink on light paper."""

import numpy as np
import pytest

pytest.importorskip("PIL", reason="needs Pillow: runs where chainrule[pictures] is installed")
pytest.importorskip("scipy", reason="needs SciPy: runs where chainrule[pictures] is installed")

from PIL import Image, ImageDraw

# Strokes through points on 10 x 14 squares.
STROKES = {
    1: [[(5, 0), (5, 14)]],
    2: [[(1, 3), (3, 0), (7, 0), (9, 3), (8, 6), (1, 14), (9, 14)]],
    4: [[(6, 0), (0, 9), (10, 9)], [(7, 4), (7, 14)]],
    5: [[(2, 0), (1, 6), (6, 5), (9, 8), (8, 12), (4, 14), (1, 12)], [(2, 0), (9, 0)]],
    7: [[(0, 0), (9, 0), (4, 14)]],
}


def draw(digit=7, size=(200, 200), *, at=(65, 55), unit=6.5, width=7, ink=(20, 20, 30), page=(240, 240, 235)):
    """Draw a digit with its top left corner ``at``, on squares of ``unit`` pixels, with a round pen."""
    picture = Image.new("RGB", size, page)
    on = ImageDraw.Draw(picture)
    for stroke in STROKES[digit]:
        points = [(at[0] + unit * x, at[1] + unit * y) for x, y in stroke]
        on.line(points, fill=ink, width=width, joint="curve")
        for x, y in points:
            on.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=ink)
    return picture


def alike(first, second):
    """The correlation of two images."""
    return float(np.corrcoef(first.ravel().astype(float), second.ravel().astype(float))[0, 1])
