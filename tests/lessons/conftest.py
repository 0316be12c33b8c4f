"""Each lesson is run once for all tests."""

import functools
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("marimo", reason="needs marimo: pip install 'chainrule[lessons]'; runs in CI")

LESSONS = Path(__file__).resolve().parents[2] / "lessons"


@pytest.fixture(scope="session")
def export():
    """The module lessons/export.py."""
    spec = importlib.util.spec_from_file_location("lessons_export", LESSONS / "export.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def exported(export, tmp_path_factory):
    """Return what a lesson's number gives: its cells and values, the file of its page and of its notebook."""
    out = tmp_path_factory.mktemp("lessons")

    @functools.cache
    def of(number: str) -> SimpleNamespace:
        path = next(LESSONS.glob(f"{number}_*.py"))
        cells, values = export.export(path, out)
        return SimpleNamespace(
            cells=cells,
            values=SimpleNamespace(**values),
            page=out / f"{path.stem}.html",
            notebook=out / f"{path.stem}.ipynb",
        )

    return of
