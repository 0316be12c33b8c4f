"""The wheel holds all that a stranger's machine needs: packages, recipes and the embedded digits."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's content in a folder of its own, outside the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("chainrule-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_trains_outside_the_checkout(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("CHAINRULE_DATA", None)
    command = [
        sys.executable,
        "-m",
        "chainrule",
        "train",
        "--engine",
        "numpy",
        "--epochs",
        "1",
        "--out",
        "run",
    ]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (
        str(installed)
        in subprocess.run(
            [sys.executable, "-c", "import chainrule; print(chainrule.__file__)"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["dataset"] == "digits"


def test_the_wheel_hands_out_exercises_and_grades_them(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def chainrule(*arguments):
        command = [sys.executable, "-m", "chainrule", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert chainrule("exercises", "relu", "--out", ".").returncode == 0
    file = tmp_path / "relu.py"
    assert "0 of 4 points" in chainrule("grade", "relu", "relu.py").stdout
    text = file.read_text("utf-8")
    text = text.replace('raise NotImplementedError("write forward")', "return np.maximum(x, 0), x > 0")
    file.write_text(
        text.replace('raise NotImplementedError("write backward")', "return grad_y * cache"), "utf-8"
    )
    graded = chainrule("grade", "relu", "relu.py")
    assert graded.returncode == 0, graded.stdout
    assert "4 of 4 points" in graded.stdout


def test_the_wheel_is_typed_and_holds_nothing_that_does_not_belong(installed):
    pages = ROOT / "chainrule" / "pages"
    assert all((installed / "chainrule" / "pages" / file.name).is_file() for file in pages.glob("*.*"))
    packages = ["idx", "nn_reference", "torch_impl", "agreement", "chainrule"]
    assert all((installed / package / "py.typed").is_file() for package in packages)
    assert sorted(
        path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")
    ) == sorted(packages)
