"""The temperature makes probabilities true, and the calibration error says how true they are."""

import numpy as np
import pytest

from chainrule import calibration


def network(count=20_000, too_sure=3.0):
    """Scores whose softmax, divided by ``too_sure``, is exactly how labels are drawn."""
    rng = np.random.default_rng(0)
    honest = 2.0 * rng.standard_normal((count, 10))
    chances = np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True)
    labels = (rng.random((count, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    return honest * too_sure, np.minimum(labels, 9)


@pytest.mark.parametrize("too_sure", [0.5, 1.0, 3.0])
def test_the_temperature_is_found(too_sure):
    outputs, labels = network(too_sure=too_sure)
    assert calibration.temperature(outputs, labels) == pytest.approx(too_sure, rel=0.05)


def test_a_network_without_a_mistake_gets_a_temperature_too():
    outputs = 5.0 * np.eye(10)[[3, 1, 4]]
    assert 0.049 < calibration.temperature(outputs, np.array([3, 1, 4])) < 0.051


def test_the_error_falls_to_that_of_chance():
    outputs, labels = network()
    assert calibration.reliability(outputs, labels)["ece"] > 0.15
    assert calibration.reliability(outputs, labels, 3.0)["ece"] < 0.02


def test_the_error_of_a_case_by_hand():
    # Two answers of 0.9, one of them right; two of 0.6, both right: |0.9 - 0.5| / 2 + |0.6 - 1| / 2.
    outputs = np.log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    found = calibration.reliability(outputs, np.array([0, 1, 0, 1]))
    assert found["ece"] == pytest.approx(0.4)
    assert [row["count"] for row in found["bins"]] == [2, 2]
    assert sum(row["count"] for row in found["bins"]) == 4


def test_without_validation_images_there_is_no_temperature():
    outputs, labels = network(100)
    assert calibration.of_engine(outputs, labels, None).keys() == {
        "temperature",
        "validation_images",
        "before",
    }
    assert calibration.of_engine(outputs, labels, (outputs, labels))["after"]["bins"]
