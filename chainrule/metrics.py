"""What a confusion matrix tells: precision, recall and F1 of each class, and what is taken for what."""

from typing import Any, TypedDict

import numpy as np


class Pair(TypedDict):
    """``count`` of the ``of`` examples of the class ``truth`` were read as ``answer``."""

    truth: str
    answer: str
    count: int
    of: int


def per_class(matrix: np.ndarray, class_names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return precision, recall, F1 and support of each class from counts (classes, classes).

    Row = the true class, column = what the network said. Of what it called a 4, precision is the share that
    is one; of the 4s there are (``support``), recall is the share that it found; F1 = 2PR / (P + R) is their
    harmonic mean. A share of nothing is None. Source: van Rijsbergen (1979), Information Retrieval.
    """
    right = np.diag(matrix)
    said, there = matrix.sum(axis=0), matrix.sum(axis=1)
    return {
        name: {
            "precision": _share(right[i], said[i]),
            "recall": _share(right[i], there[i]),
            "f1": _share(2 * right[i], said[i] + there[i]),  # = 2PR / (P + R)
            "support": int(there[i]),
        }
        for i, name in enumerate(class_names)
    }


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def most_confused(matrix: np.ndarray, class_names: tuple[str, ...], most: int = 5) -> list[Pair]:
    """Return what is most often taken for what, at most ``most`` pairs, the most frequent first."""
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    return [
        {
            "truth": class_names[row],
            "answer": class_names[column],
            "count": int(mistakes[row, column]),
            "of": int(matrix[row].sum()),
        }
        for row, column in zip(*np.unravel_index(order, matrix.shape), strict=True)
        if mistakes[row, column]
    ]


def in_words(pair: Pair) -> str:
    """Return "4 read as 9: 12 of 982"."""
    return f"{pair['truth']} read as {pair['answer']}: {pair['count']:,} of {pair['of']:,}"


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return what the outputs (N, classes) give each class, (N, classes) in float64.

    It is their softmax; log-probabilities, which a network that ends with LogSoftmax gives, go through it
    unharmed.
    """
    from nn_reference import softmax

    return softmax.forward(outputs.astype(np.float64), -1)[0]


def most_confident_mistakes(outputs: np.ndarray, labels: np.ndarray, most: int) -> np.ndarray:
    """Return the indices of the wrongly read examples, the one the network was surest of first."""
    wrong = np.flatnonzero(outputs.argmax(1) != labels)
    sure = probabilities(outputs[wrong]).max(axis=1, initial=0.0)
    return wrong[np.argsort(-sure, kind="stable")][:most]
