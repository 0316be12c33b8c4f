"""What several test files share."""

import itertools
import os
import sys
from pathlib import Path

# Threads that wait for each other make a busy machine slow beyond measure, and what is multiplied here is
# small. NumPy and PyTorch read these when they are loaded.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def same_numbers_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a layer draws when it is given no generator is the same in every run of a test.

    A test that fails with one set of weights in a hundred says nothing about the change that it stops.
    """
    default_rng, seeds = np.random.default_rng, itertools.count()
    monkeypatch.setattr(
        np.random, "default_rng", lambda seed=None: default_rng(next(seeds) if seed is None else seed)
    )
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the real data sets, which lies beside the checkout on some machines."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip("needs the real data sets: runs where ../shared/datasets lies beside the checkout")
    return folder
