"""Where the digits are: pieces of ink put together to one digit, or to several from left to right."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

_TOUCHING = np.ones((3, 3), bool)


@dataclass
class _Piece:
    numbers: list[int]  # of the labelled pieces
    ink: float
    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> int:
        return max(self.bottom - self.top, self.right - self.left)


def digit(ink: np.ndarray) -> np.ndarray:
    """Return the one digit in a picture, cut out: the piece with most ink, and what lies near enough.

    A stroke that is not joined (the bar of a 5) lies within a fifth of the digit's size. What touches the
    edge of the picture, as a neighbour's stroke or a shadow does, is taken only where there is nothing else.
    Returns ink (height, width) without a margin; a blank picture comes back as it is.
    """
    labels, best = _one(ink)
    return ink if best is None else _cut(ink, labels, best)


def box(ink: np.ndarray) -> tuple[int, int, int, int]:
    """Return where `digit` finds it: top, bottom, left, right; all 0 on a blank picture."""
    best = _one(ink)[1]
    return (0, 0, 0, 0) if best is None else (best.top, best.bottom, best.left, best.right)


def _one(ink: np.ndarray) -> tuple[np.ndarray, _Piece | None]:
    labels, pieces = _pieces(ink)
    if not pieces:
        return labels, None
    height, width = ink.shape
    best = max(pieces, key=lambda piece: _weight(piece, height, width))
    rest = [piece for piece in pieces if piece is not best]
    grown = True
    while grown:
        grown = False
        for piece in rest:
            near = _gap(piece, best) <= 0.2 * best.size
            if near and not _underlines(piece, best) and not _cut_off(piece, best, height, width):
                best = _joined(best, piece)
                rest.remove(piece)
                grown = True
                break
    return labels, best


def digits(ink: np.ndarray) -> list[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """Return every digit, cut out, with its box (top, bottom, left, right), as they are read.

    Pieces that lie above each other belong together; digits of several lines come line by line, each from
    left to right. What is lower than a third of the highest is no digit.
    """
    labels, pieces = _pieces(ink)
    joined = True
    while joined:
        joined = False
        for i, first in enumerate(pieces):
            for second in pieces[i + 1 :]:
                if _above_each_other(first, second):
                    pieces.remove(first)
                    pieces.remove(second)
                    pieces.append(_joined(first, second))
                    joined = True
                    break
            if joined:
                break
    highest = max((piece.size for piece in pieces), default=0)
    found = [piece for piece in pieces if piece.size >= highest / 3]
    return [
        (_cut(ink, labels, piece), (piece.top, piece.bottom, piece.left, piece.right))
        for piece in _read(found)
    ]


def _pieces(ink: np.ndarray) -> tuple[np.ndarray, list[_Piece]]:
    labels, _ = ndimage.label(ink > 0.25, _TOUCHING)
    amounts = np.bincount(labels.ravel(), ink.ravel())
    return labels, [
        _Piece([number], float(amounts[number]), box[0].start, box[0].stop, box[1].start, box[1].stop)
        for number, box in enumerate(ndimage.find_objects(labels), 1)
    ]


def _weight(piece: _Piece, height: int, width: int) -> float:
    """A digit is the piece with most ink; one that the edge cuts off counts less, a corner's shadow least."""
    edges = (piece.top == 0) + (piece.bottom == height) + (piece.left == 0) + (piece.right == width)
    middle = abs((piece.left + piece.right) / width - 1) + abs((piece.top + piece.bottom) / height - 1)
    return piece.ink * (1 - 0.25 * middle) * 0.5**edges


def _cut_off(piece: _Piece, best: _Piece, height: int, width: int) -> bool:
    at_edge = piece.top == 0 or piece.left == 0 or piece.bottom == height or piece.right == width
    best_too = best.top == 0 or best.left == 0 or best.bottom == height or best.right == width
    return at_edge and not best_too


def _underlines(piece: _Piece, best: _Piece) -> bool:
    """A flat piece below or above the digit, wider than any stroke of it would be."""
    high, wide = piece.bottom - piece.top, piece.right - piece.left
    apart = piece.top >= best.bottom or piece.bottom <= best.top
    return apart and high < 0.2 * wide and wide > 0.9 * best.size


def _gap(first: _Piece, second: _Piece) -> float:
    down = max(first.top - second.bottom, second.top - first.bottom, 0)
    across = max(first.left - second.right, second.left - first.right, 0)
    return float(np.hypot(down, across))


def _joined(first: _Piece, second: _Piece) -> _Piece:
    return _Piece(
        first.numbers + second.numbers,
        first.ink + second.ink,
        min(first.top, second.top),
        max(first.bottom, second.bottom),
        min(first.left, second.left),
        max(first.right, second.right),
    )


def _above_each_other(first: _Piece, second: _Piece) -> bool:
    shared = min(first.right, second.right) - max(first.left, second.left)
    narrow = min(first.right - first.left, second.right - second.left)
    small = min(first.ink, second.ink) < 0.5 * max(first.ink, second.ink)
    near = _gap(first, second) <= 0.25 * max(first.size, second.size)
    return small and near and shared >= 0.3 * narrow


def _read(pieces: list[_Piece]) -> list[_Piece]:
    lines: list[list[_Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.top + piece.bottom):
        middle = (piece.top + piece.bottom) / 2
        for line in lines:
            if line[0].top <= middle <= line[0].bottom:
                line.append(piece)
                break
        else:
            lines.append([piece])
    return [piece for line in lines for piece in sorted(line, key=lambda piece: piece.left)]


def _cut(ink: np.ndarray, labels: np.ndarray, piece: _Piece) -> np.ndarray:
    box = (slice(piece.top, piece.bottom), slice(piece.left, piece.right))
    return np.where(np.isin(labels[box], piece.numbers), ink[box], 0).astype(np.float32)
