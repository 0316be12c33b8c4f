"""The folder of a run: whole files or none, and nothing left of a run that failed."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from chainrule.errors import ChainruleError
from chainrule.runs import RunFolder, new_folder


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    (tmp_path / "metrics.csv").write_text("old")
    script = (
        "import os, sys, pathlib; from chainrule import runs\n"
        "folder = runs.RunFolder(pathlib.Path(sys.argv[1]))\n"
        "runs.write_all = lambda file, content: (file.write(content[:4]), os._exit(9))\n"
        "folder.write('metrics.csv', b'new and longer')"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert result.returncode == 9
    assert (tmp_path / "metrics.csv").read_text() == "old"


def test_what_is_written_can_be_read(tmp_path):
    state = {
        "fc1.weight": np.arange(6, dtype=np.float32).reshape(3, 2).T,
        "fc1.bias": np.zeros(2, np.float32),
    }
    with RunFolder(tmp_path / "a" / "run") as folder:
        folder.write_model("model.safetensors", state)
    read = load_file(tmp_path / "a" / "run" / "model.safetensors")
    assert read.keys() == state.keys()
    assert all(np.array_equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize("error", [ChainruleError("no space"), KeyboardInterrupt()])
def test_a_run_that_fails_before_its_first_model_leaves_no_folder(tmp_path, error):
    with pytest.raises(type(error)), RunFolder(tmp_path / "runs" / "first") as folder:
        folder.write_json("config.json", {})
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_leaves_an_empty_folder_empty(tmp_path):
    with pytest.raises(ChainruleError), RunFolder(tmp_path) as folder:
        folder.write_json("config.json", {})
        raise ChainruleError
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_later_keeps_its_last_model(tmp_path):
    with pytest.raises(ChainruleError), RunFolder(tmp_path / "run") as folder:
        folder.write_model("model.safetensors", {"w": np.zeros(1)})
        raise ChainruleError
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.json").write_text("years of work")
    with pytest.raises(ChainruleError, match="is not empty: give another --out, or --overwrite"):
        RunFolder(tmp_path).__enter__()
    with pytest.raises(ChainruleError, match="no run .no config.json"):
        RunFolder(tmp_path, overwrite=True).__enter__()
    assert (tmp_path / "thesis.json").read_text() == "years of work"


def test_overwrite_takes_the_old_run_away_whole(tmp_path):
    for name in ("config.json", "summary.json", "curves.png", "notes.txt"):
        (tmp_path / name).write_text("old")
    with RunFolder(tmp_path, overwrite=True) as folder:
        folder.write_json("config.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "notes.txt"]


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ChainruleError, match="cannot write a run to .*file.* not a folder"):
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


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    def no_space(file, content):
        file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        pytest.raises(ChainruleError, match="cannot write .*model.safetensors: No space left on device"),
        RunFolder(tmp_path / "run") as folder,
    ):
        folder.write_json("config.json", {})
        monkeypatch.setattr("chainrule.runs.write_all", no_space)
        folder.write_model("model.safetensors", {"w": np.zeros(9)})
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_takes_the_first_free_name(tmp_path):
    assert new_folder("ann", tmp_path) == tmp_path / "ann"
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann-2").mkdir()
    assert new_folder("ann", tmp_path) == tmp_path / "ann-3"
