"""What several test files share."""

import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

# Threads that wait for each other make a busy machine slow beyond measure, and what is multiplied here is
# small. NumPy and PyTorch read these when they are loaded.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A shell that starts the tests in the background has Ctrl-C ignored by them and by all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium, the one that the system has."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
        None,
    )
    if found is None:
        pytest.skip("needs Chromium (Debian: apt-get install chromium): runs in CI, which installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A page without a network, 1280 pixels wide. The test fails if the page logs an error or throws."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, offline=True)
    page, errors = context.new_page(), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors
