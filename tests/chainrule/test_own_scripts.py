"""docs/own-scripts.md shows what works: its blocks run, one after the other."""

import re
from pathlib import Path

import numpy as np
import pytest

from chainrule.cli import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-scripts.md").read_text("utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_run):
    """A folder with the data and the run that the page speaks of."""
    pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "data").symlink_to(ROOT / "data")
    make_run(folder / "runs" / "mine", "cnn")
    return folder


def blocks():
    return re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_the_dataset_and_the_figures(place, monkeypatch):
    monkeypatch.chdir(place)
    names = {}
    for block in blocks()[:2]:
        exec(block, names)
    assert names["accuracy"] > 0.8, "three epochs on the embedded digits"
    assert f"{names['pixels'].mean:.4f} and {names['pixels'].std:.4f}" in PAGE.replace("\n", " ")


def test_the_state_dict(place, monkeypatch):
    monkeypatch.chdir(place)
    assert run(["export", "runs/mine", "--overwrite"]) == 0
    names = {}
    exec(blocks()[2], names)
    assert not names["network"].training
    assert f"for `cnn` is {names['recipe'].load('cnn').mean} and {names['recipe'].load('cnn').std}" in PAGE


def test_onnx(place, monkeypatch):
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason="needs onnx and onnxruntime: runs where they are installed")
    from chainrule.torch_dataset import IdxDataset

    monkeypatch.chdir(place)
    assert run(["export", "runs/mine", "--format", "onnx", "--overwrite"]) == 0
    names = {"test": IdxDataset.from_name("digits", train=False)}
    exec(blocks()[3], names)
    assert names["predictions"].shape == (297,)
    assert names["predictions"].dtype == np.int64


def test_every_block_is_run():
    assert len(blocks()) == 4


def test_the_commands_exist(capsys):
    for command in set(re.findall(r"^chainrule (\w+)", PAGE, flags=re.MULTILINE)):
        assert run([command, "--help"]) == 0
        assert f"chainrule {command}" in " ".join(capsys.readouterr().out.split())
