"""Mean and standard deviation of a data set's pixels, from sums that are exact."""

import math
from dataclasses import dataclass

import numpy as np

_AT_ONCE = 1 << 20  # np.bincount takes eight bytes for each of them


@dataclass(frozen=True)
class PixelStatistics:
    """Sums over pixels from 0 to 255, as whole numbers; ``mean`` and ``std`` are those of pixels / 255."""

    count: int
    sum: int
    sum_of_squares: int

    @property
    def mean(self) -> float:
        """The mean of pixels / 255."""
        return self.sum / (255 * self.count)

    @property
    def std(self) -> float:
        """The standard deviation of pixels / 255: ``sqrt(E[x^2] - E[x]^2)``, the difference taken exactly."""
        return math.sqrt(self.count * self.sum_of_squares - self.sum**2) / (255 * self.count)


def pixel_statistics(images: np.ndarray) -> PixelStatistics:
    """Add up the pixels of images, uint8 of any shape but an empty one (ValueError), and their squares."""
    if images.dtype != np.uint8 or images.size == 0:
        raise ValueError(f"expected pixels of uint8, found {images.dtype} of shape {images.shape}")
    histogram = np.zeros(256, np.int64)
    pixels = images.reshape(-1)
    for start in range(0, pixels.size, _AT_ONCE):
        histogram += np.bincount(pixels[start : start + _AT_ONCE], minlength=256)
    counts = [int(count) for count in histogram]
    return PixelStatistics(
        count=sum(counts),
        sum=sum(value * count for value, count in enumerate(counts)),
        sum_of_squares=sum(value**2 * count for value, count in enumerate(counts)),
    )
