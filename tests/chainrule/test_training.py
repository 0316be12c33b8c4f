"""Training runs from the command line: what they reach, what they leave, and that a seed repeats them."""

import csv
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from chainrule import datasets, engines, recipe, training
from chainrule.cli import run


def train(folder, *arguments, status=0):
    assert run(["train", "--dataset", "digits", "--out", str(folder), *arguments]) == status
    return json.loads((folder / "summary.json").read_text()) if status == 0 else None


def test_a_run_of_both_engines_leaves_its_evidence(tmp_path, capsys):
    summary = train(tmp_path / "run", "--epochs", "2")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("config.json", "metrics.csv", "summary.json", "model.safetensors", "model-torch.safetensors"),
        *("curves.png", "samples.png", "confusion.png"),
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
def test_a_seed_repeats_a_run_to_the_bit(tmp_path, engine):
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        train(tmp_path / name, "--engine", engine, "--epochs", "1", "--seed", seed)
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


def test_loss_and_accuracy_are_weighted_by_batch_size():
    class Engine:
        name = "fake"

        def train_step(self, data, batch):
            return float(len(batch)), len(batch) // 2

    mean_loss, accuracy, _ = training.train_epoch(
        Engine(), None, 10, batch_size=8, seed=0, epoch=1, report=lambda progress: None
    )
    assert mean_loss == (8 * 8 + 2 * 2) / 10
    assert accuracy == (4 + 1) / 10


def test_per_class_accuracy_and_confusion():
    outputs = np.eye(3)[[0, 1, 1, 0]]
    labels = np.array([0, 1, 0, 0], np.uint8)
    assert training.per_class_accuracy(outputs, labels, ("a", "b", "c")) == {"a": 2 / 3, "b": 1.0, "c": None}
    assert training.confusion_matrix(outputs, labels, 3).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_engines_that_disagree_are_reported_and_the_status_is_1(tmp_path, capsys, monkeypatch):
    import nn_reference

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


@pytest.mark.parametrize("after", ["epoch  engine", "1  numpy"])
def test_ctrl_c_keeps_the_last_whole_epoch_and_says_so(tmp_path, after):
    command = [sys.executable, "-m", "chainrule", "train", "--dataset", "digits", "--engine", "numpy"]
    with subprocess.Popen(
        [*command, "--epochs", "100000", "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while after not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert error in (
        "chainrule: stopped: run holds the model after the last whole epoch\n",
        "chainrule: stopped: nothing was written\n",
        "chainrule: stopped\n",
    )
    assert (tmp_path / "run").exists() == ("last whole epoch" in error)
    if after == "1  numpy":
        assert load_file(tmp_path / "run" / "model.safetensors").keys() >= {"fc1.weight"}


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
