"""How far each engine's gradient is from float64, and that a wrong one is seen."""

import json

import pytest
import torch

from chainrule import precision
from chainrule.cli import run

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    ("device", "name", "least"),
    [
        ("cpu", "float32", 0.0),
        ("cpu", "bf16", 1e-3),
        *(
            pytest.param("cuda", name, least, marks=needs_cuda)
            for name, least in (("float32", 0.0), ("tf32", 1e-5), ("bf16", 1e-3))
        ),
    ],
)
@pytest.mark.parametrize("recipe", ["ann", "mlp-bn", "cnn"])
def test_each_precision_is_as_far_from_float64_as_it_rounds(recipe, device, name, least):
    found, details = precision.distances(recipe, precision=name, device=device, dataset="digits")
    whole = found.rows[-1]
    assert found.agrees
    assert 0 < whole.reference < 1e-6
    assert least <= whole.torch <= found.limit
    assert f"PyTorch ({device}, {name})" in details["Engines"]
    assert len(found.rows) >= 5


def test_a_wrong_gradient_is_seen(monkeypatch, capsys):
    from torch_impl import TorchEngine

    monkeypatch.setattr(TorchEngine, "_mean_loss", lambda self, logits, labels: 1.5 * logits.sum())
    assert run(["compare", "ann", "--precision", "bf16", "--dataset", "digits"]) == 1
    out, err = capsys.readouterr()
    assert "NOT both are as near as rounding lets them" in out
    assert (
        err == "chainrule: a gradient is further from float64 than rounding explains: see the report above\n"
    )


def test_the_report_as_data(capsys):
    assert run(["compare", "ann", "--precision", "bf16", "--dataset", "digits", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["agrees"] is True
    assert [row["name"] for row in report["rows"]][-1] == "the whole gradient"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "ann", "--precision", "tf32"], "--precision tf32 is for CUDA: use --device cuda"),
        (["compare", "ann", "--precision", "bf16", "--steps", "3"], "they take no --own, --steps, --dtype"),
        (["train", "ann", "--precision", "tf32"], "--precision tf32 is for CUDA: use --device cuda"),
        (["train", "ann", "--cuda-graphs"], "--cuda-graphs is for CUDA: use --device cuda"),
        (["train", "ann", "--compile", "--engine", "numpy"], "--compile is for PyTorch: use --engine torch"),
        (["train", "ann", "--rank-timeout", "0"], "--rank-timeout must be from 1 to 1,000,000 seconds"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, capsys):
    assert run(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_run_records_how_pytorch_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("chainrule.records.draw", lambda *_: None)
    options = ["--engine", "torch", "--dataset", "digits", "--epochs", "1", "--json"]
    how = ["--precision", "bf16", "--channels-last"]
    assert run(["train", "fcn", *options, *how, "--out", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["torch"] == {
        "precision": "bf16",
        "compile": False,
        "channels_last": True,
        "cuda_graphs": False,
        "fused": True,
    }
