"""``torchrun -m chainrule train``: begun, ended, killed and continued, with two ranks on the CPU."""

import csv
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from chainrule import distributed
from chainrule.cli import run
from chainrule.errors import ChainruleError

ROOT = Path(__file__).parents[2]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        *("chainrule.cli", "chainrule.checkpoints", "chainrule.screen", "chainrule.plots", "threadpoolctl"),
        *("matplotlib.figure", "safetensors.numpy", "torch_impl.parallel", "torch._dynamo"),
    ]
)
RECIPE = """
summary = "784-24-10, batch norm, dropout"
layers = [
    { name = "flatten", type = "Flatten" },
    { name = "fc1", type = "Linear", out_features = 24 },
    { name = "bn1", type = "BatchNorm1d" },
    { name = "relu1", type = "ReLU" },
    { name = "dropout1", type = "Dropout", p = DROPOUT },
    { name = "fc2", type = "Linear", out_features = 10 },
]
[input]
shape = [28, 28]
mean = 0.1307
std = 0.3081
[training]
loss = { type = "CrossEntropyLoss" }
optimizer = { type = "AdamW", lr = 3e-3 }
scheduler = { type = "OneCycleLR", max_lr = 0.01 }
batch_size = 32
epochs = 3
seed = 5
validation = 101
"""
# What `torchrun` starts; the pictures take longer than the training.
COMMAND = """
import os, sys
os.environ |= variables
sys.stdout, sys.stderr = (open(os.path.join(logs, name), "a") for name in ("out", "err"))
from chainrule import cli, records
records.draw = lambda *arguments: None
raise SystemExit(cli.run(["train", *arguments]))
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")

    def write(dropout):
        path = folder / f"small-{dropout}.toml"
        path.write_text(RECIPE.replace("DROPOUT", str(dropout)))
        return path

    return write


@pytest.fixture(scope="module")
def options(small):
    return [small(0.3), "--engine", "torch", "--dataset", "digits", "--epochs", "4"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, options):
    """The folder of a run of two ranks that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert end(start(folder / "logs", *options, "--out", folder / "run")) == [0, 0]
    return folder / "run"


def start(logs, *arguments, ranks=2):
    """Start the ranks of one training, as torchrun would, from a process that has loaded what takes time."""
    logs.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks}
        given = {
            "variables": address | {key: str(value) for key, value in place.items()},
            "logs": str(logs),
            "arguments": list(map(str, arguments)),
        }
        processes.append(SERVER.Process(target=exec, args=(COMMAND, given)))
    for process in processes:
        process.start()
    return processes


def end(processes, seconds=60):
    """Wait for all to end by themselves; returns their exit status."""
    for process in processes:
        process.join(seconds)
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
        process.join()
    assert not hung, "they hang"
    return [process.exitcode for process in processes]


def wait_for(path, seconds=60):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"no {path.name}"
        time.sleep(0.002)


def metrics(folder):
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_two_ranks_train_as_one_process_does_on_the_batch_of_both(tmp_path, small, monkeypatch):
    two, one, recipe = tmp_path / "two", tmp_path / "one", small(0.0)
    options = [recipe, "--engine", "torch", "--dataset", "digits", "--set"]
    options += [
        "training.optimizer.eps=1e-3"
    ]  # else a gradient of rounding errors moves a bias as far as any
    assert end(start(tmp_path / "logs", *options, "--out", two)) == [0, 0]
    monkeypatch.setattr("chainrule.records.draw", lambda *_: None)
    assert run(["train", *map(str, options), "--batch-size", "64", "--out", str(one), "--json"]) == 0
    ours, theirs = metrics(two), metrics(one)
    assert len(ours) == len(theirs) == 9
    for row, expected in zip(ours, theirs, strict=True):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4)
        assert float(row["accuracy"]) == pytest.approx(float(expected["accuracy"]), abs=0.01)
        assert row["learning_rate"] == expected["learning_rate"]
    configs = [json.loads((folder / "config.json").read_text()) for folder in (two, one)]
    assert [config["ranks"] for config in configs] == [2, 1]
    assert [config["recipe"]["batch_size"] for config in configs] == [64, 64]
    model, expected = (load_file(folder / "model.safetensors") for folder in (two, one))
    assert all(np.allclose(model[name], expected[name], rtol=1e-2, atol=1e-4) for name in expected)
    screen = (tmp_path / "logs" / "out").read_text()
    assert "Ranks    2 processes, each with 32 images of every batch" in screen
    assert screen.count("Data ") == screen.count("test images right") == 1, "only rank 0 prints"
    assert (tmp_path / "logs" / "err").read_text() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL: runs on Linux and macOS")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_ends_the_run_which_goes_on_to_the_same_bits(tmp_path, options, whole, killed):
    broken, logs = tmp_path / "broken", tmp_path / "logs"
    processes = start(logs, *options, "--out", broken, "--checkpoint-every", "0", "--rank-timeout", "30")
    wait_for(broken / "checkpoint-before.safetensors")
    processes[killed].kill()
    statuses = end(processes, 20)
    assert statuses[killed] == -signal.SIGKILL
    assert statuses[1 - killed] == 1
    lines = (logs / "err").read_text().splitlines()
    assert lines == [
        f"chainrule: another rank has ended: `chainrule train --resume {broken}` continues it",
    ]
    assert not (broken / "summary.json").exists()
    assert end(start(tmp_path / "more", "--resume", broken)) == [0, 0]
    said = (tmp_path / "more" / "err").read_text()
    assert not said or said.endswith("; going on from checkpoint-before.safetensors\n")
    assert metrics(broken) == metrics(whole)
    for name in ("model.safetensors", "best.safetensors"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP: runs on Linux and macOS")
def test_a_rank_that_does_not_answer_ends_the_run(tmp_path, options):
    run, logs = tmp_path / "run", tmp_path / "logs"
    waiting = ["--epochs", "4000", "--checkpoint-every", "0", "--rank-timeout", "6"]
    processes = start(logs, *options, "--out", run, *waiting)
    wait_for(run / "checkpoint.safetensors")
    os.kill(processes[1].pid, signal.SIGSTOP)
    assert end(processes[:1], 40) == [1]
    processes[1].kill()
    processes[1].join()
    line = f"chainrule: another rank does not answer: `chainrule train --resume {run}` continues it\n"
    assert (logs / "err").read_text() == line


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT: runs on Linux and macOS")
def test_ctrl_c_stops_all_ranks_with_a_checkpoint(tmp_path, options):
    run, logs = tmp_path / "run", tmp_path / "logs"
    processes = start(logs, *options, "--out", run, "--epochs", "4000", "--checkpoint-every", "999")
    wait_for(run / "model.safetensors")
    for process in processes:  # as torchrun does
        os.kill(process.pid, signal.SIGINT)
    assert end(processes, 40) == [130, 1]
    line = f"chainrule: stopped: `chainrule train --resume {run}` continues it\n"
    assert (logs / "err").read_text() == line
    assert (run / "checkpoint.safetensors").exists()


def test_torchrun_starts_it(tmp_path, small):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "chainrule", "train"]
    options = ["--dataset", "digits", "--engine", "torch", "--epochs", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*command, str(small(0)), *options, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["batch_size"] == 64
    assert (tmp_path / "run" / "curves.png").exists()


def test_only_pytorch_trains_in_several_processes(tmp_path, small):
    options = [small(0), "--engine", "numpy", "--dataset", "digits", "--out", tmp_path / "run"]
    (first, second) = start(tmp_path / "logs", *options, "--rank-timeout", "3")
    assert end([first]) == [2]
    second.terminate()  # as torchrun does when a rank has failed
    assert end([second]) in ([-signal.SIGTERM], [1])
    said = (tmp_path / "logs" / "err").read_text().splitlines()[0]
    assert said == "chainrule: torchrun has started 2 processes: only --engine torch trains in several"
    assert not (tmp_path / "run").exists()


def test_other_data_on_another_rank_is_said_once(tmp_path, small, monkeypatch):
    logs = tmp_path / "logs"
    options = [small(0.0), "--engine", "torch", "--dataset", "digits", "--out", tmp_path / "run"]
    other = COMMAND.replace(
        "records.draw",
        "from chainrule import saved\n"
        "saved.is_data_of = lambda *_: int(os.environ['RANK']) == 0\nrecords.draw",
        1,
    )
    monkeypatch.setitem(globals(), "COMMAND", other)
    assert end(start(logs, *options)) == [1, 1]
    (line,) = (logs / "err").read_text().splitlines()
    assert re.fullmatch(r"chainrule: .*digits, on rank 1: not the files that rank 0 has, by SHA-256", line)


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("MASTER_ADDR", "WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    world = distributed.from_environment()
    assert (world.rank, world.size, world.first) == (0, 1, True)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ChainruleError, match="torchrun should have set RANK and LOCAL_RANK"):
        distributed.from_environment()


def test_a_rank_without_a_device_of_its_own_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    distributed.World(5, 8, local_rank=1).check_device("cuda")
    distributed.World(6, 8, local_rank=2).check_device("cpu")
    with pytest.raises(ChainruleError, match=r"rank 6 is process 3 on its machine, which has 2 CUDA devices"):
        distributed.World(6, 8, local_rank=2).check_device("cuda")
