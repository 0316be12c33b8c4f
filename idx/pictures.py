"""Pictures of arrays: in the terminal, and a montage of many in one PNG."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from idx.layout import AnyArray

_SHADES = " ░▒▓█"
_ASCII_SHADES = " .:-=+*#%@"


def is_picture(array: AnyArray) -> bool:
    """Whether ``array`` is one picture: shape (height, width), or (height, width, 1, 3 or 4 channels)."""
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))


def to_grey(array: AnyArray) -> NDArray[np.uint8]:
    """``array``, shape (height, width) or (height, width, channels), as 8-bit grey, shape (height, width).

    uint8 stays as it is, everything else is stretched from its smallest finite value to its largest; channels
    are averaged (the first three of them).
    """
    values: NDArray[Any] = array.astype(np.float64)
    if values.ndim == 3:
        values = values[..., :3].mean(axis=2)
    if array.dtype != np.uint8:
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        values = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255 / ((high - low) or 1))
    return values.round().astype(np.uint8)


def in_colour(grey: NDArray[np.uint8]) -> str:
    """``grey`` as terminal text, two pixels in each character cell, in 24-bit colour."""
    rows = [*grey.tolist(), [0] * grey.shape[1]]
    lines = []
    for upper, lower in zip(rows[0:-1:2], rows[1::2], strict=True):
        cells = [f"\x1b[38;2;{a};{a};{a};48;2;{b};{b};{b}m▀" for a, b in zip(upper, lower, strict=True)]
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def in_shades(grey: NDArray[np.uint8], encoding: str) -> str:
    """``grey`` as plain text, two characters for each pixel, in shades that ``encoding`` has."""
    shades = _SHADES
    try:
        shades.encode(encoding)
    except UnicodeEncodeError:
        shades = _ASCII_SHADES
    # 0 alone is the blank: the faintest stroke can be seen.
    levels = -(-grey.astype(np.int32) * (len(shades) - 1) // 255)
    return "\n".join("".join(2 * shades[level] for level in row).rstrip() for row in levels.tolist())


def montage(pictures: Sequence[AnyArray], captions: Sequence[str]) -> Any:
    """A `PIL.Image.Image` of all ``pictures`` in a grid, each with its caption below when it has one."""
    from PIL import Image, ImageDraw

    height, width = to_grey(pictures[0]).shape
    scale = max(1, round(56 / max(height, width)))
    margin, text = 4, 14 if any(captions) else 0
    columns = math.ceil(math.sqrt(len(pictures) * (height * scale + text) / (width * scale)))
    step_x, step_y = width * scale + margin, height * scale + text + margin
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("L", (columns * step_x + margin, rows * step_y + margin), 64)
    draw = ImageDraw.Draw(sheet)
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = margin + number % columns * step_x, margin + number // columns * step_y
        tile = Image.fromarray(to_grey(picture)).resize(
            (width * scale, height * scale), Image.Resampling.NEAREST
        )
        sheet.paste(tile, (left, top))
        draw.text((left + width * scale / 2, top + height * scale + 1), caption, fill=255, anchor="ma")
    return sheet
