"""Recipes: what is read, what is computed, and what is refused by name."""

import pytest

from chainrule import engines, recipe
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


TANH = '{ name = "tanh1", type = "Tanh" }'
LOSS = '{ type = "CrossEntropyLoss" }'
SGD = '{ type = "SGD", lr = 0.1, momentum = 0.9 }'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 2", "epochs = 0", "training.epochs must be a whole number from 1 up, found 0"),
        ("epochs = 2", "epochs = 2.5", "training.epochs must be a whole number from 1 up, found 2.5"),
        ("epochs = 2", "epochs = true", "training.epochs must be a whole number from 1 up, found True"),
        ("epochs = 2", "epoch = 2", "training.epochs is missing"),
        ("seed = 0", "seed = 0\nspeed = 1", "unknown key training.speed. Did you mean 'seed'?"),
        ("[input]", "[inputs]", "input is missing"),
        ("[input]", "[[input]]", "input must be a table"),
        ('summary = "mine"', "summary = 5", "summary must be text, found 5"),
        ('"Tanh"', '"Tahn"', "unknown layer type 'Tahn'.*Did you mean 'Tanh'"),
        ('"Tanh"', '"relu"', "unknown layer type 'relu'.*Did you mean 'ReLU'"),
        ('"Tanh"', "5", "layer must be a table with a type"),
        (TANH, "3", "layer must be a table with a type"),
        ('name = "tanh1", ', "", "a Tanh layer has no name"),
        ('"tanh1"', "5", "the name of a Tanh must be text, found 5"),
        ('"tanh1"', '"a.b"', "a Tanh layer has the name 'a.b', expected one such as fc1"),
        ('name = "fc2"', 'name = "fc1"', "two layers are named 'fc1'"),
        ("out_features = 7", "outfeatures = 7", "'fc1' has no out_features"),
        (
            "out_features = 7",
            "out_features = 0",
            "'fc1'.out_features must be a whole number from 1 up, found 0",
        ),
        ("out_features = 7", "in_features = 5, out_features = 7", "'fc1'.in_features must be 784, found 5"),
        ('"Flatten"', '"Flatten", start_dim = 0', "'flatten' .Flatten. takes no arguments here"),
        ("bias = false", 'dtype = "float64"', "layer Linear: dtype cannot be chosen in a recipe"),
        (
            LOSS,
            '{ type = "MSELoss" }',
            "unknown training.loss type 'MSELoss'. Known: CrossEntropyLoss, NLLLoss",
        ),
        (LOSS, '{ type = "CrossEntropyLoss", reduction = "sum" }', "reduction cannot be chosen"),
        ('"SGD"', '"adam"', "unknown training.optimizer type 'adam'.*Did you mean 'Adam'"),
        ("lr = 0.1", "lr = true", "training.optimizer's lr must be a number above 0, found True"),
        ("lr = 0.1", "lr = -1", "training.optimizer's lr must be a number above 0, found -1"),
        ("[28, 28]", '"28"', "input.shape must be a list of whole numbers, found '28'"),
        ("std = 0.3081", "std = 0", "input.std must be a number above 0, found 0"),
        ("std = 0.3081", "std = inf", "input.std must be a number above 0, found inf"),
        ("mean = 0.1307", "mean = nan", "input.mean must be a number, found nan"),
        ("mean = 0.1307", f"mean = {10**400}", "input.mean must be a number, found 1000"),
        ("summary", "summary = [", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(old, new, message):
    assert old in MINE
    with pytest.raises(ChainruleError, match=f"^mine.toml: .*{message}"):
        recipe.parse(MINE.replace(old, new), name="mine", source="mine.toml")


def test_a_recipe_without_layers_is_refused():
    start, end = MINE.index("layers = ["), MINE.index("[input]")
    for layers in ("layers = []\n", "layers = 3\n"):
        with pytest.raises(ChainruleError, match="mine.toml: layers must be a list, found"):
            recipe.parse(MINE[:start] + layers + MINE[end:], name="mine", source="mine.toml")


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bias = false", "bais = false"),
        ("momentum = 0.9", "momentun = 0.9"),
        ("momentum = 0.9", "momentum = -1"),
        (SGD, '{ type = "Adam", betas = [0.9] }'),
        (LOSS, '{ type = "CrossEntropyLoss", weight = [1, 2] }'),
        (LOSS, '{ type = "CrossEntropyLoss", label_smoothing = 7 }'),
        (TANH, '{ name = "softmax", type = "Softmax", dim = 7 }'),
        ("out_features = 7", "out_features = 99999999999999"),
        ('"tanh1"', '"forward"'),
        ("std = 0.3081", "std = 1e-300"),
    ],
)
def test_what_only_an_engine_can_know_is_found_in_the_rehearsal(old, new, engine):
    assert old in MINE
    plan = recipe.parse(MINE.replace(old, new), name="mine", source="mine.toml")
    with pytest.raises(
        ChainruleError, match=r"^mine.toml: (the \w+ engine cannot train it|the loss of two blank)"
    ):
        engines.rehearse(plan, engine, "cpu")


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("name", recipe.known())
def test_the_recipes_that_come_with_chainrule_pass_the_rehearsal(name, engine):
    engines.rehearse(recipe.load(name), engine, "cpu")


def test_a_file_from_notepad_begins_with_a_mark(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINE.encode())
    assert recipe.load(str(path)).summary == "mine"


def test_a_missing_or_binary_file_is_one_clear_error(tmp_path):
    with pytest.raises(ChainruleError, match="none.toml: No such file"):
        recipe.load(str(tmp_path / "none.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ChainruleError, match="binary.toml: expected a recipe in TOML"):
        recipe.load(str(tmp_path / "binary.toml"))
