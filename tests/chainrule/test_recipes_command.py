"""``chainrule recipes``: the list, and one network layer by layer."""

import json

import pytest

from chainrule import recipe
from chainrule.cli import run


def shown(capsys, *arguments):
    assert run(["recipes", *arguments]) == 0
    return capsys.readouterr().out


def test_the_list_names_every_recipe_with_its_size(capsys):
    lines = shown(capsys).splitlines()[1:]
    assert [line.split()[0] for line in lines] == recipe.known()
    assert any(line.split() == ["simplenet", "784-128-10,", "ReLU", "101,770", "3", "64"] for line in lines)
    listed = json.loads(shown(capsys, "--json"))
    assert {entry["name"]: entry["parameters"] for entry in listed} == {
        "ann": 105214,
        "simplenet": 101770,
        "fcn": 109386,
        "mlp": 567434,
        "mlp-bn": 1497994,
        "cnn-same": 421642,
        "cnn": 225034,
    }


def test_a_network_is_shown_layer_by_layer(capsys):
    lines = [" ".join(line.split()) for line in shown(capsys, "show", "cnn").splitlines()]
    assert "conv2 Conv2d(in_channels=32, out_channels=64, kernel_size=3) 64 x 11 x 11 18,496" in lines
    assert "fc1 Linear(in_features=1600, out_features=128) 128 204,928" in lines
    assert "total 225,034" in lines
    assert "optimizer Adam(lr=0.001)" in lines
    whole = json.loads(shown(capsys, "show", "mlp-bn", "--json"))
    assert whole["parameters"] == sum(layer["parameters"] for layer in whole["layers"]) == 1497994
    assert whole["layers"][2] == {
        "name": "bn1",
        "type": "BatchNorm1d",
        "arguments": {"num_features": 1024},
        "shape": [1024],
        "parameters": 2048,
    }
    assert whole["training"]["scheduler"] == "OneCycleLR(max_lr=0.01), stepped every batch"


def test_a_file_of_ones_own_and_changes_work_in_the_same_place(capsys, tmp_path):
    from importlib import resources

    text = resources.files("chainrule.recipes").joinpath("simplenet.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace("out_features = 128", "out_features = 12"))
    assert json.loads(shown(capsys, "show", str(mine), "--json"))["parameters"] == 785 * 12 + 130
    changed = shown(capsys, "show", str(mine), "--json", "--set", "layers.fc1.out_features=5")
    assert json.loads(changed)["parameters"] == 785 * 5 + 60


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["show", "fnc"], 2, "there is no recipe 'fnc'. Known: ann, cnn, "),
        (["show", "none.toml"], 1, "none.toml: No such file"),
        (["show", "cnn", "--set", "layers.conv1.kernel_size=40"], 1, "recipe cnn: 'conv1': the kernel spans"),
        (
            ["show", "ann", "--set", "layers.fc1.out_features=10000000000000"],
            1,
            "recipe ann: 'relu1': Unable",
        ),
        (
            ["show", "ann", "--set", "layers.fc3.out_features=100000000000"],
            1,
            "recipe ann: 'log_softmax': Unab",
        ),
        (["shwo"], 2, "No such command 'shwo'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(capsys, arguments, status, message):
    assert run(["recipes", *arguments]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
