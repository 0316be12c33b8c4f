"""The command ``chainrule explain``: its screen, its JSON, and one line for what is wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from chainrule.cli import run
from chainrule.explaining import Wanted, explain, from_net, from_recipe, tables, text

DOCUMENT = (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
NET = ["explain", "--net", "2-3-2", "--activation", "tanh", "--input", "0.5,-0.3", "--label", "1"]


def screen(capsys, *arguments):
    assert run([*map(str, arguments)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.fixture
def digits_alone(monkeypatch, tmp_path):
    """As on a machine without MNIST: the embedded digits are used."""
    monkeypatch.setenv("CHAINRULE_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_the_screen_shows_each_number_of_a_small_network(capsys):
    out = screen(capsys, *NET)
    explanation = explain(from_net("2-3-2", "tanh", None, 0.1, Wanted(input="0.5,-0.3", label="1")))
    for layer in explanation.trace.layers:
        arrays = [layer.output, layer.grad_output, layer.grad_input]
        arrays += [*layer.parameters.values(), *layer.gradients.values()]
        for number in np.concatenate([array.reshape(-1) for array in arrays]):
            assert tables.number(number) in out, (layer.name, number)
    assert "(1, 3) = (1, 2) (2, 3) + (3,)" in out
    assert f"{explanation.trace.loss:.10g}" in out
    rows = [line.split() for line in out[out.index("tanh1  Tanh: dL/dx") :].splitlines()[1:4]]
    upstream, local, product = ([float(word) for word in row[-3:]] for row in rows)
    assert np.multiply(upstream, local) == pytest.approx(product, rel=1e-3)


def test_the_screen_follows_a_weight_and_takes_the_step(capsys):
    out = screen(capsys, *NET, "--weight", "fc1.weight[0,1]", "--step")
    assert "2 paths from w through tanh1, fc2 to the loss" in out
    path = re.search(r"\(-0\.3\) · ([\d.]+) · ([\d.]+) · ([\d.]+) += (-[\d.e-]+)", out)
    first, second, third, product = map(float, path.groups())
    assert -0.3 * first * second * third == pytest.approx(product, rel=1e-3)
    values = re.findall(r"(?:chain rule|autograd|finite difference) +(-0\.00\d+)", out)
    assert len(values) == 3
    assert len({value[:8] for value in values}) == 1
    before, after = (float(re.search(rf"loss {when} +([\d.]+)", out)[1]) for when in ("before", "after"))
    assert after < before
    assert "w <- w - lr · dL/dw" in out
    assert "fc1.weight[0,1]: -0.33 -> -0.32918737" in out


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simplenet", {}),
        ("cnn", {"index": "0,1"}),
        ("mlp-bn", {"index": "0:3", "training": True}),
    ],
)
def test_the_screen_is_as_wide_as_the_terminal(width, name, options):
    subject = from_recipe(name, Wanted(dataset="digits", **options))
    first = "fc1.weight[2,300]" if name != "cnn" else "conv2.weight[2,3,0,1]"
    lines = list(text.lines(explain(subject, weight=first, most_paths=3, step=True), width))
    assert max(map(len, lines)) <= max(width, 80)
    assert not [line for line in lines if line != line.rstrip()]
    assert len(lines) < 1200  # of 1.5 million parameters


@pytest.mark.parametrize("batch", [1, 2])
def test_a_weight_that_changes_nothing_says_why(batch, capsys):
    inputs = ";".join(["-1,-1"] * batch)
    labels = ",".join(["0"] * batch)
    arguments = ["explain", "--net", "2-3-2", "--seed", 1, "--input", inputs, "--label", labels]
    explanation = explain(from_net("2-3-2", "relu", None, 0.1, Wanted(input=inputs, label=labels, seed=1)))
    off = int(np.flatnonzero(explanation.trace["relu1"].output[0] == 0)[0])
    out = screen(capsys, *arguments, "--weight", f"fc1.weight[{off},0]")
    where = f"relu1 dy/dx[{off}] = 0" if batch == 1 else "Every path has"
    assert where in out


def test_a_recipe_of_ones_own(tmp_path, capsys):
    """Linear along the last axis of an image, Softmax inside, no bias, Nesterov, smoothed labels."""
    path = tmp_path / "odd.toml"
    path.write_text(
        """
        summary = "rows"
        layers = [
            { name = "fc1", type = "Linear", out_features = 3 },
            { name = "soft", type = "Softmax", dim = 2 },
            { name = "flatten", type = "Flatten" },
            { name = "fc2", type = "Linear", out_features = 2, bias = false },
        ]
        input = { shape = [2, 4], mean = 0.0, std = 1.0 }
        [training]
        loss = { type = "CrossEntropyLoss", label_smoothing = 0.1 }
        optimizer = { type = "SGD", lr = 0.1, momentum = 0.9, nesterov = true }
        batch_size = 1
        epochs = 1
        seed = 0
        """
    )
    numbers = "1,2,3,4,-1,0,0.5,2"
    out = screen(
        capsys, "explain", path, "--input", numbers, "--label", "1", "--weight", "fc1.weight[1,2]", "--step"
    )
    assert "2 paths from w to soft, where the engine's gradient stands" in " ".join(out.split())
    assert "fc2  Linear: y = x Wᵀ  " in out
    assert "t = (1 - ε)[j = k] + ε / C" in " ".join(out.split())
    assert "w <- w - lr · (1 + momentum) dL/dw (Nesterov, the first step)" in out
    assert re.search(r"autograd +differs by at most [\d.]+e-1[5-9]", out)


def test_json_is_the_explanation(capsys):
    out = screen(capsys, *NET, "--weight", "fc1.weight[0,1]", "--step", "--json")
    wanted = Wanted(input="0.5,-0.3", label="1")
    explanation = explain(from_net("2-3-2", "tanh", None, 0.1, wanted), weight="fc1.weight[0,1]", step=True)
    assert json.loads(out) == json.loads(json.dumps(explanation.to_dict()))


def test_a_recipe_and_a_run(make_run, tmp_path, capsys, digits_alone):
    path = make_run(tmp_path / "run")
    untrained = json.loads(screen(capsys, "explain", "simplenet", "--json"))
    trained = json.loads(screen(capsys, "explain", path, "--json"))
    assert (untrained["subject"]["kind"], trained["subject"]["kind"]) == ("recipe", "run")
    assert untrained["input"] == trained["input"]
    assert untrained["loss"]["value"] != trained["loss"]["value"]
    assert "image 0 of the test images of Embedded digits: 7" in screen(capsys, "explain", path)


def test_a_batch_is_the_mean_of_its_examples(capsys):
    def of(inputs, labels):
        arguments = ["explain", "--net", "2-4-3", "--input", inputs, "--label", labels, "--json"]
        return json.loads(screen(capsys, *arguments))

    both, first, second = of("1,2;-1,0.5", "0,2"), of("1,2", "0"), of("-1,0.5", "2")
    assert both["batch"] == 2
    assert both["loss"]["value"] == pytest.approx((first["loss"]["value"] + second["loss"]["value"]) / 2)
    gradients = [
        np.array(found["layers"][0]["parameters"]["weight"]["gradient"]["values"])
        for found in (both, first, second)
    ]
    np.testing.assert_allclose(gradients[0], (gradients[1] + gradients[2]) / 2, atol=1e-15)


def test_options_of_the_step(capsys):
    table = json.loads(screen(capsys, *NET, "--step", "--optimizer", "Adam", "--lr", "0.5", "--json"))
    assert table["step"]["optimizer"] == "Adam"
    assert table["step"]["arguments"]["lr"] == 0.5
    value, after = table["layers"][2]["parameters"]["bias"]["value"], table["step"]["after"]["fc2.bias"]
    moved = np.abs(np.subtract(after["values"], value["values"]))
    assert moved == pytest.approx([0.5, 0.5], rel=1e-6)


def test_without_pytorch_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr("chainrule.explaining.explanation.torch_is_installed", lambda: False)
    out = screen(capsys, *NET, "--weight", "fc1.weight[0,1]")
    assert out.count("PyTorch is not installed: pip install 'chainrule[torch]'") == 2
    table = json.loads(screen(capsys, *NET, "--weight", "fc1.weight[0,1]", "--json"))
    assert table["autograd"] is None
    assert table["weight"]["autograd"] is None


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--net", "2"], 2, "--net takes layer sizes joined by hyphens, such as 2-3-2; found '2'"),
        (["--net", "2-x-2"], 2, "found '2-x-2'"),
        (["--net", "2-0-2"], 2, "layers of 1 to 10,000 units, found '2-0-2'"),
        (["--net", "10000-10000"], 2, "--net takes up to 50,000,000 weights"),
        (["--net", "2-3-2", "--activation", "tahn"], 2, "'tahn' is not one of 'relu'"),
        (["--net", "2-3-2", "--input", "1"], 2, "--input takes 2 numbers for each example, found 1"),
        (["--net", "2-3-2", "--input", "1,b"], 2, "numbers separated by commas, and examples by semicolons"),
        (["--net", "2-3-2", "--input", "1,nan"], 2, "--input takes finite numbers, found '1,nan'"),
        (["--net", "2-3-2", "--input", "1,2;3,4", "--label", "1"], 2, "--label has 1 classes for 2 examples"),
        (["--net", "2-3-2", "--label", "2"], 2, "--label takes a class from 0 to 1, found '2'"),
        (["--net", "2-3-2", "--target", "1,0"], 2, "CrossEntropyLoss takes --label, a class"),
        (["--net", "2-3-1", "--label", "0"], 2, "MSELoss takes --target, numbers"),
        (["--net", "2-1", "--loss", "bce", "--target", "2"], 2, "numbers from 0 to 1, found '2'"),
        (["--net", "2-3-2", "--index", "0"], 2, "--index is for recipes and runs"),
        (["--net", "2-3-2", "--weight", "fc1.wieght[0,0]"], 2, "Did you mean 'fc1.weight'?"),
        (["--net", "2-3-2", "--lr", "0"], 2, "--learning-rate must be a finite number above 0"),
        (["--net", "2-3-2", "--paths", "0"], 2, "--paths must be at least 1"),
        (["--net", "2-3-2", "--paths", "1001"], 2, "--paths must be at most 1,000, found 1,001"),
        (["--net", "2-3-2", "--seed", "-1"], 2, "--seed must be at least 0"),
        (["--net", "2-3-2", "--x", "1,2"], 2, "--x says nothing of a network"),
        (["--net", "2-3-2", "--input", "1e200,1", "--loss", "mse"], 1, "overflow"),
        (["--net", "2-3-2", "--step", "--lr", "1e300"], 1, "take a smaller --lr"),
        (["simplenet", "--net", "2-3-2"], 2, "leave 'simplenet' away, or --net"),
        (["simplenet", "--activation", "tanh"], 2, "--activation says nothing of a recipe or a run"),
        (["simplenet", "--loss", "mse"], 2, "--loss says nothing of a recipe or a run"),
        (["simplenet", "--weights", "best"], 2, "the recipe 'simplenet' is untrained"),
        (["simplenet", "--index", "297"], 2, "--index 297: the test images are numbered 0 to 296"),
        (["simplenet", "--index", "3:3"], 2, "--index 3:3 names no image"),
        (["simplenet", "--index", "first"], 2, "found 'first'"),
        (["simplenet", "--input", "1,2", "--label", "1"], 2, "--input takes 784 numbers"),
        (["simplenet", "--dataset", "mnits"], 2, "unknown data set 'mnits'"),
        (["mlp-bn", "--train"], 2, "give two examples or more, such as --index 0:4"),
        (["simplnet"], 2, "there is no 'simplnet' to explain"),
        (["runs/none"], 1, "runs/none: there is no such run"),
        (["missing.toml"], 1, "missing.toml: No such file"),
        (["--step"], 2, "explain what?"),
        (["neuron", "--step"], 2, "--step says nothing of a neuron"),
        (["neuron", "--target", "1,2"], 2, "--target of a neuron is one number"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, status, message, capsys, digits_alone):
    assert run(["explain", *arguments]) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("chainrule: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_run_that_is_not_its_data_sets(make_run, tmp_path, capsys):
    path = make_run(tmp_path / "run")
    assert run(["explain", str(path), "--seed", "3"]) == 2
    assert "--seed draws weights: a run has its own" in capsys.readouterr().err
    (path / "model.safetensors").write_bytes(b"no weights")
    assert run(["explain", str(path)]) == 1
    assert "model.safetensors: damaged" in capsys.readouterr().err


def documented():
    """The blocks of docs/explain.md: (command, the lines that it shows); a block without one goes on."""
    command = None
    for block in re.findall(r"^```\n(.*?)^```$", DOCUMENT, flags=re.DOTALL | re.MULTILINE):
        if block.startswith("$ "):
            command, _, block = block.removeprefix("$ ").partition("\n")
        yield command, block


@pytest.mark.parametrize("place", range(5))
def test_the_document_shows_what_the_command_prints(place, capsys, digits_alone, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command, shown = list(documented())[place]
    printed = screen(capsys, *command.split()[1:])

    def words(line):
        # How far two ways are apart is rounding, which is not the same everywhere.
        line = re.sub(r"(differs by( at most)?) .*", r"\1", line)
        line = re.sub(r"(finite difference +)\S+", r"\1", line)
        return [number(word) for word in line.split()]

    def number(word):
        try:
            return float(word.strip("(),"))
        except ValueError:
            return word

    lines = iter([words(line) for line in printed.splitlines() if line.strip()])
    for line in shown.splitlines():
        if line.strip() in ("", "..."):
            continue
        wanted = words(line)
        found = next((one for one in lines if same(one, wanted)), None)
        assert found is not None, line


def same(found, wanted):
    return len(found) == len(wanted) and all(
        a == pytest.approx(b, rel=1e-3, abs=1e-12)
        if isinstance(a, float) and isinstance(b, float)
        else a == b
        for a, b in zip(found, wanted, strict=True)
    )


def test_the_documents_sample_runs(capsys):
    (sample,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, flags=re.DOTALL | re.MULTILINE)
    exec(sample, {})
    first, *rest = capsys.readouterr().out.splitlines()
    assert len(rest) == 2
    assert float(first) < 1e-15
