"""The command line as a whole: what starting it costs, and what wrong usage prints."""

import subprocess
import sys

import pytest

from chainrule.cli import run


def test_starting_loads_no_slow_library():
    script = (
        "import sys, idx, nn_reference, chainrule.cli\n"
        "slow = {'torch', 'onnx', 'matplotlib', 'sklearn', 'scipy', 'requests', 'pooch'} & set(sys.modules)\n"
        "sys.exit(f'imported at start: {sorted(slow)}' if slow else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "report",
        "runs",
        "history",
        "explain",
        "download",
        "datasets",
        "recipes",
        "exercises",
        "grade",
    ],
)
def test_each_command_has_help_with_an_example(command, capsys):
    assert run([command, "--help"]) == 0
    assert f"Example: chainrule {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["train", "simplnet"], "there is no recipe 'simplnet'. Known: ann, cnn"),
        (["train", "--dataset", "mnits"], "mnist"),
        (["train", "--epochs", "0"], "--epochs must be at least 1, found 0"),
        (["train", "--batch-size", "-3"], "--batch-size must be at least 1, found -3"),
        (["train", "--seed", "-1"], "--seed must be at least 0, found -1"),
        (["train", "--threads", "0"], "--threads must be at least 1, found 0"),
        (["train", "--epochs", "many"], "'--epochs'"),
        (["train", "--engine", "jax"], "'jax' is not one of 'numpy', 'torch', 'both'"),
        (["train", "--engine", "numpy", "--device", "cuda"], "--device cuda is for PyTorch"),
        (["explain", "newron"], "there is no 'newron' to explain. Known: neuron, ann, cnn"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments, message, capsys):
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("chainrule: ")
    assert captured.err.count("\n") == 1


def test_a_reader_that_stops_reading_is_no_error():
    command = f"{sys.executable} -m chainrule explain neuron | true"
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_no_arguments_show_the_help(capsys):
    assert run([]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Usage: chainrule")
    assert captured.out.count("\n") > 10
    assert captured.err == ""


def test_output_that_cannot_be_written_is_one_line():
    command = f"{sys.executable} -m chainrule explain neuron > /dev/full"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "chainrule: standard output: No space left on device\n")


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("chainrule 0.")
