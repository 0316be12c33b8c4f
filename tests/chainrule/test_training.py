"""Training runs from the command line: what they reach, what they leave, and that a seed repeats them."""

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import nn_reference
from chainrule import datasets, engines, recipe, records, training
from chainrule.cli import run


def train(folder, *arguments, status=0):
    assert run(["train", "--dataset", "digits", "--out", str(folder), *arguments]) == status
    return json.loads((folder / "summary.json").read_text()) if status == 0 else None


def test_a_run_of_both_engines_leaves_its_evidence(tmp_path, capsys):
    summary = train(tmp_path / "run", "--epochs", "2")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("config.json", "metrics.csv", "summary.json", "model.safetensors", "model-torch.safetensors"),
        *("curves.png", "samples.png", "confusion.png", "mistakes.png", "classes.png", "weights.png"),
    }
    expected = {
        "recipe": "simplenet",
        "engine": "both",
        "dataset": "digits",
        "seed": 0,
        "epochs": 2,
        "parameters": 101770,
    }
    assert {key: summary[key] for key in expected} == expected
    assert 0.5 < summary["test_accuracy"] <= 1
    assert summary["test_loss"] > 0
    assert summary["seconds"] > 0
    assert len(summary["per_class_accuracy"]) == 10
    assert all(len(value) == 64 for value in summary["dataset_sha256"].values())
    assert summary["agreement"]["agrees"]
    assert summary["agreement"]["largest_error"] <= 1e-12

    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert [(row["epoch"], row["engine"], row["split"]) for row in rows] == [
        (epoch, engine, split)
        for epoch in "12"
        for engine in ("numpy", "torch")
        for split in ("train", "test")
    ]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["optimizer"] == {"type": "Adam", "arguments": {"lr": 0.001}, "name": ""}
    assert config["versions"].keys() == {"python", "chainrule", "numpy", "torch"}
    for name in ("curves", "samples", "confusion"):
        with Image.open(tmp_path / "run" / f"{name}.png") as picture:
            picture.verify()

    screen = capsys.readouterr().out.splitlines()
    assert screen[0].startswith("Data     ")
    assert "1,500 training and 297 test images" in screen[0]
    assert (
        sum(
            line.split()[:2] == [epoch, engine]
            for line in screen
            for epoch in "12"
            for engine in ("numpy", "torch")
        )
        == 4
    )
    assert "They agree: every ratio is at most 1e-12." in screen


def test_two_engines_start_equal_and_see_the_same_batches(tmp_path):
    train(tmp_path / "run", "--epochs", "1")
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    loss = {(row["engine"], row["split"]): float(row["loss"]) for row in rows}
    assert loss["numpy", "train"] == pytest.approx(loss["torch", "train"], rel=1e-5)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("network", ["simplenet", "mlp"])  # without and with random masks
def test_a_seed_repeats_a_run_to_the_bit(tmp_path, network, engine):
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        train(tmp_path / name, network, "--engine", engine, "--epochs", "1", "--seed", seed)
    models = {name: (tmp_path / name / "model.safetensors").read_bytes() for name in "abc"}
    assert models["a"] == models["b"] != models["c"]
    metrics = {
        name: json.loads((tmp_path / name / "summary.json").read_text())["test_loss"] for name in "abc"
    }
    assert metrics["a"] == metrics["b"] != metrics["c"]


def test_the_model_holds_what_was_reported(tmp_path):
    summary = train(tmp_path / "run", "--engine", "numpy", "--epochs", "1")
    plan, data = recipe.load("simplenet"), datasets.load("digits")
    for name in ("numpy", "torch"):
        engine = engines.build(plan, name, seed=0)
        engine.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))
        loss, outputs = engine.evaluate(engine.put(data.test_images, data.test_labels, 0.0, 1.0))
        assert np.mean(outputs.argmax(1) == data.test_labels) == summary["test_accuracy"]
        assert loss == pytest.approx(summary["test_loss"], rel=1e-6)


def test_an_epoch_sees_every_example_once_in_a_new_order():
    first, second = (list(training.batches(103, 10, seed=3, epoch=epoch)) for epoch in (1, 2))
    assert [len(batch) for batch in first] == [10] * 10 + [3]
    assert sorted(np.concatenate(first)) == list(range(103))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))


class FakeEngine:
    """An engine that learns nothing; what it reaches on the validation images in each epoch is given."""

    name = "fake"
    optim = nn_reference.optim

    def __init__(self, validation=(), losses=()):
        self.optimizer = nn_reference.optim.SGD([nn_reference.Parameter(np.zeros(1))], lr=1.0)
        self._validation, self._losses = list(validation), list(losses)
        self.data = []

    def put(self, images, labels, mean, std):
        self.data.append((images, labels))
        return len(self.data) - 1

    def indices(self, order):
        return order

    def train_step(self, data, batch):
        return float(len(batch)), len(batch) // 2, float(len(batch))

    def evaluate(self, data):
        count = len(self.data[data][1])
        accuracy = self._validation.pop(0) if self._validation and data == 1 else 0.0
        loss = self._losses.pop(0) if self._losses and data == 1 else 1.0
        right = np.arange(count) < round(accuracy * count)
        return loss, np.eye(2)[np.where(right, 0, 1)]


def plan(name="simplenet", **changes):
    """A recipe with changes to its training."""
    return recipe.load(name, {f"training.{key}": value for key, value in changes.items()})


def few(images=1500):
    """The embedded digits with fewer training images."""
    data = datasets.load("digits")
    return replace(data, train_images=data.train_images[:images], train_labels=data.train_labels[:images])


def blank(count):
    """A data set of blank images which all are of class 0."""
    images, labels = np.zeros((count, 28, 28), np.uint8), np.zeros(count, np.uint8)
    return replace(
        few(1), train_images=images, train_labels=labels, test_images=images[:2], test_labels=labels[:2]
    )


def train_with(engines, plan, data):
    """Train and return what was reached, the rows of metrics.csv, and the epochs marked as best."""
    rows, best = [], []

    def after_epoch(course, epoch_rows, is_best):
        rows.extend(epoch_rows)
        best.extend([course.trained.epochs] * is_best)

    courses = [training.begin(engine, plan, data) for engine in engines]
    results = training.train(courses, plan, report=lambda progress: None, after_epoch=after_epoch)
    return results, rows, best


def test_loss_accuracy_and_norm_are_means_over_the_epoch():
    _, rows, _ = train_with([FakeEngine()], plan(batch_size=8, epochs=1), blank(10))
    assert rows[0]["split"] == "train"
    assert rows[0]["loss"] == (8 * 8 + 2 * 2) / 10, "the loss is weighted by batch size"
    assert rows[0]["accuracy"] == (4 + 1) / 10
    assert rows[0]["gradient_norm"] == (8 + 2) / 2, "the norm is the mean over the steps"


def test_a_validation_split_is_apart_decided_by_the_seed_and_none_by_default():
    learn, kept = training.split(100, 30, seed=5)
    assert (len(learn), len(kept)) == (70, 30)
    assert sorted([*learn, *kept]) == list(range(100))
    assert np.array_equal(kept, training.split(100, 30, seed=5)[1])
    assert not np.array_equal(kept, training.split(100, 30, seed=6)[1])
    assert kept.max() > 50 > kept.min(), "it is drawn from all of them"
    data = few(100)
    engine = FakeEngine()
    training.begin(engine, plan(validation=30, seed=5), data)
    assert np.array_equal(engine.data[0][0], data.train_images[learn])
    assert np.array_equal(engine.data[1][1], data.train_labels[kept])
    engine = FakeEngine()
    training.begin(engine, plan(), data)
    assert np.array_equal(engine.data[0][0], data.train_images)


def test_the_best_epoch_is_marked_and_early_stopping_waits_for_its_patience():
    # Better, better, worse, equal (no better), better, then never again.
    accuracies = [0.25, 0.5, 0.25, 0.5, 0.75, 0.5, 0.5, 0.5, 0.5]
    stopping = plan(epochs=9, validation=4, early_stopping=3)
    (result,), rows, best = train_with([FakeEngine(accuracies)], stopping, blank(20))
    assert best == [1, 2, 5]
    assert (result.best.epoch, result.best.validation_accuracy, result.epochs) == (5, 0.75, 8)
    assert [row["split"] for row in rows[:3]] == ["train", "validation", "test"]
    (result,), *_ = train_with([FakeEngine(accuracies)], plan(epochs=9, validation=4), blank(20))
    assert result.epochs == 9, "without early stopping all epochs are trained"


def test_each_engine_stops_on_its_own():
    stopping = plan(epochs=5, validation=4, early_stopping=1)
    engines = [FakeEngine([0.5, 0.25, 0.75]), FakeEngine([0.25, 0.5, 0.75, 1.0, 1.0])]
    results, *_ = train_with(engines, stopping, blank(20))
    assert [result.epochs for result in results] == [2, 5]


def rates(scheduler, losses=(), **changes):
    scheduled = recipe.load(
        "simplenet",
        {"training.scheduler": scheduler, "training.optimizer": {"type": "SGD", "lr": 1.0, "momentum": 0.9}}
        | {f"training.{key}": value for key, value in {"batch_size": 5, "epochs": 4, **changes}.items()},
    )
    _, rows, _ = train_with([FakeEngine(losses=losses)], scheduled, blank(10))
    return [row["learning_rate"] for row in rows if row["split"] == "train"]


@pytest.mark.filterwarnings("error")
def test_schedules_move_on_every_step_or_every_epoch_as_each_requires():
    step = {"type": "StepLR", "step_size": 1, "gamma": 0.5}
    assert rates(step) == [1, 1 / 2, 1 / 4, 1 / 8]
    # Two steps an epoch, and the rate of an epoch is that of its last step.
    assert rates({**step, "interval": "step"}) == [1 / 2, 1 / 8, 1 / 32, 1 / 128]
    # The fake's loss never falls: the plateau is seen after the second epoch.
    assert rates({"type": "ReduceLROnPlateau", "patience": 0}) == pytest.approx([1, 1, 0.1, 0.01])
    # With a validation split its loss is the one that counts.
    plateau = {"type": "ReduceLROnPlateau", "patience": 0}
    assert rates(plateau, losses=[4, 3, 2, 1], validation=2) == [1, 1, 1, 1]
    assert rates(plateau, losses=[4, 3, 5, 1], validation=2) == pytest.approx([1, 1, 1, 0.1])
    cycle = rates({"type": "OneCycleLR", "max_lr": 2.0, "final_div_factor": 10.0})
    assert cycle[-1] == pytest.approx(2.0 / 25 / 10), "it ends with the last of the steps"
    assert rates({"type": "CosineAnnealingLR", "eta_min": 0.5}) == pytest.approx(
        [1, 0.75 + 0.25 * np.cos(np.pi / 4), 0.75, 0.75 + 0.25 * np.cos(3 * np.pi / 4)]
    )


@pytest.mark.parametrize("name", recipe.known())
def test_every_recipe_learns_on_both_engines_and_they_agree(name):
    data, short = few(640), plan(name, epochs=2)
    for engine in ("numpy", "torch"):
        engines.rehearse(short, engine, "cpu")
    built = [engines.build(short, engine, seed=short.seed) for engine in ("numpy", "torch")]
    states = [engine.state_dict() for engine in built]
    assert all(np.array_equal(value, states[1][key]) for key, value in states[0].items())
    results, rows, _ = train_with(built, short, data)
    for result in results:
        assert result.test_accuracy > 0.5, "guessing gives 0.1"
    norms = [row["gradient_norm"] for row in rows if row["split"] == "train"]
    assert norms[0] == pytest.approx(norms[1], rel=0.2), "the engines differ by their masks alone"
    comparison = records.compare(short, data, built[0].state_dict())
    assert all(row.agrees for row in comparison), comparison
    assert len(comparison) == 3 + len(list(built[0].network.parameters()))
    assert all(row.largest_value > 0 for row in comparison), "a comparison of zeros proves nothing"


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_the_masks_of_dropout_are_the_seeds(name):
    start = engines.build(plan("mlp"), name, seed=7).state_dict()
    losses = []
    for seed in (7, 7, 8):
        engine = engines.build(plan("mlp"), name, seed=seed)
        engine.load_state_dict(start)  # so that nothing but the masks can differ
        data = engine.put(few(64).train_images, few(64).train_labels, 0.0, 1.0)
        losses.append(float(engine.train_step(data, np.arange(64))[0]))
    assert losses[0] == losses[1] != losses[2]


def test_without_random_masks_both_engines_walk_together():
    for name in ("fcn", "cnn"):
        built = [engines.build(plan(name), engine, seed=0) for engine in ("numpy", "torch")]
        _, rows, _ = train_with(built, plan(name, epochs=1), few(320))
        ours, theirs = (row for row in rows if row["split"] == "train")
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


def test_the_best_model_is_kept_beside_the_last(tmp_path, capsys):
    options = ("--validation", "300", "--early-stopping", "2", "--set", "training.optimizer.lr=0.03")
    summary = train(tmp_path / "run", "fcn", "--epochs", "12", *options)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["recipe"]["validation"], config["recipe"]["early_stopping"]) == (300, 2)
    used = recipe.load("fcn")
    data = datasets.load("digits")
    for engine, suffix in (("numpy", ""), ("torch", "-torch")):
        best = summary["engines"][engine]["best"]
        for file, accuracy in (
            (f"best{suffix}.safetensors", best["test_accuracy"]),
            (f"model{suffix}.safetensors", summary["engines"][engine]["test_accuracy"]),
        ):
            built = engines.build(used, engine, seed=0)
            built.load_state_dict(load_file(tmp_path / "run" / file))
            put = built.put(data.test_images, data.test_labels, used.mean, used.std)
            assert training.evaluate(built, put, data.test_labels)[1] == accuracy
        rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
        valid = [
            float(row["accuracy"]) for row in rows if row["split"] == "validation" and row["engine"] == engine
        ]
        assert max(valid) == valid[best["epoch"] - 1] == best["validation_accuracy"]
        assert len(valid) == summary["engines"][engine]["epochs"] <= min(best["epoch"] + 2, 12)
    assert summary["epochs"] < 12, "with this learning rate it stops early"
    screen = capsys.readouterr().out
    assert "300 of the training images are kept back for validation; stop after 2 epochs" in screen
    assert "best so far" in screen
    assert "; stopped early, after epoch " in screen
    assert "; the best by validation is epoch " in screen


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (
            ["--early-stopping", "3"],
            1,
            "recipe simplenet: early stopping needs images to judge by: give --valid",
        ),
        (["--validation", "1500"], 1, "a validation split of 1,500 images leaves none to learn from"),
        (["--validation", "-1"], 2, "--validation must be at least 0, found -1"),
        (
            ["--set", "training.epohcs=5"],
            2,
            "--set training.epohcs: there is no 'epohcs'. Did you mean 'epochs'?",
        ),
        (
            ["--set", "layers.fc1.out_features=9", "--set", "layers.fc2.out_features=9"],
            1,
            "ends with (9,) outputs",
        ),
        (["mlp-bn", "--batch-size", "1"], 1, "leave a last one of a single image"),
        (["mlp-bn", "--batch-size", "1499"], 1, "leave a last one of a single image"),
        (["mlp-bn", "--validation", "91", "--batch-size", "128"], 1, "leave a last one of a single image"),
    ],
)
def test_what_cannot_be_trained_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, status, message):
    name = [] if arguments[0].startswith("-") else [arguments.pop(0)]
    out = tmp_path / "run"
    command = ["train", *name, "--dataset", "digits", "--engine", "numpy", "--out", str(out), *arguments]
    assert run(command) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_batch_size_that_batch_norm_can_take_is_not_refused(tmp_path):
    train(tmp_path / "a", "mlp-bn", "--engine", "numpy", "--epochs", "1", "--batch-size", "500")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal: runs on Linux and macOS")
def test_a_terminal_sees_a_progress_bar(tmp_path):
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "chainrule", "train", "--dataset", "digits", "--engine", "numpy"]
    with subprocess.Popen(
        [*command, "--epochs", "60", "--out", str(tmp_path / "run")],
        stdout=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
    ) as process:
        os.close(theirs)
        screen = b""
        with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
            while piece := os.read(ours, 65536):
                screen += piece
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.decode())
    assert re.search(
        r"epoch \d+/60 numpy \d+/24 .* loss \d\.\d{4} +\d+\.\d\d% lr 0\.001 [\d,]+ img/s .*left", text
    )


def test_confusion_matrix():
    outputs = np.eye(3)[[0, 1, 1, 0]]
    labels = np.array([0, 1, 0, 0], np.uint8)
    assert training.confusion_matrix(outputs, labels, 3).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_engines_that_disagree_are_reported_and_the_status_is_1(tmp_path, capsys, monkeypatch):
    right = nn_reference.Linear.backward

    def wrong(self, grad_output, **arguments):
        grad_input = right(self, grad_output, **arguments)
        self.bias.grad = self.bias.grad / len(grad_output)
        return grad_input

    monkeypatch.setattr(nn_reference.Linear, "backward", wrong)
    train(tmp_path / "run", "--epochs", "1", status=1)
    captured = capsys.readouterr()
    assert captured.err == "chainrule: the two engines disagree: see the table above\n"
    apart = [line for line in captured.out.splitlines() if line.endswith("<- too far apart")]
    assert [line.split()[4] for line in apart] == ["fc1.bias", "fc2.bias"]
    assert not json.loads((tmp_path / "run" / "summary.json").read_text())["agreement"]["agrees"]


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_a_loss_that_is_no_number_ends_the_run_in_one_line(tmp_path, capsys, engine):
    from importlib import resources

    text = resources.files("chainrule.recipes").joinpath("simplenet.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace('{ type = "Adam", lr = 1e-3 }', '{ type = "SGD", lr = 1e30 }'))
    out = tmp_path / "run"
    assert run(["train", str(mine), "--dataset", "digits", "--engine", engine, "--out", str(out)]) == 1
    assert "the learning rate is too high" in capsys.readouterr().err
    assert not out.exists()


def test_a_recipe_that_does_not_fit_the_data_is_one_line(tmp_path, capsys):
    from importlib import resources

    text = resources.files("chainrule.recipes").joinpath("simplenet.toml").read_text()
    mine = tmp_path / "mine.toml"
    for old, new, message in (
        ("[28, 28]", "[8, 8]", "expects images of (8, 8)"),
        ("out_features = 10", "out_features = 9", "ends with (9,) outputs"),
    ):
        mine.write_text(text.replace(old, new))
        assert run(["train", str(mine), "--dataset", "digits", "--out", str(tmp_path / "run")]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_cuda_without_a_device_is_one_line(tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device: runs where there is none")
    train(tmp_path / "run", "--engine", "torch", "--device", "cuda", status=1)
    assert "finds no CUDA device here; use --device cpu" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_torch_the_numpy_engine_trains_and_torch_is_named_as_missing(tmp_path):
    def without_torch(*arguments):
        script = "import sys; sys.modules['torch'] = None; from chainrule.cli import main; main()"
        command = [sys.executable, "-c", script, "train", "--dataset", "digits", "--epochs", "1", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    default = without_torch("--out", "run")
    assert default.returncode == 0, default.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["engine"] == "numpy"
    for asked in (("--engine", "torch"), ("--engine", "both"), ("--device", "cuda")):
        named = without_torch(*asked)
        assert named.returncode == 1
        assert named.stderr.startswith(f"chainrule: {' '.join(asked)} needs PyTorch, which is not installed")


def test_a_killed_run_leaves_its_last_checkpoint_readable(tmp_path):
    command = [sys.executable, "-m", "chainrule", "train", "--dataset", "digits", "--engine", "numpy"]
    with subprocess.Popen(
        [*command, "--epochs", "100000", "--out", "run"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        while "    3  numpy" not in (line := process.stdout.readline()):
            assert line
        process.kill()
    assert load_file(tmp_path / "run" / "model.safetensors").keys() >= {"fc1.weight"}
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) >= 1 + 2 * 2
    assert json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["epochs"] == 100000
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(["train", "--dataset", "digits", "--engine", "numpy", "--epochs", "1", "--out", "~/run"]) == 0
    assert (tmp_path / "run" / "summary.json").is_file()


def test_json_prints_the_summary_alone(tmp_path, capsys):
    summary = train(tmp_path / "run", "--engine", "numpy", "--epochs", "1", "--json")
    assert json.loads(capsys.readouterr().out) == summary


@pytest.mark.parametrize(("name", "least"), [("simplenet", 0.970), ("ann", 0.975)])
def test_on_real_mnist_each_engine_reaches_what_is_promised(tmp_path, shared, name, least):
    out = tmp_path / "run"
    assert run(["train", name, "--dataset", "mnist", "--root", str(shared), "--out", str(out)]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["engines"].keys() == {"numpy", "torch"}
    for engine in summary["engines"].values():
        assert engine["test_accuracy"] >= least
    assert summary["agreement"]["largest_error"] <= 1e-12


@pytest.mark.parametrize("count", [1, 2])
def test_both_engines_keep_to_the_number_of_threads(count):
    import torch
    from threadpoolctl import threadpool_info

    before = torch.get_num_threads()
    with engines.threads(count):
        assert torch.get_num_threads() == count
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {count}
    assert torch.get_num_threads() == before
