"""Recipes: what is read, what is computed, and what is refused by name."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn_reference
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


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ann", 105_214),
        ("simplenet", 101_770),
        ("fcn", 109_386),
        ("mlp", 567_434),
        ("mlp-bn", 1_497_994),
        ("cnn-same", 421_642),
        ("cnn", 225_034),
    ],
)
def test_both_engines_build_the_published_networks(name, parameters):
    import torch

    loaded = recipe.load(name)
    ours, theirs = loaded.build(nn_reference), loaded.build(torch.nn)
    assert sum(parameter.data.size for parameter in ours.parameters()) == parameters
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: tuple(value.shape) for key, value in theirs.state_dict().items()
    }


def test_a_recipe_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    mine = recipe.load(str(path))
    assert (mine.name, mine.batch_size, mine.optimizer.arguments["momentum"]) == ("mine", 32, 0.9)


def test_an_unknown_name_lists_the_known_ones_with_the_nearest():
    with pytest.raises(WrongUsage, match=r"no recipe 'simplnet'. Known: ann, cnn, .*mean 'simplenet'\?"):
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
        (
            "out_features = 7",
            "outfeatures = 7",
            "'fc1' has no argument 'outfeatures'. Did you mean 'out_features'?",
        ),
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
        ("out_features = 7", "bias = true", "'fc1' has no out_features"),
        ("out_features = 7", "out_features = 99999999999999", "'tanh1': Unable to allocate"),
        ("bias = false", "bais = false", "'fc2' has no argument 'bais'. Did you mean 'bias'?"),
        ("momentum = 0.9", "momentun = 0.9", "SGD has no argument 'momentun'. Did you mean 'momentum'?"),
        (TANH, '{ name = "softmax", type = "Softmax", dim = 7 }', "'softmax': .*7"),
        (
            TANH,
            '{ name = "conv", type = "Conv2d", out_channels = 2 }',
            "'conv' .* takes images .*, found .7,.$",
        ),
        (
            'name = "flatten", type = "Flatten"',
            'name = "p", type = "MaxPool2d"',
            r"input.shape = \[1, 28, 28\]",
        ),
        (LOSS, '{ type = "NLLLoss" }', "the network ends with 'fc2' .Linear.: end it with a LogSoftmax"),
        ("seed = 0", "seed = 0\nvalidation = -1", "training.validation must be a whole number from 0 up"),
        ("seed = 0", "seed = 0\nearly_stopping = 2", "early stopping needs images to judge by"),
        ("seed = 0", 'seed = 0\nscheduler = { type = "StepLR" }', "StepLR has no step_size"),
        ("seed = 0", 'seed = 0\nscheduler = { type = "Step" }', "unknown .*'Step'.*Did you mean 'StepLR'"),
        (
            "seed = 0",
            'seed = 0\nscheduler = { type = "OneCycleLR", max_lr = 1, total_steps = 9 }',
            "total_steps cannot be chosen",
        ),
        (
            "seed = 0",
            'seed = 0\nscheduler = { type = "OneCycleLR", max_lr = 1, interval = "epoch" }',
            "the interval of OneCycleLR must be step, found 'epoch'",
        ),
        (
            "seed = 0",
            'seed = 0\nscheduler = { type = "ReduceLROnPlateau", mode = "max" }',
            "mode cannot be chosen",
        ),
        ("[input]", "[init]\nbias = { type = 'zeros' }\n[input]", "init.weight is missing"),
        ("[input]", "[init]\nweight = { type = 'xavier' }\n[input]", "unknown init.weight type 'xavier'"),
        (
            "[input]",
            "[init]\nweight = { type = 'normal', sdt = 1 }\n[input]",
            "init.weight normal has no argument 'sdt'. Did you mean 'std'",
        ),
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
        ("momentum = 0.9", "momentum = -1"),
        (SGD, '{ type = "Adam", betas = [0.9] }'),
        (LOSS, '{ type = "CrossEntropyLoss", weight = [1, 2] }'),
        (LOSS, '{ type = "CrossEntropyLoss", label_smoothing = 7 }'),
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


CNN = """
summary = "every kind of layer that knows images"
layers = [
    { name = "conv1", type = "Conv2d", out_channels = 4, kernel_size = [5, 3], stride = [2, 1] },
    { name = "bn1", type = "BatchNorm2d" },
    { name = "act1", type = "LeakyReLU", negative_slope = 0.1 },
    { name = "pool1", type = "MaxPool2d", kernel_size = 3, stride = 2, padding = 1, ceil_mode = true },
    { name = "conv2", type = "Conv2d", out_channels = 6, kernel_size = 3, padding = "same", groups = 2 },
    { name = "act2", type = "GELU" },
    { name = "pool2", type = "AvgPool2d", kernel_size = 2, ceil_mode = true },
    { name = "flatten", type = "Flatten" },
    { name = "bn2", type = "BatchNorm1d" },
    { name = "fc1", type = "Linear", out_features = 12, bias = false },
    { name = "act3", type = "ELU" },
    { name = "fc2", type = "Linear", out_features = 11 },
    { name = "act4", type = "SiLU" },
    { name = "nothing", type = "Identity" },
    { name = "drop", type = "Dropout", p = 0.1 },
    { name = "fc3", type = "Linear", out_features = 10 },
    { name = "log_softmax", type = "LogSoftmax", dim = 1 },
]
[init]
weight = { type = "kaiming_normal", nonlinearity = "relu" }
[input]
shape = [1, 28, 28]
mean = 0.5
std = 0.5
[training]
loss = { type = "NLLLoss" }
optimizer = { type = "AdamW", betas = [0.8, 0.99] }
scheduler = { type = "CosineAnnealingLR", interval = "step" }
batch_size = 32
epochs = 2
seed = 0
"""


def test_the_computed_shapes_are_those_that_pytorch_finds():
    import torch

    plan = recipe.parse(CNN, name="mine", source="mine.toml")
    network, x = plan.build(torch.nn), torch.zeros(2, *plan.input_shape)
    for module, shape in zip(network, plan.shapes, strict=True):
        x = module(x)
        assert tuple(x.shape) == (2, *shape), module
    for engine in ("numpy", "torch"):
        engines.rehearse(plan, engine, "cpu")


def test_weights_are_drawn_as_the_recipe_says_and_biases_too():
    plan = recipe.load("mlp")
    network = plan.build(nn_reference, generator=np.random.default_rng(0))
    bound = math.sqrt(6 / (784 + 512))
    weight = network.fc1.weight.data
    assert 0.99 * bound < np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert not network.fc1.bias.data.any()
    assert not network.fc4.bias.data.any()
    plain = recipe.load("fcn").build(nn_reference, generator=np.random.default_rng(0))
    assert plain.fc1.bias.data.any(), "without [init] the defaults of torch.nn hold"


def test_a_recipe_without_init_draws_the_weights_that_it_always_drew():
    # The published figures of `simplenet` and `ann` hang on the order of these draws.
    plan = recipe.load("simplenet")
    network = plan.build(nn_reference, generator=np.random.default_rng([0, 0]))
    rng = np.random.default_rng([0, 0])
    for layer in (network.fc1, network.fc2):
        bound = 1 / math.sqrt(layer.in_features)
        assert np.array_equal(
            layer.weight.data, rng.uniform(-bound, bound, layer.weight.shape).astype(np.float32)
        )
        assert np.array_equal(
            layer.bias.data, rng.uniform(-bound, bound, layer.bias.shape).astype(np.float32)
        )


SCHEDULERS = {
    "StepLR": "step_size = 2, gamma = 0.5",
    "MultiStepLR": "milestones = [1, 3]",
    "ExponentialLR": "gamma = 0.9",
    "LinearLR": "total_iters = 3",
    "CosineAnnealingLR": 'interval = "step"',
    "OneCycleLR": "max_lr = 0.3, pct_start = 0.5",
    "ReduceLROnPlateau": "patience = 0",
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_both_engines_get_the_same_schedule(kind):
    import torch

    text = MINE.replace("seed = 0", f'seed = 0\nscheduler = {{ type = "{kind}", {SCHEDULERS[kind]} }}')
    plan = recipe.parse(text, name="mine", source="mine.toml")
    rates = []
    for nn, optim in ((nn_reference, nn_reference.optim), (torch.nn, torch.optim)):
        optimizer = plan.build_optimizer(optim, plan.build(nn).parameters())
        scheduler = plan.build_scheduler(optim, optimizer, steps_per_epoch=4)
        rates.append([])
        for _ in range(plan.epochs * 4 if plan.interval == "step" else plan.epochs):
            rates[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step(*([1.0] if kind == "ReduceLROnPlateau" else []))
        rates[-1].append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(rates[1], rel=1e-12, abs=1e-15)
    assert len(set(rates[0])) > 1, "a rate that never changes is no schedule"
    if kind == "OneCycleLR":
        assert max(rates[0]) == pytest.approx(0.3)  # it has its peak and its end within the training
        assert rates[0][-2] < 1e-5
    if kind == "CosineAnnealingLR":
        assert rates[0][-1] == pytest.approx(0, abs=1e-12)


def test_changes_are_values_in_toml_and_a_bare_word_is_text():
    given = ["training.epochs=5", "input.mean = 0.5", "training.optimizer.type=SGD", "a.b=[1, 2]", "x=true"]
    assert recipe.changes(given) == {
        "training.epochs": 5,
        "input.mean": 0.5,
        "training.optimizer.type": "SGD",
        "a.b": [1, 2],
        "x": True,
    }


def test_changes_reach_every_part_of_a_recipe():
    changes = {
        "training.epochs": 5,
        "training.optimizer.lr": 0.5,
        "training.optimizer.nesterov": True,
        "training.scheduler.type": "StepLR",
        "training.scheduler.step_size": 2,
        "layers.fc1.out_features": 6,
        "init.weight.type": "xavier_uniform",
        "input.mean": 0.25,
    }
    mine = recipe.parse(MINE, name="mine", source="mine.toml", changes=changes)
    assert (mine.epochs, mine.mean, mine.shapes[1]) == (5, 0.25, (6,))
    assert mine.optimizer.arguments == {"lr": 0.5, "momentum": 0.9, "nesterov": True}
    assert mine.scheduler == recipe.Part("StepLR", {"step_size": 2})
    assert mine.init_weight.type == "xavier_uniform"
    assert mine.summary == "mine, fc1.out_features = 6"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epohcs=5", "--set training.epohcs: there is no 'epohcs'. Did you mean 'epochs'?"),
        ("trainings.epochs=5", "there is no 'trainings'. Did you mean 'training'?"),
        ("layers.fc8.out_features=5", "there is no layer 'fc8'. Did you mean 'fc"),
        ("layers.fc1.out_featrues=5", "'fc1' has no argument 'out_featrues'. Did you mean 'out_features'?"),
        ("training.optimizer.momentun=5", "has no argument 'momentun'. Did you mean 'momentum'?"),
        ("training.epochs=0", "training.epochs must be a whole number from 1 up, found 0"),
        ("training.epochs.x=0", "training.epochs is 2, it has no 'x'"),
        ("layers.fc1=5", "name an argument of a layer, such as layers.fc1.out_features=64"),
        ("training.epochs", "--set takes KEY=VALUE, such as training.epochs=5, found 'training.epochs'"),
        ("training.epochs=", "--set takes KEY=VALUE"),
        ("training.epochs=[1", "expected a value in TOML, found '\\[1'"),
        ("training.epochs=1\nx = 2", "expected one value in TOML"),
    ],
)
def test_a_wrong_change_is_one_line_that_names_it(setting, message):
    with pytest.raises(ChainruleError, match=message):
        recipe.parse(MINE, name="mine", source="mine.toml", changes=recipe.changes([setting]))


def test_a_channel_axis_is_added_where_the_network_wants_one():
    images = np.arange(3 * 28 * 28, dtype=np.uint16).reshape(3, 28, 28)
    assert recipe.load("cnn").examples(images).shape == (3, 1, 28, 28)
    assert recipe.load("ann").examples(images) is not None
    assert np.array_equal(recipe.load("cnn").examples(images)[:, 0], images)


@pytest.mark.parametrize("name", recipe.known())
def test_a_recipe_comes_back_from_the_configuration_of_a_run(name):
    plan = recipe.load(name)
    assert recipe.restore(json.loads(json.dumps(asdict(plan)))) == plan


def small(least, most):
    return st.integers(least, most)


IMAGE_LAYERS = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("Conv2d"), "out_channels": small(1, 4), "kernel_size": small(1, 4)},
        optional={"stride": small(1, 3), "padding": small(0, 2), "dilation": small(1, 2)},
    ),
    st.fixed_dictionaries(
        {"type": st.just("MaxPool2d"), "kernel_size": small(1, 4)},
        optional={"stride": small(1, 3), "padding": small(0, 2), "ceil_mode": st.booleans()},
    ),
    st.fixed_dictionaries(
        {"type": st.just("AvgPool2d"), "kernel_size": st.lists(small(1, 4), min_size=2, max_size=2)},
        optional={"stride": small(1, 3), "padding": small(0, 2), "ceil_mode": st.booleans()},
    ),
    st.just({"type": "BatchNorm2d"}),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(IMAGE_LAYERS, max_size=5))
def test_whatever_the_layers_the_shapes_are_pytorchs_or_the_recipe_is_refused(layers):
    import torch

    layers = [*layers, {"type": "Flatten"}, {"type": "Linear", "out_features": 10}]
    lines = []
    for number, layer in enumerate(layers):
        arguments = ", ".join(f"{key} = {json.dumps(value)}" for key, value in layer.items())
        lines.append(f"{{ name = 'n{number}', {arguments} }}")
    text = f"layers = [{', '.join(lines)}]\n" + CNN[: CNN.index("layers")] + CNN[CNN.index("[init]") :]
    text = text.replace("NLLLoss", "CrossEntropyLoss")
    try:
        plan = recipe.parse(text, name="mine", source="mine.toml")
    except ChainruleError:
        with pytest.raises((RuntimeError, ValueError)):
            by_pytorch(torch, layers)
        return
    assert by_pytorch(torch, layers) == list(plan.shapes)


def by_pytorch(torch, layers):
    """The shape of one example after each layer, as PyTorch's modules find it."""
    x, shapes, sized = torch.zeros(2, 1, 28, 28), [], {"Conv2d": 1, "BatchNorm2d": 1, "Linear": -1}
    for layer in layers:
        arguments = {key: value for key, value in layer.items() if key != "type"}
        sizes = [x.shape[sized[layer["type"]]]] if layer["type"] in sized else []
        x = getattr(torch.nn, layer["type"])(*sizes, **arguments)(x)
        shapes.append(tuple(x.shape[1:]))
    return shapes
