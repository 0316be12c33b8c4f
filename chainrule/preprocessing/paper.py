"""Ink told from paper: uneven light taken away, which of the two is darker, and where ink begins."""

import numpy as np

# The least difference between ink and paper that is looked for; black and white differ by 1.
FAINTEST = 0.02


def level(plane: np.ndarray) -> np.ndarray:
    """Subtract the paper: a plane (height, width) becomes its difference from the light that falls on it.

    The light is a surface of second degree in x and y, which follows gradients and the darker corners of a
    photograph. It is fitted by least squares to the border, and then again to all pixels that lie near it, so
    that ink does not pull at it (an M-estimator with hard rejection: Huber, Robust Statistics, 1981).
    Returns float32, about 0 on paper, negative where ink is darker and positive where it is lighter.
    """
    height, width = plane.shape
    rows = np.linspace(0, height - 1, min(height, 40)).round().astype(int)
    columns = np.linspace(0, width - 1, min(width, 40)).round().astype(int)
    y, x = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    few = plane[np.ix_(rows, columns)].astype(np.float64)
    border = np.ones(few.shape, bool)
    ring = max(1, min(few.shape) // 12)
    border[ring:-ring, ring:-ring] = False
    surface = _Surface(np.array([np.median(few[border])]))
    for terms in (3, 3, 6, 6, 6):
        rest = np.abs(few - surface.at(y[rows], x[columns]))
        # 1.4826 times the median of absolute differences is the standard deviation of a normal distribution.
        near = rest <= max(4 * 1.4826 * np.median(rest[border]), 0.03)
        if terms == 3:
            near &= border
        if near.sum() < 4 * terms:
            break
        surface = _Surface.fit(few, near, y[rows], x[columns], terms)
    return np.asarray((plane - surface.at(y, x)), np.float32)


class _Surface:
    """a + b y + c x + d y² + e x² + f x y, of which the last ones may be missing."""

    def __init__(self, weights: np.ndarray):
        self.weights = np.concatenate([weights, np.zeros(6 - len(weights))])

    def at(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the surface over a grid, (len(y), len(x))."""
        a, b, c, d, e, f = self.weights
        return np.asarray(a + (b * y + d * y**2)[:, None] + (c * x + e * x**2) + f * np.outer(y, x))

    @classmethod
    def fit(
        cls, plane: np.ndarray, where: np.ndarray, y: np.ndarray, x: np.ndarray, terms: int
    ) -> "_Surface":
        """Return the surface nearest to the pixels ``where`` of ``plane``, by least squares."""
        row, column = np.nonzero(where)
        powers = np.stack(
            [np.ones(len(row)), y[row], x[column], y[row] ** 2, x[column] ** 2, y[row] * x[column]]
        )
        gram = powers[:terms] @ powers[:terms].T
        return cls(np.linalg.solve(gram + 1e-6 * len(row) * np.eye(terms), powers[:terms] @ plane[where]))


def ink_up(plane: np.ndarray) -> np.ndarray:
    """Return a levelled plane with ink positive, whichever of ink and paper was the lighter.

    Paper is what there is more of and what the border is made of, and levelling has put it at zero. So ink is
    on the side that reaches further: the larger sum of cubes (the skewness, but for its scale).
    """
    return plane if np.vdot(plane * plane, plane) >= 0 else -plane


def ink(plane: np.ndarray) -> np.ndarray:
    """Return how much ink each pixel has, from 0 to 1 with 0.5 where ink begins; grey edges stay grey.

    The threshold is Otsu's (1979), over pixels weighted by their gradient: at edges there is as much ink as
    paper, however little ink there is (Gonzalez and Woods, Digital Image Processing, chapter 10.3).
    It is at least four times the paper's noise, unless that is half of what the strongest ink has. An empty
    page has no ink: its darkest spots are within what its grain makes by chance.
    """
    values = np.clip(plane, 0, None)
    top = float(np.partition(values, -4, axis=None)[-4]) if values.size > 3 else 0.0
    if top < max(FAINTEST, 6 * _grain(plane)):
        return np.zeros_like(plane)
    down, across = np.gradient(plane) if min(plane.shape) > 1 else (plane, plane)
    bins = np.minimum((values * (255 / top)).astype(np.int64), 255)
    weights = np.bincount(bins.ravel(), np.hypot(down, across).ravel().astype(np.float64), 256)
    threshold, low, high = (level * top / 255 for level in _otsu(weights))
    noise = 1.4826 * float(np.median(np.abs(_fewer(plane))))
    threshold = max(threshold, min(4 * noise, top / 2))
    slope = max((high - low) / 2, top / 255)
    return np.asarray(np.clip((values - threshold) / slope + 0.5, 0, 1), np.float32)


def _grain(plane: np.ndarray) -> float:
    """Return the standard deviation of a picture's noise: of the second differences that no slope has.

    Source: Immerkær, Fast noise variance estimation (1996), with the median in place of the mean.
    """
    if min(plane.shape) < 3:
        return 0.0
    across = plane[:, 2:] - 2 * plane[:, 1:-1] + plane[:, :-2]
    both = across[2:] - 2 * across[1:-1] + across[:-2]
    return 1.4826 * float(np.median(np.abs(_fewer(both)))) / 6


def _fewer(plane: np.ndarray) -> np.ndarray:
    """Return some thousands of pixels, of all parts: enough for a median."""
    step = max(1, int(np.sqrt(plane.size / 4_000)))
    return plane[::step, ::step]


def _otsu(histogram: np.ndarray) -> tuple[float, float, float]:
    """Return the threshold that parts a histogram into two classes of least variance, and their means."""
    levels = np.arange(len(histogram))
    below = np.cumsum(histogram)
    total, moment = below[-1], np.cumsum(histogram * levels)
    above = total - below
    inside = (below > 0) & (above > 0)
    if not inside.any():
        return len(histogram) / 2, 0.0, len(histogram) - 1.0
    low = np.where(inside, moment / np.maximum(below, 1e-12), 0)
    high = np.where(inside, (moment[-1] - moment) / np.maximum(above, 1e-12), 0)
    between = np.where(inside, below * above * (high - low) ** 2, -1)
    best = np.flatnonzero(between == between.max())
    middle = int(best[len(best) // 2])
    return middle + 0.5, float(low[middle]), float(high[middle])
