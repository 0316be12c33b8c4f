"""Two ranks compute what one process does with the batch of both, in float64."""

import multiprocessing
import runpy
import socket
from pathlib import Path

import numpy as np
import pytest

RANKS = Path(__file__).with_name("ranks.py")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch_impl.parallel"])
CODE = "import runpy; runpy.run_path(path)['main'](*arguments)"


@pytest.fixture(scope="module")
def alone():
    return runpy.run_path(str(RANKS))["alone"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two ranks found, for a network."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        SERVER.Process(target=exec, args=(CODE, {"path": str(RANKS), "arguments": (rank, port, str(folder))}))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return lambda name: [dict(np.load(folder / f"{name}-{rank}.npz")) for rank in range(2)]


@pytest.mark.parametrize("name", ["mlp", "mlp-bn", "cnn-bn"])
def test_two_ranks_have_the_gradients_of_one_process_on_the_batch_of_both(found, alone, name):
    expected, (first, second) = alone(name), found(name)
    assert expected.keys() == first.keys() == second.keys()
    assert sum(".grad." in key for key in expected) >= 12
    for key, value in expected.items():
        largest = np.abs(value).max()
        if ".grad." in key and largest < 1e-14:
            largest = 1.0  # of a bias before batch norm: zero but for rounding
        assert np.abs(first[key] - value).max() <= 1e-12 * largest, key
        assert np.array_equal(first[key], second[key]), key
    assert expected["evaluated.loss"] > 0


def test_the_masks_of_dropout_differ_between_ranks_but_nothing_else_does(found, alone):
    expected, (first, second) = alone("dropout"), found("dropout")
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not np.allclose(first["0.loss"], expected["0.loss"])
    assert first["0.loss"] == pytest.approx(expected["0.loss"], rel=0.5)
