"""Arrays as lines of a terminal: small ones whole, of large ones size, a part and the largest numbers."""

import math
import textwrap
from collections.abc import Iterator

import numpy as np

MOST_SHOWN = 60  # numbers of an array that is shown whole
LABEL = 30  # columns before the numbers
_CELL = 10  # columns of a number, but for long ones
_SHADES = " .:-=+*#%@"


def number(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits; never "-0"."""
    return f"{value + 0.0:.{digits}g}"


def bracketed(value: float) -> str:
    """Return a number to stand after an operator: a negative one in brackets."""
    return f"({number(value)})" if value < 0 else number(value)


def largest_places(array: np.ndarray, most: int) -> list[tuple[int, ...]]:
    """Return where the numbers of the largest size are, the largest first."""
    order = np.argsort(-np.abs(array).reshape(-1), kind="stable")[:most]
    return [tuple(int(i) for i in np.unravel_index(int(k), array.shape)) for k in order]


def table(
    rows: list[tuple[str, np.ndarray]],
    width: int,
    largest: bool = True,
    place: tuple[int, ...] | None = None,
) -> Iterator[str]:
    """Give labelled arrays one below the other with their columns aligned, each small one whole.

    Of large ones the part round ``place`` is shown (None: round the largest number) and, if ``largest``, the
    largest numbers.
    """
    texts = [
        [number(value) for value in array.reshape(-1)] if array.size <= MOST_SHOWN else None
        for _, array in rows
    ]
    cell = max((len(text) for row in texts if row is not None for text in row), default=0)
    cell = max(cell + 2, _CELL)
    for (label, array), row in zip(rows, texts, strict=True):
        head = f"  {label}  {tuple(array.shape)}"
        left = f"{head:{LABEL}}"
        if row is None:
            yield from _summary(left, array, width, largest, place)
            continue
        columns = array.shape[-1] if array.ndim else 1
        fits = max(1, (width - max(LABEL, 1)) // cell)
        if len(left) >= LABEL and left[-1] != " ":  # a long label has a line of its own
            yield left.rstrip()
            left = ""
        for start in range(0, len(row), columns):
            cells = row[start : start + columns]
            for first in range(0, len(cells), fits):
                part = "".join(f"{text:>{cell}}" for text in cells[first : first + fits])
                yield f"{left:{LABEL}}{part}"
                left = ""


def _summary(
    left: str, array: np.ndarray, width: int, largest: bool, place: tuple[int, ...] | None
) -> Iterator[str]:
    """Give the size, a part and the largest numbers of a large array."""
    zeros = array.size - np.count_nonzero(array)
    share = f", {zeros:,} of {array.size:,} are 0" if zeros else f", {array.size:,} numbers"
    norm = math.sqrt(float(np.vdot(array, array)))
    text = f"norm {number(norm)}, {number(float(array.min()))} to {number(float(array.max()))}{share}"
    if len(left) >= LABEL and left[-1] != " ":
        yield left.rstrip()
        left = ""
    yield from wrapped(f"{left:{LABEL}}", text, width)
    if zeros == array.size:
        return
    places = largest_places(array, 3)
    yield from _part(array, place or places[0], width, corner=place is None)
    if largest:
        shown = (f"[{','.join(map(str, one))}] {number(float(array[one]))}" for one in places)
        yield from wrapped(f"{'':{LABEL}}largest ", "  ".join(shown), width)


def _part(array: np.ndarray, place: tuple[int, ...], width: int, corner: bool) -> Iterator[str]:
    """Give a few numbers round ``place``; with ``corner`` a matrix's first ones, unless all are 0."""
    if array.ndim == 1:
        array = array[None]
    columns = min(max(1, (width - LABEL) // _CELL), 6, array.shape[-1])
    rows = min(3, array.shape[-2])
    place = (0, *place)[-max(array.ndim, 2) :]
    lead = place[:-2]
    image = array[lead]
    top, left = 0, 0
    if array.ndim > 2 or not corner or not image[:rows, :columns].any():
        top = min(max(place[-2] - rows // 2, 0), image.shape[0] - rows)
        left = min(max(place[-1] - columns // 2, 0), image.shape[1] - columns)
    part = image[top : top + rows, left : left + columns]
    texts = [[number(float(value)) for value in row] for row in part]
    cell = max(_CELL, *(len(text) + 2 for row in texts for text in row))
    fits = max(1, (width - LABEL) // cell)
    where = "".join(f"{i}," for i in lead) + f"{top}:{top + rows},{left}:{left + min(columns, fits)}"
    yield f"{'':{LABEL}}[{where}]"
    for row in texts:
        yield f"{'':{LABEL}}" + "".join(f"{text:>{cell}}" for text in row[:fits])


def picture(image: np.ndarray) -> list[str]:
    """Return an image (H, W) in letters, two rows to a line, from least (paper) to largest."""
    pairs = image[: len(image) // 2 * 2].reshape(-1, 2, image.shape[1]).mean(1)
    low, high = pairs.min(), pairs.max()
    shades = ((pairs - low) / (high - low or 1) * (len(_SHADES) - 1)).round().astype(int)
    rows = ["".join(_SHADES[shade] for shade in row).rstrip() for row in shades]
    while rows and not rows[-1]:
        rows.pop()
    while rows and not rows[0]:
        rows.pop(0)
    return rows


def beside(text: str, right: str, width: int) -> Iterator[str]:
    """Give the text with ``right`` at the end of the line, or on the next."""
    if len(text) + 3 + len(right) <= width:
        yield f"{text}{right:>{width - len(text)}}"
    else:
        yield from wrapped("", text, width, hang=4) if len(text) > width else [text.rstrip()]
        yield f"{right:>{width}}"


def equals(text: str, value: float, width: int) -> Iterator[str]:
    """Give the text, and "= value" in the last columns, on a line of its own where the text is too long."""
    result = f"= {number(value, 6)}"
    column = width - 15
    if len(text) + 1 <= column:
        yield f"{text:{column}}{result}"
        return
    indent = " " * (len(text) - len(text.lstrip()))
    broken = textwrap.wrap(
        text, column - 1, initial_indent="", subsequent_indent=indent, drop_whitespace=True
    )
    broken[0] = indent + broken[0].lstrip()
    yield from broken[:-1]
    yield f"{broken[-1]:{column}}{result}"


def wrapped(head: str, text: str, width: int, hang: int | None = None) -> Iterator[str]:
    """Give ``head`` and the text behind it, broken at the width and indented like its beginning."""
    indent = " " * (len(head) if hang is None else hang)
    found = textwrap.wrap(text, max(20, width - len(head)), break_long_words=False, break_on_hyphens=False)
    found = found or [""]
    yield (head + found[0]).rstrip()
    rest = " ".join(found[1:])
    if rest:
        for line in textwrap.wrap(
            rest, max(20, width - len(indent)), break_long_words=False, break_on_hyphens=False
        ):
            yield indent + line
