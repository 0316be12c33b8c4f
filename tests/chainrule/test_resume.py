"""Checkpoints: a run that is killed at any moment goes on to the bits of one that was never stopped."""

import contextlib
import csv
import functools
import importlib.util
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule import checkpoints, datasets, engines, recipe, records, training
from chainrule.checkpoints import Damaged, pack, unpack
from chainrule.cli import run
from chainrule.errors import Stopped
from chainrule.runs import CHECKPOINTS, RunFolder

# Small, with all that has a state: batch norm, dropout, Adam's moments, a schedule, the best epoch so far.
RECIPE = """
summary = "784-24-16-10, batch norm, dropout"
layers = [
    { name = "flatten", type = "Flatten" },
    { name = "fc1", type = "Linear", out_features = 24 },
    { name = "bn1", type = "BatchNorm1d" },
    { name = "relu1", type = "ReLU" },
    { name = "dropout1", type = "Dropout", p = 0.3 },
    { name = "fc2", type = "Linear", out_features = 16 },
    { name = "relu2", type = "ReLU" },
    { name = "dropout2", type = "Dropout", p = 0.2 },
    { name = "fc3", type = "Linear", out_features = 10 },
]
[input]
shape = [28, 28]
mean = 0.1307
std = 0.3081
[training]
loss = { type = "CrossEntropyLoss" }
optimizer = { type = "AdamW", lr = 3e-3 }
scheduler = { type = "OneCycleLR", max_lr = 0.01 }
batch_size = 128
epochs = 3
seed = 5
validation = 200
"""


# --- in one process: every schedule and optimizer, stopped after any batch ---


class Stop(Exception):
    pass


SCHEDULERS = [
    {"type": "StepLR", "step_size": 1, "gamma": 0.5},
    {"type": "MultiStepLR", "milestones": [3, 3, 5], "interval": "step"},
    {"type": "ExponentialLR", "gamma": 0.9, "interval": "step"},
    {"type": "LinearLR", "total_iters": 6, "interval": "step"},
    {"type": "CosineAnnealingLR", "interval": "step"},
    {"type": "OneCycleLR", "max_lr": 0.01, "three_phase": True},
    {"type": "ReduceLROnPlateau", "patience": 0, "threshold": 0.5},
]
OPTIMIZERS = [
    {"type": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"type": "Adam", "lr": 3e-3, "amsgrad": True},
    {"type": "SGD", "lr": 0.1, "momentum": 0.5, "weight_decay": 1e-3},
    {"type": "AdamW", "lr": 3e-3},
]


def few(images):
    data = datasets.load("digits")
    return replace(
        data,
        train_images=data.train_images[:images],
        train_labels=data.train_labels[:images],
        test_images=data.test_images[:50],
        test_labels=data.test_labels[:50],
    )


def begin(names, plan, data):
    return [training.begin(engines.build(plan, name, seed=plan.seed), plan, data) for name in names]


def go_on(courses, plan, metrics, stop_before=None):
    """Train on; before the batch with this number, counted from here, raise Stop."""
    left = iter(range(stop_before + 1)) if stop_before is not None else None

    def between_batches():
        if left is not None and next(left) == stop_before:
            raise Stop

    training.train(
        courses,
        plan,
        report=lambda progress: progress.means(),
        after_epoch=lambda course, rows, best: metrics.extend(rows),
        between_batches=between_batches,
    )


def without_seconds(value):
    """What must be equal: everything but the time that it took."""
    if isinstance(value, dict):
        return {key: without_seconds(inner) for key, inner in value.items() if key != "seconds"}
    return [without_seconds(inner) for inner in value] if isinstance(value, list) else value


def same(ours, theirs):
    """Whether two trees of arrays and plain values are equal to the bit."""
    return unpack_free_of_order(without_seconds(ours)) == unpack_free_of_order(without_seconds(theirs))


def unpack_free_of_order(tree):
    arrays = {}
    plain = checkpoints._without_arrays(tree, "", arrays)
    return plain, {key: (value.dtype, value.shape, value.tobytes()) for key, value in arrays.items()}


@pytest.mark.parametrize("names", [["numpy"], ["torch"], ["numpy", "torch"]], ids="+".join)
@pytest.mark.parametrize("number", range(len(SCHEDULERS)), ids=lambda i: SCHEDULERS[i]["type"])
def test_every_schedule_goes_on_from_any_batch(tmp_path, names, number):
    (tmp_path / "small.toml").write_text(RECIPE)
    changes = {
        "training.scheduler": SCHEDULERS[number],
        "training.optimizer": OPTIMIZERS[number % len(OPTIMIZERS)],
        "training.batch_size": 25,
        "training.validation": 20,
        "training.early_stopping": 2,
    }
    if SCHEDULERS[number]["type"] == "OneCycleLR":
        changes["training.optimizer"] = OPTIMIZERS[3]
    plan, data = recipe.load(str(tmp_path / "small.toml"), changes), few(110)  # 4 batches, the last one of 15
    unbroken, metrics = begin(names, plan, data), []
    go_on(unbroken, plan, metrics)
    expected = checkpoints.state_of(unbroken, metrics, {})
    for stops in ([0, 0], [1, 4, 2], [3, 1, 5], [7, 4]):
        courses, metrics = begin(names, plan, data), []
        for stop in stops:
            with pytest.raises(Stop):
                go_on(courses, plan, metrics, stop_before=stop)
            content = pack(checkpoints.state_of(courses, metrics, {}))
            courses = begin(names, plan, data)
            metrics = checkpoints.restore(unpack(content), courses)
        go_on(courses, plan, metrics)
        assert same(checkpoints.state_of(courses, metrics, {}), expected), stops


def test_what_is_not_restored_shows(tmp_path, monkeypatch):
    # The comparison above is worth something only if it sees each part that is forgotten.
    (tmp_path / "small.toml").write_text(RECIPE)
    plan = recipe.load(str(tmp_path / "small.toml"), {"training.batch_size": 25, "training.validation": 20})
    data = few(110)
    for name in ("numpy", "torch"):
        unbroken, metrics = begin([name], plan, data), []
        go_on(unbroken, plan, metrics)
        expected = checkpoints.state_of(unbroken, metrics, {})
        courses, metrics = begin([name], plan, data), []
        with pytest.raises(Stop):
            go_on(courses, plan, metrics, stop_before=6)
        content = pack(checkpoints.state_of(courses, metrics, {}))
        fresh = checkpoints.state_of(begin([name], plan, data), [], {})["courses"][name]
        for part in ("model", "optimizer", "random", "scheduler", "trained", "running", None):
            state, courses = unpack(content), begin([name], plan, data)
            if part is not None:
                state["courses"][name][part] = unpack(pack(fresh))[part]
            metrics = checkpoints.restore(state, courses)
            try:
                go_on(courses, plan, metrics)
                forgotten = not same(checkpoints.state_of(courses, metrics, {}), expected)
            except ValueError:  # a schedule that is longer than the training
                forgotten = True
            assert forgotten == (part is not None), (name, part)


# --- the file ---

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(max_size=5),
    st.builds(
        lambda shape, dtype, seed: np.random.default_rng(seed).integers(0, 255, shape).astype(dtype),
        st.sampled_from([(), (0,), (3,), (2, 3)]),
        st.sampled_from(["f4", "f8", "i8", "u1", "u8"]),
        st.integers(0, 9),
    ),
)
trees = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=60)
@given(trees)
def test_what_is_packed_is_unpacked_to_the_bit(tree):
    assert repr(unpack_free_of_order(unpack(pack(tree)))) == repr(unpack_free_of_order(tree))


CONTENT = pack({"config": "", "metrics": [{"loss": 0.5}], "weights": np.arange(40, dtype=np.float32)})


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 8 * len(CONTENT) - 1))
def test_a_flipped_bit_is_seen(bit):
    damaged = bytearray(CONTENT)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Damaged):
        unpack(bytes(damaged))


@settings(deadline=None)
@given(st.integers(0, len(CONTENT) - 1))
def test_a_file_that_is_cut_short_is_seen(length):
    with pytest.raises(Damaged, match="it is empty" if not length else "cut short|head is damaged"):
        unpack(CONTENT[:length])


@pytest.mark.parametrize("content", [CONTENT + b"\0", b"not a checkpoint", b"\xff" * 100, bytes(1000)])
def test_something_else_is_seen(content):
    with pytest.raises(Damaged):
        unpack(content)


# --- runs, killed ---

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        *("chainrule.cli", "chainrule.checkpoints", "chainrule.screen", "chainrule.plots"),
        *("matplotlib.figure", "safetensors.numpy", "threadpoolctl", "torch_impl", "torch._dynamo"),
    ]
)
COMMAND = """
from chainrule import cli, records
if not draw:
    records.draw = lambda *arguments: None
raise SystemExit(cli.run(arguments))
"""


def start(*arguments, draw=False):
    """Start the command in a process of its own, forked from one that has loaded what takes time."""
    arguments = ["train", *map(str, arguments), "--json"]
    process = SERVER.Process(target=exec, args=(COMMAND, {"arguments": arguments, "draw": draw}))
    process.start()
    return process


def finish(*arguments, draw=False):
    process = start(*arguments, draw=draw)
    process.join()
    assert process.exitcode == 0


def files(folder):
    """What a run leaves, but for seconds, the command that was typed, and checkpoints."""
    found = {}
    for path in folder.iterdir():
        if path.name in CHECKPOINTS:
            continue
        if path.name == "metrics.csv":
            found[path.name] = [without_seconds(row) for row in csv.DictReader(path.read_text().splitlines())]
        elif path.suffix == ".json":
            found[path.name] = {**without_seconds(json.loads(path.read_text())), "command": None}
        else:
            found[path.name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def unbroken(small, tmp_path_factory):
    """The folder of a run that was never stopped, for an engine."""

    @functools.cache
    def get(engine, draw=False):
        out = tmp_path_factory.mktemp(f"unbroken-{engine}") / "run"
        finish(small, "--dataset", "digits", "--engine", engine, "--out", out, draw=draw)
        return out

    return get


def newest_change(folder):
    """When a file in the folder was last written; 0 where there is none."""
    times = [0]
    with contextlib.suppress(FileNotFoundError):  # it has just been renamed
        times += [path.stat().st_mtime_ns for path in folder.glob("*")]
    return max(times)


def go_on_and_be_killed(out, new, every, draw, moments):
    """Begin or resume the run, and kill it at a random moment; returns whether it had not ended before."""
    before = newest_change(out)
    arguments = ["--resume", out] if (out / "config.json").exists() else new
    process = start(*arguments, "--checkpoint-every", every, draw=draw)
    if moments.random() < 0.8:  # else it may be killed before it trains
        while process.is_alive() and newest_change(out) <= before:
            time.sleep(0.002)
    process.join(moments.uniform(0, 0.3))
    process.kill()
    process.join()
    killed = process.exitcode == -signal.SIGKILL
    assert killed or process.exitcode == 0
    assert killed or (out / "summary.json").exists(), "it ended by itself, but is not complete"
    return killed


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL: runs on Linux and macOS")
@pytest.mark.parametrize(
    ("engine", "every", "draw", "kills"),
    [("numpy", 0, False, 10), ("numpy", 30, True, 3), ("torch", 0, False, 6), ("both", 0, False, 6)],
)
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(
    tmp_path, small, unbroken, engine, every, draw, kills
):
    seed = random.SystemRandom().randrange(10**6)
    moments, out, killed = random.Random(seed), tmp_path / "run", 0
    new = [small, "--dataset", "digits", "--engine", engine, "--out", out]
    for _ in range(100):
        if killed >= kills:
            break
        killed += go_on_and_be_killed(out, new, every, draw, moments)
        if (out / "summary.json").exists() and killed < kills:  # it has outlived all that came: once more
            assert files(out) == files(unbroken(engine, draw)), f"seed {seed}, {killed} kills"
            shutil.rmtree(out)
    assert killed >= kills
    if not (out / "summary.json").exists():
        finish(*(["--resume", out] if (out / "config.json").exists() else new), draw=draw)
    assert files(out) == files(unbroken(engine, draw)), f"seed {seed}, {killed} kills"


WRITING = """
import os, pathlib
from chainrule import checkpoints, runs

left = steps


def step(function):
    def counted(*arguments, **keywords):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return function(*arguments, **keywords)
    return counted


def write_half(file, content):
    file.write(content[: len(content) // 2])
    step(file.write)(content[len(content) // 2 :])


runs.write_all = write_half
os.fsync = step(os.fsync)
for name in ("replace", "unlink", "chmod", "mkdir"):
    setattr(pathlib.Path, name, step(getattr(pathlib.Path, name)))
with runs.RunFolder(pathlib.Path(path), overwrite=overwrite) as folder:
    folder.write_json("config.json", config)
    for number in range(2):
        folder.write_model("model.safetensors", {})
        state = {"config": checkpoints.fingerprint(config), "number": number}
        folder.write_checkpoint(checkpoints.pack(state))
        pathlib.Path(path).with_name("done").write_text(str(number))
    folder.write_json("summary.json", {})
    folder.remove_checkpoints()
"""
CONFIG = {"recipe": {"name": "new"}, "dataset_sha256": {}}


def killed_after(steps, folder, overwrite=False):
    """Write a run with two checkpoints, but be killed after so many steps; returns whether it was."""
    names = {"steps": steps, "path": str(folder), "overwrite": overwrite, "config": CONFIG}
    process = SERVER.Process(target=exec, args=(WRITING, names))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL: runs on Linux and macOS")
def test_whatever_step_of_writing_is_the_last_a_whole_checkpoint_is_left(tmp_path):
    for steps in range(100):
        folder = tmp_path / str(steps) / "run"
        folder.parent.mkdir()
        if not killed_after(steps, folder):
            break
        done = folder.with_name("done")
        least = int(done.read_text()) if done.exists() else -1
        if (folder / "summary.json").exists():
            assert least == 1
        elif (folder / "config.json").exists():
            with RunFolder(folder, resume=True):
                state, _ = checkpoints.newest(folder, CONFIG)
            assert (-1 if state is None else state["number"]) in (least, least + 1)
            assert not list(folder.glob(".idx*")), "what was half written is cleared away"
        else:
            assert least == -1
            with RunFolder(folder) as again:  # the command can be given once more
                again.write_model("model.safetensors", {})
    assert steps > 20
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "summary.json"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL: runs on Linux and macOS")
def test_a_run_that_is_replaced_is_never_taken_for_the_new_one(tmp_path):
    for steps in range(30):
        folder = tmp_path / str(steps) / "run"
        with RunFolder(folder) as old:
            old.write_json("config.json", {**CONFIG, "recipe": {"name": "old"}})
            for name in ("model.safetensors", "best.safetensors"):
                old.write_model(name, {"old": np.zeros(1)})
            old.write_checkpoint(pack({"config": ""}))
            old.write("metrics.csv", b"old")
            old.write_json("summary.json", {"old": True})
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert killed_after(steps, folder, overwrite=True)
        left = {path.name: path.read_bytes() for path in folder.iterdir() if not path.match(".idx*")}
        if json.loads(left["config.json"]) == CONFIG:
            assert not any(left.get(name) == content for name, content in before.items())
        else:
            assert left == before or "summary.json" not in left
        with RunFolder(folder, overwrite=True) as again:  # the command can be given once more
            again.write_model("model.safetensors", {})
        assert [path.name for path in folder.iterdir()] == ["model.safetensors"]


# --- what a person sees ---


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take long, and a run that was killed has drawn them above."""
    monkeypatch.setattr(records, "draw", lambda *arguments: None)


def position(out):
    """The epochs that the newest checkpoint has behind it; 0 where it is just being replaced."""
    try:
        state = unpack((out / CHECKPOINTS[0]).read_bytes())
    except FileNotFoundError:
        return 0
    return state["courses"]["numpy"]["trained"]["epochs"]


@pytest.fixture(scope="module")
def stopped(small, tmp_path_factory):
    """A run of the NumPy engine that was killed when it had two checkpoints."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    process = start(small, "--dataset", "digits", "--engine", "numpy", "--out", out, "--checkpoint-every", 0)
    while True:
        assert process.is_alive()
        os.kill(process.pid, signal.SIGSTOP)  # so that nothing is renamed between looking and killing
        both = all((out / name).exists() for name in CHECKPOINTS)
        if both and (out / "metrics.csv").exists() and position(out) > 0:
            break
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.005)
    process.kill()
    process.join()
    for file in out.glob(".idx*"):
        file.unlink()
    return out


@pytest.fixture
def killed(stopped, tmp_path):
    """A copy of that run."""
    return shutil.copytree(stopped, tmp_path / "run")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-20] ^= 4
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def of_another_run(file):
    file.write_bytes(CONTENT)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "it is cut short: found "),
        (flip, "its bytes are not those that were written (SHA-256)"),
        (empty, "it is empty"),
        (lambda file: file.unlink(), "No such file or directory"),
        (of_another_run, "it is not of this run: config.json is another one"),
    ],
    ids=["cut short", "flipped", "empty", "missing", "another run's"],
)
def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_used(killed, unbroken, capsys, damage, reason):
    damage(killed / CHECKPOINTS[0])
    assert run(["train", "--resume", str(killed)]) == 0
    captured = capsys.readouterr()
    assert (
        captured.err == f"chainrule: {killed}: {CHECKPOINTS[0]}: {reason}" + captured.err.partition(reason)[2]
    )
    assert captured.err.endswith(f"; going on from {CHECKPOINTS[1]}\n")
    assert captured.err.count("\n") == 1
    assert files(killed) == files(unbroken("numpy"))


def test_without_a_whole_checkpoint_nothing_is_touched(killed, capsys):
    for name in CHECKPOINTS:
        flip(killed / name)
    before = content(killed)
    assert run(["train", "--resume", str(killed)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        f"chainrule: {killed} has no checkpoint to go on from: {CHECKPOINTS[0]}: its bytes"
    )
    assert f"; {CHECKPOINTS[1]}: its bytes are not those" in error
    assert error.count("\n") == 1
    assert content(killed) == before


@pytest.mark.parametrize("part", ["model", "optimizer", "random", "trained", "running", "scheduler"])
def test_a_checkpoint_that_does_not_fit_is_one_line(killed, capsys, part):
    state = unpack((killed / CHECKPOINTS[0]).read_bytes())
    state["courses"]["numpy"][part] = {"unknown": 1}
    if part == "scheduler":
        del state["courses"]["numpy"][part]
    (killed / CHECKPOINTS[0]).write_bytes(pack(state))
    assert run(["train", "--resume", str(killed)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("chainrule: the checkpoint does not fit this version of chainrule: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("options", "count"), [([], 3), (["--checkpoint-every", "0"], 3 + 3 * 11)])
def test_checkpoints_are_written_after_each_epoch_and_as_often_as_asked(
    tmp_path, small, monkeypatch, options, count
):
    written = []
    monkeypatch.setattr(RunFolder, "write_checkpoint", lambda folder, content: written.append(content))
    arguments = ["--dataset", "digits", "--engine", "numpy", "--out", str(tmp_path / "run"), *options]
    assert run(["train", str(small), *arguments]) == 0
    assert len(written) == count


def test_a_run_without_a_checkpoint_begins_again(killed, unbroken, capsys):
    for file in killed.iterdir():
        if file.name != "config.json":
            file.unlink()
    assert run(["train", "--resume", str(killed)]) == 0
    assert "from the beginning" in capsys.readouterr().out
    assert files(killed) == files(unbroken("numpy"))


def test_a_resumed_run_says_where_it_goes_on_and_leaves_no_checkpoint(killed, unbroken, capsys):
    assert run(["train", "--resume", str(killed)]) == 0
    screen = capsys.readouterr().out
    where = re.escape(f"Resume   {killed}: numpy ") + r"(after epoch [12]|in epoch [23] after \d+ batches)\n"
    assert re.search(where, screen)
    assert not list(killed.glob("checkpoint*"))
    assert "checkpoint" not in screen.splitlines()[-1]
    assert any(line.startswith("Files") and "config.json" in line for line in screen.splitlines())
    (killed / CHECKPOINTS[0]).write_bytes(b"as if it had been killed before it removed this")
    assert run(["train", "--resume", str(killed)]) == 1
    assert not list(killed.glob("checkpoint*"))
    assert capsys.readouterr().err == f"chainrule: {killed} is complete: there is nothing left to train\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dataset_sha256": {"train-images": "0"}},
            "not the files that {run} was begun with, by their SHA-256",
        ),
        ({"recipe": {}}, "{run}/config.json: not the recipe of a run"),
        ({"device": "abacus"}, "{run}/config.json: not what chainrule wrote: 'abacus' is not a valid Device"),
        ({"threads": 2}, "has no checkpoint to go on from: checkpoint.safetensors: it is not of this run"),
    ],
)
def test_a_config_that_has_changed_is_one_line(killed, capsys, change, message):
    config = json.loads((killed / "config.json").read_text())
    (killed / "config.json").write_text(json.dumps({**config, **change}))
    assert run(["train", "--resume", str(killed)]) == 1
    error = capsys.readouterr().err
    assert message.format(run=killed) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "5"], "it takes no --epochs"),
        (["--set", "training.epochs=5"], "it takes no --set"),
        (["ann"], "it takes no recipe"),
        (["--overwrite"], "it takes no --overwrite"),
        (["--engine", "both"], "it takes no --engine"),
        (["--checkpoint-every", "-1"], "--checkpoint-every must be at least 0 seconds, found -1"),
        (["--checkpoint-every", "nan"], "--checkpoint-every must be at least 0 seconds, found nan"),
    ],
)
def test_what_cannot_be_changed_is_refused(killed, capsys, arguments, message):
    assert run(["train", *arguments, "--resume", str(killed)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    for path, message in (
        (tmp_path, "config.json: not what a run writes"),
        (tmp_path / "missing", "there is no such run"),
    ):
        assert run(["train", "--resume", str(path)]) == 1
        assert message in capsys.readouterr().err


def test_other_versions_are_warned_of(killed, capsys, monkeypatch):
    real = records.versions
    monkeypatch.setattr(records, "versions", lambda names: {**real(names), "numpy": "9.9"})
    assert run(["train", "--resume", str(killed)]) == 0
    error = capsys.readouterr().err
    assert f"{killed} was begun with numpy {np.__version__}, now 9.9: the bits may differ" in error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks: runs on Linux and macOS")
def test_a_run_has_one_writer_at_a_time(killed, capsys):
    before = content(killed)
    with RunFolder(killed, resume=True):
        for arguments in (
            ["--resume", str(killed)],
            ["--dataset", "digits", "--overwrite", "--out", str(killed)],
        ):
            assert run(["train", *arguments]) == 1
            assert (
                capsys.readouterr().err
                == f"chainrule: {killed} is being written by another `chainrule train`\n"
            )
    assert content(killed) == before


def test_a_killed_run_can_be_overwritten(killed, unbroken, small):
    arguments = ["--dataset", "digits", "--engine", "numpy", "--out", str(killed)]
    assert run(["train", str(small), *arguments]) == 1
    assert run(["train", str(small), *arguments, "--overwrite"]) == 0
    assert files(killed) == files(unbroken("numpy"))


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT: runs on Linux and macOS")
@pytest.mark.parametrize("after", ["epoch  engine", "    1  numpy"])
def test_ctrl_c_saves_and_says_how_to_resume(tmp_path, small, unbroken, after):
    command = [sys.executable, "-m", "chainrule", "train", str(small), "--dataset", "digits"]
    more = ["--engine", "numpy", "--out", "a run", "--checkpoint-every", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*command, *more], cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True
    ) as process:
        while after not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    if after == "    1  numpy" or (tmp_path / "a run").exists():
        assert error == "chainrule: stopped: `chainrule train --resume 'a run'` continues it\n"
        assert run(["train", "--resume", str(tmp_path / "a run"), "--json"]) == 0
        assert files(tmp_path / "a run") == files(unbroken("numpy"))
    else:
        assert error == "chainrule: stopped: nothing was written\n"


def test_ctrl_c_waits_for_the_batch_and_a_second_one_does_not(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        keeper = checkpoints.Keeper(folder, [], [], {}, seconds=1e9)
        with keeper.finishing_on_ctrl_c():
            keeper.between_batches()
            assert not folder.files
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Stopped, match="--resume"):
                keeper.between_batches()
            assert folder.files == [CHECKPOINTS[0]]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="needs the extra [tensorboard], which `make setup` installs",
)
def test_a_resumed_run_logs_each_epoch_once_for_tensorboard(killed):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    old = killed / "tensorboard" / "numpy" / "events.out.tfevents.1"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"what it had logged when it was killed")
    assert run(["train", "--resume", str(killed), "--tensorboard"]) == 0
    events = EventAccumulator(str(old.parent)).Reload().Tensors("loss/test")
    assert [event.step for event in events] == [1, 2, 3]
    assert not old.exists()
