"""What several test files share."""

import os
from pathlib import Path

# Threads that wait for each other make a busy machine slow beyond measure, and what is multiplied here is
# small. NumPy and PyTorch read these when they are loaded.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_datasets() -> Path:
    """The folder of real data sets beside the checkout; tests that need it are skipped where it is not."""
    folder = SHARED / "datasets"
    if not folder.is_dir():
        pytest.skip("needs the real data sets in ../shared/datasets: runs where they lie beside the checkout")
    return folder


@pytest.fixture(scope="session")
def mnist_root(shared_datasets: Path) -> Path:
    """A data folder whose mnist/ is the real MNIST."""
    return shared_datasets
