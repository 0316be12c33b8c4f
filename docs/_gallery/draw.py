"""The pictures: arrays as small images, curves as lines. SVG that takes the page's own colours."""

import base64
import io
import math
from html import escape

import numpy as np
from matplotlib import colormaps
from measure import Curve, Shown
from PIL import Image
from settings import Array

_MAP = colormaps["PuOr"]  # told apart by the colour-blind; white is zero
_LONGEST = 48  # rows and columns that are shown of a large tensor


def arrays(shown: Shown) -> str:
    """Return the right tensor, the wrong one and their difference, in one scale."""
    both = [np.nan_to_num(a, nan=0.0, posinf=0.0, neginf=0.0) for a in (shown.right, shown.wrong)]
    pair = [_flat(a, both[0]) for a in both]
    panels = [("right", pair[0]), ("with the mistake", pair[1]), ("difference", pair[1] - pair[0])]
    largest = max(np.abs(pair[0]).max(initial=0.0), 1e-300)
    made = []
    for title, a in panels:
        scale = largest if title != "difference" else max(np.abs(a).max(initial=0.0), 1e-300)
        size = "" if title != "difference" else f" (largest {scale:.1e})"
        made.append(
            f'<figure class="panel"><img alt="{title}" src="data:image/png;base64,{_png(a / scale)}">'
            f"<figcaption>{title}{size}</figcaption></figure>"
        )
    return "".join(made)


def _flat(a: Array, right: Array) -> Array:
    """Return a as a matrix, at most some dozens of rows and columns of it.

    Of images, and of weights of pixels, it shows six: where ``right`` is largest.
    """
    if a.ndim == 2 and a.shape[1] in (49, 196) and len(a) >= 6:
        side = 7 if a.shape[1] == 49 else 14
        a, right = a.reshape(-1, side, side), right.reshape(-1, side, side)
    if a.ndim == 3 and a.shape[1] == a.shape[2] and a.shape[1] in (7, 14):
        six = np.sort(np.argsort(-np.abs(right).sum((1, 2)), kind="stable")[:6])
        a = np.pad(a[six], ((0, 0), (0, 1), (0, 1))).reshape(2, 3, *(a.shape[1] + 1,) * 2)
        return a.transpose(0, 2, 1, 3).reshape(2 * a.shape[2], -1)
    if a.ndim < 2:
        a = a.reshape(1, -1)
    a = a.reshape(a.shape[0], -1)
    if a.shape[0] > 4 * a.shape[1]:
        a = a.T
    return a[:_LONGEST, : 4 * _LONGEST] if a.shape[0] <= 12 else a[:_LONGEST, : 2 * _LONGEST]


def _png(a: Array) -> str:
    colours = (_MAP(0.5 + np.clip(a, -1, 1) / 2)[..., :3] * 255).round().astype(np.uint8)
    image = Image.fromarray(colours).quantize(64)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


_WIDTH, _HEIGHT = 230, 130
_LEFT, _TOP, _RIGHT, _BOTTOM = 40, 18, 6, 26


def curves(wrong: Curve, right: list[Curve]) -> str:
    """Return two small diagrams: loss and accuracy over the epochs, the band of the right ones in grey."""
    loss = _diagram("training loss", wrong.loss, [curve.loss for curve in right], percent=False)
    accuracy = _diagram("test accuracy", wrong.accuracy, [curve.accuracy for curve in right], percent=True)
    return loss + accuracy


def _diagram(title: str, wrong: list[float], right: list[list[float]], percent: bool) -> str:
    band = np.array(right)  # (seeds, epochs)
    finite = [value for value in wrong if np.isfinite(value) and value < 1e3]
    low = math.floor(10 * min(float(band.min()), *wrong, 0.9)) / 10 if percent else 0.0
    high = 1.0 if percent else max(float(band.max()), min(max(finite, default=0.0), 2 * float(band.max())))
    epochs = band.shape[1]

    def x(epoch: float) -> float:
        return _LEFT + (epoch - 1) / (epochs - 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    def points(values: list[float]) -> str:
        pairs = [(at, value) for at, value in enumerate(values, 1) if np.isfinite(value)]
        return " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in pairs)

    upper, lower = band.max(0).tolist(), band.min(0).tolist()
    outline = points(upper) + " " + " ".join(reversed(points(lower).split()))
    ticks = [low, (low + high) / 2, high]
    words = f"{title}: with the mistake {_ends(wrong, percent)}, right {_ends(right[0], percent)}"
    grid = "".join(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}" class="grid"/>'
        f'<text x="{_LEFT - 4}" y="{y(t) + 4:.1f}" text-anchor="end">{_tick(t, percent)}</text>'
        for t in ticks
    )
    below = f'y="{_HEIGHT - 10}" text-anchor="middle"'
    axis = "".join(f'<text x="{x(t):.1f}" {below}>{t}</text>' for t in (1, epochs))
    return (
        f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(words)}">'
        f'<text x="{_LEFT}" y="11">{title}</text>{grid}{axis}'
        f'<text x="{(_LEFT + _WIDTH) / 2}" {below}>epoch</text>'
        f'<polygon class="band" points="{outline}"/><polyline class="right" points="{points(right[0])}"/>'
        f'<polyline class="wrong" points="{points(wrong)}"/></svg>'
    )


def _tick(value: float, percent: bool) -> str:
    return f"{value:.0%}" if percent else f"{value:.2g}"


def _ends(values: list[float], percent: bool) -> str:
    if not values:
        return "none"
    return " to ".join(_tick(value, percent) for value in (values[0], values[-1]))
