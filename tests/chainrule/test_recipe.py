"""Recipes: what is read, what is computed, and what is refused by name."""

import pytest

from chainrule import recipe
from chainrule.errors import ChainruleError, WrongUsage

MINE = """
summary = "mine"
layers = [
    { name = "flatten", type = "Flatten" },
    { name = "fc1", type = "Linear", out_features = 7 },
    { name = "tanh1", type = "Tanh" },
    { name = "fc2", type = "Linear", out_features = 10, bias = false },
]
[input]
shape = [28, 28]
mean = 0.1307
std = 0.3081
[training]
loss = { type = "CrossEntropyLoss" }
optimizer = { type = "SGD", lr = 0.1, momentum = 0.9 }
batch_size = 32
epochs = 2
seed = 0
"""


def test_sizes_follow_from_the_layer_before():
    mine = recipe.parse(MINE, name="mine", source="mine.toml")
    assert mine.shapes == ((784,), (7,), (7,), (10,))
    assert mine.layers[3].arguments == {"in_features": 7, "out_features": 10, "bias": False}


@pytest.mark.parametrize(("name", "parameters"), [("simplenet", 101_770), ("ann", 105_214)])
def test_both_engines_build_the_published_networks(name, parameters):
    import torch

    import nn_reference

    loaded = recipe.load(name)
    ours, theirs = loaded.build(nn_reference), loaded.build(torch.nn)
    assert sum(value.size for value in ours.state_dict().values()) == parameters
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    mine = recipe.load(str(path))
    assert (mine.name, mine.batch_size, mine.optimizer.arguments["momentum"]) == ("mine", 32, 0.9)


def test_an_unknown_name_lists_the_known_ones_with_the_nearest():
    with pytest.raises(WrongUsage, match=r"no recipe 'simplnet'. Known: ann, simplenet.*mean 'simplenet'\?"):
        recipe.load("simplnet")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2", "epochs = 0", "training.epochs must be a whole number from 1 up, found 0"),
        ("epochs = 2", "epochs = 2.5", "training.epochs must be a whole number from 1 up, found 2.5"),
        ("epochs = 2", "epoch = 2", "training.epochs is missing"),
        ("seed = 0", "seed = 0\nspeed = 1", "unknown key training.speed. Did you mean 'seed'?"),
        ('type = "Tanh"', 'type = "Tahn"', "unknown layer type 'Tahn'.*Did you mean 'Tanh'"),
        ('name = "tanh1", ', "", "a Tanh layer has no name"),
        ("out_features = 7", "outfeatures = 7", "'fc1' has no out_features"),
        ('name = "fc2"', 'name = "fc1"', "two layers are named 'fc1'"),
        ("[28, 28]", '"28"', "input.shape must be a list of whole numbers, found '28'"),
        ("std = 0.3081", "std = 0", "input.std must be a number above 0, found 0"),
        ("summary", "summary = [", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(old, new, message):
    assert old in MINE
    with pytest.raises(ChainruleError, match=f"^mine.toml: .*{message}"):
        recipe.parse(MINE.replace(old, new), name="mine", source="mine.toml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bias = false", "bais = false"),
        ('"SGD"', '"SDG"'),
        ("momentum", "momentun"),
        ('"CrossEntropyLoss"', '"CELoss"'),
    ],
)
def test_an_argument_that_the_engine_does_not_know_is_one_clear_error(old, new):
    import nn_reference

    mine = recipe.parse(MINE.replace(old, new), name="mine", source="mine.toml")
    with pytest.raises(ChainruleError, match="the recipe's .* cannot be built with"):
        mine.build_optimizer(nn_reference.optim, mine.build(nn_reference).parameters())
        mine.build_loss(nn_reference)


def test_a_missing_or_binary_file_is_one_clear_error(tmp_path):
    with pytest.raises(ChainruleError, match="none.toml: No such file"):
        recipe.load(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ChainruleError, match="binary.toml: expected a recipe in TOML"):
        recipe.load(str(tmp_path / "binary.toml"))
