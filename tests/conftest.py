"""What several test files share."""

import os
from pathlib import Path

# Threads that wait for each other make a busy machine slow beyond measure, and what is multiplied here is
# small. NumPy and PyTorch read these when they are loaded.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of the real data sets, which lies beside the checkout on some machines."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "datasets"
    if not folder.is_dir():
        pytest.skip("needs the real data sets: runs where ../shared/datasets lies beside the checkout")
    return folder
