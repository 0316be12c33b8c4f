"""Pictures of what was read: a grid of answers, and one digit's way through the steps. All by Pillow."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from chainrule.preprocessing import Step

_TILE = 112  # pixels a side
_GAP = 10
_LINE = 17
_PAPER, _TEXT, _FAINT, _DOUBT = (255, 255, 255), (20, 20, 20), (95, 95, 95), (176, 0, 32)


def grid(rows: Sequence[tuple["Image", np.ndarray, str, str, str, bool]], most: int = 400) -> bytes:
    """Return a PNG with a tile for each: the picture, what the network saw, name, answer, second, doubtful.

    Of more than ``most`` the first are drawn, and a line says how many are not.
    """
    from PIL import Image, ImageDraw

    shown = rows[:most]
    columns = max(1, min(4, len(shown)))
    wide, high = 2 * _TILE + 3 * _GAP, _TILE + 3 * _LINE + 2 * _GAP
    lines = -(-len(shown) // columns)
    page = Image.new("RGB", (max(columns * wide + _GAP, 420), lines * high + 2 * _LINE + _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    left_out = f"; {len(rows) - most:,} more are not shown" if len(rows) > most else ""
    words = f"the picture, what the network saw, and its answer{left_out}"
    draw.text((_GAP, 6), words, fill=_FAINT, font=_font(13))
    for index, (picture, seen, name, answer, second, doubtful) in enumerate(shown):
        row, column = divmod(index, columns)
        x, y = _GAP + column * wide, 2 * _LINE + row * high
        _paste(page, _tile(picture), x, y)
        _paste(page, _tile(seen), x + _TILE + _GAP, y)
        colour = _DOUBT if doubtful else _TEXT
        draw.text((x, y + _TILE + 2), _fit(draw, name, 2 * _TILE + _GAP, 12), fill=_FAINT, font=_font(12))
        draw.text((x, y + _TILE + 2 + _LINE), answer, fill=colour, font=_font(15))
        draw.text((x, y + _TILE + 4 + 2 * _LINE), second, fill=_FAINT, font=_font(12))
    return png(page)


def steps(name: str, made: Sequence["Step"], image: np.ndarray, answer: str, columns: int = 6) -> bytes:
    """Return a PNG with the picture after each step, its name below, and last what the network sees."""
    from PIL import Image, ImageDraw

    tile, line = 180, 15
    tiles: list[tuple[Any, str, str]] = [(step.picture, step.name, step.words) for step in made]
    tiles.append((image, "what the network sees", answer))
    rows = -(-len(tiles) // columns)
    wide, high = tile + _GAP, tile + 3 * line + 2 * _GAP
    page = Image.new("RGB", (columns * wide + _GAP, rows * high + 30), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_GAP, 6), _fit(draw, name, page.width - 2 * _GAP, 14), fill=_TEXT, font=_font(14))
    for index, (picture, title, words) in enumerate(tiles):
        row, column = divmod(index, columns)
        x, y = _GAP + column * wide, 30 + row * high
        _paste(page, _tile(picture, tile), x, y)
        draw.text((x, y + tile + 2), f"{index + 1}. {title}", fill=_TEXT, font=_font(12))
        for number, text in enumerate(_wrap(draw, words, tile, 11)[:2]):
            draw.text((x, y + tile + 4 + line * (number + 1)), text, fill=_FAINT, font=_font(11))
    return png(page)


def png(page: "Image") -> bytes:
    """Return a picture as the bytes of a PNG."""
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def as_picture(picture: "np.ndarray | Image") -> "Image":
    """Return a step's picture for the eye, mode RGB: holes of a transparent one are chequered."""
    from PIL import Image

    if isinstance(picture, np.ndarray):
        plane: np.ndarray = picture.astype(np.float32)
        if picture.dtype == np.uint8:
            plane = plane / 255
        elif plane.size and (plane.min() < 0 or plane.max() > 1):  # a levelled plane: paper is 0
            reach = max(float(np.abs(plane).max()), 1e-6)
            plane = 0.5 + 0.5 * plane / reach
        return Image.fromarray(np.round(np.clip(plane, 0, 1) * 255).astype(np.uint8)).convert("RGB")
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    size = max(4, max(picture.size) // 16)
    y, x = np.ogrid[: picture.height, : picture.width]
    board = np.where((y // size + x // size) % 2, 215, 175).astype(np.uint8)
    under = Image.fromarray(board).convert("RGBA")
    return Image.alpha_composite(under, picture).convert("RGB")


def _tile(picture: Any, size: int = _TILE) -> "Image":
    """Return a picture of at most ``size`` pixels a side, small ones with their pixels as squares."""
    from PIL import Image

    shown = as_picture(picture)
    factor = size / max(shown.size)
    how = Image.Resampling.NEAREST if factor > 1.5 else Image.Resampling.BOX
    return shown.resize((max(1, round(shown.width * factor)), max(1, round(shown.height * factor))), how)


def _paste(page: "Image", tile: "Image", x: int, y: int) -> None:
    from PIL import ImageDraw

    page.paste(tile, (x, y))
    ImageDraw.Draw(page).rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline=(190, 190, 190))


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fit(draw: Any, text: str, width: int, size: int) -> str:
    """Return the end of a text that is too wide, which of a path is the file's name."""
    if draw.textlength(text, font=_font(size)) <= width:
        return text
    while text and draw.textlength("..." + text, font=_font(size)) > width:
        text = text[1:]
    return "..." + text


def _wrap(draw: Any, text: str, width: int, size: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=_font(size)) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def side_by_side(
    name: str,
    picture: "Image",
    naive: tuple[np.ndarray, str, list[str]],
    full: tuple[np.ndarray, str, list[str]],
    made: Sequence["Step"],
) -> bytes:
    """Return a PNG: a picture, what the naive way and all steps make of it, what is off, and the steps.

    ``naive`` and ``full`` are each the image, the answer, and in words what the training data have not.
    """
    from PIL import Image, ImageDraw

    tile, line = 280, 17
    below = Image.open(io.BytesIO(steps("Step by step", made, full[0], full[1])))
    width = max(3 * tile + 4 * _GAP, below.width)
    most = max(1, len(naive[2]), len(full[2]))
    page = Image.new("RGB", (width, tile + (most * 2 + 4) * line + below.height), _PAPER)
    draw = ImageDraw.Draw(page)
    columns: list[tuple[Any, str, str, list[str]]] = [
        (picture, "The picture", name, []),
        (naive[0], "Resized and inverted", f"read as {naive[1]}", naive[2] or ["nothing is off"]),
        (full[0], "All steps", f"read as {full[1]}", full[2] or ["nothing is off"]),
    ]
    for index, (shown, title, words, off) in enumerate(columns):
        x, y = _GAP + index * (tile + 2 * _GAP), _GAP
        _paste(page, _tile(shown, tile), x, y)
        y += tile + 4
        draw.text((x, y), title, fill=_TEXT, font=_font(14))
        draw.text((x, y + line), _fit(draw, words, tile, 13), fill=_TEXT, font=_font(13))
        y += 2 * line
        for entry in off:
            for text in _wrap(draw, entry, tile, 12)[:2]:
                draw.text((x, y), text, fill=_FAINT if off == ["nothing is off"] else _DOUBT, font=_font(12))
                y += line
    page.paste(below, (0, page.height - below.height))
    return png(page)
