"""What can be measured of a 28x28 image, to compare a person's own with the training data."""

from collections.abc import Iterator

import numpy as np

# What is measured, and the words for less and for more of it than the training data have.
WORDS = {
    "background": ("darker paper", "grey paper"),
    "ink": ("fainter ink", "stronger ink"),
    "mean": ("less ink", "more ink"),
    "stroke width": ("thinner strokes", "thicker strokes"),
    "size": ("a smaller digit", "a larger digit"),
    "centre down": ("a digit further up", "a digit further down"),
    "centre right": ("a digit further left", "a digit further right"),
}


def measures(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return each measure (N,) of images (N, 28, 28) in uint8, white ink on black.

    Background: the median along the border; ink: the mean of the strongest 5 % of pixels; mean: of all
    pixels (these from 0 to 1). Stroke width: 2 x area / perimeter, which is the total variation;
    size: the longer side of the box with ink; centre: of mass, from the middle (these in pixels).
    """
    planes = images.astype(np.float32) / 255
    height, width = planes.shape[1:]
    border = np.concatenate([planes[:, 0], planes[:, -1], planes[:, :, 0], planes[:, :, -1]], axis=1)
    flat = np.sort(planes.reshape(len(planes), -1), axis=1)
    area = planes.sum(axis=(1, 2))
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    down, across = padded[:, 1:, :-1] - padded[:, :-1, :-1], padded[:, :-1, 1:] - padded[:, :-1, :-1]
    perimeter = np.hypot(down, across).sum(axis=(1, 2))
    rows, columns = (planes > 0.25).any(axis=2), (planes > 0.25).any(axis=1)
    size = np.maximum(_extent(np.asarray(rows)), _extent(np.asarray(columns)))
    weight = np.maximum(area, 1e-6)
    return {
        "background": np.median(border, axis=1),
        "ink": flat[:, -flat.shape[1] // 20 :].mean(axis=1),
        "mean": planes.mean(axis=(1, 2)),
        "stroke width": 2 * area / np.maximum(perimeter, 1e-6),
        "size": size.astype(np.float32),
        "centre down": planes.sum(axis=2) @ np.arange(height) / weight - (height - 1) / 2,
        "centre right": planes.sum(axis=1) @ np.arange(width) / weight - (width - 1) / 2,
    }


def _extent(there: np.ndarray) -> np.ndarray:
    """Return from the first to the last True of each row, both counted."""
    first, last = there.argmax(axis=1), there.shape[1] - there[:, ::-1].argmax(axis=1)
    return np.where(there.any(axis=1), last - first, 0)


def odd(values: dict[str, float], limits: dict[str, tuple[float, float]]) -> Iterator[str]:
    """Give in words what lies outside ``limits``, the least and the most of each measure."""
    for name, (low, high) in limits.items():
        value = values[name]
        if not low <= value <= high:
            yield f"{WORDS[name][value > high]} ({name} {value:.2f}, training {low:.2f} to {high:.2f})"
