"""Exported files say the same as the engines: every recipe, every layer, in PyTorch and in ONNX runtimes."""

import json
import sys

import numpy as np
import pytest

import nn_reference
from chainrule import datasets, engines, exporting, recipe, recipe_parts, saved
from chainrule.cli import run
from chainrule.errors import ChainruleError
from chainrule.runs import RunFolder


@pytest.fixture(scope="module")
def runtime():
    """Run an ONNX model: ONNX Runtime, which is neither ours nor the library's own."""
    reason = "needs onnx and onnxruntime: runs where chainrule[onnx] and the dev dependencies are installed"
    pytest.importorskip("onnx", reason=reason)
    library = pytest.importorskip("onnxruntime", reason=reason)
    options = library.SessionOptions()
    options.intra_op_num_threads = 1

    def evaluate(model, images):
        session = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (inputs,), (outputs,) = session.get_inputs(), session.get_outputs()
        assert (inputs.name, inputs.type) == ("image", "tensor(float)")
        assert inputs.shape == ["batch", 1, 28, 28]
        assert (outputs.name, outputs.shape) == ("scores", ["batch", 10])
        return session.run(["scores"], {"image": images})[0]

    return evaluate


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def engine_outputs(path, name, data):
    opened = saved.open_run(path)
    engine = engines.build(opened.recipe, name, seed=0)
    engine.load_state_dict(saved.load_weights(opened))
    images = opened.recipe.examples(data.test_images)
    return engine.evaluate(engine.put(images, data.test_labels, opened.recipe.mean, opened.recipe.std))[1]


def test_help_has_an_example(capsys):
    assert run(["export", "--help"]) == 0
    assert "Example: chainrule export" in " ".join(capsys.readouterr().out.split())


# -- PyTorch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ann", "mlp-bn", "cnn"])
def test_pth_is_a_plain_state_dict(name, make_run, tmp_path, digits, capsys):
    torch = pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")
    path = make_run(tmp_path / "run", name)
    assert run(["export", str(path)]) == 0
    assert f"{path / 'model.pth'}: " in capsys.readouterr().out
    plan = recipe.load(name)
    network = plan.build(torch.nn)
    network.load_state_dict(torch.load(path / "model.pth", weights_only=True))
    images = torch.from_numpy(plan.examples(digits.test_images)).float() / 255
    with torch.no_grad():
        found = network.eval()((images - plan.mean) / plan.std).numpy()
    np.testing.assert_allclose(found, engine_outputs(path, "numpy", digits), rtol=1e-4, atol=1e-5)


def test_pth_needs_torch(make_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("chainrule.engines.torch_is_installed", lambda: False)
    assert run(["export", str(make_run(tmp_path / "run"))]) == 1
    assert capsys.readouterr().err.startswith("chainrule: --format pth needs PyTorch, which is not installed")


# -- ONNX -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe.known())
def test_onnx_says_what_the_engine_says(name, runtime, make_run, tmp_path, digits, capsys):
    path = make_run(tmp_path / "run", name)
    assert run(["export", str(path), "--format", "onnx"]) == 0
    assert "scores: float32 (batch, 10)" in capsys.readouterr().out
    pixels = (digits.test_images[:, None] / 255).astype(np.float32)
    found = runtime((path / "model.onnx").read_bytes(), pixels)
    np.testing.assert_allclose(found, engine_outputs(path, "numpy", digits), rtol=1e-4, atol=1e-5)
    assert runtime((path / "model.onnx").read_bytes(), pixels[:1]).shape == (1, 10)


def test_onnx_describes_itself(runtime, make_run, tmp_path):
    import onnx

    for name, meaning in (("ann", "log-probabilities"), ("fcn", "logits")):
        path = make_run(tmp_path / name, name)
        assert run(["export", str(path), "--out", str(tmp_path / f"{name}.ONNX")]) == 0
        model = onnx.load(tmp_path / f"{name}.ONNX")
        facts = {prop.key: prop.value for prop in model.metadata_props}
        assert json.loads(facts["classes"]) == list("0123456789")
        assert (facts["recipe"], float(facts["mean"])) == (name, recipe.load(name).mean)
        assert "float32 (batch, 1, 28, 28), pixels / 255 (0 is paper, 1 is ink)" in model.doc_string
        assert meaning in model.doc_string
        keys = {tensor.name for tensor in model.graph.initializer}
        assert saved.load_weights(saved.open_run(path)).keys() <= keys


# Each layer that a recipe can have, with arguments that are no defaults, after a convolution to 4 channels.
ODD = {
    "same": 'type = "Conv2d", out_channels = 3, kernel_size = [4, 3], padding = "same", dilation = [1, 2]',
    "conv groups": 'type = "Conv2d", out_channels = 6, kernel_size = [3, 2], padding = [2, 0], groups = 2',
    "conv stride": 'type = "Conv2d", out_channels = 3, kernel_size = 2, stride = [2, 1], bias = false',
    "max pool": 'type = "MaxPool2d", kernel_size = [3, 2], stride = [1, 2], padding = 1, dilation = 2',
    "max pool, ceil": 'type = "MaxPool2d", kernel_size = 3, stride = 2, ceil_mode = true',
    "average": 'type = "AvgPool2d", kernel_size = 3, stride = 2, padding = 1',
    "average, no pad": 'type = "AvgPool2d", kernel_size = 2, padding = 1, count_include_pad = false',
    "batch norm": 'type = "BatchNorm2d", eps = 0.01',
    "batch norm, plain": 'type = "BatchNorm2d", affine = false',
    "rows": 'type = "Linear", out_features = 5',
    "rows, no bias": 'type = "Linear", out_features = 5, bias = false',
    "leaky": 'type = "LeakyReLU", negative_slope = 0.2',
    "elu": 'type = "ELU", alpha = 0.7',
    "gelu": 'type = "GELU"',
    "silu": 'type = "SiLU"',
    "tanh": 'type = "Tanh"',
    "sigmoid": 'type = "Sigmoid"',
    "relu": 'type = "ReLU"',
    "identity": 'type = "Identity"',
    "softmax": 'type = "Softmax", dim = -1',
    "log-softmax": 'type = "LogSoftmax", dim = 1',
    "dropout": 'type = "Dropout"',
    "last": 'type = "Flatten" }, { name = "fc1", type = "Linear", out_features = 10, bias = false',
    "bn1": 'type = "Flatten" }, { name = "bn1", type = "BatchNorm1d", momentum = 0.5',
}
RECIPE = """
summary = "odd"
layers = [
    {{ name = "conv1", type = "Conv2d", out_channels = 4, kernel_size = 3 }},
    {{ name = "odd", {odd} }},
    {{ name = "flatten", type = "Flatten" }},
    {{ name = "fc", type = "Linear", out_features = 10 }},
]
input = {{ shape = [1, 28, 28], mean = 0.2, std = 0.4 }}

[training]
loss = {{ type = "CrossEntropyLoss" }}
optimizer = {{ type = "SGD", lr = 0.1 }}
batch_size = 16
epochs = 1
seed = 0
"""


def export(odd, data):
    plan = recipe.parse(RECIPE.format(odd=odd), name="odd", source="odd.toml")
    engine = engines.build(plan, "numpy", seed=3)
    images = engine.put(plan.examples(data.test_images), data.test_labels, plan.mean, plan.std)
    for step in range(3):
        engine.train_step(images, np.arange(step * 16, step * 16 + 16))
    expected = engine.evaluate(images)[1]
    return exporting.onnx(plan, engine.state_dict(), data.class_names, "odd"), expected


@pytest.mark.parametrize("odd", ODD)
def test_every_layer_that_a_recipe_can_have(odd, runtime, digits):
    model, expected = export(ODD[odd], digits)
    assert np.ptp(expected, axis=0).min() > 1e-3, "outputs that are all alike would hide mistakes"
    found = runtime(model, (digits.test_images[:, None] / 255).astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_no_layer_is_left_out():
    assert all(f'"{kind}"' in "".join(ODD.values()) for kind in recipe_parts.LAYERS)


@pytest.mark.parametrize(
    "odd",
    [
        'type = "GELU", approximate = "tanh"',
        'type = "AvgPool2d", kernel_size = 2, divisor_override = 7',
        'type = "BatchNorm2d", track_running_stats = false',
    ],
)
def test_what_cannot_be_written_is_refused(runtime, digits, odd):
    with pytest.raises(ChainruleError, match=r"'odd' \(\w+\) with these arguments cannot be written as ONNX"):
        export(odd, digits)


def test_a_model_that_says_something_else_is_refused(runtime, digits, monkeypatch):
    from chainrule import onnx_graph

    monkeypatch.setattr(onnx_graph.math, "sqrt", lambda _: 0.7)
    with pytest.raises(ChainruleError, match=r"odd.toml: .* run, the model says something else"):
        export(ODD["gelu"], digits)


def test_onnx_missing_is_one_line(make_run, tmp_path, capsys, monkeypatch):
    path = make_run(tmp_path / "run")
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert run(["export", str(path), "--format", "onnx"]) == 1
    assert capsys.readouterr().err == (
        "chainrule: ONNX needs the onnx library, which is not installed: pip install 'chainrule[onnx]'\n"
    )
    assert not (path / "model.onnx").exists()


# -- The file -------------------------------------------------------------------------------------------


def test_a_file_that_exists_is_kept_unless_asked(make_run, tmp_path, capsys):
    pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")
    path = make_run(tmp_path / "run")
    out = tmp_path / "mine.pth"
    out.write_text("mine")
    assert run(["export", str(path), "--out", str(out)]) == 1
    assert f"{out} exists: give another --out, or --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run(["export", str(path), "--out", str(out), "--overwrite"]) == 0
    assert out.read_bytes().startswith(b"PK")
    assert run(["export", str(path), "--out", str(tmp_path / "no" / "where.pth")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_new_run_takes_the_old_ones_exports_away(make_run, tmp_path):
    path = make_run(tmp_path / "run")
    for name in ("model.pth", "best-torch.onnx", "mine.pth"):
        (path / name).write_bytes(b"old weights")
    with RunFolder(path, overwrite=True) as folder:
        folder.write_model("model.safetensors", {"w": np.zeros(1)})
    assert {file.name for file in path.iterdir()} == {"model.safetensors", "mine.pth"}


def test_format_and_name_must_fit(make_run, tmp_path, capsys):
    arguments = ["export", str(make_run(tmp_path / "run")), "--format", "pth", "--out", "a.onnx"]
    assert run(arguments) == 2
    assert capsys.readouterr().err == "chainrule: --format pth does not fit --out a.onnx\n"


def test_damaged_weights_leave_no_file(make_run, tmp_path, capsys):
    path = make_run(tmp_path / "run")
    (path / "model.safetensors").write_bytes(b"no")
    assert run(["export", str(path)]) == 1
    assert "model.safetensors: damaged, or not a safetensors file" in capsys.readouterr().err
    assert {file.name for file in path.iterdir()} == {"config.json", "model.safetensors"}


def test_reference_and_exported_weights_share_their_keys(make_run, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")
    path = make_run(tmp_path / "run", "mlp-bn")
    assert run(["export", str(path)]) == 0
    keys = list(torch.load(path / "model.pth", weights_only=True))
    assert set(keys) == set(recipe.load("mlp-bn").build(nn_reference).state_dict())
