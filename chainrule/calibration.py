"""Probabilities that mean what they say: of the answers given with 99 %, 99 in 100 should be right.

Networks trained until the training images are all right are too sure of themselves. Dividing their outputs by
one number, the temperature, before the softmax mends most of it and changes no answer; it is the number that
gives images that were kept back the least cross-entropy. Source: Guo, Pleiss, Sun, Weinberger, On calibration
of modern neural networks (2017), which also defines the expected calibration error.
"""

from typing import Any

import numpy as np

from chainrule.metrics import probabilities

BINS = 15


def temperature(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the T that minimises the cross-entropy of outputs / T (N, classes) with labels (N,).

    In b = 1 / T that is convex: its derivative, the mean of E_p[z] - z_y, grows with b, and is bisected. T is
    at least 0.05 and at most 20: where every answer is right, ever colder would be ever better.
    """
    scores = outputs.astype(np.float64)
    right = scores[np.arange(len(labels)), labels.astype(np.int64)]
    low, high = np.log(1 / 20), np.log(20)
    for _ in range(60):
        middle = (low + high) / 2
        chances = probabilities(scores * np.exp(middle))
        slope = np.mean((chances * scores).sum(axis=1) - right)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def reliability(outputs: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> dict[str, Any]:
    """Return how far probabilities of the answers are from the share of right ones.

    ``bins`` has for each of 15 equal parts of 0 to 1 that an answer's probability lies in: ``low``, ``high``,
    ``count``, the mean ``probability``, and the share that is ``right``. ``ece``, the expected calibration
    error, is the mean difference of the two, each bin weighted by its count.
    """
    chances = probabilities(outputs / temperature)
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for place in np.unique(places):
        there = places == place
        row = {
            "low": float(place / BINS),
            "high": float((place + 1) / BINS),
            "count": int(there.sum()),
            "probability": float(sure[there].mean()),
            "right": float(right[there].mean()),
        }
        error += row["count"] / len(labels) * abs(row["probability"] - row["right"])
        bins.append(row)
    return {"ece": float(error), "bins": bins}


def of_engine(
    outputs: np.ndarray, labels: np.ndarray, kept: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, Any]:
    """Return what a summary says of one engine: the temperature by what was ``kept`` back (outputs, labels),
    and the reliability on the test images before and, where there is a temperature, after it."""
    found = None if kept is None else temperature(*kept)
    result: dict[str, Any] = {
        "temperature": found,
        "validation_images": 0 if kept is None else len(kept[1]),
        "before": reliability(outputs, labels),
    }
    if found is not None:
        result["after"] = reliability(outputs, labels, found)
    return result
