"""Checkpoints: a run that is killed at any moment goes on to the bits of one that was never stopped."""

import contextlib
import csv
import json
import multiprocessing
import random
import shutil
import signal
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule import checkpoints, datasets, engines, recipe, training
from chainrule.checkpoints import Damaged, pack, unpack

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


@pytest.mark.parametrize("names", [["numpy"], ["torch"]], ids="+".join)
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


def start(*arguments, draw=True):
    """Start the command in a process of its own, forked from one that has loaded what takes time."""
    arguments = ["train", *map(str, arguments), "--json"]
    process = SERVER.Process(target=exec, args=(COMMAND, {"arguments": arguments, "draw": draw}))
    process.start()
    return process


def finish(*arguments, draw=True):
    process = start(*arguments, draw=draw)
    process.join()
    assert process.exitcode == 0


def files(folder):
    """What a run leaves, but for seconds and the command that was typed."""
    found = {}
    for path in folder.iterdir():
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
    """The files of a run that was never stopped, for an engine."""
    kept = {}

    def get(engine):
        if engine not in kept:
            out = tmp_path_factory.mktemp(f"unbroken-{engine}") / "run"
            finish(small, "--dataset", "digits", "--engine", engine, "--out", out, draw=engine == "numpy")
            kept[engine] = out
        return kept[engine]

    return get


def newest_change(folder):
    """When a file in the folder was last written; 0 where there is none."""
    times = [0]
    with contextlib.suppress(FileNotFoundError):  # it has just been renamed
        times += [path.stat().st_mtime_ns for path in folder.glob("*")]
    return max(times)


def go_on_and_be_killed(out, arguments, draw, moments):
    """Begin or resume the run, and kill it at a random moment; returns whether it had not ended before."""
    before = newest_change(out)
    process = start(*(["--resume", out] if (out / "config.json").exists() else arguments), draw=draw)
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
    ("engine", "every", "kills"),
    [("numpy", 0, 10), ("numpy", 30, 3), ("torch", 0, 6), ("both", 0, 6)],
)
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(
    tmp_path, small, unbroken, engine, every, kills
):
    seed = random.SystemRandom().randrange(10**6)
    moments, out, killed = random.Random(seed), tmp_path / "run", 0
    draw = engine == "numpy"  # pictures take long; those of one engine are enough
    new = [small, "--dataset", "digits", "--engine", engine, "--out", out, "--checkpoint-every", every]
    for _ in range(100):
        if killed >= kills:
            break
        killed += go_on_and_be_killed(out, new, draw, moments)
        if (out / "summary.json").exists() and killed < kills:  # it has outlived all that came: once more
            assert files(out) == files(unbroken(engine)), f"seed {seed}, {killed} kills"
            shutil.rmtree(out)
    assert killed >= kills
    if not (out / "summary.json").exists():
        finish(*(["--resume", out] if (out / "config.json").exists() else new), draw=draw)
    assert files(out) == files(unbroken(engine)), f"seed {seed}, {killed} kills"
