"""An explanation's numbers: those of autograd, of finite differences, and of all paths added up."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nn_reference
from chainrule import recipe
from chainrule.errors import ChainruleError, WrongUsage
from chainrule.explaining import (
    Wanted,
    encoding,
    explain,
    from_net,
    from_recipe,
    from_run,
    others,
    paths,
    with_optimizer,
)
from chainrule.explaining import trace as tracing
from chainrule.explaining.subject import ACTIVATIONS, Subject

torch = pytest.importorskip("torch", reason="needs PyTorch: runs where chainrule[torch] is installed")

IMAGES = """
summary = "every kind of layer"
layers = [
    { name = "conv1", type = "Conv2d", out_channels = 4, kernel_size = 3, groups = 2, stride = 2, padding = 1 },
    { name = "bn1", type = "BatchNorm2d" },
    { name = "silu1", type = "SiLU" },
    { name = "avg1", type = "AvgPool2d", kernel_size = 2, padding = 1 },
    { name = "conv2", type = "Conv2d", out_channels = 3, kernel_size = [1, 3], padding = "same" },
    { name = "elu1", type = "ELU" },
    { name = "max1", type = "MaxPool2d", kernel_size = 3, stride = 1, padding = 1 },
    { name = "flatten", type = "Flatten" },
    { name = "fc1", type = "Linear", out_features = 6 },
    { name = "bn2", type = "BatchNorm1d" },
    { name = "leaky1", type = "LeakyReLU", negative_slope = 0.2 },
    { name = "dropout1", type = "Dropout", p = 0.4 },
    { name = "fc2", type = "Linear", out_features = 5 },
    { name = "gelu1", type = "GELU" },
    { name = "fc3", type = "Linear", out_features = 4 },
    { name = "softmax", type = "LogSoftmax", dim = 1 },
]
[input]
shape = [2, 8, 9]
mean = 0.0
std = 1.0
[training]
loss = { type = "NLLLoss" }
optimizer = { type = "AdamW", lr = 0.01, weight_decay = 0.1 }
batch_size = 3
epochs = 1
seed = 3
"""  # noqa: E501


@pytest.fixture(scope="module")
def every_layer():
    """A subject with every kind of layer on random images, in evaluation or as in training."""
    plan = recipe.parse(IMAGES, name="images", source="images.toml")

    def make(training):
        network = plan.build(
            nn_reference, generator=np.random.default_rng(3), mask_generator=np.random.default_rng(4)
        )
        network = network.double().train(training)
        rng = np.random.default_rng(5)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer += rng.standard_normal(buffer.shape)
        for parameter in network.parameters():  # so that a BatchNorm's weight is not 1
            parameter.data += 0.1 * rng.standard_normal(parameter.shape)
        x = rng.standard_normal((3, 2, 8, 9))
        names = tuple("abcd")
        target = np.array([3, 0, 1])
        return Subject("recipe", plan, "drawn", network, x, target, names, {"source": "given"}, training)

    return {training: make(training) for training in (False, True)}


def close(found, expected, tolerance=1e-12):
    """Compare with the largest number expected, or with 1 where that is less."""
    largest = max(np.abs(expected).max(initial=0), 1e-3)
    assert np.abs(np.asarray(found) - expected).max(initial=0) <= tolerance * largest


@pytest.mark.parametrize("training", [False, True])
def test_each_layers_numbers_are_those_of_autograd(every_layer, training):
    subject = every_layer[training]
    explanation = explain(subject)
    plan, traced = subject.recipe, explanation.trace
    network = plan.build(torch.nn).double().train(training)
    network.load_state_dict({k: torch.from_numpy(v) for k, v in subject.network.state_dict().items()})
    values = [torch.from_numpy(subject.x).requires_grad_()]
    for (name, module), layer in zip(network.named_children(), traced.layers, strict=True):
        assert name == layer.name
        value = values[-1]
        if layer.kind == "Dropout" and layer.cache is not None:
            value = value * torch.from_numpy(layer.cache)
        else:
            value = module(value)
        value.retain_grad()
        values.append(value)
    loss = plan.build_loss(torch.nn)(values[-1], torch.from_numpy(subject.target))
    loss.backward()
    assert traced.loss == pytest.approx(loss.item(), rel=1e-14)
    for layer, before, after in zip(traced.layers, values[:-1], values[1:], strict=True):
        close(layer.output, after.detach().numpy())
        close(layer.grad_output, after.grad.numpy())
        close(layer.grad_input, before.grad.numpy())
    for name, parameter in network.named_parameters():
        close(traced.gradients()[name], parameter.grad.numpy())
    assert explanation.autograd.largest_ratio < 1e-13


@pytest.mark.parametrize("training", [False, True])
def test_local_derivatives_times_upstream_are_the_gradient(every_layer, training):
    kinds = set()
    for layer in explain(every_layer[training]).trace.layers:
        kinds.add(layer.local.kind)
        upstream, local = layer.grad_output, layer.local.values
        if layer.local.kind == "elementwise":
            close(upstream * local, layer.grad_input)
        elif layer.local.kind == "matrix":
            close(upstream @ layer.parameters["weight"], layer.grad_input)
        elif layer.local.kind == "jacobian":
            close(np.einsum("ni,nij->nj", upstream, local), layer.grad_input)
        elif layer.local.kind == "batch" and layer.kind == "BatchNorm1d":
            close(np.einsum("ic,ijc->jc", upstream, local), layer.grad_input)
        elif layer.local.kind == "windows":
            assert local.shape == layer.input.shape
    expected = {"elementwise", "matrix", "jacobian", "windows", "kernel", "reshape"}
    assert kinds == expected | ({"batch"} if training else set())


@pytest.mark.parametrize("training", [False, True])
def test_every_parameter_of_every_layer_is_the_sum_of_its_paths(every_layer, training):
    subject = every_layer[training]
    traced = explain(subject).trace
    seen = set()
    for name, value in traced.parameters().items():
        for index in [(0,) * value.ndim, tuple(size - 1 for size in value.shape)]:
            layer, _, parameter = name.rpartition(".")
            found = paths.follow(subject, traced, paths.WeightName(layer, parameter, index), most=10**6)
            gradient = traced.gradients()[name][index]
            scale = 1e-12 * max(1e-3, *(abs(path.product) for path in found.paths.listed))
            assert found.gradient == gradient
            assert len(found.paths.listed) == found.paths.count
            assert abs(math.fsum(path.product for path in found.paths.listed) - gradient) < scale
            assert abs(math.fsum(term.product for term in found.terms) - gradient) < scale
            for path in found.paths.listed[:20]:
                product = math.prod(factor.value for factor in path.factors)
                assert product == pytest.approx(path.product, rel=1e-12)
            seen.add(found.paths.until)
    # BatchNorm is passed through in evaluation, and stops the paths where it mixes the batch.
    assert seen == {None, "avg1", "max1"} | ({"bn1", "bn2"} if training else set())


def test_a_kernels_weight_meets_the_pixels_that_are_named(every_layer):
    subject = every_layer[False]
    traced = explain(subject).trace
    for layer, index in [
        ("conv1", (3, 0, 0, 2)),
        ("conv1", (1, 0, 2, 1)),
        ("conv2", (2, 1, 0, 2)),
        ("conv2", (1, 3, 0, 1)),
    ]:
        found = paths.follow(subject, traced, paths.WeightName(layer, "weight", index), most=10**4).paths
        pixels = 0
        for path in found.listed:
            met = path.factors[0]
            if met.what == "border":
                assert met.value == 0
                continue
            place = tuple(map(int, met.what.removeprefix("x[").removesuffix("]").split(",")))
            assert met.value == pytest.approx(traced[layer].input[(path.example, *place)], rel=1e-14)
            pixels += 1
        assert pixels > 0


networks = st.builds(
    dict,
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=5),
    activation=st.sampled_from([*ACTIVATIONS]),
    seed=st.integers(0, 1000),
    batch=st.integers(1, 3),
    loss=st.sampled_from([None, "mse", "bce"]),
)


def subject_of(network):
    rng = np.random.default_rng(network["seed"])
    x = rng.uniform(-2, 2, (network["batch"], network["sizes"][0]))
    text = ";".join(",".join(map(str, row)) for row in x.tolist())
    net = "-".join(map(str, network["sizes"]))
    wanted = Wanted(input=text, seed=network["seed"])
    return from_net(net, network["activation"], network["loss"], 0.1, wanted)


def all_paths(subject, traced, name):
    """The paths of a weight of a fully connected network, one after the other by definition."""
    layers = traced.layers
    start = [layer.name for layer in layers].index(name.layer)
    behind = layers[start + 1 :]
    widths = [layer.output.shape[1] for layer in behind if layer.kind == "Linear"]
    found = []
    for n, nodes in itertools.product(range(len(subject.x)), itertools.product(*map(range, widths))):
        node = name.index[0]
        product = layers[start].input[n, name.index[1]] if name.parameter == "weight" else 1.0
        following = iter(nodes)
        for layer in behind:
            if layer.kind == "Linear":
                to = next(following)
                product *= layer.parameters["weight"][to, node]
                node = to
            else:
                product *= layer.local.values[n, node]
        found.append(product * traced.grad_scores[n, node])
    return found


@settings(deadline=None, max_examples=60)
@given(networks, st.data())
def test_paths_of_small_networks(network, data):
    subject = subject_of(network)
    traced = tracing.trace(subject)
    key = data.draw(st.sampled_from(sorted(traced.parameters())))
    index = tuple(data.draw(st.integers(0, size - 1)) for size in traced.parameters()[key].shape)
    most = data.draw(st.integers(1, 12))
    layer, _, parameter = key.rpartition(".")
    name = paths.WeightName(layer, parameter, index)
    expected = sorted(all_paths(subject, traced, name), key=abs, reverse=True)
    found = paths.follow(subject, traced, name, most).paths
    assert found.count == len(expected)
    assert found.nonzero == sum(product != 0 for product in expected)
    listed = [path.product for path in found.listed]
    assert len(listed) == min(most, len(expected))
    # The largest ones, whichever of equals comes first.
    assert np.abs(listed) == pytest.approx(np.abs(expected[: len(listed)]), rel=1e-12, abs=1e-300)
    gradient = traced.gradients()[key][index]
    scale = sum(map(abs, expected)) + 1e-300
    assert abs(sum(expected) - gradient) <= 1e-13 * scale
    assert abs(sum(listed) + found.rest - gradient) <= 1e-13 * scale


@settings(deadline=None, max_examples=40)
@given(networks)
def test_small_networks_agree_with_autograd_and_differences(network):
    explanation = explain(subject_of(network))
    gradients = explanation.trace.gradients()
    for name, gradient in gradients.items():
        close(gradient, explanation.autograd.gradients[name], 1e-13)
        for place, one in zip(np.ndindex(gradient.shape), explanation.differences[name], strict=True):
            if one.kink is None:
                assert one.value == pytest.approx(gradient[place], rel=1e-6, abs=1e-8)


def test_a_difference_across_a_kink_names_it():
    subject = from_net("2-1-2", "relu", None, 0.1, Wanted(input="1,1", label="0"))
    subject.network.fc1.weight.data[...] = [[0.5, -0.5]]
    subject.network.fc1.bias.data[...] = 0  # relu's input is exactly 0
    one = others.differences(subject, "fc1.weight", [(0, 0)])[0]
    assert one.kink == "relu1"
    assert others.differences(subject, "fc2.weight", [(0, 0)])[0].kink is None


def test_an_engine_that_is_wrong_is_noticed(monkeypatch):
    """What a reader may break in nn_reference: a derivative, and a product."""
    subject = from_net("2-3-2", "tanh", None, 0.1, Wanted())
    with monkeypatch.context() as patch:
        right = nn_reference.Tanh._backward
        patch.setattr(
            nn_reference.Tanh,
            "_backward",
            lambda self, cache, grad, need: right(self, cache, grad, need) + 0.001 * grad.sum(),
        )
        with pytest.raises(ChainruleError, match="tanh1: the engine's gradient is not upstream times local"):
            explain(subject)
    with monkeypatch.context() as patch:
        accumulate = nn_reference.Linear._accumulate
        patch.setattr(
            nn_reference.Linear,
            "_accumulate",
            lambda self, weight, bias: accumulate(self, weight=weight * 1.0001, bias=bias),
        )
        with pytest.raises(ChainruleError, match=r"fc1.weight\[0,1\]: the paths sum to"):
            explain(subject, weight="fc1.weight[0,1]")


def test_explaining_changes_nothing(every_layer):
    subject = every_layer[True]
    before = subject.network.state_dict()
    first = explain(subject, weight="conv1.weight[0,0,1,1]", step=True)
    again = explain(subject, weight="conv1.weight[0,0,1,1]", step=True)
    assert json.dumps(first.to_dict()) == json.dumps(again.to_dict())  # Dropout's masks too
    for key, value in subject.network.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_the_step_is_torchs(every_layer, kind):
    subject = every_layer[True]
    subject = replace(subject, recipe=with_optimizer(subject.recipe, kind, 0.003))
    explanation = explain(subject, step=True)
    step = explanation.step
    parameters = {
        name: torch.nn.Parameter(torch.from_numpy(value.copy()))
        for name, value in explanation.trace.parameters().items()
    }
    for name, parameter in parameters.items():
        parameter.grad = torch.from_numpy(explanation.trace.gradients()[name].copy())
    subject.recipe.build_optimizer(torch.optim, parameters.values()).step()
    for name, parameter in parameters.items():
        close(step.after[name], parameter.detach().numpy(), 1e-12)
    moved = replace(subject, network=subject.fresh()[0])
    for name, parameter in moved.network.named_parameters():
        parameter.data = step.after[name]
    assert step.loss_after == tracing.trace(moved).loss
    assert step.loss_before == explanation.trace.loss
    assert step.loss_after < step.loss_before


def test_the_optimizer_of_the_step():
    plan = recipe.load("mlp-bn")
    assert with_optimizer(plan, None, None).optimizer == plan.optimizer
    changed = with_optimizer(plan, None, 0.5).optimizer
    assert changed.arguments == {**plan.optimizer.arguments, "lr": 0.5}
    assert with_optimizer(plan, "SGD", None).optimizer.arguments == {"lr": plan.optimizer.arguments["lr"]}


def test_dictionary_comes_back_from_json_whole(every_layer):
    subject = every_layer[True]
    explanation = explain(subject, weight="fc1.weight[2,1]", step=True)
    table = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert table["format"] == "chainrule explanation"
    value = encoding.decode(table["input"])
    np.testing.assert_array_equal(value, subject.x)
    np.testing.assert_array_equal(encoding.decode(table["target"]), subject.target)
    for layer, traced in zip(table["layers"], explanation.trace.layers, strict=True):
        assert (layer["name"], layer["kind"]) == (traced.name, traced.kind)
        np.testing.assert_array_equal(encoding.decode(layer["output"]), traced.output)
        np.testing.assert_array_equal(encoding.decode(layer["upstream"]), traced.grad_output)
        np.testing.assert_array_equal(encoding.decode(layer["gradient"]), traced.grad_input)
        for key, parameter in layer["parameters"].items():
            np.testing.assert_array_equal(encoding.decode(parameter["value"]), traced.parameters[key])
            np.testing.assert_array_equal(encoding.decode(parameter["gradient"]), traced.gradients[key])
    assert table["loss"]["value"] == explanation.trace.loss
    assert table["weight"]["gradient"] == explanation.weight.sums.gradient
    assert table["step"]["loss_after"] == explanation.step.loss_after
    # The network can be built again from what is there: that is what a page does.
    plan = recipe.parse(IMAGES, name="images", source="images.toml")
    assert [layer["arguments"] for layer in table["layers"]] == [part.arguments for part in plan.layers]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 12), max_size=3),
    st.sampled_from([np.float64, np.float32, np.int64]),
    st.booleans(),
    st.integers(0, 100),
)
def test_arrays_come_back_from_json(shape, dtype, single, seed):
    array = (np.random.default_rng(seed).standard_normal(shape) * 100).astype(dtype)
    back = encoding.decode(json.loads(json.dumps(encoding.encode(array, single=single))))
    assert back.shape == array.shape
    if single and array.size > encoding.MOST_IN_LISTS:
        np.testing.assert_array_equal(back, array.astype(back.dtype))
    else:
        np.testing.assert_array_equal(back, array)


def test_the_page_of_the_simplest_recipe_stays_small():
    """784-128-10 in under 3 MB of JSON, with room for the page round it."""
    table = explain(from_recipe("simplenet", Wanted(dataset="digits"))).to_dict()
    assert len(json.dumps(table)) < 2_000_000
    weight = table["layers"][1]["parameters"]["weight"]
    assert weight["value"]["dtype"] == "float32"  # as it was drawn, so that nothing is lost
    assert weight["gradient"]["dtype"] == "float64"


def test_an_image_is_what_the_network_sees_in_training(make_run, tmp_path):
    from chainrule import datasets, engines

    plan, data = recipe.load("ann"), datasets.load("digits")
    subject = from_recipe("ann", Wanted(dataset="digits", index="3,7:9"))
    engine = engines.build(plan, "numpy", seed=plan.seed)
    images = data.test_images[[3, 7, 8]]
    put = engine.put(plan.examples(images), data.test_labels[[3, 7, 8]], plan.mean, plan.std)
    np.testing.assert_array_equal(subject.x, put.images)
    np.testing.assert_array_equal(subject.target, put.labels)
    for key, value in engine.state_dict().items():
        np.testing.assert_array_equal(subject.network.state_dict()[key], value)
    loss, _ = engine.evaluate(put)
    assert explain(subject).trace.loss == pytest.approx(loss, rel=1e-6)


def test_a_run_is_explained_with_its_weights(make_run, tmp_path):
    from safetensors.numpy import load_file

    path = make_run(tmp_path / "run")
    subject = from_run(path, "last", None, Wanted(index="2", split="train"))
    weights = load_file(path / "model.safetensors")
    np.testing.assert_array_equal(subject.network.fc1.weight.data, weights["fc1.weight"])
    table = explain(subject).to_dict()
    assert table["subject"]["kind"] == "run"
    assert table["example"]["indices"] == [2]
    assert table["example"]["split"] == "train"
    assert encoding.decode(table["target"]).tolist() == table["example"]["labels"]


def test_a_network_of_the_command_line_has_numbers_that_one_can_write_down():
    subject = from_net("2-3-2", "tanh", None, 0.1, Wanted())
    for parameter in subject.network.parameters():
        np.testing.assert_array_equal(parameter.data, np.round(parameter.data, 2))
    assert (subject.x == np.round(subject.x, 1)).all()
    assert [layer.name for layer in subject.recipe.layers] == ["fc1", "tanh1", "fc2"]
    assert from_net("2-1", "relu", None, 0.1, Wanted(target="1")).recipe.loss.type == "MSELoss"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fc1.wieght[0,0]", "Did you mean 'fc1.weight'?"),
        ("fc3.bias[0]", "there is no parameter 'fc3.bias'"),
        ("fc1.weight[3,0]", r"fc1.weight has shape \(3, 2\): axis 0 goes from 0 to 2, found 3"),
        ("fc1.weight[0]", "expected 2 indices"),
        ("fc1.weight[-1,0]", r"such as fc1.weight\[0,0\]"),
        ("fc1.weight[]", r"expected whole numbers in \[\]"),
        ("fc1.weight", r"such as fc1.weight\[0,0\]"),
        ("fc1.weight[0,0", r"such as fc1.weight\[0,0\]"),
        ("fc1.weight[١,0]", "such as"),
    ],
)
def test_a_weight_that_is_not_there(text, message):
    traced = tracing.trace(from_net("2-3-2", "tanh", None, 0.1, Wanted()))
    with pytest.raises(WrongUsage, match=message) as error:
        paths.find(traced, text)
    assert "\n" not in str(error.value)


def test_a_large_network_lists_the_largest_of_its_paths():
    """mlp has 327,680 paths for each weight of fc1: the largest, by looking at all of them."""
    subject = from_recipe("mlp", Wanted(dataset="digits"))
    traced = tracing.trace(subject)
    unit = int(np.abs(traced["fc1"].grad_output[0]).argmax())
    found = paths.follow(subject, traced, paths.WeightName("fc1", "bias", (unit,)), most=25).paths
    first = traced["relu1"].local.values[0, unit] * traced["fc2"].parameters["weight"][:, unit]
    second = (first * traced["relu2"].local.values[0])[:, None] * traced["fc3"].parameters["weight"].T
    third = (second * traced["relu3"].local.values[0])[:, :, None] * traced["fc4"].parameters["weight"].T
    products = third * traced.grad_scores[0]
    assert found.count == products.size == 327_680
    assert found.nonzero == np.count_nonzero(products)
    expected = np.sort(np.abs(products).reshape(-1))[::-1][:25]
    np.testing.assert_allclose([abs(path.product) for path in found.listed], expected, rtol=1e-12)
    assert found.total == pytest.approx(products.sum(), rel=1e-10)
