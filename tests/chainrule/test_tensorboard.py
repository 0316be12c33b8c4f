"""``--tensorboard``: what TensorBoard then reads, and what is said where it is missing."""

import importlib.util

import pytest

from chainrule import tensorboard
from chainrule.cli import run


def test_without_the_library_it_is_one_line_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    arguments = ["train", "--dataset", "digits", "--tensorboard", "--out", str(tmp_path / "run")]
    assert run(arguments) == 1
    assert capsys.readouterr().err == (
        "chainrule: --tensorboard needs TensorBoard, which is not installed: "
        "pip install 'chainrule[tensorboard]'\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None,
    reason="needs the extra [tensorboard], which `make setup` installs",
)
def test_a_run_can_be_read_back(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    folder = tmp_path / "run"
    arguments = ["train", "--dataset", "digits", "--tensorboard", "--epochs", "2", "--validation", "100"]
    arguments += ["--engine", "numpy", "--out", str(folder)]
    assert run(arguments) == 0
    assert "summary.json, tensorboard/, weights.png" in capsys.readouterr().out
    assert run([*arguments, "--overwrite"]) == 0, "an old log must not stay beside the new one"
    assert len(list((folder / "tensorboard" / "numpy").iterdir())) == 1
    log = EventAccumulator(str(folder / "tensorboard" / "numpy")).Reload()
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    test = [float(row[4]) for row in rows if row[2] == "test"]
    events = log.Tensors("accuracy/test")
    assert [event.step for event in events] == [1, 2]
    found = [tensor_util.make_ndarray(event.tensor_proto).item() for event in events]
    assert found == pytest.approx(test, rel=1e-6)
    assert {"loss/train", "loss/validation", "learning_rate/train", "gradient_norm/train"} <= set(
        log.Tags()["tensors"]
    )
