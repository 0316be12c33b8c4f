"""A run is read back whole: the same accuracy on either engine, and every damage is one clear line."""

import json
import re
import shutil
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from chainrule import datasets, recipe, saved
from chainrule.cli import run
from chainrule.errors import ChainruleError
from chainrule.recipe import known, load, restore


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run as `chainrule train` leaves it, with a recipe that options have changed."""
    pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")
    out = tmp_path_factory.mktemp("runs") / "mlp"
    options = ["--epochs", "1", "--seed", "5", "--batch-size", "50", "--dataset", "digits", "--json"]
    assert run(["train", "mlp", "--engine", "torch", *options, "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def report(capsys, *arguments):
    capsys.readouterr()
    assert run(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error(capsys, *arguments, status=1):
    capsys.readouterr()
    assert run(["evaluate", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    return captured.err


def test_help_has_an_example(capsys):
    assert run(["evaluate", "--help"]) == 0
    assert "Example: chainrule evaluate" in " ".join(capsys.readouterr().out.split())


# -- What it says ---------------------------------------------------------------------------------------


def test_both_engines_reach_what_the_run_recorded(trained, capsys):
    summary = json.loads((trained / "summary.json").read_text())
    found = report(capsys, trained, "--engine", "both")
    assert (found["dataset"], found["images"], found["same_data_as_trained"]) == ("digits", 297, True)
    assert found["differing_predictions"] == []
    assert found["largest_difference_of_outputs"] < 1e-4
    for engine in ("numpy", "torch"):
        assert found["engines"][engine]["accuracy"] == summary["test_accuracy"], "to the last image"
        assert found["engines"][engine]["loss"] == pytest.approx(summary["test_loss"], rel=1e-5)
        assert found["engines"][engine]["per_class_accuracy"] == summary["per_class_accuracy"]


def test_what_is_printed(trained, capsys):
    assert run(["evaluate", str(trained), "--split", "train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("mlp, 784-512-256-128-10, ReLU, dropout 0.3; trained with torch")
    assert lines[1].split() == ["Weights", "model.safetensors"]
    assert "1,500 training images" in lines[2]
    assert lines[2].endswith("(the run's, by SHA-256)")
    assert lines[4].split() == ["numpy", "torch"]
    assert [line.split()[0] for line in lines[5:17]] == ["loss", "right", *"0123456789"]
    assert lines[18].startswith("The two engines say the same of every image; their outputs differ by at mo")


def test_a_prediction_that_differs_is_counted(trained, capsys, monkeypatch):
    from torch_impl import TorchEngine

    real = TorchEngine.evaluate

    def wrong_on_two(self, data, **kwargs):
        loss, outputs = real(self, data, **kwargs)
        outputs[[3, 40]] = np.roll(outputs[[3, 40]], 1, axis=1)
        return loss, outputs

    monkeypatch.setattr(TorchEngine, "evaluate", wrong_on_two)
    assert report(capsys, trained, "--engine", "both")["differing_predictions"] == [3, 40]
    assert run(["evaluate", str(trained), "--engine", "both"]) == 0
    assert "The two engines differ on 2 of 297 images (3, 40)" in capsys.readouterr().out


def test_numpy_alone_needs_no_torch(trained, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("chainrule.engines.torch_is_installed", lambda: False)
    assert report(capsys, trained)["engines"].keys() == {"numpy"}
    assert "--engine torch needs PyTorch, which is not installed" in error(
        capsys, trained, "--engine", "torch"
    )


def test_the_weights_of_the_best_epoch(copy, capsys):
    best = load_file(copy / "model.safetensors")
    best["fc4.bias"] = np.where(np.arange(10) == 7, 1000, 0).astype(np.float32)  # it says 7 of everything
    save_file(best, copy / "best.safetensors")
    found = report(capsys, copy, "--weights", "best", "--engine", "numpy")
    assert found["engines"]["numpy"]["per_class_accuracy"] == {**dict.fromkeys("012345689", 0.0), "7": 1.0}
    (copy / "best.safetensors").unlink()
    message = error(capsys, copy, "--weights", "best")
    assert "best.safetensors: missing: a run trained with --validation keeps it" in message


def test_a_run_is_found_by_its_name_in_runs(copy, capsys, monkeypatch, tmp_path):
    (tmp_path / "runs").mkdir()
    copy.rename(tmp_path / "runs" / "first")
    monkeypatch.chdir(tmp_path)
    assert report(capsys, "first", "--engine", "numpy")["run"] == "runs/first"


# -- The recipe -----------------------------------------------------------------------------------------

CHANGES = {
    "training.epochs": 7,
    "training.validation": 100,
    "training.early_stopping": 3,
    "training.optimizer": {"type": "AdamW", "lr": 0.3, "betas": [0.8, 0.99]},
    "training.scheduler": {"type": "StepLR", "step_size": 2, "interval": "step"},
    "input.mean": 0.1,
}


@pytest.mark.parametrize("changes", [{}, CHANGES])
@pytest.mark.parametrize("name", known())
def test_every_recipe_survives_its_config_json(name, changes):
    plan = load(name, changes)
    assert restore(json.loads(json.dumps(asdict(plan))), "x") == replace(plan, source="x")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("std", 0, "input.std must be a number above 0"),
        ("layers", [], "layers must be a list"),
        ("layers", 5, "not the recipe of a run"),
        ("loss", None, "not the recipe of a run"),
        ("seed", None, "training.seed must be a whole number from 0 up, found None"),
        ("layers", [{"type": "Lstm", "name": "a", "arguments": {}}], "unknown layer type 'Lstm'"),
        ("loss", {"type": "CrossEntropyLoss", "name": "", "arguments": {"label_smoothing": 7}}, "smoothing"),
    ],
)
def test_a_damaged_recipe_is_one_line(copy, capsys, key, value, message):
    config = json.loads((copy / "config.json").read_text())
    config["recipe"][key] = value
    (copy / "config.json").write_text(json.dumps(config))
    found = error(capsys, copy, "--engine", "numpy")
    assert "config.json: " in found
    assert message in found


def test_a_recipe_without_a_key_is_one_line():
    saved_recipe = asdict(recipe.load("ann"))
    del saved_recipe["mean"]
    with pytest.raises(ChainruleError, match="x: not the recipe of a run: 'mean'"):
        restore(saved_recipe, "x")


# -- The folder -----------------------------------------------------------------------------------------


def test_what_is_no_run(copy, capsys, tmp_path):
    assert f"run2: there is no such run. Did you mean '{copy}'?" in error(capsys, f"{copy}2")
    assert "there is no such run. chainrule runs lists them" in error(capsys, tmp_path / "no" / "where")
    assert "summary.json is a file: expected the folder of a run" in error(capsys, copy / "summary.json")
    for text, message in (
        ("{", "config.json: not valid JSON: Expecting"),
        ("[" * 100_000, "config.json: not valid JSON"),
        ('{"model_type": "bert"}', "config.json: not what a run writes: 'recipe' is missing"),
        ("[1]", "config.json: expected a JSON object, found list"),
    ):
        (copy / "config.json").write_text(text)
        assert message in error(capsys, copy)
    (copy / "config.json").unlink()
    assert "holds no run: config.json is missing" in error(capsys, copy)


# -- The weights ----------------------------------------------------------------------------------------


def change(**arrays):
    def apply(state):
        for key, value in arrays.items():
            state[key.replace("__", ".")] = value

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: state.pop("fc2.bias"), "not the weights of this run's mlp: fc2.bias is missing"),
        (change(fc9__bias=np.zeros(3, np.float32)), "fc9.bias is not in the network"),
        (
            change(fc4__bias=np.zeros(11, np.float32)),
            "fc4.bias is float32 (11,), expected float32 (10,)",
        ),
        (change(fc4__bias=np.zeros(10)), "fc4.bias is float64 (10,), expected float32 (10,)"),
        (change(fc4__bias=np.full(10, np.nan, np.float32)), "fc4.bias holds numbers that are not finite"),
        (lambda state: state.clear(), "fc1.weight is missing (and 7 more)"),
    ],
)
def test_weights_of_another_network_are_refused(copy, capsys, damage, message):
    state = load_file(copy / "model.safetensors")
    damage(state)
    save_file(state, copy / "model.safetensors")
    found = error(capsys, copy)
    assert "model.safetensors: not the weights of this run's mlp: " in found
    assert message in found


def test_damaged_weights_are_one_line(copy):
    path = copy / "model.safetensors"
    content = path.read_bytes()
    opened = saved.open_run(copy)
    for damaged in (
        *(content[:length] for length in (0, 1, 7, 8, 9, 100, len(content) // 2, len(content) - 1)),
        b"PK\x03\x04" + content,
        content + b"\0",
        b"\x80\x02}q\x00." * 100,
        content[:8] + b"\xff" * 40 + content[48:],
        content.replace(b'"F32"', b'"BF16"', 1),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ChainruleError, match="damaged, or not a safetensors file"):
            saved.load_weights(opened)
    path.unlink()
    with pytest.raises(ChainruleError, match="model.safetensors: missing$"):
        saved.load_weights(opened)
    path.mkdir()
    with pytest.raises(ChainruleError, match="model.safetensors: Is a directory"):
        saved.load_weights(opened)


def test_weights_too_large_for_float32_are_one_line(copy, capsys):
    state = load_file(copy / "model.safetensors")
    save_file({key: np.full_like(value, 3e38) for key, value in state.items()}, copy / "model.safetensors")
    assert "the loss with these weights is " in error(capsys, copy, "--engine", "numpy")


# -- The data -------------------------------------------------------------------------------------------


@pytest.fixture
def own_run(make_run, small, tmp_path):
    """A run on a folder of one's own, and that folder."""
    folder = small.put(tmp_path / "mine")
    path = make_run(tmp_path / "run")
    data = datasets.load(str(folder))
    config = json.loads((path / "config.json").read_text())
    config |= {"dataset": data.name, "dataset_folder": str(folder), "dataset_sha256": data.sha256}
    (path / "config.json").write_text(json.dumps(config))
    return path, folder


def test_the_data_set_of_a_folder(own_run, capsys):
    path, _ = own_run
    found = report(capsys, path, "--engine", "numpy")
    assert (found["dataset"], found["images"], found["same_data_as_trained"]) == ("mine", 40, True)


def test_other_bytes_than_the_runs_are_refused_unless_asked_for(own_run, capsys):
    path, folder = own_run
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes((datasets.embedded() / labels.name).read_bytes())
    images = folder / "t10k-images-idx3-ubyte.gz"
    images.write_bytes((datasets.embedded() / images.name).read_bytes())
    message = error(capsys, path)
    assert f"{folder}: not the files that {path} was trained on, by their SHA-256" in message
    assert f"--dataset {folder}" in message
    found = report(capsys, path, "--engine", "numpy", "--dataset", folder)
    assert found["same_data_as_trained"] is False
    assert run(["evaluate", str(path), "--engine", "numpy", "--dataset", "digits"]) == 0
    assert "(not what the run was trained on, which was 'mine')" in capsys.readouterr().out


def test_a_missing_data_set_is_one_line(own_run, capsys):
    path, folder = own_run
    shutil.rmtree(folder)
    expected = f"{path} was trained on 'mine' in {folder}, which is not here: give --dataset FOLDER"
    assert expected in error(capsys, path)


def test_packed_or_not_a_published_file_is_the_same_data(make_run, small, write_manifest, tmp_path, capsys):
    write_manifest("http://127.0.0.1:1/")
    packed, raw = small.put(tmp_path / "a" / "mnist"), small.put(tmp_path / "b" / "mnist", packed=False)
    path = make_run(tmp_path / "run")
    config = json.loads((path / "config.json").read_text())
    sums = datasets.load("mnist", tmp_path / "a").sha256
    config |= {"dataset": "mnist", "dataset_folder": str(packed), "dataset_sha256": sums}
    (path / "config.json").write_text(json.dumps(config))
    for root in (packed.parent, raw.parent):
        assert report(capsys, path, "--engine", "numpy", "--root", root)["same_data_as_trained"] is True
    shutil.rmtree(packed)
    message = error(capsys, path, "--root", packed.parent)
    assert "MNIST is not in " in message


def test_images_that_do_not_fit_are_one_line(copy, capsys):
    config = json.loads((copy / "config.json").read_text())
    config["recipe"]["layers"][-1]["arguments"]["out_features"] = 12
    (copy / "config.json").write_text(json.dumps(config))
    state = load_file(copy / "model.safetensors")
    state |= {"fc4.weight": np.zeros((12, 128), np.float32), "fc4.bias": np.zeros(12, np.float32)}
    save_file(state, copy / "model.safetensors")
    assert "Embedded digits has 10 classes of images of (28, 28)" in error(capsys, copy)


# -- Fashion-MNIST: the same commands -------------------------------------------------------------------


def test_fashion_mnist_with_the_same_commands(shared, tmp_path, capsys):
    pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")
    path = tmp_path / "run"
    options = ["--dataset", "fashion-mnist", "--root", str(shared), "--epochs", "1", "--engine", "numpy"]
    assert run(["train", "simplenet", *options, "--out", str(path), "--json"]) == 0
    found = report(capsys, path, "--engine", "both")
    recorded = json.loads((path / "summary.json").read_text())["test_accuracy"]
    assert found["engines"]["numpy"]["accuracy"] == recorded > 0.8
    # Two networks that round differently may part on an image that lies between two classes.
    assert abs(found["engines"]["torch"]["accuracy"] - recorded) <= 2e-4
    assert len(found["differing_predictions"]) <= 2
    assert list(found["engines"]["torch"]["per_class_accuracy"])[8:] == ["Bag", "Ankle boot"]
    assert run(["evaluate", str(path), "--engine", "numpy"]) == 0
    assert re.search(r"^Ankle boot +\d\d\.\d\d%$", capsys.readouterr().out, flags=re.MULTILINE)
    assert run(["export", str(path)]) == 0
    assert saved.open_run(path).class_names[9] == "Ankle boot"


def test_the_weights_of_the_second_engine(copy, capsys):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "engine": "both"}))
    second = load_file(copy / "model.safetensors")
    second["fc4.bias"] = np.where(np.arange(10) == 7, 1000, 0).astype(np.float32)  # it says 7 of everything
    save_file(second, copy / "model-torch.safetensors")
    first = report(capsys, copy, "--weights-of", "numpy", "--engine", "numpy")
    assert first["weights"] == "model.safetensors"
    assert first["engines"]["numpy"]["per_class_accuracy"]["0"] > 0
    found = report(capsys, copy, "--weights-of", "torch", "--engine", "numpy")
    assert found["weights"] == "model-torch.safetensors"
    assert found["engines"]["numpy"]["per_class_accuracy"] == {**dict.fromkeys("012345689", 0.0), "7": 1.0}
    pytest.importorskip("onnx", reason="needs onnx: runs where chainrule[onnx] is installed")
    assert run(["export", str(copy), "--weights-of", "torch", "--format", "onnx"]) == 0
    assert (copy / "model-torch.onnx").is_file()
    (copy / "config.json").write_text(json.dumps({**config, "engine": "torch"}))
    assert "was trained with torch alone: it has no weights of numpy" in error(
        capsys, copy, "--weights-of", "numpy"
    )
