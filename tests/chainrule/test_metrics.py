"""Precision, recall, F1 and the most confused pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from chainrule import metrics

NAMES = ("a", "b", "c", "d")
LABELS = arrays.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 3))


@given(LABELS, st.randoms(use_true_random=False))
def test_they_are_those_of_scikit_learn(labels, random):
    answers = np.array([random.randrange(4) for _ in labels])
    matrix = confusion_matrix(labels, answers, labels=range(4))
    found = metrics.per_class(matrix, NAMES)
    expected = precision_recall_fscore_support(labels, answers, labels=range(4), zero_division=np.nan)
    for quantity, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        ours = [np.nan if found[name][quantity] is None else found[name][quantity] for name in NAMES]
        np.testing.assert_allclose(ours, values, rtol=1e-12, err_msg=quantity)


def test_the_most_confused_pairs_in_words():
    matrix = np.array([[5, 1, 0], [3, 9, 0], [1, 1, 0]])
    pairs = metrics.most_confused(matrix, ("4", "9", "T-shirt"), most=3)
    assert [metrics.in_words(pair) for pair in pairs] == [
        "9 read as 4: 3 of 12",
        "4 read as 9: 1 of 6",
        "T-shirt read as 4: 1 of 2",
    ]
    assert metrics.most_confused(np.eye(3, dtype=int), ("a", "b", "c")) == []


def test_log_probabilities_are_taken_as_they_are():
    logits = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * 9
    given_ = metrics.probabilities(logits)
    assert given_.sum(axis=1) == pytest.approx(1)
    np.testing.assert_allclose(metrics.probabilities(np.log(given_)), given_, rtol=1e-12)


def test_the_surest_mistakes_come_first():
    outputs = np.array([[5.0, 0.0], [0.0, 9.0], [0.0, 1.0], [3.0, 0.0]])
    labels = np.array([0, 0, 0, 1])
    assert metrics.most_confident_mistakes(outputs, labels, 2).tolist() == [1, 3]
    assert metrics.most_confident_mistakes(outputs, outputs.argmax(1), 2).tolist() == []
