"""The folder of a run: whole files or none, an old run or a new one, nothing of anybody else's."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from chainrule.errors import ChainruleError
from chainrule.runs import RunFolder

MODEL = {"w": np.zeros(1)}
CONFIG = {"recipe": {}, "dataset_sha256": {}}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def old_run(tmp_path):
    """A finished run, with a note and a picture that a person put beside it."""
    with RunFolder(tmp_path / "run") as folder:
        folder.write_json("config.json", CONFIG)
        folder.write_model("model.safetensors", MODEL)
        folder.write_model("model-torch.safetensors", MODEL)
        folder.write("curves.png", b"old")
        folder.write_json("summary.json", {})
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / "photo.png").write_text("mine too")
    return folder.path


def test_a_killed_writer_leaves_the_old_file(old_run):
    script = (
        "import os, sys, pathlib; from chainrule import runs\n"
        "folder = runs.RunFolder(pathlib.Path(sys.argv[1]))\n"
        "runs.write_all = lambda file, content: (file.write(content[:4]), os._exit(9))\n"
        "folder.write('summary.json', b'new and longer')"
    )
    result = subprocess.run([sys.executable, "-c", script, str(old_run)], check=False)
    assert result.returncode == 9
    assert (old_run / "summary.json").read_text() == "{}\n"


def test_what_is_written_can_be_read(tmp_path):
    state = {
        "fc1.weight": np.arange(6, dtype=np.float32).reshape(3, 2).T,
        "fc1.bias": np.zeros(2, np.float32),
    }
    with RunFolder(tmp_path / "a" / "run") as folder:
        folder.write_json("config.json", CONFIG)
        assert content(folder.path).keys() == {"config.json"}, "with it a killed run can be continued"
        folder.write_model("model.safetensors", state)
        assert content(folder.path).keys() == {"config.json", "model.safetensors"} == set(folder.files)
    read = load_file(tmp_path / "a" / "run" / "model.safetensors")
    assert read.keys() == state.keys()
    assert all(np.array_equal(read[name], state[name]) for name in state)


def test_what_is_not_json_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"), RunFolder(tmp_path / "run") as folder:
        folder.write_json("summary.json", {"loss": float("nan")})


@pytest.mark.parametrize("error", [ChainruleError("no space"), KeyboardInterrupt()])
def test_a_run_that_fails_before_its_first_model_leaves_no_trace(tmp_path, error):
    with pytest.raises(type(error)), RunFolder(tmp_path / "runs" / "first") as folder:
        folder.write_json("config.json", CONFIG)
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_later_keeps_its_last_model(tmp_path):
    with pytest.raises(ChainruleError), RunFolder(tmp_path / "run") as folder:
        folder.write_model("model.safetensors", MODEL)
        raise ChainruleError
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_overwriting_keeps_the_old_run_until_there_is_a_new_model(old_run):
    before = content(old_run)
    with pytest.raises(ChainruleError), RunFolder(old_run, overwrite=True) as folder:
        folder.write_json("config.json", {**CONFIG, "new": True})
        raise ChainruleError
    assert content(old_run) == before


def test_overwriting_takes_the_old_run_away_and_nothing_else(old_run):
    with RunFolder(old_run, overwrite=True) as folder:
        folder.write_json("config.json", {**CONFIG, "new": True})
        folder.write_model("model.safetensors", MODEL)
    assert content(old_run).keys() == {"config.json", "model.safetensors", "notes.txt", "photo.png"}
    assert json.loads((old_run / "config.json").read_text())["new"]


def test_a_full_disk_while_overwriting_leaves_the_old_run(old_run, monkeypatch):
    before = content(old_run)
    monkeypatch.setattr("chainrule.runs.write_all", no_space)
    with pytest.raises(ChainruleError, match="No space left"), RunFolder(old_run, overwrite=True) as folder:
        folder.write_model("model.safetensors", MODEL)
    assert content(old_run) == before


def test_what_is_no_run_is_left_alone(tmp_path, old_run):
    with pytest.raises(ChainruleError, match="is not empty: give another --out, or --overwrite"):
        RunFolder(old_run).__enter__()
    # Other programs keep a config.json beside their models too.
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for config in ('{"model_type": "bert"}', "[]", "not json"):
        (theirs / "config.json").write_text(config)
        with pytest.raises(ChainruleError, match="holds files but no run: --overwrite leaves it alone"):
            RunFolder(theirs, overwrite=True).__enter__()
        assert (theirs / "config.json").read_text() == config


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            ChainruleError, match=r"cannot write a run to .*file.* (not a folder|Not a directory)"
        ):
            RunFolder(path).__enter__()


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write to any folder: runs where the tests are not root's"
)
def test_a_read_only_folder_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(ChainruleError, match="cannot write a run to .*: Permission denied"):
        RunFolder(tmp_path / "run").__enter__()


def test_a_read_only_file_system_is_one_clear_error():
    # /proc can be written by nobody, root included.
    if not Path("/proc/self").is_dir():
        pytest.skip("needs Linux's /proc: runs on Linux")
    with pytest.raises(ChainruleError, match="cannot write a run to /proc/run: "):
        RunFolder(Path("/proc/run")).__enter__()


def no_space(file, content):
    file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    with (
        pytest.raises(ChainruleError, match="cannot write .*model.safetensors: No space left on device$"),
        RunFolder(tmp_path / "run") as folder,
    ):
        folder.write_json("config.json", CONFIG)
        monkeypatch.setattr("chainrule.runs.write_all", no_space)
        folder.write_model("model.safetensors", MODEL)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_later_says_what_is_left(tmp_path, monkeypatch):
    with (
        pytest.raises(
            ChainruleError, match="curves.png: No space left on device; `chainrule train --resume .*run` cont"
        ),
        RunFolder(tmp_path / "run") as folder,
    ):
        folder.write_model("model.safetensors", MODEL)
        monkeypatch.setattr("chainrule.runs.write_all", no_space)
        folder.write("curves.png", b"a picture")
    assert content(tmp_path / "run").keys() == {"model.safetensors"}


def test_the_first_free_name_is_taken(tmp_path):
    paths = []
    for _ in range(3):
        with RunFolder(tmp_path / "ann", numbered=True) as folder:
            folder.write_model("model.safetensors", MODEL)
        paths.append(folder.path.name)
    assert paths == ["ann", "ann-2", "ann-3"]
